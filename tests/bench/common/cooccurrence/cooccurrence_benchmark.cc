// The co-occurrence rule on a catalog of Beauty's shape: scoring of groups (16 completions, 4 negatives and the target,
// given histories of at most 20 items) as the reward server asks for it. items_per_second counts candidates.
#include <benchmark/benchmark.h>

#include <vector>

#include "common/cooccurrence/cooccurrence.h"
#include "common/random/random.h"
#include "tests/testing/synthetic_dataset.h"

namespace sluice {
namespace {

constexpr int kCandidates = 21;

struct Query {
  std::vector<int32_t> history;
  std::vector<int32_t> items;
  std::vector<int32_t> own_events;
};

struct Setting {
  Setting() : dataset(SyntheticDataset()), rule(Cooccurrence::FromDataset(*dataset)) {
    Random random(3);
    const std::vector<Example> examples = dataset->Examples(SplitLabel::kTrain);
    for (int q = 0; q < 4096; ++q) {
      const Example& example = examples[random.Below(examples.size())];
      Query query;
      const auto history = dataset->History(example);
      query.history.assign(history.begin(), history.end());
      query.own_events = dataset->TrainingEvents(example.user);
      // Half of what a policy proposes goes with the history, the rest is what is popular.
      const std::vector<int32_t> likely = rule->Recommend(query.history, query.history, kCandidates / 2);
      query.items.assign(likely.begin(), likely.end());
      while (query.items.size() + 1 < kCandidates) {
        query.items.push_back(
            static_cast<int32_t>(static_cast<double>(dataset->num_items()) * random.Uniform() * random.Uniform()));
      }
      query.items.push_back(dataset->Target(example));
      queries.push_back(query);
    }
  }
  std::shared_ptr<const Dataset> dataset;
  std::shared_ptr<const Cooccurrence> rule;
  std::vector<Query> queries;
};

const Setting& TheSetting() {
  static const Setting* const setting = new Setting;
  return *setting;
}

void Score(benchmark::State& state) {
  const Setting& setting = TheSetting();
  size_t next = 0;
  for (auto _ : state) {
    const Query& query = setting.queries[next++ % setting.queries.size()];
    benchmark::DoNotOptimize(setting.rule->Score(query.history, query.items));
  }
  state.SetItemsProcessed(state.iterations() * kCandidates);
}
BENCHMARK(Score);

void ScoreLeaveOneOut(benchmark::State& state) {
  const Setting& setting = TheSetting();
  size_t next = 0;
  for (auto _ : state) {
    const Query& query = setting.queries[next++ % setting.queries.size()];
    benchmark::DoNotOptimize(setting.rule->ScoreLeaveOneOut(query.history, query.items, query.own_events));
  }
  state.SetItemsProcessed(state.iterations() * kCandidates);
}
BENCHMARK(ScoreLeaveOneOut);

}  // namespace
}  // namespace sluice

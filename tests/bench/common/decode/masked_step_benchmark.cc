// What the trie costs in a decoding step: legal children gathered, normalised and the best taken (or one drawn), for 8
// prompts of 16 rows on one level, the average of levels 2 to 4, from logits that are there. Beside it the step of the
// policy M that makes those logits. Catalogs of Beauty's size to 10 million items on 4 levels: `share` is of that step.
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <torch/types.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <memory>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/decode/step/step.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr SidVocabulary kVocabulary{4, 256};
constexpr int kPrompts = 8;
constexpr int kWidth = 16;

std::shared_ptr<const Trie> DrawnTrie(int64_t items) {
  Random random(1);
  std::vector<int32_t> tokens;
  tokens.reserve(static_cast<size_t>(items) * 4);
  for (int64_t item = 0; item < items; ++item) {
    // Philox is slow beside the rest: one draw for four codes, the first uneven.
    const uint64_t draw = random();
    const int32_t first = static_cast<int32_t>((draw & 255) * (draw >> 8 & 255) / 256);
    for (int level = 0; level < 4; ++level) {
      const int32_t code = level == 0 ? first : static_cast<int32_t>(draw >> (8 + 8 * level) & 255);
      tokens.push_back(kVocabulary.Token(level, code));
    }
  }
  return std::make_shared<const Trie>(Trie::Build(4, tokens).value());
}

// Seconds of one step of 128 rows after prompts of 81 positions.
double PolicyStepSeconds() {
  static const double seconds = [] {
    PolicyConfig config;
    config.vocab_size = kVocabulary.size();
    config.hidden_size = 256;
    config.num_layers = 6;
    config.num_heads = 8;
    config.num_kv_heads = 4;
    config.intermediate_size = 1024;
    config.tie_embeddings = false;
    const std::unique_ptr<Policy> policy = Policy::Create(config, nullptr, 1).value();
    const c10::InferenceMode inference;
    const std::vector<int32_t> tokens(kPrompts * kWidth, 5);
    double best = 1e9;
    for (int i = 0; i < 10; ++i) {
      auto state = policy->Prefill(std::vector<PromptInput>(kPrompts, PromptInput(81, 4)), 1)->state;
      const std::clock_t start = std::clock();
      const at::Tensor hidden = policy->Step(state.get(), tokens, {}, kWidth).value();
      benchmark::DoNotOptimize(policy->Logits(hidden).data_ptr());
      best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    return best;
  }();
  return seconds;
}

struct Level {
  std::vector<DecodeRow> rows;  // [kPrompts * kWidth]
  std::vector<float> logits, normalizers;
};

std::vector<Level> Levels(const Trie& trie) {
  Random random(2);
  std::vector<Level> levels(3);
  for (int depth = 1; depth <= 3; ++depth) {
    Level& level = levels[depth - 1];
    for (int n = 0; n < kPrompts * kWidth; ++n) {
      DecodeRow row;
      row.order = n % kWidth;
      // Down from the root, as a beam would be.
      for (int d = 0; d < depth; ++d) {
        const Trie::Children children = trie.ChildrenOf(row.node);
        row.node = children.first_node + static_cast<int32_t>(random.Below(children.tokens.size()));
      }
      level.rows.push_back(row);
      for (int32_t v = 0; v < kVocabulary.size(); ++v) level.logits.push_back(static_cast<float>(random.Normal()));
      level.normalizers.push_back(8);
    }
  }
  return levels;
}

template <typename Function>
void RunSteps(benchmark::State& state, const Function& function) {
  static std::map<int64_t, std::shared_ptr<const Trie>>& tries = *new std::map<int64_t, std::shared_ptr<const Trie>>;
  at::set_num_threads(1);
  std::shared_ptr<const Trie>& trie = tries[state.range(0)];
  if (trie == nullptr) trie = DrawnTrie(state.range(0));
  const std::vector<Level> levels = Levels(*trie);
  const std::clock_t start = std::clock();
  for (auto _ : state) {
    for (const Level& level : levels) {
      for (int b = 0; b < kPrompts; ++b) {
        const RowLogits<float> logits{level.logits.data() + b * kWidth * kVocabulary.size(),
                                      level.normalizers.data() + b * kWidth, kVocabulary.size()};
        function(*trie, absl::MakeConstSpan(level.rows).subspan(b * kWidth, kWidth), logits);
      }
    }
  }
  const double steps = 3 * static_cast<double>(state.iterations());
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / steps;
  state.counters["us_a_step"] = seconds * 1e6;
  state.counters["policy_us"] = PolicyStepSeconds() * 1e6;
  state.counters["share_percent"] = 100 * seconds / PolicyStepSeconds();
}

void MaskedBeamStep(benchmark::State& state) {
  RunSteps(state, [](const Trie& trie, absl::Span<const DecodeRow> rows, const RowLogits<float>& logits) {
    benchmark::DoNotOptimize(ExpandBeams(trie, rows, logits, {}, kWidth, LogProbSpace::kFull));
  });
}
BENCHMARK(MaskedBeamStep)->ArgName("items")->Arg(12101)->Arg(1000000)->Arg(10000000);

void MaskedSampleStep(benchmark::State& state) {
  Random random(3);
  RunSteps(state, [&](const Trie& trie, absl::Span<const DecodeRow> rows, const RowLogits<float>& logits) {
    for (int i = 0; i < kWidth; ++i) {
      benchmark::DoNotOptimize(DrawChild(trie, rows, i, logits, {}, 1.0, random.Uniform()));
    }
  });
}
BENCHMARK(MaskedSampleStep)->ArgName("items")->Arg(12101)->Arg(1000000)->Arg(10000000);

}  // namespace
}  // namespace sluice

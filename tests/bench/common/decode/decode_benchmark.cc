// Decoding groups as an actor does: 8 prompts of 20 items, 16 completions each, on a catalog of Beauty's shape
// (12,101 items on 4 levels of 256 codes) with the reference model (width 128, 4 layers).
//
// items_per_second counts prompts.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/decode/decode.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "tests/bench/common/catalog/beauty_like_trie.h"

namespace sluice {
namespace {

constexpr int32_t kItems = kBeautyItems;
constexpr const SidVocabulary& kVocabulary = kBeautyVocabulary;

constexpr int kPrompts = 8;
constexpr int kHistory = 20;

std::unique_ptr<Policy> ReferencePolicy(const std::shared_ptr<const Trie>& trie, bool merged) {
  PolicyConfig config;  // its defaults are the reference model
  config.vocab_size = kVocabulary.size();
  config.begin_token = SidVocabulary::kBegin;
  if (merged) {
    config.encoder = PromptEncoderKind::kMerged;
    config.item_embedding = true;
    config.num_leaves = trie->num_leaves();
    config.catalog_version = trie->version();
  }
  return *Policy::Create(config, trie, 1);
}

class Setting {
 public:
  explicit Setting(bool merged) : trie(BeautyLikeTrie()), policy(ReferencePolicy(trie, merged)) {
    Random random(2);
    for (int b = 0; b < kPrompts; ++b) {
      std::vector<int32_t> history;
      DecodePrompt prompt;
      for (int i = 0; i < kHistory; ++i) {
        history.push_back(static_cast<int32_t>(random.Below(kItems)));
        prompt.excluded_leaves.push_back(trie->LeafOfItem(history.back()));
      }
      std::sort(prompt.excluded_leaves.begin(), prompt.excluded_leaves.end());
      prompt.excluded_leaves.erase(std::unique(prompt.excluded_leaves.begin(), prompt.excluded_leaves.end()),
                                   prompt.excluded_leaves.end());
      prompt.input = *policy->EncodePrompt(history);
      prompt.seed = static_cast<uint64_t>(b);
      prompt.target_leaf = static_cast<int32_t>(random.Below(static_cast<uint64_t>(trie->num_leaves())));
      prompts.push_back(prompt);
    }
  }

  std::shared_ptr<const Trie> trie;
  std::unique_ptr<Policy> policy;
  std::vector<DecodePrompt> prompts;
};

void Run(benchmark::State& state, bool merged, const DecodePlan& plan) {
  Setting setting(merged);
  for (auto _ : state) {
    const auto results = Decode(*setting.policy, *setting.trie, setting.prompts, plan);
    if (!results.ok()) state.SkipWithError(std::string(results.status().message()).c_str());
    benchmark::DoNotOptimize(results);
  }
  state.SetItemsProcessed(state.iterations() * kPrompts);
}

void BeamsAndTarget(benchmark::State& state, bool merged) {
  DecodePlan plan;
  plan.beams = static_cast<int>(state.range(0));
  Run(state, merged, plan);
}
BENCHMARK_CAPTURE(BeamsAndTarget, merged_21_positions, true)->Arg(16)->Arg(50)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BeamsAndTarget, codes_81_positions, false)->Arg(16)->Arg(50)->Unit(benchmark::kMillisecond);

void SamplesAndTarget(benchmark::State& state, bool merged) {
  DecodePlan plan;
  plan.samples = static_cast<int>(state.range(0));
  Run(state, merged, plan);
}
BENCHMARK_CAPTURE(SamplesAndTarget, merged_21_positions, true)->Arg(16)->Unit(benchmark::kMillisecond);

// What validation asks for: 50 constrained and 10 unconstrained beams.
void EvaluationBeams(benchmark::State& state) {
  DecodePlan plan;
  plan.beams = 50;
  plan.unconstrained_beams = 10;
  Run(state, true, plan);
}
BENCHMARK(EvaluationBeams)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice

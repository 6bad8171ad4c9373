// How fast a policy of Beauty's size (D 128, 4 layers, 12 k items, 20 items of history) trains and decodes on one
// thread. Items a second are groups (training) or prompts (decoding).
#include <benchmark/benchmark.h>
#include <torch/nn/functional/loss.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kItems = 12101;
constexpr int kHistory = 20;
constexpr SidVocabulary kVocabulary{4, 256};

std::shared_ptr<const Trie> MakeTrie() {
  Random random(1);
  std::vector<int32_t> tokens;
  for (int item = 0; item < kItems; ++item) {
    for (int level = 0; level < kVocabulary.levels; ++level) {
      tokens.push_back(kVocabulary.Token(level, static_cast<int32_t>(random.Below(kVocabulary.codes))));
    }
  }
  return std::make_shared<const Trie>(Trie::Build(kVocabulary.levels, tokens).value());
}

std::unique_ptr<Policy> MakePolicy(const std::shared_ptr<const Trie>& trie) {
  PolicyConfig config;
  config.vocab_size = kVocabulary.size();
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = trie->num_leaves();
  config.catalog_version = trie->version();
  config.begin_token = SidVocabulary::kBegin;
  config.begin_reversed_token = SidVocabulary::kBeginReversed;
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::Create(config, trie, 1);
  SLUICE_CHECK(policy.ok(), policy.status().ToString());
  return *std::move(policy);
}

std::vector<PromptInput> MakePrompts(const Policy& policy, int count) {
  Random random(2);
  std::vector<PromptInput> prompts;
  for (int b = 0; b < count; ++b) {
    std::vector<int32_t> history;
    for (int i = 0; i < kHistory; ++i) history.push_back(static_cast<int32_t>(random.Below(kItems)));
    prompts.push_back(policy.EncodePrompt(history).value());
  }
  return prompts;
}

// Forward and backward of one rl step: each prompt carries its target and G completions.
void BM_PolicySharedPrefixStep(benchmark::State& state) {
  torch::set_num_threads(1);
  const std::shared_ptr<const Trie> trie = MakeTrie();
  const std::unique_ptr<Policy> policy = MakePolicy(trie);
  const int prompts = 32;
  const int branches = static_cast<int>(state.range(0)) + 1;
  TreeBatch batch;
  batch.prompts = MakePrompts(*policy, prompts);
  Random random(3);
  for (int b = 0; b < prompts; ++b) {
    for (int g = 0; g < branches; ++g) {
      const absl::Span<const int32_t> leaf = trie->TokensOfLeaf(static_cast<int32_t>(random.Below(trie->num_leaves())));
      batch.branches.push_back({b, kHistory, {leaf.begin(), leaf.end()}});
    }
  }
  for (auto _ : state) {
    const TreeOutput output = policy->ForwardTree(batch).value();
    const at::Tensor rows = torch::tensor(output.prediction_rows);
    policy->gradients().zero_();
    policy->Logits(output.hidden.index_select(0, rows)).logsumexp(1).mean().backward();
  }
  state.SetItemsProcessed(state.iterations() * prompts);
}
BENCHMARK(BM_PolicySharedPrefixStep)->ArgName("G")->Arg(16)->Arg(64)->Unit(benchmark::kMillisecond);

// Forward and backward of one sft step: every next item of each user is a branch on its prefix, so trunks of 21
// positions carry 20 branches of 4 tokens. Items a second are rows (trunk and branch rows).
void BM_PolicyNextItemStep(benchmark::State& state) {
  torch::set_num_threads(1);
  const std::shared_ptr<const Trie> trie = MakeTrie();
  const std::unique_ptr<Policy> policy = MakePolicy(trie);
  const int prompts = static_cast<int>(state.range(0));
  TreeBatch batch;
  batch.prompts = MakePrompts(*policy, prompts);
  Random random(3);
  std::vector<int64_t> targets;
  for (int b = 0; b < prompts; ++b) {
    for (int anchor = 1; anchor <= kHistory; ++anchor) {
      const absl::Span<const int32_t> leaf = trie->TokensOfLeaf(static_cast<int32_t>(random.Below(trie->num_leaves())));
      batch.branches.push_back({b, anchor, {leaf.begin(), leaf.end()}});
      targets.insert(targets.end(), leaf.begin(), leaf.end());
    }
  }
  const at::Tensor labels = torch::tensor(targets);
  int64_t rows = 0;
  for (auto _ : state) {
    const TreeOutput output = policy->ForwardTree(batch, static_cast<double>(state.range(1)) / 100, 7).value();
    policy->gradients().zero_();
    const at::Tensor hidden = output.hidden.index_select(0, torch::tensor(output.prediction_rows));
    torch::nn::functional::cross_entropy(policy->Logits(hidden), labels).backward();
    rows += output.hidden.size(0);
  }
  state.SetItemsProcessed(rows);
}
BENCHMARK(BM_PolicyNextItemStep)
    ->ArgNames({"B", "dropout_percent"})
    ->Args({16, 0})
    ->Args({64, 0})
    ->Args({64, 10})
    ->Unit(benchmark::kMillisecond);

void BM_PolicyPrefill(benchmark::State& state) {
  torch::set_num_threads(1);
  const c10::InferenceMode inference;
  const std::unique_ptr<Policy> policy = MakePolicy(MakeTrie());
  const std::vector<PromptInput> prompts = MakePrompts(*policy, static_cast<int>(state.range(0)));
  for (auto _ : state) {
    benchmark::DoNotOptimize(policy->Prefill(prompts, kVocabulary.levels).value().hidden.data_ptr());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PolicyPrefill)->ArgName("B")->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

// One prefill and the three steps that follow for W rows a prompt: what beams of width W cost in the model.
void BM_PolicyDecodeRows(benchmark::State& state) {
  torch::set_num_threads(1);
  const c10::InferenceMode inference;
  const std::unique_ptr<Policy> policy = MakePolicy(MakeTrie());
  const int prompts = 8;
  const int width = static_cast<int>(state.range(0));
  const std::vector<PromptInput> inputs = MakePrompts(*policy, prompts);
  std::vector<int32_t> parents(static_cast<size_t>(prompts * width));
  for (size_t n = 0; n < parents.size(); ++n) parents[n] = static_cast<int32_t>(n);
  for (auto _ : state) {
    const Policy::Prefilled prefilled = policy->Prefill(inputs, kVocabulary.levels).value();
    for (int level = 0; level + 1 < kVocabulary.levels; ++level) {
      const std::vector<int32_t> tokens(parents.size(), kVocabulary.Token(level, 7));
      const at::Tensor hidden = policy->Step(prefilled.state.get(), tokens, parents, width).value();
      benchmark::DoNotOptimize(policy->Logits(hidden).data_ptr());
    }
  }
  state.SetItemsProcessed(state.iterations() * prompts);
}
BENCHMARK(BM_PolicyDecodeRows)->ArgName("W")->Arg(16)->Arg(50)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice

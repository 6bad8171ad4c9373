// Decoding by value, in one batch over one growing cache, against a search whose every look computes its prefix as a
// prompt of its own.
#include "common/decode/value_guided.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <vector>

#include "common/catalog/vocabulary.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

constexpr int kCodes = 6;

// 60 leaves on three levels, with many prefixes shared.
std::shared_ptr<const Trie> SomeTrie() {
  const SidVocabulary vocabulary{3, kCodes};
  std::vector<int32_t> tokens;
  for (int32_t item = 0; item < 60; ++item) {
    tokens.push_back(vocabulary.Token(0, item % 5));
    tokens.push_back(vocabulary.Token(1, (item / 5) % 4));
    tokens.push_back(vocabulary.Token(2, 2 * (item / 20) + item % 2));
  }
  return std::make_shared<const Trie>(*Trie::Build(3, tokens));
}

std::unique_ptr<Policy> SomePolicy(const std::shared_ptr<const Trie>& trie, int64_t value_hidden = 9) {
  PolicyConfig config;
  config.vocab_size = SidVocabulary{3, kCodes}.size();
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 8;
  config.max_positions = 16;
  config.tie_embeddings = false;
  config.initializer_range = 0.4;  // values and probabilities far from equal
  config.begin_token = SidVocabulary::kBegin;
  config.value_hidden = value_hidden;
  std::unique_ptr<Policy> policy = *Policy::Create(config, trie, 4, at::kDouble);
  PlaceForTest(policy.get());
  return policy;
}

// What the search may see, prefix by prefix, without cache or batch.
class SlowTree : public PrefixTree {
 public:
  SlowTree(Policy& policy, const Trie& trie, const DecodePrompt& prompt)
      : policy_(policy), trie_(trie), prompt_(prompt) {}

  int levels() const override { return trie_.levels(); }
  absl::StatusOr<std::vector<PrefixView>> Look(absl::Span<const Prefix> prefixes) override {
    const c10::InferenceMode inference;
    std::vector<PrefixView> views;
    for (const Prefix& prefix : prefixes) {
      PromptInput input = prompt_.input;
      input.insert(input.end(), prefix.begin(), prefix.end());
      const at::Tensor hidden = policy_.Prefill({input}, 0)->hidden;
      PrefixView& view = views.emplace_back();
      view.value = policy_.Values(hidden).item<double>();
      const at::Tensor logits = policy_.Logits(hidden)[0].cpu();
      std::set<int32_t> next;
      for (int32_t leaf = 0; leaf < trie_.num_leaves(); ++leaf) {
        const std::vector<int32_t>& excluded = prompt_.excluded_leaves;
        const absl::Span<const int32_t> tokens = trie_.TokensOfLeaf(leaf);
        if (std::find(excluded.begin(), excluded.end(), leaf) != excluded.end()) continue;
        if (prefix.size() < tokens.size() && std::equal(prefix.begin(), prefix.end(), tokens.begin())) {
          next.insert(tokens[prefix.size()]);
        }
      }
      double total = 0;
      for (const int32_t token : next) total += std::exp(logits[token].item<double>());
      for (const int32_t token : next) {
        view.tokens.push_back(token);
        view.log_probs.push_back(std::min(0.0, logits[token].item<double>() - std::log(total)));
      }
    }
    return views;
  }

 private:
  Policy& policy_;
  const Trie& trie_;
  const DecodePrompt& prompt_;
};

std::vector<DecodePrompt> Prompts() {
  std::vector<DecodePrompt> prompts(3);
  prompts[0].input = {1, 3, 9, 15};
  prompts[1].input = {1, 4, 10, 16, 5, 11, 17};
  prompts[2].input = {1};
  for (size_t b = 0; b < prompts.size(); ++b) prompts[b].seed = 40 + b;
  return prompts;
}

ValueSearchOptions Options() {
  ValueSearchOptions options;
  options.initial_width = 4;
  options.results = 6;
  options.budget = 26;
  return options;
}

TEST(ValueGuidedTest, EqualsASearchThatComputesEveryPrefixAlone) {
  const auto trie = SomeTrie();
  const auto policy = SomePolicy(trie);
  std::vector<DecodePrompt> prompts = Prompts();
  prompts[1].excluded_leaves = {0, 5, 6, 7, 8, 30};
  const int64_t before = policy->work().appended;
  const auto found = DecodeByValue(*policy, *trie, prompts, Options()).value();
  int64_t spent = 0;
  std::set<std::vector<int32_t>> groups;
  for (size_t b = 0; b < prompts.size(); ++b) {
    SlowTree slow(*policy, *trie, prompts[b]);
    ValueSearchOptions options = Options();
    options.seed = prompts[b].seed;
    const ValueSearchResult want = ValueSearch(slow, options).value();
    EXPECT_EQ(found[b].forward_tokens, want.forward_tokens);
    spent += want.forward_tokens;
    ASSERT_EQ(found[b].completions.size(), want.best.size());
    std::vector<int32_t> leaves;
    for (size_t i = 0; i < want.best.size(); ++i) {
      const SearchNode& node = want.nodes[static_cast<size_t>(want.best[i])];
      EXPECT_EQ(found[b].completions[i].tokens, node.prefix) << b << ", " << i;
      EXPECT_EQ(found[b].completions[i].leaf, trie->FindLeaf(node.prefix));
      EXPECT_NEAR(found[b].values[i], node.value, 1e-9);
      leaves.push_back(found[b].completions[i].leaf);
      for (const int32_t excluded : prompts[b].excluded_leaves) EXPECT_NE(leaves.back(), excluded);
    }
    groups.insert(leaves);
    std::sort(leaves.begin(), leaves.end());
    EXPECT_TRUE(std::adjacent_find(leaves.begin(), leaves.end()) == leaves.end()) << "a duplicate";
    EXPECT_EQ(found[b].completions.size(), 6u);
  }
  EXPECT_EQ(groups.size(), 3u) << "prompts should differ, or nothing was compared";
  EXPECT_EQ(policy->work().appended - before, spent);
}

TEST(ValueGuidedTest, LogProbabilitiesAndTargetsAreThoseOfTheOtherDecoders) {
  const auto trie = SomeTrie();
  const auto policy = SomePolicy(trie);
  std::vector<DecodePrompt> prompts = Prompts();
  prompts[0].target_leaf = 17;
  prompts[0].excluded_leaves = {3, 17};  // a target that the search cannot meet
  prompts[2].target_leaf = 41;
  const auto found = DecodeByValue(*policy, *trie, prompts, Options()).value();
  std::vector<std::vector<std::vector<int32_t>>> tokens(prompts.size());
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (const Completion& completion : found[b].completions) tokens[b].push_back(completion.tokens);
  }
  const auto scored = ScoreCompletions(*policy, *trie, prompts, tokens).value();
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (size_t i = 0; i < tokens[b].size(); ++i) {
      for (size_t t = 0; t < 3; ++t) {
        EXPECT_NEAR(found[b].completions[i].log_probs_full[t], scored[b][i].log_probs_full[t], 1e-5);
        EXPECT_NEAR(found[b].completions[i].log_probs_trie[t], scored[b][i].log_probs_trie[t], 1e-5);
      }
    }
  }
  const auto forced = Decode(*policy, *trie, prompts, DecodePlan{}).value();
  for (size_t b = 0; b < prompts.size(); ++b) {
    const Completion& want = forced[b].target;
    const Completion& got = found[b].target;
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_EQ(got.leaf, want.leaf);
    ASSERT_EQ(got.log_probs_trie.size(), want.log_probs_trie.size());
    for (size_t t = 0; t < got.tokens.size(); ++t) {
      EXPECT_NEAR(got.log_probs_full[t], want.log_probs_full[t], 1e-5);
      EXPECT_NEAR(got.log_probs_trie[t], want.log_probs_trie[t], 1e-5);
    }
  }
  EXPECT_TRUE(found[1].target.tokens.empty());
}

TEST(ValueGuidedTest, APromptDependsOnItsSeedAndNotOnItsNeighbours) {
  const auto trie = SomeTrie();
  const auto policy = SomePolicy(trie);
  const std::vector<DecodePrompt> prompts = Prompts();
  ValueSearchOptions options = Options();
  options.results = options.budget;  // every leaf of the tree
  const auto leaves = [&](absl::Span<const DecodePrompt> some, size_t b) {
    std::vector<int32_t> found;
    const auto results = DecodeByValue(*policy, *trie, some, options).value();
    for (const Completion& one : results[b].completions) found.push_back(one.leaf);
    return found;
  };
  EXPECT_EQ(leaves(prompts, 1), leaves({prompts[1]}, 0));
  std::set<std::vector<int32_t>> of_seeds;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    std::vector<DecodePrompt> seeded = {prompts[1]};
    seeded[0].seed = seed;
    of_seeds.insert(leaves(seeded, 0));
  }
  EXPECT_GT(of_seeds.size(), 1u);
}

TEST(ValueGuidedTest, APromptWithEverythingExcludedHasNoCompletionsAndHarmsNobody) {
  const auto trie = SomeTrie();
  const auto policy = SomePolicy(trie);
  std::vector<DecodePrompt> prompts = Prompts();
  for (int32_t leaf = 0; leaf < trie->num_leaves(); ++leaf) prompts[0].excluded_leaves.push_back(leaf);
  prompts[0].target_leaf = 9;
  const auto found = DecodeByValue(*policy, *trie, prompts, Options()).value();
  EXPECT_TRUE(found[0].completions.empty());
  EXPECT_EQ(found[0].forward_tokens, 0);
  EXPECT_EQ(found[0].target.leaf, 9);
  EXPECT_EQ(found[1].completions.size(), 6u);
}

TEST(ValueGuidedTest, BadRequestsAreNamed) {
  const auto trie = SomeTrie();
  const auto policy = SomePolicy(trie);
  using Code = absl::StatusCode;
  EXPECT_EQ(DecodeByValue(*SomePolicy(trie, 0), *trie, Prompts(), Options()).status().code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(DecodeByValue(*policy, *trie, {}, Options()).status().code(), Code::kInvalidArgument);
  ValueSearchOptions poor = Options();
  poor.budget = 11;
  EXPECT_EQ(DecodeByValue(*policy, *trie, Prompts(), poor).status().code(), Code::kInvalidArgument);
  std::vector<DecodePrompt> prompts = Prompts();
  prompts[0].excluded_leaves = {4, 4};
  EXPECT_EQ(DecodeByValue(*policy, *trie, prompts, Options()).status().code(), Code::kInvalidArgument);
  prompts = Prompts();
  prompts[2].input.assign(14, 3);  // 14 and 3 are one more than the policy's 16 positions
  EXPECT_EQ(DecodeByValue(*policy, *trie, prompts, Options()).status().code(), Code::kInvalidArgument);
  policy->parameters().fill_(std::nan(""));
  EXPECT_EQ(DecodeByValue(*policy, *trie, Prompts(), Options()).status().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace sluice

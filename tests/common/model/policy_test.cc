#include "common/model/policy.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/common/model/model_testing.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;

constexpr int kCodes = 5;

// Items 0 and 2 share a semantic ID; leaves are numbered by tokens: (3, 8) is 0, (4, 7) is 1.
std::shared_ptr<const Trie> TinyTrie() {
  return std::make_shared<const Trie>(Trie::Build(2, std::vector<int32_t>{4, 7, 3, 8, 4, 7}).value());
}

TEST(PolicyTest, AFreshPolicyIsAPureFunctionOfItsSeed) {
  const PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  const at::Tensor a = Policy::Create(config, nullptr, 1).value()->parameters();
  at::set_num_threads(1);
  const at::Tensor b = Policy::Create(config, nullptr, 1).value()->parameters();
  const at::Tensor c = Policy::Create(config, nullptr, 2).value()->parameters();
  at::set_num_threads(threads);
  EXPECT_TRUE(a.equal(b));
  EXPECT_FALSE(a.equal(c));
}

TEST(PolicyTest, FreshWeightsHaveTheirSpreadNormsAreOneAndBiasesZero) {
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen2, 100);
  config.initializer_range = .05;
  const auto policy = Policy::Create(config, nullptr, 1).value();
  const at::Tensor matrices = policy->parameters().masked_select(policy->decay_mask() > 0);
  EXPECT_NEAR(matrices.std().item<double>(), .05, .002);
  EXPECT_NEAR(matrices.mean().item<double>(), 0, .002);
  const auto named = NamedParameters(*policy);
  EXPECT_TRUE(named.at("model.norm.weight").equal(at::ones({16})));
  EXPECT_TRUE(named.at("model.layers.0.self_attn.k_proj.bias").equal(at::zeros({12})));
}

TEST(PolicyTest, WeightDecayIsForMatricesAlone) {
  const auto policy = Policy::Create(SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr, 1).value();
  int64_t matrices = 0;
  for (const auto& [name, tensor] : NamedParameters(*policy)) matrices += tensor.dim() == 2 ? tensor.numel() : 0;
  EXPECT_EQ(policy->decay_mask().sum().item<int64_t>(), matrices);
}

TEST(PolicyTest, AMergedPromptHasOneEntryAnItem) {
  const auto trie = TinyTrie();
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  config.encoder = PromptEncoderKind::kMerged;
  config.num_leaves = 2;
  const auto policy = Policy::Create(config, trie, 1).value();
  EXPECT_THAT(policy->EncodePrompt({0, 1, 2}).value(), ElementsAre(1, -2, -1, -2));
  EXPECT_THAT(policy->EncodePrompt({1}, /*reversed=*/true).value(), ElementsAre(2, -1));
}

TEST(PolicyTest, APromptOfCodesHasAllTokensOfEachItem) {
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  const auto policy = Policy::Create(config, TinyTrie(), 1).value();
  EXPECT_THAT(policy->EncodePrompt({0, 1}).value(), ElementsAre(1, 4, 7, 3, 8));
  config.begin_token = -1;
  EXPECT_THAT(Policy::Create(config, TinyTrie(), 1).value()->EncodePrompt({1}).value(), ElementsAre(3, 8));
}

TEST(PolicyTest, APromptOfALanguageModelHasWordsAroundItsItems) {
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  config.begin_token = -1;
  config.prefix_tokens = {0, 2};
  config.separator_tokens = {1};
  const auto policy = Policy::Create(config, TinyTrie(), 1).value();
  EXPECT_THAT(policy->EncodePrompt({0, 1}).value(), ElementsAre(0, 2, 4, 7, 1, 3, 8, 1));
  EXPECT_THAT(policy->EncodePrompt({1}, /*reversed=*/true).value(), ElementsAre(2, 0, 2, 3, 8, 1));
  EXPECT_EQ(config.EntriesBeforeItems(), 2);
  EXPECT_EQ(config.EntriesOfItem(2), 3);
}

TEST(PolicyTest, WrongHistoriesAreRefused) {
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  config.begin_reversed_token = -1;
  const auto policy = Policy::Create(config, TinyTrie(), 1).value();
  EXPECT_EQ(policy->EncodePrompt({}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy->EncodePrompt({3}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy->EncodePrompt({-1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy->EncodePrompt({1}, true).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Policy::Create(config, nullptr, 1).value()->EncodePrompt({1}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(PolicyTest, AMergedPolicyNeedsItsOwnCatalog) {
  const auto trie = RandomTrie(40, kCodes, 7);
  PolicyConfig config = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie);
  EXPECT_EQ(Policy::Create(config, nullptr, 1).status().code(), absl::StatusCode::kInvalidArgument);
  const auto other = RandomTrie(40, kCodes, 8);
  config.num_leaves = other->num_leaves();
  EXPECT_EQ(Policy::Create(config, other, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  config.num_leaves = trie->num_leaves() + 1;
  EXPECT_EQ(Policy::Create(config, trie, 1).status().code(), absl::StatusCode::kInvalidArgument);
  config = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie);
  config.vocab_size = 10;
  EXPECT_EQ(Policy::Create(config, trie, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PolicyTest, APolicyMadeInInferenceModeCanBeTrained) {
  std::unique_ptr<Policy> policy;
  {
    c10::InferenceMode inference;
    policy = RandomPolicy(SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr, 1, at::kFloat);
    ASSERT_TRUE(policy->Prefill({{1, 2, 3}}, 0).ok());
  }
  policy->ForwardTree({{{1, 2, 3, 4}}, {}})->hidden.pow(3).sum().backward();
  EXPECT_GT(policy->gradients().abs().max().item<double>(), 0);
}

TEST(PolicyTest, APolicyForDecodingComputesTheSameAndRefusesToTrain) {
  const std::shared_ptr<const Trie> trie = TinyTrie();
  const PolicyConfig config = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie);
  const auto trained = Policy::Create(config, trie, 1).value();
  const auto decoder = Policy::CreateForDecoding(config, trie).value();
  EXPECT_FALSE(decoder->gradients().defined());
  EXPECT_EQ(decoder->layout_digest(), trained->layout_digest());
  decoder->parameters().copy_(trained->parameters());
  TreeBatch batch;
  batch.prompts.push_back(trained->EncodePrompt({0, 1}).value());
  EXPECT_EQ(decoder->ForwardTree(batch).status().code(), absl::StatusCode::kFailedPrecondition);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(decoder->ForwardTree(batch)->hidden.equal(trained->ForwardTree(batch)->hidden));
}

}  // namespace
}  // namespace sluice::testing

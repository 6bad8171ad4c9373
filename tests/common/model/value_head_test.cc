// The value head against plain tensor calls on whole sequences, and its way into files and configurations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/safetensors/safetensors.h"
#include "tests/common/model/model_testing.h"
#include "tests/testing/placement.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kCodes = 5;
constexpr int64_t kValueWidth = 7;

class ValueHeadTest : public ::testing::Test {
 protected:
  ValueHeadTest() { config_.value_hidden = kValueWidth; }

  static at::Tensor NaiveValues(const std::map<std::string, at::Tensor>& parameters, const at::Tensor& hidden) {
    const at::Tensor inner =
        hidden.matmul(parameters.at("value_head.up.weight").t()) + parameters.at("value_head.up.bias");
    return (inner * inner.sigmoid()).matmul(parameters.at("value_head.down.weight")[0]) +
           parameters.at("value_head.down.bias");
  }

  std::shared_ptr<const Trie> trie_ = RandomTrie(40, kCodes, 7);
  PolicyConfig config_ = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
};

TEST_F(ValueHeadTest, ValuesAndGradientsAreThoseOfAutogradOnWholeSequences) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kDouble);
  TreeBatch batch;
  batch.prompts = {{1, MergedItemEntry(3)}, {1, MergedItemEntry(8), MergedItemEntry(2)}};
  batch.branches = {{0, 1, {3, 9, 14, 19}}, {1, 2, {4, 8, 15, 20}}, {1, 2, {4, 8, 13, 21}}};
  const TreeOutput output = policy->ForwardTree(batch).value();
  const at::Tensor rows = at::tensor(output.prediction_rows).to(output.hidden.device());
  const at::Tensor values = policy->Values(output.hidden.index_select(0, rows));
  const at::Tensor weights = at::arange(1, values.numel() + 1, values.options().requires_grad(false)) / 3;
  (weights * values.square()).sum().backward();

  const std::map<std::string, at::Tensor> parameters = NamedParameters(*policy);
  std::vector<at::Tensor> naive;
  for (const Branch& branch : batch.branches) {
    PromptInput sequence = batch.prompts[static_cast<size_t>(branch.prompt)];
    const int64_t anchor = static_cast<int64_t>(sequence.size()) - 1;
    sequence.insert(sequence.end(), branch.tokens.begin(), branch.tokens.end());
    naive.push_back(
        NaiveValues(parameters, NaiveHidden(config_, trie_.get(), parameters, sequence).slice(0, anchor, anchor + 4)));
  }
  const at::Tensor want = at::cat(naive);
  EXPECT_LT((values.cpu() - want).abs().max().item<double>(), 1e-10);
  (weights.cpu() * want.square()).sum().backward();
  for (const auto& [name, gradient] : NamedGradients(*policy)) {
    const at::Tensor expected = parameters.at(name).grad();
    if (!expected.defined()) continue;  // nothing here depends on it
    EXPECT_LT((gradient - expected).abs().max().item<double>(), 1e-9) << name;
  }
  EXPECT_GT(NamedGradients(*policy).at("value_head.up.weight").abs().max().item<double>(), 1e-3);
  EXPECT_GT(NamedGradients(*policy).at("model.embed_tokens.weight").abs().max().item<double>(), 1e-3);
}

TEST_F(ValueHeadTest, AHeadThatIsAddedLeavesTheRestAsItWas) {
  PolicyConfig plain = config_;
  plain.value_hidden = 0;
  const std::unique_ptr<Policy> before = RandomPolicy(plain, trie_, 3, at::kFloat);
  EXPECT_FALSE(before->has_value_head());
  const auto with = before->WithValueHead(kValueWidth, 5).value();
  const auto again = before->WithValueHead(kValueWidth, 5).value();
  const auto other = before->WithValueHead(kValueWidth, 6).value();
  EXPECT_TRUE(with->parameters().equal(again->parameters()));
  EXPECT_FALSE(with->parameters().equal(other->parameters()));
  EXPECT_NE(with->layout_digest(), before->layout_digest());
  const int64_t shared = before->parameters().numel();
  EXPECT_TRUE(with->parameters().narrow(0, 0, shared).equal(before->parameters().cpu()));
  EXPECT_GT(with->parameters().narrow(0, shared, with->parameters().numel() - shared).abs().max().item<float>(), 0);
  EXPECT_EQ(with->config().value_hidden, kValueWidth);
  EXPECT_EQ(with->WithValueHead(3, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(before->WithValueHead(0, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ValueHeadTest, WeightDecayIsForItsMatricesAndItsBiasesStartAtZero) {
  const auto policy = Policy::Create(config_, trie_, 1).value();
  PolicyConfig plain = config_;
  plain.value_hidden = 0;
  const auto without = Policy::Create(plain, trie_, 1).value();
  const auto sum = [](const at::Tensor& mask) { return mask.sum().item<double>(); };
  EXPECT_EQ(sum(policy->decay_mask()) - sum(without->decay_mask()), kValueWidth * 16 + kValueWidth);
  const std::map<std::string, at::Tensor> named = NamedParameters(*policy);
  EXPECT_EQ(named.at("value_head.up.bias").abs().max().item<float>(), 0);
  EXPECT_EQ(named.at("value_head.down.bias").abs().max().item<float>(), 0);
  EXPECT_GT(named.at("value_head.down.weight").abs().max().item<float>(), 0);
}

TEST_F(ValueHeadTest, HasAFileOfItsOwnAndComesBackBitByBit) {
  std::string pattern = JoinPath(::testing::TempDir(), "value_head_XXXXXX");
  const std::string folder = mkdtemp(pattern.data());
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kFloat);
  ASSERT_TRUE(policy->Save(folder).ok());
  const auto model = SafetensorsFile::Open(JoinPath(folder, "model.safetensors")).value();
  for (const auto& [name, info] : model->tensors()) EXPECT_THAT(name, ::testing::Not(HasSubstr("value_head")));
  const auto own = SafetensorsFile::Open(JoinPath(folder, "sluice_value.safetensors")).value();
  EXPECT_EQ(own->tensors().size(), 4u);
  EXPECT_EQ(own->Info("value_head.up.weight")->shape, (std::vector<int64_t>{kValueWidth, 16}));
  EXPECT_EQ(own->Info("value_head.down.weight")->shape, (std::vector<int64_t>{1, kValueWidth}));

  const auto loaded = Policy::Load(folder, trie_).value();
  EXPECT_TRUE(loaded->parameters().equal(policy->parameters().cpu()));
  EXPECT_EQ(loaded->layout_digest(), policy->layout_digest());
  ASSERT_TRUE(RemoveAll(JoinPath(folder, "sluice_value.safetensors")).ok());
  EXPECT_EQ(Policy::Load(folder, trie_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(RemoveAll(folder).ok());
}

TEST_F(ValueHeadTest, ItsWidthIsInTheConfiguration) {
  EXPECT_EQ(PolicyConfig::FromJson(config_.ToJson())->value_hidden, kValueWidth);
  PolicyConfig plain = config_;
  plain.value_hidden = 0;
  EXPECT_EQ(PolicyConfig::FromJson(plain.ToJson())->value_hidden, 0);
  EXPECT_THAT(plain.ToJson(), ::testing::Not(HasSubstr("value_hidden")));
  plain.value_hidden = -1;
  EXPECT_THAT(std::string(plain.Validate().message()), HasSubstr("sluice.value_hidden is -1"));
}

TEST_F(ValueHeadTest, LeafEmbeddingsAreWhatPromptsAreMadeOf) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kDouble);
  const at::Tensor leaves = policy->LeafEmbeddings(*trie_).value();
  ASSERT_EQ(leaves.sizes(), (std::vector<int64_t>{trie_->num_leaves(), 16}));
  const std::map<std::string, at::Tensor> parameters = NamedParameters(*policy);
  const int32_t leaf = 11;
  at::Tensor want = parameters.at("item_embedding.weight")[leaf];
  for (const int32_t token : trie_->TokensOfLeaf(leaf)) want = want + parameters.at("model.embed_tokens.weight")[token];
  EXPECT_LT((leaves[leaf] - want.cpu()).abs().max().item<double>(), 1e-12);
  const auto other = RandomTrie(20, kCodes, 8);
  EXPECT_EQ(policy->LeafEmbeddings(*other).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::testing

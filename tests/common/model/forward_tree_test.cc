// The shared-prefix pass against one whole sequence at a time, in float64: values and gradients.
#include <ATen/Parallel.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/model/policy.h"
#include "common/model/tree_layout.h"
#include "common/random/random.h"
#include "tests/common/model/model_testing.h"
#include "tests/testing/placement.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kCodes = 5;
constexpr double kExact = 1e-10;  // float64: only the order of sums differs

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kCPU) - b.to(at::kCPU)).abs().max().item<double>();
}

std::vector<int32_t> RandomTokens(Random* random, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random->Below(3 + 4 * kCodes)));
  return tokens;
}

// Ragged prompts, branches in any order on any anchors, of 1 to 5 tokens; one prompt without a branch.
TreeBatch RandomBatch(uint64_t seed, const Trie* merged) {
  Random random(seed);
  TreeBatch batch;
  for (const int length : {5, 1, 9, 3}) {
    PromptInput prompt = RandomTokens(&random, length);
    if (merged != nullptr) {
      for (int p = 1; p < length; ++p) {
        prompt[p] = MergedItemEntry(static_cast<int32_t>(random.Below(merged->num_leaves())));
      }
    }
    batch.prompts.push_back(std::move(prompt));
  }
  for (int i = 0; i < 11; ++i) {
    Branch branch;
    branch.prompt = static_cast<int32_t>(random.Below(3));
    branch.anchor = static_cast<int32_t>(random.Below(batch.prompts[branch.prompt].size()));
    branch.tokens = RandomTokens(&random, 1 + static_cast<int>(random.Below(5)));
    batch.branches.push_back(std::move(branch));
  }
  return batch;
}

struct Pass {
  at::Tensor loss;
  std::vector<at::Tensor> log_probs;  // per branch, [T]
};

// Any smooth function of all predictions will do; squares make the gradients differ from token to token.
at::Tensor Loss(const std::vector<at::Tensor>& log_probs) {
  at::Tensor loss = at::zeros({}, log_probs[0].options().requires_grad(false));
  for (size_t i = 0; i < log_probs.size(); ++i) loss = loss + (log_probs[i].pow(2) * (1. + .1 * i)).sum();
  return loss;
}

at::Tensor TokenLogProbs(const at::Tensor& logits, const std::vector<int32_t>& tokens) {
  const at::Tensor ids = at::tensor(at::ArrayRef<int32_t>(tokens), at::kLong);
  return logits.to(at::kCPU).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1);
}

Pass TreePass(Policy& policy, const TreeBatch& batch, TreeRows rows = TreeRows::kAll) {
  const TreeOutput output = policy.ForwardTree(batch, 0, 0, rows).value();
  Pass pass;
  for (size_t i = 0; i < batch.branches.size(); ++i) {
    const auto first = output.prediction_rows.begin() + output.prediction_first[i];
    const std::vector<int64_t> rows(first, first + static_cast<int64_t>(batch.branches[i].tokens.size()));
    const at::Tensor hidden = output.hidden.index_select(0, Upload(rows, output.hidden.device()));
    pass.log_probs.push_back(TokenLogProbs(policy.Logits(hidden), batch.branches[i].tokens));
  }
  pass.loss = Loss(pass.log_probs);
  return pass;
}

Pass NaivePass(const PolicyConfig& config, const Trie* trie, const std::map<std::string, at::Tensor>& parameters,
               const TreeBatch& batch) {
  Pass pass;
  for (const Branch& branch : batch.branches) {
    const PromptInput& prompt = batch.prompts[branch.prompt];
    PromptInput sequence(prompt.begin(), prompt.begin() + branch.anchor + 1);
    sequence.insert(sequence.end(), branch.tokens.begin(), branch.tokens.end() - 1);
    const at::Tensor hidden = NaiveHidden(config, trie, parameters, sequence);
    const at::Tensor logits = NaiveLogits(config, parameters, hidden.slice(0, branch.anchor));
    pass.log_probs.push_back(TokenLogProbs(logits, branch.tokens));
  }
  pass.loss = Loss(pass.log_probs);
  return pass;
}

struct Case {
  std::string name;
  PolicyConfig config;
  std::shared_ptr<const Trie> trie;
};

std::vector<Case> Cases() {
  const std::shared_ptr<const Trie> trie = RandomTrie(40, kCodes, 7);
  const PolicyConfig merged = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie);
  std::vector<Case> cases;
  cases.push_back({"Qwen3MergedTied", merged, trie});
  Case plain_merged{"Qwen3MergedWithoutItemVectors", merged, trie};
  plain_merged.config.item_embedding = false;
  plain_merged.config.tie_embeddings = false;
  cases.push_back(plain_merged);
  cases.push_back({"Qwen2Codes", SmallConfig(PolicyArchitecture::kQwen2, kCodes), nullptr});
  Case llama{"LlamaScaledBiasedUntied", SmallConfig(PolicyArchitecture::kLlama, kCodes), nullptr};
  llama.config.tie_embeddings = false;
  llama.config.attention_bias = true;
  llama.config.rope_scaling = {4, 1, 4, 16};
  llama.config.rope_theta = 100;
  cases.push_back(llama);
  Case wide{"Qwen3WideHeads", SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr};
  wide.config.head_dim = 34;  // more than one register block
  wide.config.num_kv_heads = 1;
  cases.push_back(wide);
  return cases;
}

class ForwardTreeTest : public ::testing::TestWithParam<int> {
 protected:
  Case case_ = Cases()[GetParam()];
  const Trie* merged() const { return case_.config.encoder == PromptEncoderKind::kMerged ? case_.trie.get() : nullptr; }
};

TEST_P(ForwardTreeTest, EqualsWholeSequencesInValuesAndGradients) {
  const std::unique_ptr<Policy> policy = RandomPolicy(case_.config, case_.trie, 3, at::kDouble);
  const TreeBatch batch = RandomBatch(11, merged());
  const auto parameters = NamedParameters(*policy);
  const Pass naive = NaivePass(case_.config, case_.trie.get(), parameters, batch);
  const Pass tree = TreePass(*policy, batch);
  for (size_t i = 0; i < batch.branches.size(); ++i) {
    EXPECT_LT(MaxDifference(tree.log_probs[i], naive.log_probs[i]), kExact) << "branch " << i;
  }
  naive.loss.backward();
  tree.loss.backward();
  const auto gradients = NamedGradients(*policy);
  ASSERT_EQ(gradients.size(), parameters.size());
  for (const auto& [name, parameter] : parameters) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    // The softmax does not see a key's bias without rotation, so that gradient may be small, but never all zero.
    EXPECT_GT(parameter.grad().abs().max().item<double>(), 1e-6) << name << " takes part in nothing";
    EXPECT_LT(MaxDifference(gradients.at(name), parameter.grad()), kExact) << name;
  }
}

TEST_P(ForwardTreeTest, ThePredictionRowsAloneGiveTheSameValuesAndGradients) {
  const std::unique_ptr<Policy> policy = RandomPolicy(case_.config, case_.trie, 3, at::kDouble);
  const TreeBatch batch = RandomBatch(11, merged());
  const Pass all = TreePass(*policy, batch);
  all.loss.backward();
  const at::Tensor gradients = policy->gradients().clone();

  policy->gradients().zero_();
  const Pass needed = TreePass(*policy, batch, TreeRows::kPredictions);
  needed.loss.backward();
  EXPECT_LT(MaxDifference(needed.loss, all.loss), kExact);
  EXPECT_LT(MaxDifference(policy->gradients(), gradients), kExact);
}

TEST_P(ForwardTreeTest, GradientsAccumulateInTheArena) {
  const std::unique_ptr<Policy> policy = RandomPolicy(case_.config, case_.trie, 3, at::kDouble);
  const TreeBatch batch = RandomBatch(12, merged());
  const void* memory = policy->gradients().data_ptr();
  TreePass(*policy, batch).loss.backward();
  const at::Tensor once = policy->gradients().clone();
  TreePass(*policy, batch).loss.backward();
  EXPECT_EQ(policy->gradients().data_ptr(), memory);
  EXPECT_LT(MaxDifference(policy->gradients(), 2 * once), kExact);
  policy->gradients().zero_();
  TreePass(*policy, batch).loss.backward();
  EXPECT_LT(MaxDifference(policy->gradients(), once), kExact);
}

TEST_P(ForwardTreeTest, Float32AgreesWithFloat64) {
  const std::unique_ptr<Policy> twice = RandomPolicy(case_.config, case_.trie, 3, at::kDouble);
  const std::unique_ptr<Policy> single = RandomPolicy(case_.config, case_.trie, 3, at::kFloat);
  single->parameters().copy_(twice->parameters());
  const TreeBatch batch = RandomBatch(13, merged());
  const Pass wanted = TreePass(*twice, batch), got = TreePass(*single, batch);
  for (size_t i = 0; i < batch.branches.size(); ++i) {
    EXPECT_LT(MaxDifference(got.log_probs[i], wanted.log_probs[i]), 2e-5) << "branch " << i;
  }
  wanted.loss.backward();
  got.loss.backward();
  const double scale = twice->gradients().abs().max().item<double>();
  EXPECT_LT(MaxDifference(single->gradients(), twice->gradients()), 1e-5 * scale);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ForwardTreeTest, ::testing::Range(0, static_cast<int>(Cases().size())),
                         [](const auto& info) { return Cases()[info.param].name; });

class TreePassTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Trie> trie_ = RandomTrie(40, kCodes, 7);
  PolicyConfig config_ = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
  std::unique_ptr<Policy> policy_ = RandomPolicy(config_, trie_, 3, at::kDouble);
};

TEST_F(TreePassTest, TheOrderOfPromptsAndBranchesChangesNothing) {
  const TreeBatch batch = RandomBatch(14, trie_.get());
  TreeBatch turned;
  turned.prompts.assign(batch.prompts.rbegin(), batch.prompts.rend());
  turned.branches.assign(batch.branches.rbegin(), batch.branches.rend());
  for (Branch& branch : turned.branches) branch.prompt = 3 - branch.prompt;
  const Pass a = TreePass(*policy_, batch), b = TreePass(*policy_, turned);
  for (size_t i = 0; i < batch.branches.size(); ++i) {
    EXPECT_LT(MaxDifference(a.log_probs[i], b.log_probs[batch.branches.size() - 1 - i]), kExact);
  }
}

TEST_F(TreePassTest, ValuesAndGradientsDoNotDependOnTheNumberOfThreads) {
  const TreeBatch batch = RandomBatch(15, trie_.get());
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> gradients;
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    policy_->gradients().zero_();
    TreePass(*policy_, batch).loss.backward();
    gradients.push_back(policy_->gradients().clone());
  }
  at::set_num_threads(threads);
  EXPECT_LT(MaxDifference(gradients[0], gradients[1]), 1e-12);
}

TEST_F(TreePassTest, OnlyRowsThatPredictComeBackWhereNoMoreIsAskedFor) {
  // Prompts of 5 and 4, branches of 3 and 2 tokens on one anchor and of 2 on another prompt's: anchors 2, own rows 4.
  const TreeBatch batch = {{{1, 2, 3, 4, 5}, {1, 2, 3, 4}}, {{0, 4, {6, 7, 8}}, {0, 4, {6, 9}}, {1, 2, {6, 7}}}};
  const TreeOutput all = policy_->ForwardTree(batch).value();
  const TreeOutput needed = policy_->ForwardTree(batch, 0, 0, TreeRows::kPredictions).value();
  EXPECT_EQ(all.hidden.size(0), 13);
  EXPECT_EQ(all.computed_rows, 13);
  EXPECT_EQ(needed.hidden.size(0), 6);
  EXPECT_EQ(needed.computed_rows, 13);
  EXPECT_TRUE(needed.trunk_first_row.empty());
  ASSERT_EQ(needed.prediction_rows.size(), all.prediction_rows.size());
  for (size_t i = 0; i < all.prediction_rows.size(); ++i) {
    EXPECT_LT(MaxDifference(needed.hidden[needed.prediction_rows[i]], all.hidden[all.prediction_rows[i]]), 1e-5);
  }
}

// Counts what torch's allocator hands out on this thread.
class AllocationCounter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override { count += size > 0 ? 1 : 0; }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t count = 0;
};

TEST_F(TreePassTest, AllocationsGrowWithLayersAndNotWithBranches) {
  if (TestPlacement().takes_device_path()) GTEST_SKIP() << "a promise of the processor's path alone";
  const auto allocations = [&](int64_t layers, int branches) {
    PolicyConfig config = config_;
    config.num_layers = layers;
    const std::unique_ptr<Policy> policy = RandomPolicy(config, trie_, 3, at::kFloat);
    TreeBatch batch;
    batch.prompts.assign(4, PromptInput(20, 1));
    for (int b = 0; b < 4; ++b) {
      for (int i = 0; i < branches; ++i) batch.branches.push_back({b, 19, {3, 4 + i % 5, 9}});
    }
    const auto counter = std::make_shared<AllocationCounter>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
    const TreeOutput output = policy->ForwardTree(batch, 0, 0, TreeRows::kPredictions).value();
    policy->Logits(output.hidden).sum().backward();
    return counter->count;
  };
  allocations(2, 8);  // what is made once
  const int64_t two = allocations(2, 8), four = allocations(4, 8);
  EXPECT_GT(two, 0);
  EXPECT_LE(four - two, 2 * 75);
  EXPECT_EQ(allocations(4, 64), four);
}

TEST_F(TreePassTest, Float32FillsTheNeededRowsUpToFewCounts) {
  if (TestPlacement().takes_device_path()) GTEST_SKIP() << "a promise of the processor's path alone";
  TreeBatch batch;
  batch.prompts.assign(70, PromptInput(3, 1));
  for (int b = 0; b < 69; ++b) batch.branches.push_back({b, 2, {4}});
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kFloat);
  const TreeOutput needed = policy->ForwardTree(batch, 0, 0, TreeRows::kPredictions).value();
  EXPECT_EQ(needed.hidden.size(0), RoundedRows(69));  // 70
  for (const int64_t row : needed.prediction_rows) EXPECT_LT(row, needed.hidden.size(0));
}

TEST_F(TreePassTest, NoGraphIsRecordedWithoutGradMode) {
  at::NoGradGuard no_grad;
  EXPECT_FALSE(policy_->ForwardTree(RandomBatch(16, trie_.get()))->hidden.requires_grad());
}

TEST_F(TreePassTest, DropoutRepeatsWithItsSeedAndChangesWithAnother) {
  const TreeBatch batch = RandomBatch(17, trie_.get());
  const at::Tensor none = policy_->ForwardTree(batch)->hidden;
  const at::Tensor a = policy_->ForwardTree(batch, .2, 1)->hidden;
  const at::Tensor b = policy_->ForwardTree(batch, .2, 1)->hidden;
  const at::Tensor c = policy_->ForwardTree(batch, .2, 2)->hidden;
  EXPECT_TRUE(a.equal(b));
  EXPECT_GT(MaxDifference(a, c), .01);
  EXPECT_GT(MaxDifference(a, none), .01);
}

TEST_F(TreePassTest, GradientsWithDropoutMatchFiniteDifferences) {
  const TreeBatch batch = RandomBatch(18, trie_.get());
  auto loss = [&] { return policy_->ForwardTree(batch, .3, 5)->hidden.pow(3).sum(); };
  loss().backward();
  const at::Tensor gradient = policy_->gradients().clone();
  Random random(9);
  at::NoGradGuard no_grad;
  for (int i = 0; i < 20; ++i) {
    const int64_t index = static_cast<int64_t>(random.Below(policy_->parameters().size(0)));
    at::Tensor parameter = policy_->parameters()[index];
    const double step = 1e-5;
    parameter.add_(step);
    const double above = loss().item<double>();
    parameter.sub_(2 * step);
    const double below = loss().item<double>();
    parameter.add_(step);
    const double wanted = (above - below) / (2 * step);
    EXPECT_NEAR(gradient[index].item<double>(), wanted, 1e-4 * (1 + std::abs(wanted))) << "parameter " << index;
  }
}

TEST_F(TreePassTest, WrongBatchesAreRefusedByName) {
  auto message = [&](const TreeBatch& batch) {
    const absl::Status status = policy_->ForwardTree(batch).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const int32_t beyond = MergedItemEntry(static_cast<int32_t>(trie_->num_leaves()));
  EXPECT_THAT(message({}), HasSubstr("want at least one prompt"));
  EXPECT_THAT(message({{{1, 2}, {}}, {}}), HasSubstr("prompt 1: is empty"));
  EXPECT_THAT(message({{{1, 23}}, {}}), HasSubstr("prompt 0: token 23 is outside the vocabulary of 23"));
  EXPECT_THAT(message({{{1, beyond}}, {}}), HasSubstr("is outside the trie"));
  EXPECT_THAT(message({{{1, 2}}, {{1, 0, {3}}}}), HasSubstr("branch 0: hangs on prompt 1 of 1 prompts"));
  EXPECT_THAT(message({{{1, 2}}, {{0, 2, {3}}}}), HasSubstr("branch 0: hangs on position 2 of prompt 0, which has 2"));
  EXPECT_THAT(message({{{1, 2}}, {{0, 1, {}}}}), HasSubstr("branch 0: has no token"));
  EXPECT_THAT(message({{{1, 2}}, {{0, 1, {-3}}}}), HasSubstr("branch 0: has token -3"));
  EXPECT_THAT(message({{PromptInput(65, 1)}, {}}), HasSubstr("prompt 0: has 65 positions"));
  EXPECT_THAT(message({{PromptInput(64, 1)}, {{0, 63, {3, 4}}}}), HasSubstr("branch 0: reaches 65 positions"));
  EXPECT_EQ(policy_->ForwardTree({{{1, 2}}, {}}, 1.0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::testing

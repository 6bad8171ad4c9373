// The supervised step against the slow decoder, which computes every target as a sequence of its own, in float64.
#include "learner/train/sft_step.h"

#include <torch/types.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/learner/train/train_testing.h"
#include "tests/testing/fake_device/fake_device.h"
#include "tests/testing/placement.h"

namespace sluice::learner {
namespace {

constexpr int kCodes = 4;
constexpr double kExact = 1e-10;

class SftStepTest : public ::testing::TestWithParam<PromptEncoderKind> {
 protected:
  PolicyConfig MakeConfig() const {
    const auto architecture = PolicyArchitecture::kQwen3;
    return merged() ? testing::SmallMergedConfig(architecture, kCodes, *trie_)
                    : testing::SmallConfig(architecture, kCodes);
  }
  std::unique_ptr<Policy> MakePolicy(uint64_t seed = 3) const {
    return testing::RandomPolicy(MakeConfig(), trie_, seed, at::kDouble);
  }

  // Windows of ragged lengths, cut from random sequences, some reversed.
  SftStepPlan MakePlan() const {
    Random random(8);
    SftStepPlan plan;
    for (const int length : {2, 9, 5, 3, 7}) {
      std::vector<int32_t> events;
      for (int i = 0; i < length; ++i) events.push_back(static_cast<int32_t>(random.Below(trie_->num_items())));
      for (SftWindow& window : CutIntoWindows(events, 4, length % 3 == 0)) {
        plan.targets += window.targets();
        plan.windows.push_back(std::move(window));
      }
    }
    return plan;
  }

  // Sum of -log p over the tokens of all targets.
  at::Tensor NaiveLossSum(const Policy& policy, const std::map<std::string, at::Tensor>& parameters,
                          const SftStepPlan& plan) const {
    at::Tensor sum = torch::zeros({}, torch::kDouble);
    for (const SftWindow& window : plan.windows) {
      for (size_t anchor = window.first_anchor; anchor < window.items.size(); ++anchor) {
        const std::vector<int32_t> history(window.items.begin(), window.items.begin() + anchor + 1);
        const PromptInput prompt = policy.EncodePrompt(history, window.reversed).value();
        const absl::Span<const int32_t> tokens = trie_->TokensOfLeaf(trie_->LeafOfItem(window.TargetOf(anchor)));
        const at::Tensor logits = NaiveTokenLogits(policy.config(), trie_.get(), parameters, prompt, tokens);
        sum = sum - NaiveFullLogProbs(logits, tokens).sum();
      }
    }
    return sum;
  }

  bool merged() const { return GetParam() == PromptEncoderKind::kMerged; }

  // With the items' loss where there is one.
  SftStepSettings Settings(double learning_rate, int64_t max_rows = kMaxSftRows) const {
    return {.learning_rate = learning_rate, .item_loss_weight = merged() ? 0.5 : 0, .max_rows = max_rows};
  }

  // Sum over targets of -log softmax over all leaves, of the last hidden state against the sums that prompts are made
  // of.
  at::Tensor NaiveItemLossSum(const Policy& policy, const std::map<std::string, at::Tensor>& parameters,
                              const SftStepPlan& plan) const {
    std::vector<at::Tensor> vectors;
    for (int32_t leaf = 0; leaf < trie_->num_leaves(); ++leaf) {
      at::Tensor vector = parameters.at("item_embedding.weight")[leaf];
      for (const int32_t token : trie_->TokensOfLeaf(leaf)) {
        vector = vector + parameters.at("model.embed_tokens.weight")[token];
      }
      vectors.push_back(vector);
    }
    at::Tensor sum = torch::zeros({}, torch::kDouble);
    for (const SftWindow& window : plan.windows) {
      for (size_t anchor = window.first_anchor; anchor < window.items.size(); ++anchor) {
        const std::vector<int32_t> history(window.items.begin(), window.items.begin() + anchor + 1);
        const PromptInput prompt = policy.EncodePrompt(history, window.reversed).value();
        const at::Tensor hidden = testing::NaiveHidden(policy.config(), trie_.get(), parameters, prompt);
        const at::Tensor logits = at::matmul(at::stack(vectors), hidden[hidden.size(0) - 1]);
        sum = sum - at::log_softmax(logits, 0)[trie_->LeafOfItem(window.TargetOf(anchor))];
      }
    }
    return sum;
  }

  std::shared_ptr<const Trie> trie_ = testing::RandomTrie(15, kCodes, 1);
};

INSTANTIATE_TEST_SUITE_P(Encoders, SftStepTest,
                         ::testing::Values(PromptEncoderKind::kMerged, PromptEncoderKind::kCodes));

TEST_P(SftStepTest, LossAndGradientEqualOneSequenceATarget) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  const SftStepPlan plan = MakePlan();
  const SftBatch batch = MakeSftBatch(*policy, *trie_, plan.OfRank(0, 1)).value();
  const SftLosses losses = SftLossSums(*policy, batch, 0, 0).value();
  losses.tokens.backward();

  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  const at::Tensor naive = NaiveLossSum(*policy, parameters, plan);
  naive.backward();
  EXPECT_EQ(losses.num_tokens, plan.targets * trie_->levels());
  EXPECT_NEAR(losses.tokens.item<double>(), naive.item<double>(), kExact * 100);
  ExpectGradients(*policy, parameters, kExact * 10);
}

TEST_P(SftStepTest, WordsAroundTheItemsAreReadAndNotPredicted) {
  PolicyConfig config = MakeConfig();
  config.begin_token = -1;  // a reversed window keeps its own
  config.prefix_tokens = {0, 2, 0};
  config.separator_tokens = {2, 1};
  const std::unique_ptr<Policy> policy = testing::RandomPolicy(config, trie_, 3, at::kDouble);
  const SftStepPlan plan = MakePlan();
  const SftBatch batch = MakeSftBatch(*policy, *trie_, plan.OfRank(0, 1)).value();
  const torch::NoGradGuard no_grad;
  const SftLosses losses = SftLossSums(*policy, batch, 0, 0).value();
  EXPECT_EQ(losses.num_tokens, plan.targets * trie_->levels());
  const at::Tensor naive = NaiveLossSum(*policy, testing::NamedParameters(*policy), plan);
  EXPECT_NEAR(losses.tokens.item<double>(), naive.item<double>(), kExact * 100);
}

TEST_P(SftStepTest, TheItemsLossAndItsGradientEqualOneSequenceATarget) {
  if (!merged()) GTEST_SKIP() << "codes have no item vectors";
  const std::unique_ptr<Policy> policy = MakePolicy();
  const SftStepPlan plan = MakePlan();
  const SftBatch batch = MakeSftBatch(*policy, *trie_, plan.OfRank(0, 1)).value();
  const SftLosses losses = SftLossSums(*policy, batch, 0, 0, /*with_items=*/true).value();
  losses.items.backward();

  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  const at::Tensor naive = NaiveItemLossSum(*policy, parameters, plan);
  naive.backward();
  EXPECT_NEAR(losses.items.item<double>(), naive.item<double>(), kExact * 100);
  ExpectGradients(*policy, parameters, kExact * 10);
}

TEST_P(SftStepTest, ReportsTheMeanLossBeforeTheUpdate) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  const SftStepPlan plan = MakePlan();
  const double want = NaiveLossSum(*policy, testing::NamedParameters(*policy), plan).item<double>() /
                      static_cast<double>(plan.targets * trie_->levels());
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
  const auto single = MakeSingleCollective();
  const SftStepResult result = SftStep(*policy, *trie_, optimizer, *single, plan, Settings(1e-3)).value();
  EXPECT_NEAR(result.loss, want, kExact * 10);
  EXPECT_GT(result.gradient_norm, 0);
  EXPECT_EQ(result.item_loss > 0, merged());
}

TEST_P(SftStepTest, TheWorldSizeDoesNotChangeTheUpdate) {
  const SftStepPlan plan = MakePlan();
  std::vector<at::Tensor> results;  // of every rank of every world size
  std::vector<double> losses;
  std::mutex mutex;
  for (const int world_size : {1, 2, 3}) {
    RunCollective(world_size, [&](Collective& collective) {
      const std::unique_ptr<Policy> policy = MakePolicy();
      AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
      double loss = 0;
      for (int step = 0; step < 3; ++step) {
        const auto result = SftStep(*policy, *trie_, optimizer, collective, plan, Settings(1e-2));
        ASSERT_TRUE(result.ok()) << result.status();
        loss = result->loss;
      }
      std::lock_guard<std::mutex> lock(mutex);
      results.push_back(policy->parameters().detach().clone());
      losses.push_back(loss);
    });
  }
  ASSERT_EQ(results.size(), 6u);
  for (size_t i = 1; i < results.size(); ++i) {
    EXPECT_LE((results[i] - results[0]).abs().max().item<double>(), 1e-9);
    EXPECT_NEAR(losses[i], losses[0], 1e-9);
  }
  EXPECT_TRUE(results[1].equal(results[2]));  // two ranks agree to the bit
}

TEST_P(SftStepTest, LanesChangeTheUpdateByRoundingAlone) {
  const SftStepPlan plan = MakePlan();
  const auto single = MakeSingleCollective();
  at::Tensor one;
  for (const int count : {1, 2, 3, 2}) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    const auto lanes = StepLanes::Create(policy.get(), nullptr, count).value();
    const SftStepResult result = SftStep(*lanes, *trie_, optimizer, *single, plan, Settings(1e-2)).value();
    EXPECT_GT(result.loss, 0);
    if (!one.defined()) one = policy->parameters().detach().clone();
    EXPECT_LE((policy->parameters() - one).abs().max().item<double>(), 1e-9) << count;
  }
}

TEST_P(SftStepTest, PartsDoNotChangeTheUpdate) {
  const SftStepPlan plan = MakePlan();
  const auto single = MakeSingleCollective();
  at::Tensor whole;
  double loss = 0;
  for (const int64_t max_rows : {kMaxSftRows, int64_t{1}, int64_t{30}}) {  // one pass, a pass a window, a few passes
    const std::unique_ptr<Policy> policy = MakePolicy();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    const SftStepResult result = SftStep(*policy, *trie_, optimizer, *single, plan, Settings(1e-2, max_rows)).value();
    if (!whole.defined()) {
      whole = policy->parameters().detach().clone();
      loss = result.loss;
    }
    EXPECT_LE((policy->parameters() - whole).abs().max().item<double>(), 1e-9) << max_rows;
    EXPECT_NEAR(result.loss, loss, 1e-9);
  }
}

TEST_P(SftStepTest, ARankWithoutWindowsTakesPart) {
  SftStepPlan plan;
  plan.windows = CutIntoWindows({0, 1}, 4, false);
  plan.targets = 1;
  std::vector<at::Tensor> results;
  std::mutex mutex;
  RunCollective(2, [&](Collective& collective) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    ASSERT_TRUE(SftStep(*policy, *trie_, optimizer, collective, plan, Settings(1e-2)).ok());
    std::lock_guard<std::mutex> lock(mutex);
    results.push_back(policy->parameters().detach().clone());
  });
  ASSERT_EQ(results.size(), 2u);
  EXPECT_TRUE(results[0].equal(results[1]));
}

TEST_P(SftStepTest, LearnsASmallSequenceByHeart) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  SftStepPlan plan;
  plan.windows = CutIntoWindows({0, 3, 5, 1}, 4, false);
  plan.targets = 3;
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
  const auto single = MakeSingleCollective();
  double loss = 0;
  for (int step = 0; step < 120; ++step) {
    loss = SftStep(*policy, *trie_, optimizer, *single, plan, Settings(2e-2)).value().loss;
  }
  EXPECT_LT(loss, 0.05);
}

TEST_P(SftStepTest, OnADeviceAnUpdateIsTheSameAndReadsOnce) {
  if (TestPlacement().device.is_cuda()) GTEST_SKIP() << kNotBesideAGpu;
  const SftStepPlan plan = MakePlan();
  const auto single = MakeSingleCollective();
  std::vector<at::Tensor> parameters;
  std::vector<SftStepResult> results;
  for (const at::Device& device : {at::Device(at::kCPU), FakeDevice()}) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    Placement placement;
    placement.device = device;
    ASSERT_TRUE(policy->Place(placement).ok());
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    for (int step = 0; step < 3; ++step) {
      const FakeDeviceWaits waits;
      results.push_back(SftStep(*policy, *trie_, optimizer, *single, plan, Settings(1e-2, /*max_rows=*/30)).value());
      EXPECT_EQ(waits.count(), device.is_cpu() ? 0 : 1);
    }
    parameters.push_back(policy->parameters().detach().to(at::kCPU));
  }
  EXPECT_LE((parameters[0] - parameters[1]).abs().max().item<double>(), 1e-9);
  for (size_t step = 0; step < 3; ++step) {
    EXPECT_NEAR(results[step].loss, results[step + 3].loss, 1e-9);
    EXPECT_NEAR(results[step].item_loss, results[step + 3].item_loss, 1e-9);
    EXPECT_NEAR(results[step].gradient_norm, results[step + 3].gradient_norm, 1e-9);
  }
}

TEST_P(SftStepTest, DropoutIsAFunctionOfItsSeed) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  const SftStepPlan plan = MakePlan();
  const SftBatch batch = MakeSftBatch(*policy, *trie_, plan.OfRank(0, 1)).value();
  const auto loss = [&](double dropout, uint64_t seed) {
    return SftLossSums(*policy, batch, dropout, seed).value().tokens.item<double>();
  };
  EXPECT_EQ(loss(0.3, 5), loss(0.3, 5));
  EXPECT_NE(loss(0.3, 5), loss(0.3, 6));
  EXPECT_NE(loss(0.3, 5), loss(0, 5));
}

}  // namespace
}  // namespace sluice::learner

// The policy update against the slow decoder, which computes every completion as a sequence of its own, in float64.
#include "learner/train/rl_step.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <string>
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

using ::testing::HasSubstr;

constexpr int kCodes = 4;
constexpr int kGroupSize = 4;
constexpr double kExact = 1e-10;

class RlStepTest : public ::testing::Test {
 protected:
  RlStepTest() {
    options_.group_size = kGroupSize;
    options_.negative_weight = 1;
    options_.objective = ObjectiveKind::kMixture;
    context_ = {7, trie_->version(), trie_->levels()};
  }

  std::unique_ptr<Policy> MakePolicy(uint64_t seed = 3) const {
    return testing::RandomPolicy(testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, seed,
                                 at::kDouble);
  }

  // Groups of ragged prompts with random completions of the catalog, scored at random; the last one is unsampled.
  void MakeGroups(const Policy& policy, int count = 5) {
    Random random(9);
    groups_.clear();
    scored_.assign(count, {});
    for (int g = 0; g < count; ++g) {
      std::vector<int32_t> history;
      for (int i = 0; i <= g % 4; ++i) history.push_back(static_cast<int32_t>(random.Below(trie_->num_items())));
      ScoredGroup& scored = scored_[g];
      scored.catalog_version = trie_->version();
      scored.behavior_version = 7;
      scored.score_status = ScoreStatus::kOk;
      scored.heads = {{"score", {}, static_cast<float>(random.Normal()), {}}};
      for (int i = 0; i < kGroupSize; ++i) {
        Completion completion;
        completion.leaf = static_cast<int32_t>(random.Below(trie_->num_leaves()));
        const absl::Span<const int32_t> tokens = trie_->TokensOfLeaf(completion.leaf);
        completion.tokens.assign(tokens.begin(), tokens.end());
        completion.log_probs_full.assign(tokens.size(), -1.0f);
        completion.log_probs_trie.assign(tokens.size(), -1.0f);
        scored.completions.push_back(completion);
        scored.heads[0].completion_scores.push_back(static_cast<float>(random.Normal()));
      }
      scored.target_log_probs_full.assign(trie_->levels(), -1.0f);
      scored.target_log_probs_trie.assign(trie_->levels(), -1.0f);
      RlGroup group;
      group.input = policy.EncodePrompt(history).value();
      group.target_leaf = static_cast<int32_t>(random.Below(trie_->num_leaves()));
      group.group = g == count - 1 ? nullptr : &scored;
      groups_.push_back(group);
    }
    JudgeAll();
  }

  void JudgeAll() {
    nll_groups_ = grpo_groups_ = 0;
    for (size_t g = 0; g < groups_.size(); ++g) {
      groups_[g].plan = Judge({g, groups_[g].group, groups_[g].target_leaf}, options_, context_).value();
      ++nll_groups_;
      ++grpo_groups_;
    }
  }

  RlStepSettings Settings() const {
    RlStepSettings settings;
    settings.nll_groups = nll_groups_;
    settings.grpo_groups = grpo_groups_;
    settings.learning_rate = 1e-2;
    settings.learner_version = 7;
    return settings;
  }

  absl::Span<const int32_t> TokensOf(const RlGroup& group, const CompletionPlan& completion) const {
    if (completion.source == CompletionPlan::kTarget) return trie_->TokensOfLeaf(group.target_leaf);
    return group.group->completions[completion.source].tokens;
  }

  at::Tensor NaiveLogProbs(const Policy& policy, const std::map<std::string, at::Tensor>& parameters,
                           const RlGroup& group, absl::Span<const int32_t> tokens, LogProbSpace space) const {
    const at::Tensor logits = NaiveTokenLogits(policy.config(), trie_.get(), parameters, group.input, tokens);
    return space == LogProbSpace::kFull ? NaiveFullLogProbs(logits, tokens) : NaiveTrieLogProbs(logits, tokens, *trie_);
  }

  // methods.md 1.3 as it is written, ratio pi / sg(pi) included: mean NLL of the targets, plus lambda times the mean
  // over groups of -1/G sum_i 1/|o_i| sum_t ratio * A_i.
  at::Tensor NaiveLoss(const Policy& policy, const std::map<std::string, at::Tensor>& parameters,
                       const RlStepSettings& settings) const {
    at::Tensor nll = torch::zeros({}, torch::kDouble);
    at::Tensor grpo = torch::zeros({}, torch::kDouble);
    for (const RlGroup& group : groups_) {
      if (options_.objective != ObjectiveKind::kGrpoOnly) {
        const absl::Span<const int32_t> target = trie_->TokensOfLeaf(group.target_leaf);
        const at::Tensor log_probs = NaiveLogProbs(policy, parameters, group, target, settings.nll_space);
        nll = nll - (options_.nll_reduction == NllReduction::kMean ? log_probs.mean() : log_probs.sum());
      }
      if (!group.plan.verdict.open) continue;
      for (const CompletionPlan& completion : group.plan.completions) {
        const absl::Span<const int32_t> tokens = TokensOf(group, completion);
        const at::Tensor log_probs = NaiveLogProbs(policy, parameters, group, tokens, settings.grpo_space);
        const at::Tensor ratio = (log_probs - log_probs.detach()).exp();
        grpo = grpo - (ratio * completion.advantage).mean() / kGroupSize;
      }
    }
    return nll / settings.nll_groups + options_.lambda * grpo / settings.grpo_groups;
  }

  void ExpectGradientsOfNaiveLoss(const RlStepSettings& settings) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    const RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
    ASSERT_TRUE(loss.loss.defined());
    loss.loss.backward();
    const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
    NaiveLoss(*policy, parameters, settings).backward();
    ExpectGradients(*policy, parameters, kExact);
  }

  std::shared_ptr<const Trie> trie_ = testing::RandomTrie(15, kCodes, 1);
  RlOptions options_;
  JudgeContext context_;
  std::vector<ScoredGroup> scored_;
  std::vector<RlGroup> groups_;
  double nll_groups_ = 0;
  double grpo_groups_ = 0;
};

TEST_F(RlStepTest, TheGradientIsThatOfTheWrittenObjectiveInEitherSpace) {
  MakeGroups(*MakePolicy());
  for (const LogProbSpace nll_space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
    for (const LogProbSpace grpo_space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
      RlStepSettings settings = Settings();
      settings.nll_space = nll_space;
      settings.grpo_space = grpo_space;
      ExpectGradientsOfNaiveLoss(settings);
    }
  }
}

TEST_F(RlStepTest, TheGradientIsTheSlopeOfTheReportedLoss) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  const auto loss = [&] {
    torch::NoGradGuard no_grad;
    return RlGroupLoss(*policy, *trie_, groups_, Settings()).value().loss.item<double>();
  };
  RlGroupLoss(*policy, *trie_, groups_, Settings()).value().loss.backward();
  const at::Tensor parameters = policy->parameters().detach();
  Random random(2);
  int moved = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const int64_t i = static_cast<int64_t>(random.Below(static_cast<uint64_t>(parameters.numel())));
    constexpr double kStep = 1e-5;
    const double value = parameters[i].item<double>();
    parameters[i] = value + kStep;
    const double above = loss();
    parameters[i] = value - kStep;
    const double below = loss();
    parameters[i] = value;
    const double slope = (above - below) / (2 * kStep);
    EXPECT_NEAR(policy->gradients()[i].item<double>(), slope, 1e-8) << i;
    moved += std::abs(slope) > 1e-6;
  }
  EXPECT_GT(moved, 10);
}

TEST_F(RlStepTest, EveryObjectiveHasItsTerms) {
  MakeGroups(*MakePolicy());
  for (const ObjectiveKind objective : {ObjectiveKind::kNllOnly, ObjectiveKind::kGrpoOnly, ObjectiveKind::kMixture}) {
    for (const NllReduction reduction : {NllReduction::kMean, NllReduction::kSum}) {
      options_.objective = objective;
      options_.nll_reduction = reduction;
      JudgeAll();
      ExpectGradientsOfNaiveLoss(Settings());
    }
  }
}

TEST_F(RlStepTest, TheGateDecidesWhichGroupsMoveThePolicy) {
  options_.objective = ObjectiveKind::kGated;
  options_.gate.use_suppression = false;
  options_.gate.tau = 0.5;
  MakeGroups(*MakePolicy(), 12);
  int open = 0;
  for (const RlGroup& group : groups_) open += group.plan.verdict.open;
  ASSERT_GT(open, 0);
  ASSERT_LT(open, 11);
  grpo_groups_ = open;  // normalised by the admitted ones
  ExpectGradientsOfNaiveLoss(Settings());
}

TEST_F(RlStepTest, AGroupOfOneCompletionHasNoAdvantageAndLeavesTheNll) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy, 3);
  for (ScoredGroup& scored : scored_) {
    scored.completions.resize(1);
    scored.heads[0].completion_scores.resize(1);
  }
  options_.group_size = 1;
  JudgeAll();
  RlStepSettings settings = Settings();
  RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
  FetchSums(&loss);
  EXPECT_EQ(loss.grpo_sum, 0);
  EXPECT_NEAR(loss.loss.item<double>(), loss.nll_sum / trie_->levels() / settings.nll_groups, kExact);
}

// The value loss beside the other terms: V at each of a completion's own tokens, of whole sequences, towards targets
// that are held constant.
class ValueLossTest : public RlStepTest {
 protected:
  static constexpr double kWeight = 0.7;
  static constexpr double kGamma = 0.9;

  std::unique_ptr<Policy> MakeValued() const {
    PolicyConfig config = testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
    config.value_hidden = 6;
    return testing::RandomPolicy(config, trie_, 3, at::kDouble);
  }

  // Random step rewards of every member of every group with a plan; half of the completions begin as the target does.
  RlStepSettings Prepare(Bootstrap bootstrap) {
    MakeGroups(*MakeValued());
    for (size_t g = 0; g + 1 < groups_.size(); ++g) {
      for (int i = 0; i < 2; ++i) {
        const absl::Span<const int32_t> tokens = trie_->TokensOfLeaf(groups_[g].target_leaf);
        scored_[g].completions[i].leaf = groups_[g].target_leaf;
        scored_[g].completions[i].tokens.assign(tokens.begin(), tokens.end());
      }
    }
    JudgeAll();
    Random random(21);
    double count = 0;
    for (RlGroup& group : groups_) {
      group.step_rewards.clear();
      for (size_t i = 0; i < group.plan.completions.size(); ++i) {
        std::vector<double>& rewards = group.step_rewards.emplace_back();
        for (int level = 0; level < trie_->levels(); ++level) rewards.push_back(random.Normal());
        count += trie_->levels();
      }
    }
    RlStepSettings settings = Settings();
    settings.value = {kWeight, kGamma, bootstrap, count};
    return settings;
  }

  at::Tensor NaiveValueLoss(const Policy& policy, const std::map<std::string, at::Tensor>& parameters,
                            const RlStepSettings& settings) const {
    at::Tensor loss = torch::zeros({}, torch::kDouble);
    for (const RlGroup& group : groups_) {
      for (size_t i = 0; i < group.plan.completions.size(); ++i) {
        const absl::Span<const int32_t> tokens = TokensOf(group, group.plan.completions[i]);
        PromptInput sequence = group.input;
        sequence.insert(sequence.end(), tokens.begin(), tokens.end());
        const at::Tensor hidden = testing::NaiveHidden(policy.config(), trie_.get(), parameters, sequence)
                                      .slice(0, static_cast<int64_t>(group.input.size()));
        const at::Tensor inner =
            hidden.matmul(parameters.at("value_head.up.weight").t()) + parameters.at("value_head.up.bias");
        const at::Tensor values = (inner * inner.sigmoid()).matmul(parameters.at("value_head.down.weight")[0]) +
                                  parameters.at("value_head.down.bias");
        const bool right = tokens[0] == trie_->TokensOfLeaf(group.target_leaf)[0];
        const bool ahead = settings.value.bootstrap == Bootstrap::kAlways || !right;
        for (int64_t level = 0; level < trie_->levels(); ++level) {
          at::Tensor target = torch::full({}, group.step_rewards[i][static_cast<size_t>(level)], torch::kDouble);
          if (ahead && level + 1 < trie_->levels()) target = target + kGamma * values[level + 1].detach();
          loss = loss + (values[level] - target).square();
        }
      }
    }
    return kWeight * loss / settings.value.count;
  }
};

TEST_F(ValueLossTest, TheGradientIsThatOfTheWrittenLossAddedToTheOthers) {
  for (const Bootstrap bootstrap : {Bootstrap::kAlways, Bootstrap::kFirstTokenWrong}) {
    const RlStepSettings settings = Prepare(bootstrap);
    const std::unique_ptr<Policy> policy = MakeValued();
    const RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
    loss.loss.backward();
    const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
    const at::Tensor value_loss = NaiveValueLoss(*policy, parameters, settings);
    (NaiveLoss(*policy, parameters, settings) + value_loss).backward();
    ExpectGradients(*policy, parameters, kExact);
    EXPECT_EQ(loss.values, settings.value.count);
    EXPECT_NEAR(kWeight * loss.value_sum / loss.values, value_loss.item<double>(), kExact);
  }
}

TEST_F(ValueLossTest, CompletionsWithoutAnyOtherWeightTrainTheValueToo) {
  options_.objective = ObjectiveKind::kGrpoOnly;
  options_.lambda = 0;
  const RlStepSettings settings = Prepare(Bootstrap::kAlways);
  const std::unique_ptr<Policy> policy = MakeValued();
  RlGroupLoss(*policy, *trie_, groups_, settings).value().loss.backward();
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  NaiveValueLoss(*policy, parameters, settings).backward();
  ExpectGradients(*policy, parameters, kExact);
}

TEST_F(ValueLossTest, AKlToTheReferenceStandsBesideIt) {
  options_.kl.beta = 0.3;
  RlStepSettings settings = Prepare(Bootstrap::kAlways);
  const std::unique_ptr<Policy> policy = MakeValued(), reference = MakeValued();
  reference->parameters().mul_(0.9);
  settings.reference = reference.get();
  const auto gradient = [&](double weight) {
    policy->gradients().zero_();
    settings.value.weight = weight;
    const RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
    EXPECT_GT(loss.kl_tokens, 0);
    loss.loss.backward();
    return policy->gradients().clone();
  };
  const at::Tensor without = gradient(0), with = gradient(kWeight);
  policy->gradients().zero_();
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  NaiveValueLoss(*policy, parameters, settings).backward();
  policy->gradients().copy_(with - without);
  ExpectGradients(*policy, parameters, kExact);
}

TEST_F(ValueLossTest, LanesPartsAndRanksLeaveItAsItIs) {
  const RlStepSettings settings = Prepare(Bootstrap::kAlways);
  const auto run = [&](int lanes, int64_t max_rows) {
    const std::unique_ptr<Policy> policy = MakeValued();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    const auto single = MakeSingleCollective();
    RlStepSettings own = settings;
    own.max_rows = max_rows;
    const auto shared = StepLanes::Create(policy.get(), nullptr, lanes).value();
    const RlStepResult result = RlStep(*shared, *trie_, optimizer, *single, groups_, own).value();
    EXPECT_EQ(result.values, settings.value.count);
    return std::make_pair(result.value_loss, policy->parameters().detach().clone());
  };
  const auto whole = run(1, 1 << 20), parts = run(1, 1), lanes = run(3, 40);
  EXPECT_NEAR(whole.first, parts.first, kExact);
  EXPECT_NEAR(whole.first, lanes.first, kExact);
  EXPECT_LT((whole.second - parts.second).abs().max().item<double>(), 1e-8);
  EXPECT_LT((whole.second - lanes.second).abs().max().item<double>(), 1e-8);
}

TEST_F(RlStepTest, WithoutAnyWeightNothingIsComputedAndNothingMoves) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  options_.objective = ObjectiveKind::kGrpoOnly;
  for (ScoredGroup& scored : scored_) scored.heads[0].completion_scores.assign(kGroupSize, 1.0f);
  for (ScoredGroup& scored : scored_) scored.heads[0].target_score = 1;
  JudgeAll();
  const at::Tensor before = policy->parameters().detach().clone();
  OptimizerOptions no_decay;
  no_decay.weight_decay = 0;
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), no_decay);
  const auto single = MakeSingleCollective();
  const RlStepResult result = RlStep(*policy, *trie_, optimizer, *single, groups_, Settings()).value();
  EXPECT_EQ(result.rows, 0);
  EXPECT_EQ(result.gradient_norm, 0);
  EXPECT_TRUE(policy->parameters().equal(before));
}

TEST_F(RlStepTest, TheTermsAreReportedApart) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  double nll = 0;
  for (const RlGroup& group : groups_) {
    const absl::Span<const int32_t> target = trie_->TokensOfLeaf(group.target_leaf);
    nll -= NaiveLogProbs(*policy, parameters, group, target, LogProbSpace::kFull).mean().item<double>();
  }
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
  const auto single = MakeSingleCollective();
  const RlStepSettings settings = Settings();
  const double loss = RlGroupLoss(*policy, *trie_, groups_, settings).value().loss.item<double>();
  const RlStepResult result = RlStep(*policy, *trie_, optimizer, *single, groups_, settings).value();
  EXPECT_NEAR(result.nll, nll / static_cast<double>(groups_.size()), kExact);
  EXPECT_NEAR(result.nll + result.grpo_loss, loss, kExact);
  EXPECT_GT(result.rows, 0);
}

TEST_F(RlStepTest, NeitherPartsNorWorldSizeChangeTheUpdate) {
  MakeGroups(*MakePolicy(), 7);
  struct Outcome {
    at::Tensor parameters;
    RlStepResult result;
  };
  std::vector<Outcome> outcomes;
  std::mutex mutex;
  const auto run = [&](int world_size, int64_t max_rows) {
    RunCollective(world_size, [&](Collective& collective) {
      const std::unique_ptr<Policy> policy = MakePolicy();
      AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
      RlStepSettings settings = Settings();
      settings.max_rows = max_rows;
      std::vector<RlGroup> mine;
      for (size_t g = 0; g < groups_.size(); ++g) {
        if (static_cast<int>(g) % world_size == collective.rank()) mine.push_back(groups_[g]);
      }
      Outcome outcome;
      for (int step = 0; step < 2; ++step) {
        const auto result = RlStep(*policy, *trie_, optimizer, collective, mine, settings);
        ASSERT_TRUE(result.ok()) << result.status();
        outcome.result = *result;
      }
      outcome.parameters = policy->parameters().detach().clone();
      std::lock_guard<std::mutex> lock(mutex);
      outcomes.push_back(outcome);
    });
  };
  run(1, 1 << 20);
  run(1, 1);  // a part a group
  run(1, 40);
  run(2, 1 << 20);
  run(3, 1);
  ASSERT_EQ(outcomes.size(), 8u);
  for (const Outcome& outcome : outcomes) {
    EXPECT_LE((outcome.parameters - outcomes[0].parameters).abs().max().item<double>(), 1e-8);
    EXPECT_NEAR(outcome.result.nll, outcomes[0].result.nll, 1e-8);
    EXPECT_NEAR(outcome.result.grpo_loss, outcomes[0].result.grpo_loss, 1e-8);
    EXPECT_EQ(outcome.result.compared, outcomes[0].result.compared);
    EXPECT_EQ(outcome.result.rows, outcomes[0].result.rows);
    EXPECT_NEAR(outcome.result.mismatch_max, outcomes[0].result.mismatch_max, 1e-8);
  }
}

TEST_F(RlStepTest, LanesChangeTheUpdateByRoundingAlone) {
  options_.kl.beta = 0.1;
  MakeGroups(*MakePolicy(), 7);
  const std::unique_ptr<Policy> reference = MakePolicy(/*seed=*/4);
  struct Outcome {
    at::Tensor parameters;
    RlStepResult result;
  };
  const auto run = [&](int lanes, int64_t max_rows) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    const auto single = MakeSingleCollective();
    RlStepSettings settings = Settings();
    settings.max_rows = max_rows;
    const auto shared = StepLanes::Create(policy.get(), reference.get(), lanes).value();
    Outcome outcome;
    for (int step = 0; step < 2; ++step) {
      const auto result = RlStep(*shared, *trie_, optimizer, *single, groups_, settings);
      EXPECT_TRUE(result.ok()) << result.status();
      if (result.ok()) outcome.result = *result;
    }
    outcome.parameters = policy->parameters().detach().clone();
    return outcome;
  };
  const Outcome one = run(1, 1 << 20);
  ASSERT_GT(one.result.kl_tokens, 0);
  for (const int lanes : {2, 3, 9}) {  // of 7 groups
    const Outcome outcome = run(lanes, lanes == 3 ? 1 : 1 << 20);
    EXPECT_LE((outcome.parameters - one.parameters).abs().max().item<double>(), 1e-8) << lanes;
    EXPECT_NEAR(outcome.result.nll, one.result.nll, 1e-8);
    EXPECT_NEAR(outcome.result.grpo_loss, one.result.grpo_loss, 1e-8);
    EXPECT_NEAR(outcome.result.kl, one.result.kl, 1e-8);
    EXPECT_NEAR(outcome.result.gradient_norm, one.result.gradient_norm, 1e-8);
    EXPECT_EQ(outcome.result.rows, one.result.rows);
    EXPECT_EQ(outcome.result.compared, one.result.compared);
    // However the threads are scheduled.
    EXPECT_TRUE(run(lanes, lanes == 3 ? 1 : 1 << 20).parameters.equal(outcome.parameters)) << lanes;
  }
}

TEST_F(RlStepTest, AnErrorInOneLaneEndsTheStep) {
  MakeGroups(*MakePolicy(), 4);
  const std::unique_ptr<Policy> policy = MakePolicy();
  const at::Tensor before = policy->parameters().detach().clone();
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
  const auto single = MakeSingleCollective();
  const auto lanes = StepLanes::Create(policy.get(), nullptr, 2).value();
  groups_.back().input.push_back(1 << 20);  // no such token
  const auto result = RlStep(*lanes, *trie_, optimizer, *single, groups_, Settings());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  EXPECT_TRUE(policy->parameters().equal(before));
}

TEST_F(RlStepTest, ARankWithoutGroupsTakesPart) {
  MakeGroups(*MakePolicy(), 1);
  std::vector<at::Tensor> results;
  std::mutex mutex;
  RunCollective(2, [&](Collective& collective) {
    const std::unique_ptr<Policy> policy = MakePolicy();
    AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
    const absl::Span<const RlGroup> mine =
        collective.rank() == 0 ? absl::Span<const RlGroup>(groups_) : absl::Span<const RlGroup>();
    ASSERT_TRUE(RlStep(*policy, *trie_, optimizer, collective, mine, Settings()).ok());
    std::lock_guard<std::mutex> lock(mutex);
    results.push_back(policy->parameters().detach().clone());
  });
  ASSERT_EQ(results.size(), 2u);
  EXPECT_TRUE(results[0].equal(results[1]));
}

TEST_F(RlStepTest, ComparesItsLogProbabilitiesWithTheActorsOfTheSameVersion) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  const auto record = [&](const RlGroup& group, absl::Span<const int32_t> tokens, LogProbSpace space) {
    const at::Tensor log_probs = NaiveLogProbs(*policy, parameters, group, tokens, space).to(torch::kFloat);
    return std::vector<float>(log_probs.data_ptr<float>(), log_probs.data_ptr<float>() + log_probs.numel());
  };
  for (size_t g = 0; g + 1 < groups_.size(); ++g) {
    for (Completion& completion : scored_[g].completions) {
      completion.log_probs_trie = record(groups_[g], completion.tokens, LogProbSpace::kTrie);
    }
    const absl::Span<const int32_t> target = trie_->TokensOfLeaf(groups_[g].target_leaf);
    scored_[g].target_log_probs_trie = record(groups_[g], target, LogProbSpace::kTrie);
  }
  JudgeAll();
  RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, Settings()).value();
  FetchSums(&loss);
  EXPECT_GT(loss.compared, 0);
  EXPECT_LT(loss.mismatch_max, 1e-5);  // recorded in float32

  scored_[0].completions[0].log_probs_trie[1] += 0.5f;
  loss = RlGroupLoss(*policy, *trie_, groups_, Settings()).value();
  FetchSums(&loss);
  EXPECT_NEAR(loss.mismatch_max, 0.5, 1e-5);
  EXPECT_NEAR(loss.mismatch_sum, 0.5, 1e-3);

  RlStepSettings later = Settings();
  later.learner_version = 8;  // the actors' weights are other ones: nothing to compare
  EXPECT_EQ(RlGroupLoss(*policy, *trie_, groups_, later).value().compared, 0);
}

// Objectives with ratios as they are written, by autograd: sum over tokens of g(r, A), sg() as detach().
at::Tensor NaiveRatioObjective(PolicyLossKind kind, const at::Tensor& log_probs, const at::Tensor& behavior,
                               double advantage) {
  const at::Tensor p = log_probs.exp(), held = p.detach(), old = behavior.exp();
  switch (kind) {
    case PolicyLossKind::kPpo:
      return torch::min(p / old * advantage, (p / old).clamp(0.8, 1.2) * advantage);
    case PolicyLossKind::kTruncated:
      return (held / old).clamp_max(2) * advantage * log_probs;
    case PolicyLossKind::kEcpo: {
      const at::Tensor ratio = p / (advantage < 0 ? torch::max(held / 1.3, old) : old);
      return torch::min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage);
    }
    case PolicyLossKind::kGbpo:
      return p / torch::max(old, advantage < 0 ? 1 - held : held) * advantage;
    case PolicyLossKind::kSaGcpo: {
      const double t = advantage > 0 ? 1 : 0.95;
      return torch::sigmoid(t * (p / old - 1)) * 4 / t * advantage;
    }
    case PolicyLossKind::kReinforce:
      break;
  }
  return p / held * advantage;
}

TEST_F(RlStepTest, ObjectivesWithRatiosHaveTheGradientsOfAutograd) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  options_.objective = ObjectiveKind::kGrpoOnly;
  options_.target_in_group = true;
  Random random(4);
  for (ScoredGroup& scored : scored_) {
    scored.behavior_version = 6;
    scored.target_log_probs_trie.assign(trie_->levels(), -0.7f);
    for (Completion& completion : scored.completions) {
      for (float& log_prob : completion.log_probs_trie) log_prob = static_cast<float>(-0.2 - 2 * random.Uniform());
    }
  }
  JudgeAll();
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  for (const PolicyLossKind kind : {PolicyLossKind::kPpo, PolicyLossKind::kTruncated, PolicyLossKind::kEcpo,
                                    PolicyLossKind::kGbpo, PolicyLossKind::kSaGcpo}) {
    RlStepSettings settings = Settings();
    settings.policy_loss.kind = kind;
    policy->gradients().zero_();
    const RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
    loss.loss.backward();
    EXPECT_EQ(loss.compared, 0);  // sampled under another version
    at::Tensor naive = torch::zeros({}, torch::kDouble);
    for (const RlGroup& group : groups_) {
      for (const CompletionPlan& completion : group.plan.completions) {
        const at::Tensor log_probs =
            NaiveLogProbs(*policy, parameters, group, TokensOf(group, completion), settings.grpo_space);
        const std::vector<float>& recorded = completion.source == CompletionPlan::kTarget
                                                 ? group.group->target_log_probs_trie
                                                 : group.group->completions[completion.source].log_probs_trie;
        const at::Tensor behavior =
            torch::tensor(std::vector<double>(recorded.begin(), recorded.end()), torch::kDouble);
        naive = naive - NaiveRatioObjective(kind, log_probs, behavior, completion.token_weight).sum();
      }
    }
    naive = naive / settings.grpo_groups;
    EXPECT_NEAR(loss.grpo_sum, naive.item<double>(), kExact);
    for (const auto& [name, parameter] : parameters) parameter.mutable_grad() = at::Tensor();
    naive.backward();
    ExpectGradients(*policy, parameters, kExact);
  }
}

TEST_F(RlStepTest, AKlToAReferencePolicyHasTheGradientOfItsDefinition) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  const std::unique_ptr<Policy> reference = testing::RandomPolicy(
      testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, 17, at::kDouble);
  MakeGroups(*policy);
  for (const LogProbSpace space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (g == 1) continue;  // a group behind a closed gate has none
      for (CompletionPlan& completion : groups_[g].plan.completions) completion.kl_weight = 0.3 / (kGroupSize * 2.0);
    }
    RlStepSettings settings = Settings();
    settings.grpo_space = space;
    EXPECT_EQ(RlGroupLoss(*policy, *trie_, groups_, settings).status().code(), absl::StatusCode::kInvalidArgument);
    settings.reference = reference.get();
    policy->gradients().zero_();
    const RlLoss loss = RlGroupLoss(*policy, *trie_, groups_, settings).value();
    loss.loss.backward();
    const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
    const std::map<std::string, at::Tensor> frozen = testing::NamedParameters(*reference);
    at::Tensor naive = NaiveLoss(*policy, parameters, settings);
    double kl_sum = 0, tokens = 0;
    for (const RlGroup& group : groups_) {
      for (const CompletionPlan& completion : group.plan.completions) {
        if (completion.kl_weight == 0) continue;
        const absl::Span<const int32_t> chosen = TokensOf(group, completion);
        const at::Tensor log_probs = NaiveLogProbs(*policy, parameters, group, chosen, space);
        const at::Tensor ratio = NaiveLogProbs(*reference, frozen, group, chosen, space).detach() - log_probs;
        const at::Tensor k3 = ratio.exp() - ratio - 1;
        naive = naive + completion.kl_weight * k3.sum() / settings.grpo_groups;
        kl_sum += k3.sum().item<double>();
        tokens += static_cast<double>(k3.numel());
      }
    }
    EXPECT_NEAR(loss.kl_sum, kl_sum, 1e-9);
    EXPECT_EQ(loss.kl_tokens, tokens);
    naive.backward();
    ExpectGradients(*policy, parameters, kExact);
  }
}

TEST_F(RlStepTest, WeightsByLevelAddToThoseOfTheCompletion) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  Random random(6);
  for (RlGroup& group : groups_) {
    for (CompletionPlan& completion : group.plan.completions) {
      for (int level = 0; level < trie_->levels(); ++level) completion.level_weights.push_back(random.Normal());
    }
  }
  const RlStepSettings settings = Settings();
  RlGroupLoss(*policy, *trie_, groups_, settings).value().loss.backward();
  const std::map<std::string, at::Tensor> parameters = testing::NamedParameters(*policy);
  at::Tensor naive = NaiveLoss(*policy, parameters, settings);
  for (const RlGroup& group : groups_) {
    for (const CompletionPlan& completion : group.plan.completions) {
      const at::Tensor log_probs =
          NaiveLogProbs(*policy, parameters, group, TokensOf(group, completion), settings.grpo_space);
      naive =
          naive - (torch::tensor(completion.level_weights, torch::kDouble) * log_probs).sum() / settings.grpo_groups;
    }
  }
  naive.backward();
  ExpectGradients(*policy, parameters, kExact);
}

TEST_F(RlStepTest, APositiveAdvantageMakesItsCompletionMoreProbable) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy, 2);
  groups_.resize(1);
  options_.objective = ObjectiveKind::kGrpoOnly;
  options_.target_in_group = false;
  scored_[0].heads[0].completion_scores = {0, 5, 0, 0};
  JudgeAll();
  const auto log_prob = [&] {
    return NaiveLogProbs(*policy, testing::NamedParameters(*policy), groups_[0], scored_[0].completions[1].tokens,
                         LogProbSpace::kTrie)
        .sum()
        .item<double>();
  };
  const double before = log_prob();
  AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
  const auto single = MakeSingleCollective();
  for (int step = 0; step < 5; ++step) {
    ASSERT_TRUE(RlStep(*policy, *trie_, optimizer, *single, groups_, Settings()).ok());
  }
  EXPECT_GT(log_prob(), before + 0.1);
}

// Three updates on the fake device and on the processor: the same weights and numbers, and the host waits for the
// numbers alone.
TEST_F(RlStepTest, OnADeviceAnUpdateIsTheSameAndReadsOnce) {
  if (TestPlacement().device.is_cuda()) GTEST_SKIP() << kNotBesideAGpu;
  MakeGroups(*MakePolicy(), 6);
  const auto single = MakeSingleCollective();
  struct Case {
    const char* name;
    PolicyLossKind kind;
    bool kl;
    int waits;  // of an update in two parts
  };
  for (const Case& one :
       {Case{"plain", PolicyLossKind::kReinforce, false, 1}, Case{"ppo", PolicyLossKind::kPpo, false, 3},
        Case{"kl", PolicyLossKind::kReinforce, true, 5}}) {
    SCOPED_TRACE(one.name);
    for (RlGroup& group : groups_) {
      for (CompletionPlan& completion : group.plan.completions) completion.kl_weight = one.kl ? 0.1 : 0;
    }
    std::vector<at::Tensor> parameters;
    std::vector<RlStepResult> results;
    for (const at::Device& device : {at::Device(at::kCPU), FakeDevice()}) {
      const std::unique_ptr<Policy> policy = MakePolicy(), reference = MakePolicy();
      Placement placement;
      placement.device = device;
      ASSERT_TRUE(policy->Place(placement).ok() && reference->Place(placement).ok());
      AdamW optimizer(policy->parameters(), policy->gradients(), policy->decay_mask(), {});
      RlStepSettings settings = Settings();
      settings.policy_loss.kind = one.kind;
      settings.reference = one.kl ? reference.get() : nullptr;
      settings.max_rows = 64;
      for (int step = 0; step < 3; ++step) {
        const FakeDeviceWaits waits;
        const auto result = RlStep(*policy, *trie_, optimizer, *single, groups_, settings);
        ASSERT_TRUE(result.ok()) << result.status();
        EXPECT_EQ(waits.count(), device.is_cpu() ? 0 : one.waits);
        results.push_back(*result);
      }
      parameters.push_back(policy->parameters().detach().to(at::kCPU));
    }
    EXPECT_LE((parameters[0] - parameters[1]).abs().max().item<double>(), 1e-9);
    for (size_t step = 0; step < 3; ++step) {
      const RlStepResult &want = results[step], &got = results[step + 3];
      EXPECT_NEAR(got.nll, want.nll, 1e-9);
      EXPECT_NEAR(got.grpo_loss, want.grpo_loss, 1e-9);
      EXPECT_NEAR(got.kl, want.kl, 1e-9);
      EXPECT_NEAR(got.gradient_norm, want.gradient_norm, 1e-9);
      EXPECT_NEAR(got.mismatch_mean, want.mismatch_mean, 1e-9);
      EXPECT_NEAR(got.mismatch_max, want.mismatch_max, 1e-9);
      EXPECT_EQ(got.compared, want.compared);
      EXPECT_EQ(got.rows, want.rows);
    }
    EXPECT_GT(results[0].compared, 0);
  }
}

TEST_F(RlStepTest, ACompletionOutsideTheCatalogIsRefused) {
  const std::unique_ptr<Policy> policy = MakePolicy();
  MakeGroups(*policy);
  scored_[0].completions[0].tokens[0] = 0;  // the pad token
  const absl::Status status = RlGroupLoss(*policy, *trie_, groups_, Settings()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("catalog"));
}

}  // namespace
}  // namespace sluice::learner

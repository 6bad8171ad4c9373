#include "learner/objective/judge.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

// Four completions of two tokens, leaves 0..3, rewards 1, 0, 0, 0; the target
// is leaf 9 and scores 3; one negative.
ScoredGroup Group() {
  ScoredGroup group;
  group.ordinal = 5;
  group.behavior_version = 7;
  group.catalog_version = "catalog-a";
  for (int i = 0; i < 4; ++i) {
    Completion completion;
    completion.tokens = {10 + i, 20 + i};
    completion.leaf = i;
    completion.log_probs_full = {-1.0f - static_cast<float>(i), -1};
    completion.log_probs_trie = {-1, -1};
    group.completions.push_back(completion);
  }
  group.score_status = ScoreStatus::kOk;
  group.heads = {{"score", {1, 0, 0, 0}, 3, {-1}}};
  group.negative_leaves = {30};
  group.target_log_probs_full = {-5, -5};
  group.target_log_probs_trie = {-5, -5};
  return group;
}

RlOptions Options() {
  RlOptions options;
  options.group_size = 4;
  options.lambda = 2;
  options.negative_weight = 1;
  options.target_in_group = false;
  options.gate.tau = 0.25;
  options.gate.rho = 0.5;
  options.gate.negatives = 1;
  return options;
}

const JudgeContext kContext{8, "catalog-a", 2};

GroupPlan MustJudge(const ScoredGroup* group, const RlOptions& options, const JudgeContext& context = kContext,
                    int32_t target = 9) {
  return Judge({5, group, target}, options, context).value();
}

TEST(JudgeTest, AnOpenGroupWeighsEachTokenByLambdaAdvantageOverGroupSizeAndLength) {
  const ScoredGroup group = Group();
  const GroupPlan plan = MustJudge(&group, Options());
  ASSERT_EQ(plan.verdict.reason, GateReason::kOpen);
  EXPECT_EQ(plan.staleness, 1u);
  EXPECT_DOUBLE_EQ(plan.nll_token_weight, 0.5);  // mean over two tokens
  // Rewards 1, 0, 0, 0: mean 1/4, deviation sqrt((9 + 3) / 16 / 3) = 1/2.
  const double advantage = 0.75 / (0.5 + 1e-4);
  EXPECT_NEAR(plan.completions[0].advantage, advantage, 1e-12);
  EXPECT_NEAR(plan.completions[0].token_weight, 2 * advantage / (4 * 2), 1e-12);
  EXPECT_NEAR(plan.completions[1].token_weight, -2 * advantage / 3 / (4 * 2), 1e-12);
  EXPECT_EQ(plan.completions[3].source, 3);
}

TEST(JudgeTest, AClosedGroupKeepsItsNllAndLosesItsWeights) {
  const ScoredGroup group = Group();
  const GroupPlan plan = MustJudge(&group, Options(), kContext,
                                   /*target=*/0);  // first in the list
  EXPECT_EQ(plan.verdict.reason, GateReason::kDifficulty);
  EXPECT_DOUBLE_EQ(plan.nll_token_weight, 0.5);
  for (const CompletionPlan& completion : plan.completions) EXPECT_EQ(completion.token_weight, 0);
  EXPECT_TRUE(plan.target_sampled);
}

TEST(JudgeTest, AnotherKindOfGateJudgesByItsOwnTestAndState) {
  ScoredGroup group = Group();
  group.history_items = {70, 71};
  group.heads[0].history_scores = {5, 4};
  RlOptions options = Options();
  options.gate.kind = GateKind::kHistory;
  const std::vector<int32_t> leaves = {40, 41};
  JudgeInput input{.ordinal = 5, .group = &group, .target_leaf = 9, .history_leaves = leaves, .region = 3};
  GroupPlan plan = Judge(input, options, kContext).value();
  EXPECT_EQ(plan.gate_reason, GateReason::kOpen);
  EXPECT_EQ(plan.verdict.reliability, 1);
  EXPECT_EQ(plan.observation.region, 3);
  EXPECT_EQ(plan.observation.target_place, 1);
  group.heads[0].history_scores = {5, -4};
  EXPECT_EQ(Judge(input, options, kContext)->gate_reason, GateReason::kReliability);

  GateState state;
  state.Observe({{3, 0, 0}, {4, 1, 1}}, 1);
  JudgeContext context = kContext;
  context.gate_state = &state;
  options.gate.kind = GateKind::kPooled;
  options.gate.pool_groups = 1;
  EXPECT_EQ(Judge(input, options, context)->gate_reason, GateReason::kReliability);
  EXPECT_EQ(Judge(input, options, kContext)->gate_reason, GateReason::kOpen);  // nothing was seen yet

  input.history_leaves = {};
  EXPECT_THAT(Judge(input, options, kContext).status().message(), HasSubstr("want leaves of the 2 items"));
}

TEST(JudgeTest, TheOracleNeedsNoScores) {
  ScoredGroup group = Group();
  group.score_status = ScoreStatus::kNotAsked;
  group.heads.clear();
  RlOptions options = Options();
  options.gate.kind = GateKind::kOracle;
  EXPECT_TRUE(NeedsScores(options));  // for the reward
  options.reward.kind = RewardKind::kRule;
  EXPECT_FALSE(NeedsScores(options));
  JudgeInput input{.ordinal = 5, .group = &group, .target_leaf = 9};
  EXPECT_EQ(Judge(input, options, kContext)->gate_reason, GateReason::kTruth);
  input.reliable = true;
  EXPECT_EQ(Judge(input, options, kContext)->gate_reason, GateReason::kOpen);
  EXPECT_EQ(Judge(input, options, kContext)->observation.region, kNoRegion);
  input.reliable = false;
  EXPECT_EQ(Judge(input, options, kContext)->gate_reason, GateReason::kReliability);
}

TEST(JudgeTest, HistoriesAreScoredForTheGateThatAsksAndForTheRecord) {
  RlOptions options = Options();
  EXPECT_FALSE(NeedsHistoryScores(options));
  options.record = true;
  EXPECT_TRUE(NeedsHistoryScores(options));
  options.objective = ObjectiveKind::kNllOnly;
  EXPECT_FALSE(NeedsHistoryScores(options));  // nobody is asked for anything
  options = Options();
  options.gate.kind = GateKind::kCombined;
  EXPECT_TRUE(NeedsHistoryScores(options));
  options.gate.single_test = GateSingleTest::kOwnCross;
  EXPECT_FALSE(NeedsHistoryScores(options));
  options.gate.kind = GateKind::kHistory;
  options.reward.kind = RewardKind::kRule;
  EXPECT_TRUE(NeedsScores(options));
  options.objective = ObjectiveKind::kMixture;
  EXPECT_FALSE(NeedsHistoryScores(options));  // the gate is not asked
}

TEST(JudgeTest, TheTargetReplacesTheLastCompletionOfAGroupThatLacksIt) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.target_in_group = true;
  const GroupPlan plan = MustJudge(&group, options);
  EXPECT_EQ(plan.completions[3].source, CompletionPlan::kTarget);
  EXPECT_EQ(plan.completions[3].reward, 3);
  // The gate and the reward mean see the group as sampled.
  EXPECT_EQ(plan.verdict.diagnostics.rank_policy, 5);
  EXPECT_DOUBLE_EQ(plan.reward_mean, 0.25);
  EXPECT_DOUBLE_EQ(plan.target_reward, 3);
  // Rewards 1, 0, 0, 3: mean 1, deviation sqrt(6 / 3).
  EXPECT_NEAR(plan.completions[3].advantage, 2 / (std::sqrt(2.0) + 1e-4), 1e-12);

  const GroupPlan found = MustJudge(&group, options, kContext, /*target=*/2);
  EXPECT_EQ(found.completions[3].source, 3);
}

TEST(JudgeTest, AShortGroupGainsTheTargetWithoutLosingACompletion) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.target_in_group = true;
  options.group_size = 16;  // the catalog had four legal leaves
  const GroupPlan plan = MustJudge(&group, options);
  ASSERT_EQ(plan.completions.size(), 5u);
  EXPECT_EQ(plan.completions[3].source, 3);
  EXPECT_EQ(plan.completions[4].source, CompletionPlan::kTarget);
  EXPECT_NEAR(plan.completions[4].token_weight, 2 * plan.completions[4].advantage / (5 * 2), 1e-12);
}

TEST(JudgeTest, EachOperationalReasonClosesTheGateButNotTheNll) {
  ScoredGroup group = Group();
  const auto reason = [&](const ScoredGroup* judged, uint64_t learner_version = 8) {
    const GroupPlan plan = MustJudge(judged, Options(), {learner_version, "catalog-a", 2});
    EXPECT_FALSE(plan.verdict.open);
    EXPECT_TRUE(IsOperational(plan.verdict.reason));
    EXPECT_TRUE(plan.completions.empty());
    EXPECT_DOUBLE_EQ(plan.nll_token_weight, 0.5);
    return plan.verdict.reason;
  };
  EXPECT_EQ(reason(nullptr), GateReason::kUnsampled);
  JudgeInput never_sampled;
  never_sampled.target_leaf = 0;
  never_sampled.reward_outage = true;
  EXPECT_EQ(Judge(never_sampled, Options(), {8, "catalog-a", 2})->verdict.reason, GateReason::kRewardUnavailable);
  EXPECT_EQ(reason(&group, 10), GateReason::kStale);  // 3 versions, 2 allowed
  EXPECT_EQ(reason(&group, 6),
            GateReason::kStale);  // from a future of another timeline
  group.score_status = ScoreStatus::kInvalid;
  EXPECT_EQ(reason(&group), GateReason::kRewardUnavailable);
  group.catalog_version = "catalog-b";
  EXPECT_EQ(reason(&group), GateReason::kCatalogChanged);
  EXPECT_TRUE(MustJudge(nullptr, Options()).error.empty());
}

TEST(JudgeTest, StalenessUpToTheBoundIsAccepted) {
  const ScoredGroup group = Group();
  EXPECT_TRUE(MustJudge(&group, Options(), {9, "catalog-a", 2}).verdict.open);
  RlOptions synchronous = Options();
  synchronous.staleness = 0;
  EXPECT_EQ(MustJudge(&group, synchronous).verdict.reason, GateReason::kStale);
  EXPECT_TRUE(MustJudge(&group, synchronous, {7, "catalog-a", 2}).verdict.open);
}

TEST(JudgeTest, AnUnusableScoreSaysWhy) {
  ScoredGroup group = Group();
  group.heads[0].name = "click";
  const GroupPlan plan = MustJudge(&group, Options());
  EXPECT_EQ(plan.verdict.reason, GateReason::kRewardUnavailable);
  EXPECT_THAT(plan.error, HasSubstr("without the head 'score'"));
}

TEST(JudgeTest, ObjectivesSwitchTermsOnAndOff) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.objective = ObjectiveKind::kNllOnly;
  EXPECT_EQ(MustJudge(&group, options).verdict.reason, GateReason::kObjective);
  EXPECT_EQ(MustJudge(nullptr, options).verdict.reason, GateReason::kObjective);
  EXPECT_GT(MustJudge(nullptr, options).nll_token_weight, 0);

  options.objective = ObjectiveKind::kGrpoOnly;
  // Leaf 0 heads the list: a gate would close.
  GroupPlan plan = MustJudge(&group, options, kContext, 0);
  EXPECT_EQ(plan.verdict.reason, GateReason::kFixedOpen);
  EXPECT_EQ(plan.nll_token_weight, 0);
  EXPECT_GT(plan.completions[0].token_weight, 0);
  EXPECT_EQ(MustJudge(nullptr, options).verdict.reason, GateReason::kUnsampled);

  options.objective = ObjectiveKind::kMixture;
  options.nll_reduction = NllReduction::kSum;
  plan = MustJudge(&group, options, kContext, 0);
  EXPECT_EQ(plan.verdict.reason, GateReason::kFixedOpen);
  EXPECT_EQ(plan.nll_token_weight, 1);
  EXPECT_GT(plan.completions[0].token_weight, 0);
}

TEST(JudgeTest, IndependentSamplesAreListedByLogProbability) {
  ScoredGroup group = Group();
  std::swap(group.completions[0],
            group.completions[3]);  // leaf 3, the least probable, was drawn first
  RlOptions options = Options();
  EXPECT_EQ(MustJudge(&group, options, kContext, 3).verdict.diagnostics.rank_policy, 1);
  for (const SamplerKind sampler : {SamplerKind::kSample, SamplerKind::kDynamic, SamplerKind::kValueGuided}) {
    options.sampler = sampler;
    EXPECT_EQ(MustJudge(&group, options, kContext, 3).verdict.diagnostics.rank_policy, 4);
  }
}

TEST(JudgeTest, TheSemanticRewardIsTheCosineOfItemVectors) {
  ScoredGroup group = Group();
  group.score_status = ScoreStatus::kNotAsked;
  group.heads.clear();
  RlOptions options = Options();
  options.objective = ObjectiveKind::kGrpoOnly;
  options.reward.kind = RewardKind::kSemantic;
  EXPECT_EQ(Judge({5, &group, 9}, options, kContext).status().code(), absl::StatusCode::kInvalidArgument);
  LeafVectors vectors{1, std::vector<float>(10, 2)};  // all alike but leaf 2, which points the other way
  vectors.values[2] = -1;
  JudgeContext context = kContext;
  context.vectors = &vectors;
  const GroupPlan plan = MustJudge(&group, options, context);
  ASSERT_EQ(plan.completions.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(plan.completions[i].reward, i == 2 ? -1 : 1);
  EXPECT_LT(plan.completions[2].token_weight, 0);
  EXPECT_EQ(plan.target_reward, 1);
  EXPECT_DOUBLE_EQ(plan.reward_mean, 0.5);
}

TEST(JudgeTest, ContradictoryLengthsAreInvalid) {
  ScoredGroup group = Group();
  group.completions[2].tokens.pop_back();
  EXPECT_EQ(Judge({5, &group, 9}, Options(), kContext).status().code(), absl::StatusCode::kInvalidArgument);
  group = Group();
  group.completions.clear();
  EXPECT_EQ(Judge({5, &group, 9}, Options(), kContext).status().code(), absl::StatusCode::kInvalidArgument);
  group = Group();
  EXPECT_EQ(Judge({5, &group, -1}, Options(), kContext).status().code(), absl::StatusCode::kInvalidArgument);
  group.target_log_probs_full.clear();
  RlOptions options = Options();
  EXPECT_TRUE(Judge({5, &group, 9}, options, kContext).ok());  // list mode does not need them
  options.gate.difficulty = DifficultyMode::kTeacherForced;
  EXPECT_EQ(Judge({5, &group, 9}, options, kContext).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(JudgeTest, AConvexMixtureTakesFromTheNllWhatTheScoresGet) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.mixing = Mixing::kConvex;
  options.lambda = 0.75;
  const GroupPlan open = MustJudge(&group, options);
  ASSERT_TRUE(open.verdict.open);
  EXPECT_DOUBLE_EQ(open.nll_token_weight, 0.5 * 0.25);
  EXPECT_NEAR(open.completions[0].token_weight, 0.75 * open.completions[0].advantage / 8, 1e-12);
  EXPECT_DOUBLE_EQ(MustJudge(&group, options, kContext, 0).nll_token_weight, 0.5);  // closed
  EXPECT_DOUBLE_EQ(MustJudge(nullptr, options).nll_token_weight, 0.5);
}

TEST(JudgeTest, TheMeanOverTheStepLeavesItsDivisionToTheStep) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.policy_loss.mean = TokenMean::kStep;
  const GroupPlan plan = MustJudge(&group, options);
  EXPECT_NEAR(plan.completions[0].token_weight, 2 * plan.completions[0].advantage, 1e-12);
  JudgeStatistics statistics;
  statistics.Add(plan, &group);
  EXPECT_EQ(statistics.tokens, 8);  // 4 completions of 2 tokens
  EXPECT_EQ(statistics.admitted_tokens, 8);
}

TEST(JudgeTest, AKlWeighsEveryTokenOfAnAdmittedGroup) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.kl.beta = 0.5;
  for (const CompletionPlan& member : MustJudge(&group, options).completions) {
    EXPECT_DOUBLE_EQ(member.kl_weight, 2 * 0.5 / 8);
  }
  for (const CompletionPlan& member : MustJudge(&group, options, kContext, 0).completions) {
    EXPECT_EQ(member.kl_weight, 0);
  }
}

TEST(JudgeTest, RuleRewardsNeedNoScores) {
  ScoredGroup group = Group();
  group.score_status = ScoreStatus::kNotAsked;
  group.heads.clear();
  RlOptions options = Options();
  options.objective = ObjectiveKind::kMixture;
  options.reward.kind = RewardKind::kRule;
  EXPECT_FALSE(NeedsScores(options));
  const GroupPlan plan = MustJudge(&group, options, kContext, 2);
  EXPECT_EQ(plan.verdict.reason, GateReason::kFixedOpen);
  EXPECT_EQ(plan.completions[2].reward, 1);
  EXPECT_DOUBLE_EQ(plan.reward_mean, 0.25);
  EXPECT_TRUE(MustJudge(&group, options).zero_advantage);  // nobody hit
  // Difficulty alone looks at no score; the ranker's tests do.
  options.objective = ObjectiveKind::kGated;
  options.gate.use_head = options.gate.use_suppression = false;
  EXPECT_EQ(MustJudge(&group, options).verdict.reason, GateReason::kOpen);
  options.gate.use_head = true;
  EXPECT_TRUE(NeedsScores(options));
  EXPECT_EQ(MustJudge(&group, options).verdict.reason, GateReason::kRewardUnavailable);
}

TEST(JudgeTest, TheInsertedTargetIsAHitOfTheRankingReward) {
  const ScoredGroup group = Group();
  RlOptions options = Options();
  options.objective = ObjectiveKind::kMixture;
  options.reward.kind = RewardKind::kRanking;
  EXPECT_TRUE(MustJudge(&group, options).zero_advantage);  // no hit: the released code gives 0 to all
  options.target_in_group = true;
  const GroupPlan plan = MustJudge(&group, options);
  EXPECT_EQ(plan.completions[3].reward, 1);
  EXPECT_EQ(plan.reward_mean, 0);  // as sampled, nobody hit
  const double sum = 1 + 1 / std::log2(3) + 1 / std::log2(4) + 1 / std::log2(5);
  EXPECT_NEAR(plan.completions[0].reward, -1 / sum, 1e-12);
  EXPECT_NEAR(plan.completions[2].reward, -1 / std::log2(4) / sum, 1e-12);
  options.reward.kind = RewardKind::kRankingOnly;
  EXPECT_EQ(MustJudge(&group, options).completions[3].reward, 0);
}

TEST(JudgeTest, IndependentSamplesArePenalisedByTheirProbability) {
  ScoredGroup group = Group();
  std::swap(group.completions[0], group.completions[3]);  // the least probable was drawn first
  RlOptions options = Options();
  options.objective = ObjectiveKind::kMixture;
  options.sampler = SamplerKind::kSample;
  options.reward.kind = RewardKind::kRankingOnly;
  options.reward.no_hit = RankingNoHit::kPenalize;
  const GroupPlan plan = MustJudge(&group, options);
  EXPECT_LT(plan.completions[3].reward, plan.completions[0].reward);
}

TEST(JudgeTest, ScoresAreCalibratedAsGrpoSrDoes) {
  ScoredGroup group = Group();
  group.heads[0].completion_scores = {0.9f, 0.05f, 0.4f, 0.3f};
  RlOptions options = Options();
  options.objective = ObjectiveKind::kMixture;
  options.reward.floor = 0.1;
  options.reward.positive_to_max = true;
  const GroupPlan plan = MustJudge(&group, options, kContext, /*target=*/3);
  EXPECT_FLOAT_EQ(plan.completions[0].reward, 0.9);
  EXPECT_EQ(plan.completions[1].reward, 0);
  EXPECT_FLOAT_EQ(plan.completions[3].reward, 0.9);  // the click
}

TEST(JudgeTest, RecastPutsTheTargetInPlaceOfTheLeastSimilar) {
  ScoredGroup group = Group();
  group.completions[0].tokens = {5, 20};
  group.completions[1].tokens = {5, 21};
  group.completions[2].tokens = {6, 22};
  group.completions[3].tokens = {5, 23};
  RlOptions options = Options();
  options.objective = ObjectiveKind::kMixture;
  options.target_in_group = true;
  options.advantage.kind = AdvantageKind::kRecast;
  const std::vector<int32_t> target = {5, 9};
  const GroupPlan plan = Judge({5, &group, 9, target}, options, kContext).value();
  ASSERT_EQ(plan.completions[2].source, CompletionPlan::kTarget);
  EXPECT_EQ(plan.completions[2].advantage, 1);
  EXPECT_EQ(plan.completions[0].advantage, -1);  // the closest miss that the policy likes best
  EXPECT_EQ(plan.completions[1].advantage, 0);
  EXPECT_FALSE(plan.zero_advantage);
  // Prefixes cannot be compared with nothing.
  EXPECT_EQ(Judge({5, &group, 9}, options, kContext).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(JudgeTest, SiblingsWeighEachLevelOfAnAdmittedGroup) {
  ScoredGroup group = Group();
  group.completions[0].tokens = {5, 20};
  group.completions[1].tokens = {5, 21};
  group.completions[2].tokens = {6, 22};
  group.completions[3].tokens = {6, 23};
  RlOptions options = Options();
  options.advantage.global_weight = 0.5;
  options.advantage.sibling_weight = 0.5;
  const std::vector<int32_t> target = {5, 9};
  const GroupPlan plan = Judge({5, &group, 9, target}, options, kContext).value();
  ASSERT_TRUE(plan.verdict.open);
  EXPECT_NEAR(plan.completions[0].token_weight, 2 * 0.5 * plan.completions[0].advantage / 8, 1e-12);
  // Rewards 1, 0, 0, 0. Root: means .5 and 0, so z = +-.25 / (.25 + eps), two members a node. Below 5: +-1.
  ASSERT_EQ(plan.completions[0].level_weights.size(), 2u);
  EXPECT_NEAR(plan.completions[0].level_weights[0], 2 * 0.5 * (0.25 / 0.2501) / 2 / 4, 1e-12);
  EXPECT_NEAR(plan.completions[1].level_weights[1], -2 * 0.5 * (0.5 / 0.5001) / 4, 1e-12);
  EXPECT_EQ(plan.completions[2].level_weights[1], 0);
  const GroupPlan closed = Judge({5, &group, 0, target}, options, kContext).value();
  ASSERT_FALSE(closed.verdict.open);
  EXPECT_TRUE(closed.completions[0].level_weights.empty());
}

TEST(JudgeTest, ATargetThatNoActorScoredStaysOutOfARatio) {
  ScoredGroup group = Group();
  group.target_log_probs_trie.clear();  // its history excludes it
  RlOptions options = Options();
  options.target_in_group = true;
  EXPECT_EQ(MustJudge(&group, options).completions[3].source, CompletionPlan::kTarget);
  options.policy_loss.kind = PolicyLossKind::kPpo;
  EXPECT_EQ(MustJudge(&group, options).completions[3].source, 3);
  options.grpo_space = LogProbSpace::kFull;
  EXPECT_EQ(MustJudge(&group, options).completions[3].source, CompletionPlan::kTarget);
}

TEST(JudgeStatisticsTest, SavedNumbersComeBackAndAddUp) {
  const ScoredGroup group = Group();
  JudgeStatistics statistics;
  statistics.Add(MustJudge(&group, Options()), &group);
  statistics.Add(MustJudge(&group, Options(), kContext, 0), &group);
  std::map<std::string, double> numbers = {{"best", 1}};
  statistics.Save("gate/", &numbers);
  EXPECT_EQ(numbers.at("gate/reason/open"), 1);
  EXPECT_EQ(numbers.at("gate/difficult_0_discriminable_1"), 1);
  EXPECT_EQ(numbers.at("gate/gate_open"), 1);
  JudgeStatistics restored;
  restored.Restore("gate/", numbers);
  EXPECT_EQ(restored.ToVector(), statistics.ToVector());
  restored.Add(statistics);
  EXPECT_EQ(restored.judged, 4);
  restored.Restore("gate/", {});
  EXPECT_EQ(restored.groups, 0);
}

TEST(JudgeStatisticsTest, CountsReasonsSharesAndTheTwoByTwo) {
  const ScoredGroup group = Group();
  ScoredGroup flat = Group();
  flat.heads[0].completion_scores = {0, 0, 0, 0};
  JudgeStatistics statistics;
  statistics.Add(MustJudge(&group, Options()), &group);  // open
  statistics.Add(MustJudge(&group, Options(), kContext, 0),
                 &group);  // difficulty: not difficult, discriminable
  statistics.Add(MustJudge(&flat, Options()),
                 &flat);                                   // open, but nothing to learn
  statistics.Add(MustJudge(nullptr, Options()), nullptr);  // unsampled
  EXPECT_DOUBLE_EQ(statistics.admission_rate(), 0.5);
  // The unsampled one used to count as a refusal of the gate, so that dose control raised lambda in an outage.
  EXPECT_DOUBLE_EQ(statistics.asked_admission_rate(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(statistics.degraded_share(), 0.25);
  EXPECT_DOUBLE_EQ(statistics.zero_advantage_share(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(statistics.reward_mean(), (0.25 + 0.25 + 0) / 3);
  EXPECT_DOUBLE_EQ(statistics.target_sampled_share(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(statistics.diversity(), 1);
  EXPECT_DOUBLE_EQ(statistics.mean_staleness(), 1);
  EXPECT_EQ(statistics.by_reason[static_cast<int>(GateReason::kUnsampled)], 1);
  EXPECT_EQ(statistics.difficulty_by_discriminability[1][1], 2);
  EXPECT_EQ(statistics.difficulty_by_discriminability[0][1], 1);
}

TEST(JudgeStatisticsTest, SumsOfRanksEqualTheWhole) {
  const ScoredGroup group = Group();
  JudgeStatistics first, second, whole;
  first.Add(MustJudge(&group, Options()), &group);
  second.Add(MustJudge(&group, Options(), kContext, 0), &group);
  second.Add(MustJudge(nullptr, Options()), nullptr);
  whole.Add(MustJudge(&group, Options()), &group);
  whole.Add(MustJudge(&group, Options(), kContext, 0), &group);
  whole.Add(MustJudge(nullptr, Options()), nullptr);
  std::vector<double> sum = first.ToVector();
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += second.ToVector()[i];
  EXPECT_EQ(JudgeStatistics::FromVector(sum).ToVector(), whole.ToVector());
  EXPECT_DOUBLE_EQ(JudgeStatistics::FromVector(sum).admission_rate(), 1.0 / 3);
}

}  // namespace
}  // namespace sluice::learner

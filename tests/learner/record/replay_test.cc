#include "learner/record/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/learner/record/recorded_market.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;

constexpr GateKind kKinds[] = {GateKind::kAdaGrpo, GateKind::kHistory,  GateKind::kOwnCross,
                               GateKind::kPooled,  GateKind::kCombined, GateKind::kOracle};

RlOptions Options(GateKind kind) {
  RlOptions options;
  options.record = true;
  options.gate.kind = kind;
  options.gate.pool_groups = 20;
  return options;
}

TEST(ReplayTest, TheRecordedSettingsGiveTheRecordedVerdictsExactly) {
  for (const GateKind kind : kKinds) {
    const RlOptions options = Options(kind);
    const RecordedRun run = RecordMarket({.steps = 20}, options);
    uint64_t reliabilities = 0;
    const ReplayOutcome outcome = Replay(run, options, options, [&](const GroupRecord& record, const GroupPlan& plan) {
                                    EXPECT_EQ(plan.gate_reason, record.gate_reason) << record.ordinal;
                                    EXPECT_EQ(plan.verdict.reliability, record.reliability) << record.ordinal;
                                    reliabilities += record.reliability.has_value();
                                  }).value();
    EXPECT_GT(outcome.groups, 600u);
    EXPECT_EQ(outcome.agree, outcome.groups);
    EXPECT_EQ(outcome.same_reason, outcome.groups);
    EXPECT_EQ(outcome.opened + outcome.closed, 0u);
    EXPECT_GT(outcome.open, 50u) << GateKindName(kind);
    EXPECT_LT(outcome.open, outcome.groups);
    EXPECT_GT(outcome.by_reason[static_cast<size_t>(GateReason::kUnsampled)], 0u);
    EXPECT_GT(outcome.by_reason[static_cast<size_t>(GateReason::kStale)], 0u);
    EXPECT_GT(outcome.by_reason[static_cast<size_t>(GateReason::kRewardUnavailable)], 0u);
    EXPECT_EQ(reliabilities > 0, kind != GateKind::kAdaGrpo) << GateKindName(kind);
  }
}

TEST(ReplayTest, AnotherJobsVerdictsComeOutOfThisOnesRecord) {
  // Two jobs over the same groups that differ in the gate alone: what one recorded, the other's record answers.
  const RlOptions first = Options(GateKind::kAdaGrpo);
  RlOptions second = Options(GateKind::kCombined);
  second.gate.tau = 0.6;
  second.gate.rho = 0.75;
  const RecordedRun run = RecordMarket({.steps = 20}, first);
  const RecordedRun want = RecordMarket({.steps = 20}, second);
  size_t step = 0, at = 0;
  uint64_t open = 0;
  const ReplayOutcome outcome = Replay(run, first, second, [&](const GroupRecord& record, const GroupPlan& plan) {
                                  while (want.steps[step][at].ordinal != record.ordinal) {
                                    if (++at == want.steps[step].size()) at = 0, ++step;
                                  }
                                  EXPECT_EQ(plan.gate_reason, want.steps[step][at].gate_reason);
                                  open += want.steps[step][at].gate_open;
                                }).value();
  EXPECT_EQ(outcome.open, open);
  EXPECT_LT(outcome.agree, outcome.groups);
  EXPECT_EQ(outcome.groups - outcome.agree, outcome.opened + outcome.closed);
  EXPECT_EQ(outcome.dose(), outcome.rate() * first.lambda);
  // Precision where the truth is known.
  EXPECT_EQ(outcome.known, outcome.asked);
  EXPECT_GT(static_cast<double>(outcome.known_open_reliable) / static_cast<double>(outcome.known_open), 0.95);
  EXPECT_NEAR(static_cast<double>(outcome.known_reliable) / static_cast<double>(outcome.known), 0.5, 0.1);
}

// Against a count by hand on the raw numbers: D, H and B by sorting, with fewer negatives than were recorded.
TEST(ReplayTest, FewerNegativesAreTheFirstOnesOfTheDraw) {
  const RlOptions recorded = Options(GateKind::kAdaGrpo);
  RlOptions wanted = recorded;
  wanted.gate.negatives = 2;
  wanted.gate.tau = 0.5;
  wanted.gate.rho = 0.25;
  const RecordedRun run = RecordMarket({.steps = 20}, recorded);
  uint64_t open = 0;
  for (const auto& step : run.steps) {
    for (const GroupRecord& record : step) {
      if (!record.group || record.group->heads.empty() || record.group->behavior_version == 1) continue;
      const ScoreHead& head = record.group->heads[0];
      if (record.target_leaf < 8) continue;  // in the first 8 of 16
      std::vector<float> pool = {head.target_score, head.negative_scores[0], head.negative_scores[1]};
      for (int k = 0; k < 16; ++k) {
        if (k != record.target_leaf) pool.push_back(head.completion_scores[k]);
      }
      std::sort(pool.begin(), pool.end(), std::greater<>());
      const auto place = [&](float score) { return std::find(pool.begin(), pool.end(), score) - pool.begin() + 1; };
      const auto last = static_cast<std::ptrdiff_t>(pool.size()) - 4;
      open += place(head.target_score) <= 8 && place(head.negative_scores[0]) > last &&
              place(head.negative_scores[1]) > last;
    }
  }
  EXPECT_EQ(Replay(run, recorded, wanted)->open, open);
  EXPECT_GT(open, 20u);
}

TEST(ReplayTest, ARecordCannotAnswerForWhatItLacks) {
  const RlOptions recorded = Options(GateKind::kAdaGrpo);
  const RecordedRun run = RecordMarket({.steps = 1}, recorded);
  const auto refused = [&](const RlOptions& wanted, const std::string& why) {
    const absl::Status status = Replay(run, recorded, wanted).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(why));
  };
  RlOptions wanted = recorded;
  wanted.gate.negatives = 5;
  refused(wanted, "rl.gate.negatives: the record holds 4 a group, 5 were asked for");
  wanted = recorded;
  wanted.gate.history_items = 11;
  refused(wanted, "rl.gate.history_items");
  wanted = recorded;
  wanted.group_size = 8;
  refused(wanted, "changes of rl.gate and rl.objective alone");
  wanted = recorded;
  wanted.objective = ObjectiveKind::kMixture;
  refused(wanted, "only gated can be asked");
  wanted = recorded;
  wanted.gate.rho = 0.1;
  refused(wanted, "bottom zone of 2 places");
  RlOptions unscored = recorded;
  unscored.objective = ObjectiveKind::kNllOnly;
  EXPECT_THAT(Replay(run, unscored, recorded).status().message(), HasSubstr("asked no ranker"));
}

// The rewards of a record may need vectors that it lacks; its verdicts do not.
TEST(ReplayTest, ARewardThatComparesItemsIsNoneOfTheGatesBusiness) {
  const RlOptions rule = [] {
    RlOptions options = Options(GateKind::kAdaGrpo);
    options.reward.kind = RewardKind::kRule;
    return options;
  }();
  RlOptions semantic = rule;
  semantic.reward.kind = RewardKind::kSemantic;
  const ReplayOutcome outcome = Replay(RecordMarket({}, rule), semantic, semantic).value();
  EXPECT_EQ(outcome.same_reason, outcome.groups);
  EXPECT_GT(outcome.open, 0u);
}

TEST(ReplayTest, AMixturesRecordAnswersForAGate) {
  RlOptions mixture = Options(GateKind::kAdaGrpo);
  mixture.objective = ObjectiveKind::kMixture;
  const RecordedRun run = RecordMarket({}, mixture);
  RlOptions gated = mixture;
  gated.objective = ObjectiveKind::kGated;
  EXPECT_EQ(Replay(run, mixture, gated)->open,
            Replay(RecordMarket({}, Options(GateKind::kAdaGrpo)), gated, gated)->open);
  const ReplayOutcome same = Replay(run, mixture, mixture).value();
  EXPECT_EQ(same.same_reason, same.groups);
}

TEST(ReplayTest, TableAndJsonSayTheSame) {
  const RlOptions options = Options(GateKind::kHistory);
  const ReplayOutcome outcome = Replay(RecordMarket({}, options), options, options).value();
  const std::string table = ReplayTable({&outcome, 1});
  EXPECT_THAT(table, HasSubstr("history"));
  EXPECT_THAT(table, HasSubstr("reward_unavailable"));
  const nlohmann::ordered_json json = ReplayJson({&outcome, 1});
  EXPECT_EQ(json[0]["kind"], "history");
  EXPECT_EQ(json[0]["threshold"], 0.9);
  EXPECT_EQ(json[0]["open"], outcome.open);
  uint64_t sum = 0;
  for (const auto& [reason, count] : json[0]["reasons"].items()) sum += count.get<uint64_t>();
  EXPECT_EQ(sum, outcome.groups);
}

}  // namespace
}  // namespace sluice::learner

// A run's record without a run: groups of a market by hand, judged step by step as a job does. Useful for tests of what
// reads records. Users of region 7 have a ranker that knows their taste, those of region 8 one that does not.
#ifndef SLUICE_TESTS_LEARNER_RECORD_RECORDED_MARKET_H_
#define SLUICE_TESTS_LEARNER_RECORD_RECORDED_MARKET_H_

#include <string>
#include <utility>
#include <vector>

#include "common/random/random.h"
#include "learner/record/record_file.h"

namespace sluice::learner {

struct MarketSettings {
  int steps = 12;
  int groups_per_step = 32;
  double reliable_share = 0.5;
  bool history = true;
  bool noise = false;  // scores are noise for everyone
  uint64_t seed = 1;
};

inline constexpr char kMarketCatalog[] = "catalog-a";

// Scored, not yet judged. Some groups are unsampled, unscored, stale or bad, so that every way to end is there.
inline GroupRecord MarketGroup(const MarketSettings& settings, const RlOptions& options, uint64_t step,
                               uint64_t ordinal, Random* random) {
  GroupRecord record;
  record.step = step;
  record.learner_version = step + 10;
  record.ordinal = ordinal;
  record.user = static_cast<int32_t>(ordinal % 1000);
  record.target = 500;
  record.target_leaf = random->Uniform() < 0.3 ? static_cast<int32_t>(random->Below(16)) : 500;
  record.target_tokens = {3, 40};
  const bool reliable = random->Uniform() < settings.reliable_share;
  record.region = reliable ? 7 : 8;
  record.reliable = reliable;
  const double event = random->Uniform();
  if (event < 0.02) {
    record.bad_data = true;
    return record;
  }
  if (event < 0.04) return record;  // unsampled
  ScoredGroup& group = record.group.emplace();
  group.ordinal = ordinal;
  group.attempt = 1;
  group.behavior_version = event < 0.06 ? 1 : record.learner_version;
  group.catalog_version = kMarketCatalog;
  group.ranker_version = "r";
  const auto score = [&](double taste) {
    return static_cast<float>(reliable && !settings.noise ? taste + 0.3 * random->Normal() : random->Normal());
  };
  ScoreHead head;
  head.name = options.reward.head;
  for (int k = 0; k < options.group_size; ++k) {
    Completion completion;
    completion.tokens = {3, 10 + k};
    completion.leaf = k;
    completion.log_probs_full = {-1 - 0.1f * static_cast<float>(k), static_cast<float>(-random->Uniform())};
    completion.log_probs_trie = {-1, -0.5f};
    group.completions.push_back(std::move(completion));
    head.completion_scores.push_back(score(2 + random->Normal()));
  }
  group.target_log_probs_full = {-2, -1};
  group.target_log_probs_trie = {-2, -1};
  for (int k = 0; k < options.gate.negatives; ++k) {
    group.negative_leaves.push_back(100 + k);
    head.negative_scores.push_back(score(-1 + random->Normal()));
  }
  if (settings.history) {
    for (int k = 0; k < options.gate.history_items; ++k) {
      group.history_items.push_back(200 + k);
      record.history_leaves.push_back(200 + k);
      head.history_scores.push_back(score(3 + random->Normal()));
    }
  }
  head.target_score = score(3 + random->Normal());
  if (event < 0.08) {
    group.score_status = ScoreStatus::kUnavailable;
    group.score_error = "nobody answered";
    group.ranker_version.clear();
    group.history_items.clear();
    record.history_leaves.clear();
  } else {
    group.score_status = ScoreStatus::kOk;
    group.heads = {std::move(head)};
  }
  return record;
}

// All groups of all steps with the verdicts that a job with these options would have given.
inline RecordedRun RecordMarket(const MarketSettings& settings, const RlOptions& options) {
  RecordedRun run;
  run.header = {kMarketCatalog, 2, static_cast<uint32_t>(settings.groups_per_step)};
  Random random(settings.seed);
  GateState state;
  uint64_t ordinal = 0;
  for (int step = 0; step < settings.steps; ++step) {
    std::vector<GroupRecord>& groups = run.steps.emplace_back();
    std::vector<GateObservation> observations;
    for (int i = 0; i < settings.groups_per_step; ++i) {
      GroupRecord record = MarketGroup(settings, options, static_cast<uint64_t>(step), ordinal++, &random);
      if (!record.bad_data) {
        const JudgeContext context = {.learner_version = record.learner_version,
                                      .catalog_version = kMarketCatalog,
                                      .levels = 2,
                                      .gate_state = &state};
        const GroupPlan plan = Judge(InputOf(record), options, context).value();
        record.gate_open = plan.gate_open;
        record.gate_reason = record.reason = plan.gate_reason;
        record.admission = plan.admission;
        record.reliability = plan.verdict.reliability;
        observations.push_back(plan.observation);
      }
      groups.push_back(std::move(record));
    }
    if (GatePools(options.gate)) state.Observe(observations, options.gate.pool_decay);
  }
  return run;
}

}  // namespace sluice::learner

#endif  // SLUICE_TESTS_LEARNER_RECORD_RECORDED_MARKET_H_

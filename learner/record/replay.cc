#include "learner/record/replay.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

absl::Status CheckAtMost(absl::string_view what, int wanted, int recorded) {
  if (wanted <= recorded) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": the record holds ", recorded, " a group, ", wanted, " were asked for; record them anew"));
}

template <typename T>
void Shorten(int size, std::vector<T>* list) {
  if (list->size() > static_cast<size_t>(size)) list->resize(static_cast<size_t>(size));
}

// The record as the actor would have sent it with fewer negatives and fewer items of the history: both lists are
// prefixes of the longer draw.
GroupRecord Shortened(GroupRecord record, const GateOptions& gate) {
  if (!record.group) return record;
  Shorten(gate.negatives, &record.group->negative_leaves);
  Shorten(gate.history_items, &record.group->history_items);
  Shorten(gate.history_items, &record.history_leaves);
  for (ScoreHead& head : record.group->heads) {
    Shorten(gate.negatives, &head.negative_scores);
    Shorten(gate.history_items, &head.history_scores);
  }
  return record;
}

void Add(const GroupRecord& record, const GroupPlan& plan, ReplayOutcome* outcome) {
  ++outcome->groups;
  ++outcome->by_reason[static_cast<size_t>(plan.gate_reason)];
  if (plan.gate_open) ++outcome->open;
  if (plan.gate_open == record.gate_open) ++outcome->agree;
  if (plan.gate_reason == record.gate_reason) ++outcome->same_reason;
  if (plan.gate_open && !record.gate_open) ++outcome->opened;
  if (!plan.gate_open && record.gate_open) ++outcome->closed;
  if (!plan.has_rewards) return;
  ++outcome->asked;
  if (!record.reliable) return;
  ++outcome->known;
  if (*record.reliable) ++outcome->known_reliable;
  if (!plan.gate_open) return;
  ++outcome->known_open;
  if (*record.reliable) ++outcome->known_open_reliable;
}

double Share(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// "pooled .5" would read as a share; the midpoint is said in words.
std::string ThresholdText(const GateOptions& gate) {
  const std::optional<double> threshold = GateThreshold(gate);
  if (gate.kind == GateKind::kAdaGrpo || gate.kind == GateKind::kOracle) return "-";
  return threshold ? absl::StrFormat("%.3g", *threshold) : "middle";
}

std::string ReasonsText(const ReplayOutcome& outcome) {
  std::string text;
  for (int reason = 0; reason < kNumGateReasons; ++reason) {
    const uint64_t count = outcome.by_reason[static_cast<size_t>(reason)];
    if (count == 0) continue;
    absl::StrAppendFormat(&text, "%s%s %.3f", text.empty() ? "" : ", ", GateReasonName(static_cast<GateReason>(reason)),
                          Share(count, outcome.groups));
  }
  return text;
}

}  // namespace

absl::string_view GateKindName(GateKind kind) {
  switch (kind) {
    case GateKind::kAdaGrpo:
      return "adagrpo";
    case GateKind::kHistory:
      return "history";
    case GateKind::kOwnCross:
      return "own_cross";
    case GateKind::kPooled:
      return "pooled";
    case GateKind::kCombined:
      return "combined";
    case GateKind::kOracle:
      return "oracle";
  }
  return "unknown";
}

absl::Status CheckReplayable(const RlOptions& recorded, const RlOptions& wanted) {
  RlOptions same = wanted;
  same.gate = recorded.gate;
  same.objective = recorded.objective;
  if (!(same == recorded)) {
    return absl::InvalidArgumentError(
        "a record answers for other gates over the same groups; want changes of rl.gate and rl.objective alone");
  }
  if (wanted.objective != recorded.objective && wanted.objective != ObjectiveKind::kGated) {
    return absl::InvalidArgumentError("rl.objective: only gated can be asked of a record besides its own");
  }
  SLUICE_RETURN_IF_ERROR(CheckAtMost("rl.gate.negatives", wanted.gate.negatives, recorded.gate.negatives));
  SLUICE_RETURN_IF_ERROR(CheckAtMost("rl.gate.history_items", wanted.gate.history_items, recorded.gate.history_items));
  if (NeedsScores(wanted) && !NeedsScores(recorded)) {
    return absl::InvalidArgumentError(
        "the recorded job asked no ranker, so its groups have no scores to test; record one whose reward is the "
        "ranker's, or whose gate asks for scores");
  }
  return wanted.objective == ObjectiveKind::kGated ? ValidateGate(wanted.gate, wanted.group_size) : absl::OkStatus();
}

absl::StatusOr<ReplayOutcome> Replay(const RecordedRun& run, const RlOptions& recorded, const RlOptions& wanted,
                                     const ReplayVisitor& visit) {
  SLUICE_RETURN_IF_ERROR(CheckReplayable(recorded, wanted));
  // No gate looks at what the reward makes of the scores, and some rewards need more than a record holds.
  RlOptions judged = wanted;
  if (judged.reward.kind != RewardKind::kRanker) judged.reward.kind = RewardKind::kRule;
  ReplayOutcome outcome;
  outcome.gate = wanted.gate;
  outcome.objective = wanted.objective;
  outcome.lambda = wanted.lambda;
  GateState state;
  JudgeContext context;
  context.catalog_version = run.header.catalog_version;
  context.levels = static_cast<int>(run.header.levels);
  context.gate_state = &state;
  for (const std::vector<GroupRecord>& step : run.steps) {
    std::vector<GateObservation> observations;
    for (const GroupRecord& whole : step) {
      if (whole.bad_data) continue;
      const GroupRecord record = Shortened(whole, wanted.gate);
      context.learner_version = record.learner_version;
      SLUICE_ASSIGN_OR_RETURN(const GroupPlan plan, Judge(InputOf(record), judged, context));
      Add(record, plan, &outcome);
      observations.push_back(plan.observation);
      if (visit) visit(record, plan);
    }
    if (GatePools(wanted.gate)) state.Observe(observations, wanted.gate.pool_decay);
  }
  return outcome;
}

std::string ReplayTable(absl::Span<const ReplayOutcome> outcomes) {
  std::string text = absl::StrFormat("%-10s %5s %5s %3s %9s %7s %7s %7s %7s %7s %9s  %s\n", "kind", "tau", "rho", "M",
                                     "threshold", "rate", "dose", "agree", "opened", "closed", "precision", "reasons");
  for (const ReplayOutcome& outcome : outcomes) {
    const std::string precision =
        outcome.known_open > 0 ? absl::StrFormat("%.3f", Share(outcome.known_open_reliable, outcome.known_open)) : "-";
    absl::StrAppendFormat(&text, "%-10s %5.3g %5.3g %3d %9s %7.4f %7.4f %7.4f %7.4f %7.4f %9s  %s\n",
                          outcome.objective == ObjectiveKind::kGated ? GateKindName(outcome.gate.kind) : "(none)",
                          outcome.gate.tau, outcome.gate.rho, outcome.gate.negatives, ThresholdText(outcome.gate),
                          outcome.rate(), outcome.dose(), Share(outcome.agree, outcome.groups),
                          Share(outcome.opened, outcome.groups), Share(outcome.closed, outcome.groups), precision,
                          ReasonsText(outcome));
  }
  return text;
}

nlohmann::ordered_json ReplayJson(absl::Span<const ReplayOutcome> outcomes) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ReplayOutcome& outcome : outcomes) {
    nlohmann::ordered_json row;
    row["kind"] = outcome.objective == ObjectiveKind::kGated ? std::string(GateKindName(outcome.gate.kind)) : "none";
    row["tau"] = outcome.gate.tau;
    row["rho"] = outcome.gate.rho;
    row["negatives"] = outcome.gate.negatives;
    if (const std::optional<double> threshold = GateThreshold(outcome.gate)) row["threshold"] = *threshold;
    row["groups"] = outcome.groups;
    row["asked"] = outcome.asked;
    row["open"] = outcome.open;
    row["rate"] = outcome.rate();
    row["lambda"] = outcome.lambda;
    row["dose"] = outcome.dose();
    row["agree"] = outcome.agree;
    row["same_reason"] = outcome.same_reason;
    row["opened"] = outcome.opened;
    row["closed"] = outcome.closed;
    for (int reason = 0; reason < kNumGateReasons; ++reason) {
      const uint64_t count = outcome.by_reason[static_cast<size_t>(reason)];
      if (count > 0) row["reasons"][std::string(GateReasonName(static_cast<GateReason>(reason)))] = count;
    }
    if (outcome.known > 0) {
      row["truth"] = {{"known", outcome.known},
                      {"reliable", outcome.known_reliable},
                      {"open", outcome.known_open},
                      {"open_reliable", outcome.known_open_reliable}};
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace sluice::learner

// Asks a gate again about groups that a run recorded: other tau, rho, fewer negatives, another kind, without sampling
// or scoring anything. The judge of training is what judges here, over the same numbers and a state that grows step by
// step as it did, so the recorded settings give the recorded verdicts exactly. Pure functions; thread-safe.
//
// What it cannot say: how the policy would have moved under other verdicts. The groups are those of the recorded run.
#ifndef SLUICE_LEARNER_RECORD_REPLAY_H_
#define SLUICE_LEARNER_RECORD_REPLAY_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/objective/judge.h"
#include "learner/options/options.h"
#include "learner/record/record_file.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice::learner {

struct ReplayOutcome {
  GateOptions gate;
  ObjectiveKind objective = ObjectiveKind::kGated;
  double lambda = 0;
  uint64_t groups = 0;  // judged; bad data is not
  uint64_t asked = 0;   // with a verdict of the gate itself, not of circumstances
  uint64_t open = 0;
  std::array<uint64_t, kNumGateReasons> by_reason{};
  // Against the gate's own recorded word, before any control.
  uint64_t agree = 0;        // both open or both closed
  uint64_t same_reason = 0;  // and for one reason
  uint64_t opened = 0;       // closed then, open now
  uint64_t closed = 0;       // open then, closed now
  // Over the asked groups whose truth is known (generated data): reliable ones, and of those that are open.
  uint64_t known = 0;
  uint64_t known_reliable = 0;
  uint64_t known_open = 0;
  uint64_t known_open_reliable = 0;

  double rate() const { return groups > 0 ? static_cast<double>(open) / static_cast<double>(groups) : 0; }
  double dose() const { return lambda * rate(); }
};

// InvalidArgument, in words: settings that the record cannot answer. `recorded` are those that it was made with; only
// the gate and whether the objective is gated may differ, with at most as many negatives and history items.
absl::Status CheckReplayable(const RlOptions& recorded, const RlOptions& wanted);

// Called with each record and what the judge says now.
using ReplayVisitor = std::function<void(const GroupRecord&, const GroupPlan&)>;

// Judges every recorded group under `wanted`. A control is not applied: the gate's own word is compared.
absl::StatusOr<ReplayOutcome> Replay(const RecordedRun& run, const RlOptions& recorded, const RlOptions& wanted,
                                     const ReplayVisitor& visit = nullptr);

// A table for people, one row an outcome, and the same as JSON.
std::string ReplayTable(absl::Span<const ReplayOutcome> outcomes);
nlohmann::ordered_json ReplayJson(absl::Span<const ReplayOutcome> outcomes);

// "adagrpo", "history", ... as a job spec has them.
absl::string_view GateKindName(GateKind kind);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RECORD_REPLAY_H_

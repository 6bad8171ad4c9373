// Whether scores can be had, as a state with hysteresis:
//
//             sick                 down                 back-off             a row of successes,
//   HEALTHY ---------> BROWNOUT ---------> OUTAGE ---------------> PROBING ---- canary in range ---> HEALTHY
//      ^                  |                  ^ ^                      |
//      +------ well ------+                  | +------ a failure -----+
//      +------------------ down, or a canary out of range (also from BROWNOUT)
//
//   sick  more than brownout_share of the answers failed, or more than 5 % took longer than `slow`, at every moment of
//         one whole window
//   down  more than outage_share failed, at every moment of one whole window; or failures for `silence` with no success
//         between them
//   well  at most half of brownout_share failed and at most 2.5 % were slow, at every moment of one whole window
//
// Without answers there is no evidence, and the state stays: an idle job is not ill. OUTAGE is left for PROBING alone,
// whatever comes in late.
//
// Source of states and thresholds: reference/peers.md 5.6. Pure: time comes in as an argument and never runs
// backwards. Not thread-safe.
#ifndef SLUICE_LEARNER_LEDGER_REWARD_HEALTH_H_
#define SLUICE_LEARNER_LEDGER_REWARD_HEALTH_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sluice::learner {

enum class RewardState { kHealthy, kBrownout, kOutage, kProbing };
inline constexpr int kNumRewardStates = 4;

// "healthy", "brownout", "outage", "probing": label values and log lines.
absl::string_view RewardStateName(RewardState state);

struct RewardHealthOptions {
  // Answers are counted over this long, and a condition must last as long before it counts.
  absl::Duration window = absl::Seconds(10);
  // Failures over this long, and no success, are an outage however few they are.
  absl::Duration silence = absl::Seconds(15);
  double brownout_share = 0.01;
  double outage_share = 0.5;
  // An answer that took longer is slow.
  absl::Duration slow = absl::Milliseconds(2500);
  // From the begin of an outage to the first probe; doubles with each probe that fails, up to the other.
  absl::Duration first_backoff = absl::Seconds(5);
  absl::Duration max_backoff = absl::Seconds(60);
  // Groups scored in a row before an outage is over.
  int successes = 20;
  // Steps over which leases come back to their full number after an outage.
  int ramp_steps = 10;

  // InvalidArgument names the field.
  absl::Status Validate() const;
};

struct RewardTransition {
  RewardState from = RewardState::kHealthy;
  RewardState to = RewardState::kHealthy;
  std::string cause;  // one sentence
};

class RewardHealth {
 public:
  RewardHealth(const RewardHealthOptions& options, absl::Time now);

  // One group got its scores, `delay` after they were asked for.
  void OnScored(absl::Duration delay, absl::Time now);
  // One group did not; `cause` in words.
  void OnFailed(absl::string_view cause, absl::Time now);
  // A group whose scores are known was scored again. From the first call on, PROBING ends well only after a canary in
  // range, and one out of range is an outage at once.
  void OnCanary(bool in_range, absl::string_view cause, absl::Time now);
  // Whether there is a canary to be asked; without one every score is believed.
  void HasCanary(bool has) {
    has_canary_ = has;
    trusted_ = trusted_ || !has;
  }
  // A step was committed.
  void OnStep();
  // Time passed.
  void Tick(absl::Time now);

  RewardState state() const { return state_; }
  // Since when, and why; empty before the first transition.
  absl::Time since() const { return since_; }
  const std::string& cause() const { return cause_; }
  // Begin of the outage that goes on (OUTAGE, PROBING); absent in the other states.
  std::optional<absl::Time> outage_since() const { return outage_since_; }
  // False from a canary out of range to the next one in range: scores that come are not to be believed.
  bool trusted() const { return trusted_; }
  // PROBING waits for a canary before it tries groups.
  bool awaits_canary() const { return state_ == RewardState::kProbing && has_canary_ && !canary_passed_; }
  // Share of the usual leases that may be out, in (0, 1].
  double pace() const { return pace_; }
  // How many leases whose groups are to be scored may be out, of `full` usually: all of them when healthy, fewer in a
  // brown-out and while they ramp up, none in an outage, one while probing.
  int MaxLeases(int full) const;

  // Since the last call, oldest first.
  std::vector<RewardTransition> TakeTransitions();

 private:
  static constexpr int kSlices = 10;

  struct Slice {
    int64_t number = -1;  // of the slice of time that it counts; -1: none
    uint64_t scored = 0;
    uint64_t failed = 0;
    uint64_t slow = 0;
  };

  Slice* SliceAt(absl::Time now);
  Slice Sum(absl::Time now) const;
  void Move(RewardState to, std::string cause, absl::Time now);
  void EnterOutage(std::string cause, absl::Time now);
  // Follows the conditions of the window, and what they ask for.
  void Update(absl::Time now);
  void UpdateBrownout(bool sick, bool well, absl::Time now);

  const RewardHealthOptions options_;
  const absl::Time begin_;
  const absl::Duration slice_;
  std::array<Slice, kSlices> slices_;

  RewardState state_ = RewardState::kHealthy;
  absl::Time since_;
  std::string cause_;
  std::string last_failure_;
  std::optional<absl::Time> outage_since_;
  // Since when each condition holds without a break.
  std::optional<absl::Time> sick_since_, down_since_, well_since_;
  std::optional<absl::Time> failing_since_;  // the first failure after the last success
  absl::Duration backoff_;
  int row_ = 0;  // successes in a row while probing
  bool has_canary_ = false;
  bool canary_passed_ = false;  // since PROBING began
  bool trusted_ = true;
  double pace_ = 1;
  absl::Time paced_at_;  // when the pace was last changed in a brown-out
  std::vector<RewardTransition> transitions_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_REWARD_HEALTH_H_

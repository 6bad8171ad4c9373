#include "learner/ledger/reward_health.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice::learner {
namespace {

// p95 > slow, said of counts.
constexpr double kSlowShare = 0.05;
// Half of what made it sick: between the two nothing changes.
constexpr double kHysteresis = 0.5;
// A brown-out halves the leases for each window that stays sick and gives a tenth back for each that does not.
constexpr double kCut = 0.5;
constexpr double kGrowth = 0.1;
constexpr double kLeastPace = 0.1;
// Of ramp_steps additions.
constexpr double kRounding = 1e-6;

// Since when `holds`, which is true or false now.
void Follow(bool holds, absl::Time now, std::optional<absl::Time>* since) {
  if (!holds) {
    since->reset();
  } else if (!since->has_value()) {
    *since = now;
  }
}

bool Lasted(const std::optional<absl::Time>& since, absl::Duration limit, absl::Time now) {
  return since.has_value() && now - *since >= limit;
}

std::string Because(absl::string_view what, const std::string& failure) {
  return failure.empty() ? std::string(what) : absl::StrCat(what, "; the last failure: ", failure);
}

}  // namespace

absl::string_view RewardStateName(RewardState state) {
  switch (state) {
    case RewardState::kHealthy:
      return "healthy";
    case RewardState::kBrownout:
      return "brownout";
    case RewardState::kOutage:
      return "outage";
    case RewardState::kProbing:
      break;
  }
  return "probing";
}

absl::Status RewardHealthOptions::Validate() const {
  for (const auto& [name, value] : {std::pair{"window", window}, std::pair{"silence", silence}, std::pair{"slow", slow},
                                    std::pair{"first_backoff", first_backoff}}) {
    if (value <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": want > 0, got ", absl::FormatDuration(value)));
    }
  }
  if (max_backoff < first_backoff) {
    return absl::InvalidArgumentError(absl::StrCat("max_backoff: want at least first_backoff, ",
                                                   absl::FormatDuration(first_backoff), ", got ",
                                                   absl::FormatDuration(max_backoff)));
  }
  if (!(brownout_share > 0 && brownout_share <= outage_share && outage_share < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("want 0 < brownout_share <= outage_share < 1, got ", brownout_share, " and ", outage_share));
  }
  if (successes < 1) return absl::InvalidArgumentError(absl::StrCat("successes: want >= 1, got ", successes));
  if (ramp_steps < 1) return absl::InvalidArgumentError(absl::StrCat("ramp_steps: want >= 1, got ", ramp_steps));
  return absl::OkStatus();
}

RewardHealth::RewardHealth(const RewardHealthOptions& options, absl::Time now)
    : options_(options),
      begin_(now),
      slice_(options.window / kSlices),
      since_(now),
      backoff_(options.first_backoff),
      paced_at_(now) {}

// ----------------------------------------------------------------------------------------------------- the window

RewardHealth::Slice* RewardHealth::SliceAt(absl::Time now) {
  const int64_t number = (now - begin_) / slice_;
  Slice& slice = slices_[static_cast<size_t>(number % kSlices)];
  if (slice.number != number) slice = Slice{.number = number};
  return &slice;
}

// An answer counts for at least nine tenths of a window and for less than a whole one, so that one answer alone never
// makes a condition last for a window.
RewardHealth::Slice RewardHealth::Sum(absl::Time now) const {
  const int64_t number = (now - begin_) / slice_;
  Slice sum;
  for (const Slice& slice : slices_) {
    if (slice.number < 0 || slice.number <= number - kSlices) continue;
    sum.scored += slice.scored;
    sum.failed += slice.failed;
    sum.slow += slice.slow;
  }
  return sum;
}

// ----------------------------------------------------------------------------------------------------- what comes in

void RewardHealth::OnScored(absl::Duration delay, absl::Time now) {
  Slice* slice = SliceAt(now);
  ++slice->scored;
  if (delay > options_.slow) ++slice->slow;
  failing_since_.reset();
  if (state_ == RewardState::kProbing) ++row_;
  Update(now);
}

void RewardHealth::OnFailed(absl::string_view cause, absl::Time now) {
  ++SliceAt(now)->failed;
  last_failure_ = std::string(cause);
  if (!failing_since_.has_value()) failing_since_ = now;
  if (state_ == RewardState::kProbing) {
    EnterOutage(absl::StrCat("a probe failed: ", cause), now);
  } else if (state_ != RewardState::kOutage && Lasted(failing_since_, options_.silence, now)) {
    EnterOutage(
        Because(absl::StrCat("no group was scored for ", absl::FormatDuration(now - *failing_since_)), last_failure_),
        now);
  }
  Update(now);
}

void RewardHealth::OnCanary(bool in_range, absl::string_view cause, absl::Time now) {
  has_canary_ = true;
  trusted_ = in_range;
  if (!in_range) {
    last_failure_ = std::string(cause);
    row_ = 0;
    if (state_ != RewardState::kOutage) EnterOutage(absl::StrCat("the canary is out of range: ", cause), now);
  } else if (state_ == RewardState::kProbing) {
    canary_passed_ = true;
  }
  Update(now);
}

void RewardHealth::OnStep() {
  if (state_ != RewardState::kHealthy || pace_ >= 1) return;
  pace_ += 1.0 / options_.ramp_steps;
  if (pace_ > 1 - kRounding) pace_ = 1;
  // Only a recovery that lasted makes the next outage a first one.
  if (pace_ >= 1) backoff_ = options_.first_backoff;
}

void RewardHealth::Tick(absl::Time now) { Update(now); }

// ------------------------------------------------------------------------------------------------------ transitions

void RewardHealth::Move(RewardState to, std::string cause, absl::Time now) {
  transitions_.push_back({state_, to, cause});
  state_ = to;
  since_ = now;
  cause_ = std::move(cause);
  sick_since_.reset();
  down_since_.reset();
  well_since_.reset();
}

void RewardHealth::EnterOutage(std::string cause, absl::Time now) {
  const bool again = state_ == RewardState::kProbing || (state_ == RewardState::kHealthy && pace_ < 1);
  backoff_ = again ? std::min(backoff_ * 2, options_.max_backoff) : options_.first_backoff;
  if (!outage_since_.has_value()) outage_since_ = now;
  Move(RewardState::kOutage, std::move(cause), now);
}

void RewardHealth::Update(absl::Time now) {
  if (state_ == RewardState::kOutage) {
    if (now - since_ < backoff_) return;
    row_ = 0;
    canary_passed_ = false;
    Move(RewardState::kProbing, absl::StrCat("trying again after ", absl::FormatDuration(backoff_)), now);
    return;
  }
  if (state_ == RewardState::kProbing) {
    if (row_ < options_.successes || (has_canary_ && !canary_passed_)) return;
    // What failed before counts no more: the window begins anew.
    slices_ = {};
    failing_since_.reset();
    outage_since_.reset();
    trusted_ = true;
    pace_ = 1.0 / options_.ramp_steps;
    Move(RewardState::kHealthy, absl::StrCat(row_, " groups in a row were scored"), now);
    return;
  }
  const Slice sum = Sum(now);
  const double all = static_cast<double>(sum.scored + sum.failed);
  const double failed = static_cast<double>(sum.failed);
  const double slow = static_cast<double>(sum.slow);
  const double scored = static_cast<double>(sum.scored);
  const bool sick = failed > options_.brownout_share * all || slow > kSlowShare * scored;
  const bool well =
      all > 0 && failed <= kHysteresis * options_.brownout_share * all && slow <= kHysteresis * kSlowShare * scored;
  Follow(failed > options_.outage_share * all, now, &down_since_);
  Follow(sick, now, &sick_since_);
  Follow(well, now, &well_since_);
  if (Lasted(down_since_, options_.window, now)) {
    EnterOutage(
        Because(absl::StrFormat("%d of %d groups were not scored", sum.failed, sum.scored + sum.failed), last_failure_),
        now);
  } else if (state_ == RewardState::kBrownout) {
    UpdateBrownout(sick, well, now);
  } else if (Lasted(sick_since_, options_.window, now)) {
    pace_ = std::max(kLeastPace, pace_ * kCut);
    paced_at_ = now;
    Move(RewardState::kBrownout,
         sum.failed > 0
             ? Because(absl::StrFormat("%d of %d groups were not scored", sum.failed, sum.scored + sum.failed),
                       last_failure_)
             : absl::StrFormat("%d of %d groups waited for their scores for more than %s", sum.slow, sum.scored,
                               absl::FormatDuration(options_.slow)),
         now);
  }
}

void RewardHealth::UpdateBrownout(bool sick, bool well, absl::Time now) {
  if (well && Lasted(well_since_, options_.window, now)) {
    Move(RewardState::kHealthy, "groups are scored in time again", now);
    return;
  }
  if (now - paced_at_ < options_.window) return;
  paced_at_ = now;
  pace_ = sick ? std::max(kLeastPace, pace_ * kCut) : std::min(1.0, pace_ + kGrowth);
}

int RewardHealth::MaxLeases(int full) const {
  switch (state_) {
    case RewardState::kOutage:
      return 0;
    case RewardState::kProbing:
      return awaits_canary() ? 0 : 1;
    default:
      break;
  }
  if (pace_ >= 1) return std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>(std::ceil(pace_ * full)));
}

std::vector<RewardTransition> RewardHealth::TakeTransitions() { return std::exchange(transitions_, {}); }

}  // namespace sluice::learner

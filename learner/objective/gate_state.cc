#include "learner/objective/gate_state.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// How much the newest step counts in the mean rate: about ten steps of memory, so that one step without open groups
// does not throw lambda to its bound.
constexpr double kNewestRate = 0.1;
constexpr size_t kNumbersOfObservation = 3;

}  // namespace

int32_t RegionOf(absl::Span<const int32_t> level1_codes) {
  std::map<int32_t, int> count;
  int most = 0;
  for (const int32_t code : level1_codes) most = std::max(most, ++count[code]);
  for (size_t i = level1_codes.size(); i > 0; --i) {
    if (count[level1_codes[i - 1]] == most) return level1_codes[i - 1];
  }
  return kNoRegion;
}

std::optional<double> GateState::Estimate(int32_t region, int min_groups) const {
  const auto found = regions_.find(region);
  if (found == regions_.end() || found->second.groups < min_groups) return std::nullopt;
  const Region& sums = found->second;
  return (sums.single / sums.groups + sums.target_place / sums.groups) / 2;
}

std::optional<GateState::Range> GateState::Estimates(int min_groups) const {
  std::optional<Range> range;
  for (const auto& [region, sums] : regions_) {
    const std::optional<double> estimate = Estimate(region, min_groups);
    if (!estimate) continue;
    if (!range) range = Range{*estimate, *estimate};
    range->low = std::min(range->low, *estimate);
    range->high = std::max(range->high, *estimate);
  }
  if (!range || !(range->low < range->high)) return std::nullopt;
  return range;
}

std::optional<double> GateState::Standing(int32_t region, int min_groups) const {
  const std::optional<double> estimate = Estimate(region, min_groups);
  const std::optional<Range> range = Estimates(min_groups);
  if (!estimate || !range) return std::nullopt;
  return (*estimate - range->low) / (range->high - range->low);
}

void GateState::Observe(absl::Span<const GateObservation> step, double decay) {
  for (auto& [region, sums] : regions_) {
    sums.groups *= decay;
    sums.single *= decay;
    sums.target_place *= decay;
  }
  for (const GateObservation& observation : step) {
    if (observation.region == kNoRegion) continue;
    Region& sums = regions_[observation.region];
    sums.groups += 1;
    sums.single += observation.single;
    sums.target_place += observation.target_place;
  }
}

void GateState::ControlDose(double rate, double lambda, const GateOptions& options) {
  mean_rate_ = dose_steps_ == 0 ? rate : (1 - kNewestRate) * mean_rate_ + kNewestRate * rate;
  dose_steps_ += 1;
  const double dose = lambda * mean_rate_;
  lambda_scale_ = dose > 0 ? std::clamp(options.target_dose / dose, 1 / options.dose_range, options.dose_range)
                           : options.dose_range;
}

void GateState::Save(absl::string_view prefix, std::map<std::string, double>* numbers) const {
  for (const auto& [region, sums] : regions_) {
    (*numbers)[absl::StrCat(prefix, "region/", region, "/groups")] = sums.groups;
    (*numbers)[absl::StrCat(prefix, "region/", region, "/single")] = sums.single;
    (*numbers)[absl::StrCat(prefix, "region/", region, "/target_place")] = sums.target_place;
  }
  if (dose_steps_ == 0) return;
  (*numbers)[absl::StrCat(prefix, "dose/steps")] = dose_steps_;
  (*numbers)[absl::StrCat(prefix, "dose/mean_rate")] = mean_rate_;
  (*numbers)[absl::StrCat(prefix, "dose/lambda_scale")] = lambda_scale_;
}

void GateState::Restore(absl::string_view prefix, const std::map<std::string, double>& numbers) {
  *this = GateState();
  for (auto at = numbers.lower_bound(std::string(prefix)); at != numbers.end(); ++at) {
    if (!absl::StartsWith(at->first, prefix)) break;
    const std::vector<std::string> parts = absl::StrSplit(at->first.substr(prefix.size()), '/');
    int32_t region = kNoRegion;
    if (parts.size() == 3 && parts[0] == "region" && absl::SimpleAtoi(parts[1], &region)) {
      Region& sums = regions_[region];
      if (parts[2] == "groups") sums.groups = at->second;
      if (parts[2] == "single") sums.single = at->second;
      if (parts[2] == "target_place") sums.target_place = at->second;
    } else if (parts.size() == 2 && parts[0] == "dose") {
      if (parts[1] == "steps") dose_steps_ = at->second;
      if (parts[1] == "mean_rate") mean_rate_ = at->second;
      if (parts[1] == "lambda_scale") lambda_scale_ = at->second;
    }
  }
}

std::vector<double> PackObservations(absl::Span<const GateObservation> observations, absl::Span<const size_t> places,
                                     size_t num_places) {
  SLUICE_CHECK(observations.size() == places.size(), "one place an observation");
  std::vector<double> numbers(kNumbersOfObservation * num_places, 0);
  for (size_t i = 0; i < places.size(); ++i) {
    SLUICE_CHECK(places[i] < num_places, "a place within the step");
    double* const at = &numbers[kNumbersOfObservation * places[i]];
    at[0] = observations[i].region + 1.0;  // 0: nothing
    at[1] = observations[i].single;
    at[2] = observations[i].target_place;
  }
  return numbers;
}

std::vector<GateObservation> UnpackObservations(absl::Span<const double> numbers) {
  std::vector<GateObservation> observations;
  for (size_t at = 0; at + kNumbersOfObservation <= numbers.size(); at += kNumbersOfObservation) {
    observations.push_back({static_cast<int32_t>(numbers[at]) - 1, numbers[at + 1], numbers[at + 2]});
  }
  return observations;
}

}  // namespace sluice::learner

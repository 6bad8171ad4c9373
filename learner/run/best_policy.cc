#include "learner/run/best_policy.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

constexpr char kPrefix[] = "best/";
constexpr char kWithoutGain[] = "validations_without_gain";

}  // namespace

bool BestPolicy::Offer(uint64_t step, const std::map<std::string, double>& metrics) {
  const auto offered = metrics.find(kMetric);
  if (offered == metrics.end()) return false;
  const auto best = metrics_.find(kMetric);
  const bool rose = best == metrics_.end() || offered->second > best->second;
  without_gain_ = rose ? 0 : without_gain_ + 1;
  if (!rose) {
    const auto offered_tie = metrics.find(kTieBreak);
    const auto best_tie = metrics_.find(kTieBreak);
    const bool better_tie = offered->second == best->second && offered_tie != metrics.end() &&
                            best_tie != metrics_.end() && offered_tie->second > best_tie->second;
    if (!better_tie) return false;
  }
  metrics_ = metrics;
  metrics_[kStep] = static_cast<double>(step);
  return true;
}

void BestPolicy::Save(std::map<std::string, double>* numbers) const {
  for (const auto& [name, value] : metrics_) (*numbers)[absl::StrCat(kPrefix, name)] = value;
  (*numbers)[kWithoutGain] = without_gain_;
}

void BestPolicy::Restore(const std::map<std::string, double>& numbers) {
  metrics_.clear();
  for (const auto& [name, value] : numbers) {
    if (absl::StartsWith(name, kPrefix)) metrics_[name.substr(sizeof(kPrefix) - 1)] = value;
  }
  const auto found = numbers.find(kWithoutGain);
  without_gain_ = found == numbers.end() ? 0 : static_cast<int>(found->second);
}

}  // namespace sluice::learner

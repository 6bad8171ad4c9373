#include "learner/objective/advantages.h"

#include <algorithm>
#include <cmath>

namespace sluice::learner {

GroupAdvantages ZScoreAdvantages(absl::Span<const double> rewards, double negative_weight, double epsilon) {
  GroupAdvantages result;
  result.values.assign(rewards.size(), 0.0);
  if (rewards.empty()) {
    result.zero_variance = true;
    return result;
  }
  for (const double reward : rewards) result.mean += reward;
  result.mean /= static_cast<double>(rewards.size());
  // Compared exactly: rounding of the mean must not turn equal rewards into
  // tiny advantages.
  const auto [least, most] = std::minmax_element(rewards.begin(), rewards.end());
  if (*least == *most) {
    result.zero_variance = true;
    return result;
  }
  double squares = 0;
  for (const double reward : rewards) squares += (reward - result.mean) * (reward - result.mean);
  result.deviation = std::sqrt(squares / static_cast<double>(rewards.size() - 1));
  for (size_t i = 0; i < rewards.size(); ++i) {
    const double advantage = (rewards[i] - result.mean) / (result.deviation + epsilon);
    result.values[i] = advantage < 0 ? advantage * negative_weight : advantage;
  }
  return result;
}

}  // namespace sluice::learner

#include "common/market/popularity_sampler.h"

#include <cmath>

#include "common/status/status.h"

namespace sluice {

PopularitySampler::PopularitySampler(absl::Span<const double> weights)
    : keep_(weights.size(), 1.0), other_(weights.size()) {
  double total = 0;
  for (const double weight : weights) {
    SLUICE_CHECK(std::isfinite(weight) && weight >= 0, "weights of a draw must be finite and not negative");
    total += weight;
  }
  SLUICE_CHECK(total > 0, "a draw needs a positive weight");
  std::vector<double> share(weights.size());  // 1 on average
  std::vector<int32_t> small, large;
  for (size_t i = 0; i < weights.size(); ++i) {
    share[i] = weights[i] / total * static_cast<double>(weights.size());
    other_[i] = static_cast<int32_t>(i);
    (share[i] < 1 ? small : large).push_back(static_cast<int32_t>(i));
  }
  while (!small.empty() && !large.empty()) {
    const int32_t from = large.back();
    const int32_t to = small.back();
    small.pop_back();
    keep_[to] = share[to];
    other_[to] = from;
    share[from] -= 1 - share[to];
    if (share[from] < 1) {
      large.pop_back();
      small.push_back(from);
    }
  }
  // The shares of the places that are left are 1 up to rounding: they keep their draws.
}

int32_t PopularitySampler::Draw(Random& random) const {
  const uint64_t place = random.Below(keep_.size());
  return random.Uniform() < keep_[place] ? static_cast<int32_t>(place) : other_[place];
}

}  // namespace sluice

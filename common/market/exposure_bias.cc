#include "common/market/exposure_bias.h"

#include <algorithm>
#include <cmath>

#include "common/market/popularity_sampler.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {

std::vector<std::vector<int32_t>> InjectExposureBias(const std::vector<std::vector<int32_t>>& sequences,
                                                     int64_t num_items, const ExposureBias& bias, uint64_t seed) {
  SLUICE_CHECK(bias.slate >= 2 && bias.missing >= 0 && bias.position >= 0, "exposure bias out of range");
  std::vector<double> count(static_cast<size_t>(num_items), 0.0);
  bool any = false;
  for (const std::vector<int32_t>& sequence : sequences) {
    for (const int32_t item : sequence) ++count[item];
    any = any || !sequence.empty();
  }
  if (!any) return sequences;
  const double largest = *std::max_element(count.begin(), count.end());
  const PopularitySampler exposure(count);

  std::vector<std::vector<int32_t>> left(sequences.size());
  for (size_t user = 0; user < sequences.size(); ++user) {
    for (size_t i = 0; i < sequences[user].size(); ++i) {
      const int32_t item = sequences[user][i];
      Random random(DeriveSeed(seed, {user}), i);
      const double draw = random.Uniform();
      double keep = std::pow(count[item] / largest, bias.missing);
      if (bias.position > 0) {
        int place = 1;
        for (int other = 1; other < bias.slate; ++other) {
          if (count[exposure.Draw(random)] >= count[item]) ++place;
        }
        keep *= std::pow(place, -bias.position);
      }
      if (draw < keep) left[user].push_back(item);
    }
  }
  return left;
}

}  // namespace sluice

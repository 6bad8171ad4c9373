// Draws items in proportion to weights, in constant time whatever their number: Walker's alias method.
#ifndef SLUICE_COMMON_MARKET_POPULARITY_SAMPLER_H_
#define SLUICE_COMMON_MARKET_POPULARITY_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/random/random.h"

namespace sluice {

// Immutable; thread-safe. Source: Vose 1991, "A linear algorithm for generating random numbers with a given
// distribution".
class PopularitySampler {
 public:
  // At least one weight; finite, not negative, one of them positive.
  explicit PopularitySampler(absl::Span<const double> weights);

  int32_t Draw(Random& random) const;

 private:
  std::vector<double> keep_;    // [items] probability that a draw of this place stays
  std::vector<int32_t> other_;  // [items] where it goes else
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MARKET_POPULARITY_SAMPLER_H_

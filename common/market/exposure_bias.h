// Exposure bias on a log of real events: what a log of a system that shows popular items more, and higher up, would
// have lost. A ranker trained on what is left is wrong where little was shown; one trained on the whole log is kept
// beside it, so that a gate's claim can be tested.
#ifndef SLUICE_COMMON_MARKET_EXPOSURE_BIAS_H_
#define SLUICE_COMMON_MARKET_EXPOSURE_BIAS_H_

#include <cstdint>
#include <vector>

namespace sluice {

struct ExposureBias {
  // An event of item i stays with probability (count of i / largest count)^missing ...
  double missing = 0;
  // ... times p^-position, where p is the place of i in a slate: itself and slate - 1 items drawn by their counts, with
  // more frequent ones first. Of equally frequent ones the event's own comes last.
  double position = 0;
  int slate = 20;
};

// The sequences (item numbers from 0, of one user each) without the events that the bias loses, in the same order; one
// that loses all becomes empty. Counts are those of the sequences. Each event has a draw of its own by (seed, user,
// place in the sequence), so that a larger missing exponent loses a superset. slate >= 2, exponents >= 0.
std::vector<std::vector<int32_t>> InjectExposureBias(const std::vector<std::vector<int32_t>>& sequences,
                                                     int64_t num_items, const ExposureBias& bias, uint64_t seed);

}  // namespace sluice

#endif  // SLUICE_COMMON_MARKET_EXPOSURE_BIAS_H_

// Plain numbers over the ranks of a group, for statistics that no tensor holds.
#ifndef SLUICE_COMMON_COLLECTIVE_SUMS_H_
#define SLUICE_COMMON_COLLECTIVE_SUMS_H_

#include <vector>

#include "absl/status/status.h"
#include "common/collective/collective.h"

namespace sluice {

// Replaces each value by its sum over ranks; as many values everywhere. Collective; errors of AllReduceSum.
absl::Status SumOverRanks(Collective& collective, std::vector<double>* values);

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_SUMS_H_

#ifndef SLUICE_COMMON_TYPES_GROUP_PLACE_H_
#define SLUICE_COMMON_TYPES_GROUP_PLACE_H_

#include <cstdint>

namespace sluice {

// A member's place in a group of processes that broadcast weights: the learner rank is its rank 0 and sends, actors are
// the others.
struct GroupPlace {
  uint64_t epoch = 0;  // names the group: another membership has another epoch, and so has a group after an error
  int rank = 0;
  int world_size = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_TYPES_GROUP_PLACE_H_

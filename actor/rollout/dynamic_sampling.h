// ReRe's dynamic sampling: draw more samples than the group takes, and keep those that tell most.
//
// Source: ReRe, arXiv 2510.12211, its released code. Pure; thread-safe.
#ifndef SLUICE_ACTOR_ROLLOUT_DYNAMIC_SAMPLING_H_
#define SLUICE_ACTOR_ROLLOUT_DYNAMIC_SAMPLING_H_

#include <cstdint>
#include <vector>

#include "common/types/group.h"

namespace sluice::actor {

// Samples to draw for a group of G: 1.5 G, rounded up.
int DynamicDraws(int group_size);

// G of the drawn completions: first all copies of the target, then one of every other semantic ID by how often it was
// drawn (the earlier drawn one if equally often), then second copies in the same order, third ones, and so on. What was
// drawn is all there is to repeat. Fewer than G if fewer were drawn. target_leaf -1: no target.
std::vector<Completion> SelectDynamic(std::vector<Completion> drawn, int32_t target_leaf, int group_size);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_DYNAMIC_SAMPLING_H_

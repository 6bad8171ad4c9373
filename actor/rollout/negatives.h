// Cross-sample negatives: what the policy generated for other prompts, as
// distractors that a ranker which tells items apart must push down.
//
// Source: the discriminability test of AdaGRPO (arXiv 2606.08480).
#ifndef SLUICE_ACTOR_ROLLOUT_NEGATIVES_H_
#define SLUICE_ACTOR_ROLLOUT_NEGATIVES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sluice::actor {

// Up to `count` distinct leaves drawn uniformly from those generated for other
// prompts than `own`, without the target's leaf (-1: none) and without prompt
// `own`'s generated leaves. In the order of the draw; fewer if fewer are left.
// A function of its arguments alone.
//
//   generated: [B][*] leaves of each prompt's completions, duplicates allowed.
std::vector<int32_t> DrawNegatives(absl::Span<const std::vector<int32_t>> generated, size_t own, int32_t target_leaf,
                                   int count, uint64_t seed);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_NEGATIVES_H_

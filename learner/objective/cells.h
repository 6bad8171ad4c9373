// The stratified analysis of the gate: groups by difficulty D and discriminability C, and how far the ranker puts the
// target before where the policy has it.
//
// Source: AdaGRPO, arXiv 2606.08480, whose claim is that the correction is near 0 on average and large where D = C = 1.
// Most of it is selection: D = 1 puts the target low under the policy, C = 1 puts it high under the ranker, whatever
// ranker. So the same groups are cut a second time by a ranker that scores at random, and only what goes beyond it says
// anything about a ranker. Pure functions; thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_CELLS_H_
#define SLUICE_LEARNER_OBJECTIVE_CELLS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "learner/objective/gate.h"
#include "learner/options/options.h"

namespace sluice::learner {

// What the gate would find of the group with scores drawn at random: one uniform draw for each semantic ID, a function
// of the seed and the ID, so that a completion and the target that are the same ID have one score. `seed`: of this
// group.
GateDiagnostics RandomRankerDiagnostics(GateInput input, const GateOptions& options, uint64_t seed);

// Rank of the target under the policy minus its rank under the ranker: positive where the ranker is nearer to the log.
inline double RankCorrection(const GateDiagnostics& found) { return found.rank_policy - found.rank_ranker; }

// Sums over groups in four cells, [difficult][discriminable]; sums of ranks and steps add up.
struct CellSums {
  struct Ranker {
    std::array<std::array<double, 2>, 2> groups{};
    std::array<std::array<double, 2>, 2> correction{};  // sum of RankCorrection

    void Add(const GateDiagnostics& found);
  };
  Ranker ranker;
  Ranker random;

  // "all", "d0_c0", "d0_c1", "d1_c0", "d1_c1", each with "groups", "share", "rank_correction" (mean), "random_share"
  // and "random_rank_correction". A mean of no groups is left out. Empty without groups.
  std::map<std::string, std::map<std::string, double>> Table() const;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_CELLS_H_

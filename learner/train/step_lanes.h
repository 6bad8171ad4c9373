// Several threads that share one training step: each passes part of the step's groups through the policy and adds to
// gradients of its own, which are summed in the order of the lanes.
//
// Why not torch's threads inside each operation: the layers of a small decoder are too small to be cut (a product takes
// a tenth of a millisecond, and half of a step is not a product). Two threads in each operation did a step of 1.25
// million parameters 1.14 times as fast as one.
//
// Groups are cut by cost, whatever the threads' speed, so a step ends in the same bytes for a number of lanes. Another
// number adds the gradients in another order: the same result up to rounding.
#ifndef SLUICE_LEARNER_TRAIN_STEP_LANES_H_
#define SLUICE_LEARNER_TRAIN_STEP_LANES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/policy.h"

namespace sluice::learner {

// [begin, end) of each lane's run of consecutive pieces, some maybe empty: the bounds where the sum of costs passes
// each lane's equal share, rounded to the nearer piece. A pure function. Costs at least 0; lanes at least 1.
struct LaneRange {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const LaneRange&) const = default;
};
std::vector<LaneRange> SplitByCost(absl::Span<const int64_t> costs, int lanes);

// How many lanes pay for a policy: TrainingLanes (common/plan/plan.h), and one where a device computes.
int LanesFor(const Policy& policy, int threads);

class StepLanes {
 public:
  // Lane 0 computes with `policy` and `reference` themselves, the others with twins of their own. Both must outlive
  // this, and must not be placed anew; reference may be null.
  // One lane runs on the caller's thread with all of torch's threads. More lanes have a thread each, on which torch
  // computes with that one thread.
  static absl::StatusOr<std::unique_ptr<StepLanes>> Create(Policy* policy, Policy* reference, int lanes);
  ~StepLanes();

  int count() const { return static_cast<int>(policies_.size()); }
  Policy& policy(int lane) { return *policies_[static_cast<size_t>(lane)]; }
  Policy* reference(int lane) { return references_[static_cast<size_t>(lane)]; }

  // Calls work(lane) once for every lane, all at once, and waits for all. The first error by lane. Not reentrant.
  absl::Status Run(const std::function<absl::Status(int lane)>& work);

  // Calls work(begin, end) for runs of [0, size), at once on all lanes; each but the last is a multiple of `grain`.
  // With more than one lane torch's own threads are left alone: they would go on spinning for milliseconds, on the
  // lanes' cores.
  void ForRange(int64_t size, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& work);

  // Adds the gradients of the other lanes to lane 0's, in order.
  void SumGradients();

 private:
  class Workers;
  StepLanes();

  std::vector<std::unique_ptr<Policy>> twins_;
  std::vector<Policy*> policies_;
  std::vector<Policy*> references_;   // of nulls without a reference
  std::unique_ptr<Workers> workers_;  // null for one lane
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_STEP_LANES_H_

// A collective whose calls are counted as waits for the other ranks.
#ifndef SLUICE_LEARNER_RUN_METERED_COLLECTIVE_H_
#define SLUICE_LEARNER_RUN_METERED_COLLECTIVE_H_

#include <memory>
#include <utility>

#include "common/collective/collective.h"
#include "common/metrics/blocked.h"

namespace sluice::learner {

// As thread-safe as what it passes everything on to.
class MeteredCollective : public Collective {
 public:
  // `peers` outlives this object.
  MeteredCollective(std::unique_ptr<Collective> inner, Blocked* peers) : inner_(std::move(inner)), peers_(peers) {}

  int rank() const override { return inner_->rank(); }
  int world_size() const override { return inner_->world_size(); }
  uint64_t epoch() const override { return inner_->epoch(); }
  absl::Status AllReduceSum(at::Tensor tensor) override {
    const Blocked::Wait wait(peers_);
    return inner_->AllReduceSum(std::move(tensor));
  }
  absl::Status Broadcast(at::Tensor tensor, int root) override {
    const Blocked::Wait wait(peers_);
    return inner_->Broadcast(std::move(tensor), root);
  }
  absl::Status Barrier() override {
    const Blocked::Wait wait(peers_);
    return inner_->Barrier();
  }
  void Abort() override { inner_->Abort(); }

 private:
  const std::unique_ptr<Collective> inner_;
  Blocked* const peers_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_METERED_COLLECTIVE_H_

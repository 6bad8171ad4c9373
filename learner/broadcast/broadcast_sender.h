// Rank 0 of the weight group: broadcasts versions to the actors from a thread of its own, so that neither training nor
// the hub ever waits for an actor.
#ifndef SLUICE_LEARNER_BROADCAST_BROADCAST_SENDER_H_
#define SLUICE_LEARNER_BROADCAST_BROADCAST_SENDER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/collective/weight_group.h"
#include "common/metrics/metrics.h"
#include "common/sync/epoch_kv_store.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "learner/publish/policy_snapshot.h"
#include "learner/publish/weight_sender.h"

namespace sluice::learner {

// Thread-safe. One order waits at most; a newer one takes its place, and it is told to have failed. So is one that
// comes while another is carried out: that one was given up and does not end (Gloo connects until its timeout, whatever
// an abort says), and nobody is to wait for it.
class BroadcastSender : public WeightSender {
 public:
  struct Options {
    FormGroup form;
    // Where the members find each other; keys of epochs before the present one are forgotten.
    std::shared_ptr<EpochKvStore> store;
    // The snapshot of a version, while it is kept.
    std::function<absl::StatusOr<std::shared_ptr<const PolicySnapshot>>(const std::string& job_id, uint64_t version)>
        find;
    // How the broadcast of a version went; called from any of the threads.
    std::function<void(uint64_t epoch, uint64_t version, bool ok)> done;
    NowFunction now;
    Counter* bytes_sent = nullptr;  // optional; must outlive the sender
  };

  explicit BroadcastSender(Options options);
  ~BroadcastSender() override;

  // Starts the thread; without it orders wait for RunOnce.
  void Start();
  // Ends what is under way and the thread; later orders are forgotten. Idempotent.
  void Stop();

  void Send(BroadcastOrder order) override;
  void Abort(uint64_t epoch) override;

  // Waits for an order and carries it out. False: stopped.
  bool RunOnce();

 private:
  absl::Status Broadcast(const BroadcastOrder& order);

  const Options options_;
  WeightGroup group_;
  Mutex mutex_;
  CondVar changed_;
  std::optional<BroadcastOrder> order_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_BROADCAST_BROADCAST_SENDER_H_

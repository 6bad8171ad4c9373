#include "learner/broadcast/broadcast_sender.h"

#include <limits>
#include <utility>

#include "common/log/log.h"
#include "common/status/status.h"

namespace sluice::learner {

BroadcastSender::BroadcastSender(Options options)
    : options_(std::move(options)), group_(options_.form, options_.store) {}

BroadcastSender::~BroadcastSender() { Stop(); }

void BroadcastSender::Start() {
  thread_ = StartThread("weight-send", [this] {
    while (RunOnce()) {
    }
  });
}

void BroadcastSender::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    order_.reset();
    changed_.NotifyAll();
  }
  group_.Abort(std::numeric_limits<uint64_t>::max());
  options_.store->Close();
  thread_.Join();
}

void BroadcastSender::Send(BroadcastOrder order) {
  options_.store->ForgetBefore(order.place.epoch);
  std::optional<BroadcastOrder> forgotten;
  {
    MutexLock lock(&mutex_);
    if (stopped_) return;
    if (sending_) {
      forgotten = std::move(order);
    } else {
      forgotten = std::exchange(order_, std::move(order));
    }
    changed_.NotifyAll();
  }
  if (forgotten) options_.done(forgotten->place.epoch, forgotten->version, false);
}

void BroadcastSender::Abort(uint64_t epoch) { group_.Abort(epoch); }

bool BroadcastSender::RunOnce() {
  BroadcastOrder order;
  {
    MutexLock lock(&mutex_);
    while (!stopped_ && !order_.has_value()) changed_.Wait(&mutex_);
    if (stopped_) return false;
    order = *std::exchange(order_, std::nullopt);
    sending_ = true;
  }
  const absl::Time began = options_.now();
  const absl::Status status = Broadcast(order);
  if (status.ok()) {
    Log(LogLevel::kDebug, "weights broadcast",
        {{"version", order.version},
         {"actors", order.place.world_size - 1},
         {"seconds", absl::ToDoubleSeconds(options_.now() - began)}});
  } else if (!absl::IsAborted(status)) {
    LogWarning("a broadcast of weights failed; the actors fetch them", {{"version", order.version},
                                                                        {"group_epoch", order.place.epoch},
                                                                        {"actors", order.place.world_size - 1},
                                                                        {"error", status.message()}});
  }
  {
    MutexLock lock(&mutex_);
    sending_ = false;
  }
  options_.done(order.place.epoch, order.version, status.ok());
  return true;
}

absl::Status BroadcastSender::Broadcast(const BroadcastOrder& order) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const PolicySnapshot> snapshot,
                          options_.find(order.job_id, order.version));
  const std::string& payload = snapshot->payload;
  // Rank 0's memory is only read; c10d and NCCL have one type for both.
  SLUICE_RETURN_IF_ERROR(group_.Broadcast(order.place, {const_cast<char*>(payload.data()), payload.size()},
                                          order.chunk_bytes, order.timeout));
  if (options_.bytes_sent != nullptr) options_.bytes_sent->Increment(static_cast<double>(payload.size()));
  return absl::OkStatus();
}

}  // namespace sluice::learner

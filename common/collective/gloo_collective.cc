// The only file that sees c10d's Gloo backend. Its headers want Gloo's own, which the wheel leaves out; cmake/stubs
// declares just what is named here.
#include <gloo/transport/tcp/pair.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/collective/check_call.h"
#include "common/collective/collective.h"
#include "common/status/status.h"
#include "common/sync/notification.h"

namespace sluice {
namespace {

// c10d's store over ours, under one prefix. Throws, as c10d expects.
class StoreAdapter : public c10d::Store {
 public:
  StoreAdapter(std::shared_ptr<KvStore> store, std::string prefix, std::chrono::milliseconds timeout)
      : c10d::Store(timeout), store_(std::move(store)), prefix_(std::move(prefix)) {}

  c10::intrusive_ptr<c10d::Store> clone() override {
    return c10::make_intrusive<StoreAdapter>(store_, prefix_, timeout_);
  }

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    ThrowIfError(store_->Set(prefix_ + key, std::string(value.begin(), value.end())));
  }

  std::vector<uint8_t> get(const std::string& key) override {
    const std::string value = Fetch(key, timeout_);
    return std::vector<uint8_t>(value.begin(), value.end());
  }

  int64_t add(const std::string& key, int64_t value) override {
    const absl::StatusOr<int64_t> sum = store_->Add(prefix_ + key, value);
    ThrowIfError(sum.status());
    return *sum;
  }

  bool check(const std::vector<std::string>& keys) override {
    return std::all_of(keys.begin(), keys.end(), [this](const std::string& key) {
      const absl::StatusOr<std::string> value = store_->Get(prefix_ + key, absl::ZeroDuration());
      if (!absl::IsDeadlineExceeded(value.status())) ThrowIfError(value.status());
      return value.ok();
    });
  }

  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  // c10d passes its own default of five minutes here; ours is the promise that counts.
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    for (const std::string& key : keys) Fetch(key, std::min(timeout, timeout_));
  }

  // Keys of an epoch go with the epoch, all at once, at the store's owner.
  bool deleteKey(const std::string&) override { return false; }
  int64_t getNumKeys() override { C10_THROW_ERROR(NotImplementedError, "KvStore does not count keys"); }

 private:
  static void ThrowIfError(const absl::Status& status) {
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }

  std::string Fetch(const std::string& key, std::chrono::milliseconds timeout) {
    absl::StatusOr<std::string> value = store_->Get(prefix_ + key, absl::FromChrono(timeout));
    ThrowIfError(value.status());
    return *std::move(value);
  }

  std::shared_ptr<KvStore> store_;
  std::string prefix_;
};

// Adds what ProcessGroupGloo of torch 2.14 lacks: abort, and notice of a peer that is gone but not waited for.
// Gloo's connections are fixed after construction and each takes its own lock, so any thread may call this.
class AbortableProcessGroup : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  // What Gloo itself does when an operation times out: waiters wake with an exception, sockets close, so peers wake
  // as well.
  void FailConnections(const std::string& message) {
    for (gloo::transport::tcp::Pair* pair : Connections()) pair->signalExceptionExternal(message);
  }

  bool AllConnected() {
    const std::vector<gloo::transport::tcp::Pair*> connections = Connections();
    return std::all_of(connections.begin(), connections.end(),
                       [](gloo::transport::tcp::Pair* pair) { return pair->isConnected(); });
  }

 private:
  std::vector<gloo::transport::tcp::Pair*> Connections() {
    std::vector<gloo::transport::tcp::Pair*> connections;
    for (const std::shared_ptr<gloo::Context>& context : contexts_) {
      for (int peer = 0; peer < getSize(); ++peer) {
        gloo::transport::Pair* pair = context->getPair(peer).get();
        // The cast that Gloo's own TCP context does; pairs of its TCP devices are of no other class.
        if (peer != getRank() && pair != nullptr)
          connections.push_back(reinterpret_cast<gloo::transport::tcp::Pair*>(pair));
      }
    }
    return connections;
  }
};

// Waits for `work`; throws its error. A call waits for some of its peers only (its neighbours in a ring, say), so
// a peer that left elsewhere would be noticed by the timeout alone: a connection that stays closed ends the call. Not
// at once, because a peer that is done with the last call may leave while this rank still finishes it.
void WaitForWork(AbortableProcessGroup& group, const c10::intrusive_ptr<c10d::Work>& work) {
  constexpr absl::Duration kCheckPeriod = absl::Milliseconds(100);
  constexpr int kClosedChecks = 10;
  auto done = std::make_shared<Notification>();
  work->getFuture()->addCallback([done](c10::ivalue::Future&) { done->Notify(); });
  for (int closed = 0; !done->WaitFor(kCheckPeriod);) {
    if (!group.AllConnected() && ++closed >= kClosedChecks) {
      group.FailConnections("the connection to a peer was closed");
    }
  }
  work->wait();
}

absl::Status StatusFromException(const std::exception& error, absl::string_view what) {
  // The first line only: c10d appends a backtrace. The text never tells who is gone: errors cascade.
  const std::string text = error.what();
  const std::string message = absl::StrCat(what, ": ", text.substr(0, text.find('\n')));
  const std::string lower = absl::AsciiStrToLower(text);
  const bool late = absl::StrContains(lower, "timed out") || absl::StrContains(lower, "timeout") ||
                    absl::StrContains(lower, "deadline_exceeded");
  return late ? absl::DeadlineExceededError(message) : absl::UnavailableError(message);
}

class GlooCollective : public Collective {
 public:
  GlooCollective(c10::intrusive_ptr<AbortableProcessGroup> group, uint64_t epoch)
      : group_(std::move(group)), epoch_(epoch) {}

  int rank() const override { return group_->getRank(); }
  int world_size() const override { return group_->getSize(); }
  uint64_t epoch() const override { return epoch_; }

  absl::Status AllReduceSum(at::Tensor tensor) override {
    SLUICE_RETURN_IF_ERROR(CheckTensor(tensor, "all-reduce"));
    return Run("all-reduce", [&] {
      std::vector<at::Tensor> tensors = {OnHost(tensor)};
      WaitForWork(*group_, group_->allreduce(tensors));
      if (!tensor.device().is_cpu()) tensor.copy_(tensors[0]);
    });
  }

  absl::Status Broadcast(at::Tensor tensor, int root) override {
    SLUICE_RETURN_IF_ERROR(CheckTensor(tensor, "broadcast"));
    SLUICE_RETURN_IF_ERROR(CheckRoot(root, world_size(), "broadcast"));
    return Run("broadcast", [&] {
      std::vector<at::Tensor> tensors = {OnHost(tensor)};
      c10d::BroadcastOptions options;
      options.rootRank = root;
      WaitForWork(*group_, group_->broadcast(tensors, options));
      if (!tensor.device().is_cpu()) tensor.copy_(tensors[0]);
    });
  }

  absl::Status Barrier() override {
    at::Tensor one = torch::ones({1}, at::kLong);
    return AllReduceSum(one);
  }

  void Abort() override {
    dead_ = true;
    group_->FailConnections("the group was aborted");
  }

 private:
  // The tensor itself, or a copy of what lies on another device, page-locked for a GPU: Gloo reduces on hosts.
  static at::Tensor OnHost(const at::Tensor& tensor) {
    if (tensor.device().is_cpu()) return tensor;
    at::Tensor host =
        at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(tensor.device().is_cuda()));
    host.copy_(tensor);
    return host;
  }

  absl::Status Run(absl::string_view what, const std::function<void()>& operation) {
    const std::string place = absl::StrCat(what, " of epoch ", epoch_, ", rank ", rank(), " of ", world_size());
    if (dead_) return DeadGroupError(place);
    try {
      operation();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      Abort();  // peers that wait for this rank learn of it now, not after their timeout
      return StatusFromException(error, place);
    }
  }

  c10::intrusive_ptr<AbortableProcessGroup> group_;
  const uint64_t epoch_;
  std::atomic<bool> dead_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> MakeGlooCollective(std::shared_ptr<KvStore> store, int rank, int world_size,
                                                               uint64_t epoch, const GlooOptions& options) {
  SLUICE_RETURN_IF_ERROR(CheckRank(rank, world_size));
  const std::chrono::milliseconds timeout(absl::ToInt64Milliseconds(options.timeout));
  // Gloo writes to its sockets without MSG_NOSIGNAL: a peer that died must be an error of the operation, not our death.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    auto gloo = c10d::ProcessGroupGloo::Options::create(timeout);
    gloo->threads = 1;
    // Never lazy: a lazy listener ignores the timeout and hangs if its peer died (gloo #520).
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.host, /*lazyInit=*/false));
    auto adapter = c10::make_intrusive<StoreAdapter>(std::move(store),
                                                     absl::StrCat("epoch/", epoch, "/", options.name, "/"), timeout);
    auto group = c10::make_intrusive<AbortableProcessGroup>(adapter, rank, world_size, gloo);
    return std::make_unique<GlooCollective>(std::move(group), epoch);
  } catch (const std::exception& error) {
    return StatusFromException(error, absl::StrCat("forming the group of epoch ", epoch, " as rank ", rank, " of ",
                                                   world_size, " at ", options.host));
  }
}

}  // namespace sluice

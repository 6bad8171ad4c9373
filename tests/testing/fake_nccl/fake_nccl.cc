#include "tests/testing/fake_nccl/fake_nccl.h"

#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/sync/mutex.h"

namespace sluice {
namespace {

// One call that all ranks of a group make.
struct Operation {
  NcclCall call = NcclCall::kAllReduce;
  NcclDataType type = NcclDataType::kFloat32;
  size_t count = 0;
  int root = 0;

  std::map<int, std::pair<const void*, void*>> buffers = {};  // to send and to receive, of the ranks that came
  bool done = false;
  bool broken = false;  // a rank that had come was lost

  bool SameAs(const Operation& other) const {
    return call == other.call && type == other.type && count == other.count && root == other.root;
  }
};

struct Group {
  int ranks = 0;
  std::map<int, NcclComm*> members;
  std::vector<std::shared_ptr<Operation>> operations;
  bool lost = false;  // a member left or was aborted
};

}  // namespace

struct NcclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
  enum { kLive, kFinalized, kGone } life = kLive;
  size_t next = 0;  // number of its next operation
  NcclResult error = NcclResult::kSuccess;
  // A scripted fault that looks at the state come to, and the work that it holds back.
  std::optional<NcclFault> script;
  std::function<void()> held;
  std::atomic<int> inside{0};  // threads

  bool waits_for_peers() const {
    return std::any_of(group->operations.begin(), group->operations.begin() + next, [this](const auto& operation) {
      return !operation->done && operation->buffers.count(rank) > 0;
    });
  }
};

class FakeNccl::Impl {
 public:
  explicit Impl(FakeNcclOptions options) : options_(std::move(options)) {}

  class Stream;
  // A thread's stay in a communicator.
  class Use {
   public:
    Use(Impl* impl, NcclComm* comm, NcclCall call) : comm_(comm) {
      const bool alone = comm_->inside++ == 0;
      std::this_thread::yield();  // so that a second thread is met
      MutexLock lock(&impl->mutex_);
      ++impl->times_[call];
      if (!alone) impl->Breach(absl::StrCat(NcclCallName(call), " while another thread is in the communicator"));
      gone_ = comm_->life == NcclComm::kGone;
      if (gone_) impl->Breach(absl::StrCat(NcclCallName(call), " of a communicator that is gone"));
    }
    ~Use() { --comm_->inside; }
    bool gone() const { return gone_; }

   private:
    NcclComm* const comm_;
    bool gone_ = false;
  };

  NcclResult GetUniqueId(NcclUniqueId* id);
  NcclResult InitRank(NcclComm** out, int ranks, const NcclUniqueId& id, int rank, const NcclConfig& config);
  NcclResult GetAsyncError(NcclComm* comm, NcclResult* state);
  NcclResult Enqueue(NcclComm* comm, const Operation& operation, const void* send, void* receive, void* stream);
  NcclResult Finalize(NcclComm* comm);
  NcclResult End(NcclComm* comm, NcclCall call);
  NcclResult GroupCall(int step);

  const FakeNcclOptions options_;
  mutable Mutex mutex_;
  std::map<std::pair<int, NcclCall>, NcclFault> faults_ ABSL_GUARDED_BY(mutex_);
  std::map<NcclCall, int> times_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_done_ ABSL_GUARDED_BY(mutex_);
  std::string stream_error_ ABSL_GUARDED_BY(mutex_);
  int grouped_aborts_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::string> breaches_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<NcclComm>> comms_ ABSL_GUARDED_BY(mutex_);  // kept, so that late uses are seen
  std::set<const void*> streams_ ABSL_GUARDED_BY(mutex_);

 private:
  void Breach(const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { breaches_.push_back(text); }
  // Does `work` unless a scripted fault is due, which answers in its place or holds it back.
  NcclResult Do(NcclComm* comm, NcclCall call, std::function<void()> work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<NcclFault> TakeFault(int rank, NcclCall call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Join(NcclComm* comm, const std::string& id, int ranks) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Come(NcclComm* comm, const Operation& operation, const void* send, void* receive, Stream* stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Compute(const Operation& operation) const;
  template <typename T>
  void Sum(const Operation& operation) const;
  void* Memory(const void* address) const {
    return options_.memory ? options_.memory(address) : const_cast<void*>(address);
  }

  int ids_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::shared_ptr<Group>> groups_ ABSL_GUARDED_BY(mutex_);  // by id
  static thread_local int group_depth_;
};

thread_local int FakeNccl::Impl::group_depth_ = 0;

class FakeNccl::Impl::Stream : public DeviceStream {
 public:
  Stream(Impl* impl, const at::Device& device) : impl_(impl), device_(device) {
    MutexLock lock(&impl_->mutex_);
    impl_->streams_.insert(this);
  }
  ~Stream() override {
    MutexLock lock(&impl_->mutex_);
    impl_->streams_.erase(this);
  }

  at::Device device() const override { return device_; }
  void* handle() override { return this; }
  void WaitForCaller() override { FailIfScripted(); }

  bool Done() override {
    FailIfScripted();
    bool done = true;
    std::function<void()> action;
    {
      MutexLock lock(&impl_->mutex_);
      done = std::all_of(work_.begin(), work_.end(), [](Work& work) {
        // An abort stops the device, after a while.
        const bool stopped = work.comm->life == NcclComm::kGone && work.looks_until_stopped-- <= 0;
        return work.operation->done || stopped;
      });
      action = std::exchange(impl_->on_done_, nullptr);
    }
    if (action) action();
    return done;
  }

  void Put(std::shared_ptr<Operation> operation, const NcclComm* comm) {
    work_.push_back({std::move(operation), comm, impl_->options_.looks_until_stopped});
  }

 private:
  struct Work {
    std::shared_ptr<Operation> operation;
    const NcclComm* comm;
    int looks_until_stopped;
  };

  void FailIfScripted() {
    std::string error;
    {
      MutexLock lock(&impl_->mutex_);
      error = std::exchange(impl_->stream_error_, "");
    }
    if (!error.empty()) throw std::runtime_error(error);
  }

  Impl* const impl_;
  const at::Device device_;
  std::vector<Work> work_;  // under the mutex of `impl_`
};

std::optional<NcclFault> FakeNccl::Impl::TakeFault(int rank, NcclCall call) {
  const auto found = faults_.find({rank, call});
  if (found == faults_.end()) return std::nullopt;
  const NcclFault fault = found->second;
  faults_.erase(found);
  return fault;
}

NcclResult FakeNccl::Impl::Do(NcclComm* comm, NcclCall call, std::function<void()> work) {
  const std::optional<NcclFault> fault = TakeFault(comm->rank, call);
  if (!fault) {
    work();
    return NcclResult::kSuccess;
  }
  if (fault->looks_in_progress == 0) return fault->result;
  comm->script = fault;
  comm->held = std::move(work);
  return NcclResult::kInProgress;
}

NcclResult FakeNccl::Impl::GetUniqueId(NcclUniqueId* id) {
  MutexLock lock(&mutex_);
  ++times_[NcclCall::kGetUniqueId];
  const std::optional<NcclFault> fault = TakeFault(0, NcclCall::kGetUniqueId);
  if (fault) return fault->result;
  const std::string text = absl::StrCat("fake id ", ++ids_);
  std::memcpy(id->internal, text.c_str(), text.size() + 1);
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Impl::InitRank(NcclComm** out, int ranks, const NcclUniqueId& id, int rank,
                                    const NcclConfig& config) {
  MutexLock lock(&mutex_);
  ++times_[NcclCall::kCommInitRankConfig];
  const NcclConfig initializer;
  if (std::memcmp(&config, &initializer, sizeof(config)) != 0 || config.blocking != 0) {
    Breach("a config that is not the initializer's with blocking = 0");
  }
  if (rank < 0 || rank >= ranks) return NcclResult::kInvalidArgument;
  comms_.push_back(std::make_unique<NcclComm>());
  NcclComm* const comm = comms_.back().get();
  comm->rank = rank;
  comm->group = std::make_shared<Group>();  // until it has joined the others: one that nobody comes to
  comm->group->ranks = ranks + 1;
  const std::string text = id.internal;
  const NcclResult answer =
      Do(comm, NcclCall::kCommInitRankConfig, [this, comm, text, ranks] { Join(comm, text, ranks); });
  if (answer != NcclResult::kSuccess && answer != NcclResult::kInProgress) {
    comm->life = NcclComm::kGone;  // as NCCL does: no communicator comes out of it
    return answer;
  }
  *out = comm;
  return NcclResult::kInProgress;
}

void FakeNccl::Impl::Join(NcclComm* comm, const std::string& id, int ranks) {
  std::shared_ptr<Group>& group = groups_[id];
  if (group == nullptr) group = std::make_shared<Group>();
  if (group->ranks != 0 && group->ranks != ranks) Breach("ranks disagree about their number");
  group->ranks = ranks;
  if (!group->members.emplace(comm->rank, comm).second) Breach(absl::StrCat("rank ", comm->rank, " came twice"));
  comm->group = group;
}

NcclResult FakeNccl::Impl::GetAsyncError(NcclComm* comm, NcclResult* state) {
  const Use use(this, comm, NcclCall::kCommGetAsyncError);
  if (use.gone()) return NcclResult::kInvalidArgument;
  MutexLock lock(&mutex_);
  const std::optional<NcclFault> fault = TakeFault(comm->rank, NcclCall::kCommGetAsyncError);
  if (fault && fault->looks_in_progress == 0) return fault->result;
  if (fault) comm->script = fault;
  if (comm->script) {
    *state = NcclResult::kInProgress;
    if (comm->script->looks_in_progress-- > 0) return NcclResult::kSuccess;
    comm->error = comm->script->result;
    comm->script.reset();
    const std::function<void()> held = std::exchange(comm->held, nullptr);
    if (comm->error == NcclResult::kSuccess && held) held();
  }
  const bool formed = static_cast<int>(comm->group->members.size()) == comm->group->ranks;
  if (comm->error == NcclResult::kSuccess && options_.peers_notice && comm->group->lost && comm->waits_for_peers()) {
    comm->error = NcclResult::kRemoteError;
  }
  *state = comm->error == NcclResult::kSuccess && !formed ? NcclResult::kInProgress : comm->error;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Impl::Enqueue(NcclComm* comm, const Operation& operation, const void* send, void* receive,
                                   void* stream) {
  const Use use(this, comm, operation.call);
  if (use.gone()) return NcclResult::kInvalidArgument;
  MutexLock lock(&mutex_);
  if (!streams_.contains(stream)) {
    Breach("a stream that is not there");
    return NcclResult::kInvalidArgument;
  }
  if (comm->life == NcclComm::kFinalized) Breach(absl::StrCat(NcclCallName(operation.call), " after the end"));
  const auto work = [=, this] { Come(comm, operation, send, receive, static_cast<Stream*>(stream)); };
  return Do(comm, operation.call, work);
}

void FakeNccl::Impl::Come(NcclComm* comm, const Operation& operation, const void* send, void* receive, Stream* stream) {
  std::vector<std::shared_ptr<Operation>>& operations = comm->group->operations;
  const size_t number = comm->next++;
  if (number == operations.size()) operations.push_back(std::make_shared<Operation>(operation));
  const std::shared_ptr<Operation>& shared = operations[number];
  if (!shared->SameAs(operation)) {
    Breach(absl::StrCat("rank ", comm->rank, " makes another call number ", number, " than its peers"));
    shared->broken = true;
  }
  shared->buffers[comm->rank] = {send, receive};
  stream->Put(shared, comm);
  if (static_cast<int>(shared->buffers.size()) < comm->group->ranks || shared->broken) return;
  Compute(*shared);
  shared->done = true;
}

template <typename T>
void FakeNccl::Impl::Sum(const Operation& operation) const {
  std::vector<T> sum(operation.count);
  for (const auto& [rank, buffers] : operation.buffers) {
    const T* const values = static_cast<const T*>(Memory(buffers.first));
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  }
  for (const auto& [rank, buffers] : operation.buffers) {
    std::copy(sum.begin(), sum.end(), static_cast<T*>(Memory(buffers.second)));
  }
}

void FakeNccl::Impl::Compute(const Operation& operation) const {
  if (operation.count == 0) return;
  if (operation.call == NcclCall::kBroadcast) {
    const size_t bytes = operation.count * (operation.type == NcclDataType::kFloat32 ? 4 : 8);
    const void* const from = Memory(operation.buffers.at(operation.root).first);
    for (const auto& [rank, buffers] : operation.buffers) std::memmove(Memory(buffers.second), from, bytes);
  } else if (operation.type == NcclDataType::kFloat32) {
    Sum<float>(operation);
  } else if (operation.type == NcclDataType::kFloat64) {
    Sum<double>(operation);
  } else {
    Sum<int64_t>(operation);
  }
}

NcclResult FakeNccl::Impl::Finalize(NcclComm* comm) {
  const Use use(this, comm, NcclCall::kCommFinalize);
  if (use.gone()) return NcclResult::kInvalidArgument;
  MutexLock lock(&mutex_);
  if (comm->life != NcclComm::kLive) Breach("finalized twice");
  return Do(comm, NcclCall::kCommFinalize, [comm] { comm->life = NcclComm::kFinalized; });
}

NcclResult FakeNccl::Impl::End(NcclComm* comm, NcclCall call) {
  const Use use(this, comm, call);
  if (use.gone()) return NcclResult::kInvalidArgument;
  MutexLock lock(&mutex_);
  if (call == NcclCall::kCommDestroy && comm->life != NcclComm::kFinalized) Breach("destroyed before it was finalized");
  if (call == NcclCall::kCommAbort && group_depth_ > 0) ++grouped_aborts_;
  comm->life = NcclComm::kGone;
  comm->held = nullptr;
  comm->group->lost = true;
  for (const std::shared_ptr<Operation>& operation : comm->group->operations) {
    if (!operation->done && operation->buffers.contains(comm->rank)) operation->broken = true;
  }
  const std::optional<NcclFault> fault = TakeFault(comm->rank, call);
  return fault ? fault->result : NcclResult::kInProgress;
}

NcclResult FakeNccl::Impl::GroupCall(int step) {
  group_depth_ += step;
  MutexLock lock(&mutex_);
  if (group_depth_ < 0) Breach("ncclGroupEnd without ncclGroupStart");
  return NcclResult::kSuccess;
}

FakeNccl::FakeNccl(FakeNcclOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
FakeNccl::~FakeNccl() = default;

NcclApi FakeNccl::api() {
  Impl* const impl = impl_.get();
  NcclApi api;
  api.get_version = [](int* version) {
    *version = 23007;
    return NcclResult::kSuccess;
  };
  api.get_error_string = [](NcclResult) { return "an error of the fake"; };
  api.get_last_error = [](NcclComm*) { return "nothing happened"; };
  api.get_unique_id = [impl](NcclUniqueId* id) { return impl->GetUniqueId(id); };
  api.comm_init_rank_config = [impl](NcclComm** out, int ranks, NcclUniqueId id, int rank, NcclConfig* config) {
    return impl->InitRank(out, ranks, id, rank, *config);
  };
  api.comm_get_async_error = [impl](NcclComm* comm, NcclResult* state) { return impl->GetAsyncError(comm, state); };
  api.all_reduce = [impl](const void* send, void* receive, size_t count, NcclDataType type, NcclRedOp, NcclComm* comm,
                          void* stream) {
    return impl->Enqueue(comm, {.call = NcclCall::kAllReduce, .type = type, .count = count}, send, receive, stream);
  };
  api.broadcast = [impl](const void* send, void* receive, size_t count, NcclDataType type, int root, NcclComm* comm,
                         void* stream) {
    return impl->Enqueue(comm, {.call = NcclCall::kBroadcast, .type = type, .count = count, .root = root}, send,
                         receive, stream);
  };
  api.group_start = [impl] { return impl->GroupCall(1); };
  api.group_end = [impl] { return impl->GroupCall(-1); };
  api.comm_finalize = [impl](NcclComm* comm) { return impl->Finalize(comm); };
  api.comm_destroy = [impl](NcclComm* comm) { return impl->End(comm, NcclCall::kCommDestroy); };
  api.comm_abort = [impl](NcclComm* comm) { return impl->End(comm, NcclCall::kCommAbort); };
  return api;
}

std::unique_ptr<DeviceStream> FakeNccl::NewStream(const at::Device& device) {
  return std::make_unique<Impl::Stream>(impl_.get(), device);
}

void FakeNccl::Inject(int rank, NcclCall call, NcclFault fault) {
  MutexLock lock(&impl_->mutex_);
  impl_->faults_[{rank, call}] = fault;
}

void FakeNccl::OnNextDone(std::function<void()> action) {
  MutexLock lock(&impl_->mutex_);
  impl_->on_done_ = std::move(action);
}

void FakeNccl::FailNextStreamUse(const std::string& text) {
  MutexLock lock(&impl_->mutex_);
  impl_->stream_error_ = text;
}

int FakeNccl::live_communicators() const {
  MutexLock lock(&impl_->mutex_);
  return static_cast<int>(std::count_if(impl_->comms_.begin(), impl_->comms_.end(),
                                        [](const auto& comm) { return comm->life != NcclComm::kGone; }));
}

int FakeNccl::times(NcclCall call) const {
  MutexLock lock(&impl_->mutex_);
  const auto found = impl_->times_.find(call);
  return found == impl_->times_.end() ? 0 : found->second;
}

int FakeNccl::grouped_aborts() const {
  MutexLock lock(&impl_->mutex_);
  return impl_->grouped_aborts_;
}

std::vector<std::string> FakeNccl::breaches() const {
  MutexLock lock(&impl_->mutex_);
  return impl_->breaches_;
}

const char* NcclCallName(NcclCall call) {
  switch (call) {
    case NcclCall::kGetUniqueId:
      return "GetUniqueId";
    case NcclCall::kCommInitRankConfig:
      return "CommInitRankConfig";
    case NcclCall::kCommGetAsyncError:
      return "CommGetAsyncError";
    case NcclCall::kAllReduce:
      return "AllReduce";
    case NcclCall::kBroadcast:
      return "Broadcast";
    case NcclCall::kCommFinalize:
      return "CommFinalize";
    case NcclCall::kCommDestroy:
      return "CommDestroy";
    case NcclCall::kCommAbort:
      return "CommAbort";
  }
  return "?";
}

}  // namespace sluice

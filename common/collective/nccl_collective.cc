#include "common/collective/nccl_collective.h"

#include <c10/core/DeviceGuard.h>
#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/collective/check_call.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr absl::Duration kPause = absl::Microseconds(20);

NcclDataType TypeOf(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kLong) return NcclDataType::kInt64;
  return tensor.scalar_type() == at::kDouble ? NcclDataType::kFloat64 : NcclDataType::kFloat32;
}

absl::StatusCode CodeOf(NcclResult result) {
  switch (result) {
    case NcclResult::kUnhandledCudaError:
    case NcclResult::kSystemError:
    case NcclResult::kRemoteError:
      return absl::StatusCode::kUnavailable;
    case NcclResult::kInvalidArgument:
    case NcclResult::kInvalidUsage:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kInternal;
  }
}

bool IsError(NcclResult result) { return result != NcclResult::kSuccess && result != NcclResult::kInProgress; }

absl::Status At(absl::string_view place, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(place, ": ", status.message()));
}

// What LibTorch throws here is CUDA's: the device failed, not the caller. The first line; a backtrace follows it.
absl::Status DeviceError(const std::exception& error) {
  const std::string text = error.what();
  return absl::UnavailableError(absl::StrCat("the device failed: ", text.substr(0, text.find('\n'))));
}

}  // namespace

NcclCollective::NcclCollective(const NcclApi& api, std::unique_ptr<DeviceStream> stream, int rank, int world_size,
                               uint64_t epoch, NcclOptions options)
    : api_(api), stream_(std::move(stream)), rank_(rank), world_size_(world_size), epoch_(epoch), options_([&options] {
        if (!options.pause) options.pause = [] { absl::SleepFor(kPause); };
        return std::move(options);
      }()) {}

absl::StatusOr<std::unique_ptr<NcclCollective>> NcclCollective::Form(const NcclApi& api,
                                                                     std::unique_ptr<DeviceStream> stream,
                                                                     KvStore& store, int rank, int world_size,
                                                                     uint64_t epoch, NcclOptions options) {
  SLUICE_RETURN_IF_ERROR(CheckRank(rank, world_size));
  auto group =
      absl::WrapUnique(new NcclCollective(api, std::move(stream), rank, world_size, epoch, std::move(options)));
  absl::Status formed;
  try {
    formed = group->Init(store);
  } catch (const std::exception& error) {
    formed = DeviceError(error);
  }
  if (formed.ok()) return group;
  group->Abort();
  if (absl::IsInvalidArgument(formed)) {
    formed = absl::InvalidArgumentError(
        absl::StrCat(formed.message(), ". Each rank wants a GPU of its own: two on one need --collective gloo"));
  }
  return At(absl::StrCat("forming the NCCL group '", group->options_.name, "' of epoch ", epoch, " as rank ", rank,
                         " of ", world_size),
            formed);
}

NcclCollective::~NcclCollective() {
  if (!Close().ok()) Abort();
}

absl::StatusOr<NcclUniqueId> NcclCollective::ExchangeId(KvStore& store, absl::Time deadline) {
  const std::string keys = absl::StrCat("epoch/", epoch_, "/", options_.name, "/nccl/");
  // An id is good for one group: who came under this name before would wait for peers that are elsewhere.
  SLUICE_ASSIGN_OR_RETURN(const int64_t times, store.Add(absl::StrCat(keys, "joined/", rank_), 1));
  if (times != 1) return absl::InternalError("a group of this name was formed before in this epoch");
  NcclUniqueId id = {};
  if (rank_ == 0) {
    const NcclResult result = api_.get_unique_id(&id);
    if (IsError(result)) return Error("ncclGetUniqueId", result);
    SLUICE_RETURN_IF_ERROR(store.Set(keys + "id", std::string(id.internal, sizeof(id.internal))));
    return id;
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string text, store.Get(keys + "id", deadline - options_.now()));
  if (text.size() != sizeof(id.internal)) {
    return absl::InternalError(absl::StrCat("want an id of ", sizeof(id.internal), " bytes, got ", text.size()));
  }
  std::memcpy(id.internal, text.data(), text.size());
  return id;
}

absl::Status NcclCollective::Init(KvStore& store) {
  const absl::Time deadline = options_.now() + options_.timeout;
  SLUICE_ASSIGN_OR_RETURN(const NcclUniqueId id, ExchangeId(store, deadline));
  const c10::DeviceGuard guard(stream_->device());
  NcclConfig config;
  NcclComm* comm = nullptr;
  const NcclResult result = api_.comm_init_rank_config(&comm, world_size_, id, rank_, &config);
  {
    MutexLock lock(&mutex_);
    comm_ = comm;
  }
  if (IsError(result)) return Error("ncclCommInitRankConfig", result);
  return Await(deadline);
}

absl::Status NcclCollective::Close() {
  try {
    SLUICE_RETURN_IF_ERROR(Call("ncclCommFinalize", api_.comm_finalize));
    SLUICE_RETURN_IF_ERROR(Await(options_.now() + options_.close_timeout));
  } catch (const std::exception& error) {
    return DeviceError(error);
  }
  if (NcclComm* const comm = Take()) api_.comm_destroy(comm);
  return absl::OkStatus();
}

absl::Status NcclCollective::AllReduceSum(at::Tensor tensor) {
  SLUICE_RETURN_IF_ERROR(CheckTensor(tensor, "all-reduce"));
  return Run("all-reduce", tensor, [this](const at::Tensor& here, NcclComm* comm) {
    return api_.all_reduce(here.data_ptr(), here.data_ptr(), static_cast<size_t>(here.numel()), TypeOf(here),
                           NcclRedOp::kSum, comm, stream_->handle());
  });
}

absl::Status NcclCollective::Broadcast(at::Tensor tensor, int root) {
  SLUICE_RETURN_IF_ERROR(CheckTensor(tensor, "broadcast"));
  SLUICE_RETURN_IF_ERROR(CheckRoot(root, world_size_, "broadcast"));
  return Run("broadcast", tensor, [this, root](const at::Tensor& here, NcclComm* comm) {
    return api_.broadcast(here.data_ptr(), here.data_ptr(), static_cast<size_t>(here.numel()), TypeOf(here), root, comm,
                          stream_->handle());
  });
}

absl::Status NcclCollective::Barrier() { return AllReduceSum(torch::zeros({1}, at::kLong)); }

absl::Status NcclCollective::Run(absl::string_view what, at::Tensor tensor,
                                 absl::FunctionRef<NcclResult(const at::Tensor&, NcclComm*)> enqueue) {
  const std::string place = absl::StrCat(what, " of epoch ", epoch_, ", rank ", rank_, " of ", world_size_);
  {
    MutexLock lock(&mutex_);
    if (comm_ == nullptr) return DeadGroupError(place);
  }
  at::Tensor here = tensor;  // lives until the device is done with it, whatever happens
  absl::Status status;
  try {
    const c10::DeviceGuard guard(stream_->device());
    const absl::Time deadline = options_.now() + options_.timeout;
    if (tensor.device() != stream_->device()) here = tensor.to(stream_->device());
    stream_->WaitForCaller();
    status = Call(what, [&](NcclComm* comm) { return enqueue(here, comm); });
    if (status.ok()) status = Await(deadline);
    if (status.ok() && !here.is_same(tensor)) tensor.copy_(here);
  } catch (const std::exception& error) {
    status = DeviceError(error);
  }
  if (status.ok()) return status;
  Abort();
  AwaitStream();
  return At(place, status);
}

absl::Status NcclCollective::Call(absl::string_view name, absl::FunctionRef<NcclResult(NcclComm*)> function) {
  MutexLock lock(&mutex_);
  if (comm_ == nullptr) return absl::UnavailableError("the group was aborted");
  const NcclResult result = function(comm_);
  return IsError(result) ? Error(name, result) : absl::OkStatus();
}

absl::StatusOr<bool> NcclCollective::Settled() {
  NcclResult state = NcclResult::kInProgress;
  SLUICE_RETURN_IF_ERROR(
      Call("ncclCommGetAsyncError", [&](NcclComm* comm) { return api_.comm_get_async_error(comm, &state); }));
  if (IsError(state)) return Error("reported while it ran", state);
  return state == NcclResult::kSuccess;
}

absl::Status NcclCollective::Await(absl::Time deadline) {
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool settled, Settled());
    if (settled && stream_->Done()) {
      // Once more: an abort from another thread ends the stream's work too, with anything in the tensor.
      return Settled().status();
    }
    if (options_.now() >= deadline) {
      return absl::DeadlineExceededError("NCCL was not done in time: a peer is silent, or has not come");
    }
    options_.pause();
  }
}

void NcclCollective::AwaitStream() {
  const absl::Time deadline = options_.now() + options_.close_timeout;
  try {
    while (!stream_->Done() && options_.now() < deadline) options_.pause();
  } catch (const std::exception&) {
    // The device is lost, and with it whatever it was doing.
  }
}

absl::Status NcclCollective::Error(absl::string_view where, NcclResult result) const {
  const char* const text = api_.get_error_string(result);
  const char* const last = api_.get_last_error(nullptr);
  std::string message = absl::StrCat("NCCL, ", where, ": ", text != nullptr ? text : "error", " (ncclResult_t ",
                                     static_cast<int>(result), ")");
  if (last != nullptr && *last != '\0') absl::StrAppend(&message, "; its last error: ", last);
  return absl::Status(CodeOf(result), message);
}

NcclComm* NcclCollective::Take() {
  MutexLock lock(&mutex_);
  return std::exchange(comm_, nullptr);
}

void NcclCollective::AbortTogether(absl::Span<NcclCollective* const> groups) {
  std::vector<std::pair<const NcclApi*, NcclComm*>> taken;
  for (NcclCollective* const group : groups) {
    if (NcclComm* const comm = group->Take()) taken.emplace_back(&group->api_, comm);
  }
  if (taken.empty()) return;
  // What these calls answer changes nothing: the communicators are gone.
  const NcclApi& api = *taken.front().first;
  if (taken.size() > 1) api.group_start();
  for (const auto& [own, comm] : taken) own->comm_abort(comm);
  if (taken.size() > 1) api.group_end();
}

}  // namespace sluice

#include "common/collective/backend.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {

absl::string_view BackendName(CollectiveBackend backend) {
  return backend == CollectiveBackend::kNccl ? "nccl" : "gloo";
}

absl::StatusOr<CollectiveBackend> ParseBackend(absl::string_view name, const at::Device& device) {
  if (name == "gloo") return CollectiveBackend::kGloo;
  if (name == "auto") return device.is_cuda() ? CollectiveBackend::kNccl : CollectiveBackend::kGloo;
  if (name != "nccl") {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no collective '", name, "'; want --collective gloo, nccl or auto"));
  }
  if (!device.is_cuda()) {
    return absl::InvalidArgumentError(absl::StrCat("--collective nccl reduces on GPUs, and this process computes on ",
                                                   device.str(), "; add --device cuda:N, or use --collective gloo"));
  }
  return CollectiveBackend::kNccl;
}

absl::StatusOr<std::optional<CollectiveBackend>> ParseWeights(absl::string_view name, const at::Device& device,
                                                              bool tls) {
  if (name == "grpc" || (name == "auto" && (tls || !device.is_cuda()))) return std::nullopt;
  if (name == "gloo") return CollectiveBackend::kGloo;
  if (name != "nccl" && name != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no way for weights called '", name, "'; want --weights grpc, gloo, nccl or auto"));
  }
  if (!device.is_cuda()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--weights nccl broadcasts between GPUs, and this process computes on ", device.str(),
                     "; add --device cuda:N, or use --weights gloo or grpc"));
  }
  return CollectiveBackend::kNccl;
}

absl::Status AgreeOnBackend(KvStore& store, CollectiveBackend backend, int rank, int world_size, uint64_t epoch,
                            absl::string_view name, absl::Duration timeout, const NowFunction& now) {
  const absl::Time deadline = now() + timeout;
  const std::string keys = absl::StrCat("epoch/", epoch, "/", name, "/backend/");
  const std::string mine(BackendName(backend));
  SLUICE_RETURN_IF_ERROR(store.Set(absl::StrCat(keys, rank), mine));
  for (int peer = 0; peer < world_size; ++peer) {
    const absl::StatusOr<std::string> theirs = store.Get(absl::StrCat(keys, peer), deadline - now());
    if (absl::IsDeadlineExceeded(theirs.status())) {
      return absl::DeadlineExceededError(absl::StrCat("rank ", peer, " of ", world_size,
                                                      " has not come to the group of epoch ", epoch, " within ",
                                                      absl::FormatDuration(timeout)));
    }
    SLUICE_RETURN_IF_ERROR(theirs.status());
    if (*theirs != mine) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank, " reduces over ", mine, " and rank ", peer, " over ", *theirs,
                       "; start all ranks with the same --collective (auto follows --device)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice

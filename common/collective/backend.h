// Which library the ranks of a group reduce over.
#ifndef SLUICE_COMMON_COLLECTIVE_BACKEND_H_
#define SLUICE_COMMON_COLLECTIVE_BACKEND_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sync/kv_store.h"
#include "common/time/clock.h"

namespace sluice {

enum class CollectiveBackend { kGloo, kNccl };

absl::string_view BackendName(CollectiveBackend backend);

// What a process's --collective means on its device: "gloo", "nccl", or "auto", which is nccl on a GPU and gloo on the
// processor. InvalidArgument: another word, or nccl on the processor.
absl::StatusOr<CollectiveBackend> ParseBackend(absl::string_view name, const at::Device& device);

// What a process's --weights means on its device: over which library it broadcasts weights, nothing for "grpc" (actors
// fetch). "auto" is nccl on a GPU and grpc on the processor; and grpc where processes speak `tls`, as neither library
// encrypts: giving that up takes a word. InvalidArgument as ParseBackend.
absl::StatusOr<std::optional<CollectiveBackend>> ParseWeights(absl::string_view name, const at::Device& device,
                                                              bool tls);

// Waits until all ranks said what they reduce over (keys "epoch/<epoch>/<name>/backend/"); the group forms after that.
// DeadlineExceeded: a rank has not come, and which. FailedPrecondition: another rank reduces over something else, which
// would otherwise be two groups that wait for one another.
absl::Status AgreeOnBackend(KvStore& store, CollectiveBackend backend, int rank, int world_size, uint64_t epoch,
                            absl::string_view name, absl::Duration timeout, const NowFunction& now);

// What --help says of the flag.
inline constexpr char kCollectiveHelp[] =
    "What the ranks reduce over, the same everywhere: gloo, nccl (each rank with a GPU of its own), or auto: nccl on a "
    "GPU, else gloo";

inline constexpr char kWeightsHelp[] =
    "How new weights come to actors: grpc (each fetches them), gloo or nccl (one broadcast to all that name the same; "
    "who cannot take part fetches; neither encrypts), or auto: nccl on a GPU without TLS, else grpc";

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_BACKEND_H_

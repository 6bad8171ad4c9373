#include "actor/rpc/peer_policies.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::actor {

PeerPolicies::PeerPolicies(const Options& options) : options_(options) {
  if (options_.metrics == nullptr) return;
  bytes_sent_ =
      options_.metrics->AddCounter("sluice_peer_weight_bytes_total", "Bytes of weights sent to other actors.");
  refused_ = options_.metrics->AddCounter(
      "sluice_peer_refusals_total", "Fetches of other actors that this one refused: another version, or too many.");
}

void PeerPolicies::Put(const std::string& job_id, uint64_t version, SharedPayload payload) {
  SharedPayload before;  // freed without the lock
  MutexLock lock(&mutex_);
  before = std::exchange(payload_, std::move(payload));
  job_id_ = job_id;
  version_ = version;
}

void PeerPolicies::Clear() { Put("", 0, {}); }

absl::StatusOr<SharedPayload> PeerPolicies::Take(const std::string& job_id, uint64_t version) {
  MutexLock lock(&mutex_);
  if (version_ == 0 || version != version_ || job_id != job_id_) {
    return absl::NotFoundError(absl::StrCat("this actor holds version ", version_, " of job '", job_id_, "', not ",
                                            version, " of '", job_id, "'"));
  }
  if (streams_ >= options_.max_streams) {
    return absl::ResourceExhaustedError(absl::StrCat("this actor sends to ", streams_, " others already"));
  }
  ++streams_;
  return payload_;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* PeerPolicies::FetchPolicy(grpc::CallbackServerContext* /*context*/,
                                                                      const grpc::ByteBuffer* request) {
  const auto parsed = ParseRequest<v1::FetchPolicyRequest>(request);
  if (!parsed.ok()) return RefuseStream(parsed.status());
  absl::StatusOr<SharedPayload> payload = Take(parsed->job_id(), parsed->policy_version());
  if (!payload.ok()) {
    if (refused_ != nullptr) refused_->Increment();
    return RefuseStream(payload.status());
  }
  const auto done = [this] {
    MutexLock lock(&mutex_);
    --streams_;
  };
  return StreamChunks(*std::move(payload), parsed->offset(),
                      {.chunk_bytes = options_.chunk_bytes, .bytes_sent = bytes_sent_, .on_done = done});
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* PeerPolicies::FetchCatalog(grpc::CallbackServerContext* /*context*/,
                                                                       const grpc::ByteBuffer* /*request*/) {
  return RefuseStream(absl::UnimplementedError("an actor serves weights alone; ask the learner rank for the catalog"));
}

}  // namespace sluice::actor

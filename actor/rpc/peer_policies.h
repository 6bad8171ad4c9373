// The active version of an actor, served to other actors: the branches of the tree by which weights spread
// (learner/publish/publication.h).
#ifndef SLUICE_ACTOR_RPC_PEER_POLICIES_H_
#define SLUICE_ACTOR_RPC_PEER_POLICIES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/metrics/metrics.h"
#include "common/rpc/chunk_stream.h"
#include "common/sync/mutex.h"
#include "sluice/v1/policy.grpc.pb.h"

namespace sluice::actor {

// PolicyService.FetchPolicy of one version at a time; FetchCatalog answers UNIMPLEMENTED. What it serves is the memory
// that the actor samples from, and stays as it is until the last stream of it has ended. Thread-safe.
class PeerPolicies : public v1::PolicyService::WithRawCallbackMethod_FetchPolicy<
                         v1::PolicyService::WithRawCallbackMethod_FetchCatalog<v1::PolicyService::Service>> {
 public:
  struct Options {
    size_t chunk_bytes = kDefaultChunkBytes;
    // Streams at a time; further ones are refused with RESOURCE_EXHAUSTED and go to the rank.
    int max_streams = 8;
    Metrics* metrics = nullptr;  // optional; must outlive the service
  };

  explicit PeerPolicies(const Options& options);

  // The version that is served from now on, in place of the one before.
  void Put(const std::string& job_id, uint64_t version, SharedPayload payload);
  // None is, from now on.
  void Clear();

  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchPolicy(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchCatalog(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request) override;

 private:
  // A place among the streams, with what it sends.
  absl::StatusOr<SharedPayload> Take(const std::string& job_id, uint64_t version);

  const Options options_;
  Counter* bytes_sent_ = nullptr;
  Counter* refused_ = nullptr;
  Mutex mutex_;
  std::string job_id_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: none
  SharedPayload payload_ ABSL_GUARDED_BY(mutex_);
  int streams_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_PEER_POLICIES_H_

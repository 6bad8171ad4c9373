// PolicyService of policy.proto over PolicyStore: weights and catalog in checksummed chunks.
#ifndef SLUICE_LEARNER_RPC_POLICY_SERVICE_H_
#define SLUICE_LEARNER_RPC_POLICY_SERVICE_H_

#include "common/metrics/metrics.h"
#include "common/rpc/chunk_stream.h"
#include "common/transfer/transfer.h"
#include "learner/publish/policy_store.h"
#include "sluice/v1/policy.grpc.pb.h"

namespace sluice::learner {

// Chunks leave as buffers that point into the payload, which all streams share: nothing is copied or hashed for each
// actor. Thread-safe.
class GrpcPolicyService : public v1::PolicyService::WithRawCallbackMethod_FetchPolicy<
                              v1::PolicyService::WithRawCallbackMethod_FetchCatalog<v1::PolicyService::Service>> {
 public:
  struct Options {
    size_t chunk_bytes = kDefaultChunkBytes;
    Metrics* metrics = nullptr;  // optional; must outlive the service
  };

  // The store must outlive the service, and the server that serves it.
  explicit GrpcPolicyService(const PolicyStore* store) : GrpcPolicyService(store, Options()) {}
  GrpcPolicyService(const PolicyStore* store, const Options& options);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchPolicy(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchCatalog(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request) override;

 private:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Stream(SharedPayload payload, uint64_t offset) const;

  const PolicyStore* const store_;
  const Options options_;
  Counter* bytes_sent_ = nullptr;
  Counter* chunks_hashed_ = nullptr;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_POLICY_SERVICE_H_

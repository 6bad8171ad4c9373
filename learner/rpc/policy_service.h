// PolicyService of policy.proto over PolicyStore: weights and catalog in checksummed chunks.
#ifndef SLUICE_LEARNER_RPC_POLICY_SERVICE_H_
#define SLUICE_LEARNER_RPC_POLICY_SERVICE_H_

#include "common/metrics/metrics.h"
#include "common/transfer/transfer.h"
#include "learner/publish/policy_store.h"
#include "sluice/v1/policy.grpc.pb.h"

namespace sluice::learner {

// Thread-safe.
class GrpcPolicyService : public v1::PolicyService::CallbackService {
 public:
  struct Options {
    size_t chunk_bytes = kDefaultChunkBytes;
    Metrics* metrics = nullptr;  // optional; must outlive the service
  };

  // The store must outlive the service, and the server that serves it.
  explicit GrpcPolicyService(const PolicyStore* store) : GrpcPolicyService(store, Options()) {}
  GrpcPolicyService(const PolicyStore* store, const Options& options);

  grpc::ServerWriteReactor<v1::Chunk>* FetchPolicy(grpc::CallbackServerContext* context,
                                                   const v1::FetchPolicyRequest* request) override;
  grpc::ServerWriteReactor<v1::Chunk>* FetchCatalog(grpc::CallbackServerContext* context,
                                                    const v1::FetchCatalogRequest* request) override;

 private:
  const PolicyStore* const store_;
  const Options options_;
  Counter* bytes_sent_ = nullptr;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_POLICY_SERVICE_H_

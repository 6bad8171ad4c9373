#include "learner/rpc/policy_service.h"

#include <memory>
#include <string>
#include <utility>

#include "common/failpoint/failpoint.h"
#include "common/rpc/chunk_stream.h"
#include "common/status/status.h"

namespace sluice::learner {

GrpcPolicyService::GrpcPolicyService(const PolicyStore* store, const Options& options)
    : store_(store), options_(options) {
  if (options_.metrics != nullptr) {
    bytes_sent_ = options_.metrics->AddCounter("sluice_weight_bytes_total", "Bytes of weights and catalogs sent.");
    chunks_hashed_ = options_.metrics->AddCounter(
        "sluice_weight_chunks_hashed_total", "Chunks hashed while they were sent; those of weights come with theirs.");
  }
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcPolicyService::Stream(SharedPayload payload, uint64_t offset) const {
  return StreamChunks(
      std::move(payload), offset,
      {.chunk_bytes = options_.chunk_bytes, .bytes_sent = bytes_sent_, .chunks_hashed = chunks_hashed_});
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcPolicyService::FetchPolicy(grpc::CallbackServerContext* /*context*/,
                                                                           const grpc::ByteBuffer* request) {
  const auto parsed = ParseRequest<v1::FetchPolicyRequest>(request);
  if (!parsed.ok()) return RefuseStream(parsed.status());
  const auto snapshot = store_->Find(parsed->job_id(), parsed->policy_version());
  if (!snapshot.ok()) return RefuseStream(snapshot.status());
  SLUICE_FAILPOINT("publish/transfer");
  return Stream({*snapshot, (*snapshot)->payload, std::shared_ptr<const ChunkTable>(*snapshot, &(*snapshot)->chunks)},
                parsed->offset());
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcPolicyService::FetchCatalog(grpc::CallbackServerContext* /*context*/,
                                                                            const grpc::ByteBuffer* request) {
  const auto parsed = ParseRequest<v1::FetchCatalogRequest>(request);
  if (!parsed.ok()) return RefuseStream(parsed.status());
  const auto catalog = store_->FindCatalog(parsed->job_id(), parsed->catalog_version());
  if (!catalog.ok()) return RefuseStream(catalog.status());
  return Stream({*catalog, **catalog, std::make_shared<const ChunkTable>()}, 0);
}

}  // namespace sluice::learner

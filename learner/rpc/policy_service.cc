#include "learner/rpc/policy_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace sluice::learner {
namespace {

// Sends a payload chunk by chunk, or just ends. Deletes itself when the stream is done.
class ChunkReactor : public grpc::ServerWriteReactor<v1::Chunk> {
 public:
  explicit ChunkReactor(const absl::Status& status) { Finish(ToGrpc(status)); }

  // `payload` stays alive through the aliased pointer.
  ChunkReactor(std::shared_ptr<const std::string> payload, uint64_t offset, size_t chunk_bytes, Counter* bytes_sent)
      : payload_(std::move(payload)), offset_(offset), chunk_bytes_(chunk_bytes), bytes_sent_(bytes_sent) {
    if (offset_ > payload_->size()) {
      Finish(ToGrpc(
          absl::InvalidArgumentError(absl::StrCat("offset: want at most ", payload_->size(), ", got ", offset_))));
      return;
    }
    Write();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(ToGrpc(absl::CancelledError("the peer closed the stream")));
      return;
    }
    if (bytes_sent_ != nullptr) bytes_sent_->Increment(static_cast<double>(chunk_.data().size()));
    if (offset_ == payload_->size()) {
      Finish(grpc::Status::OK);
      return;
    }
    Write();
  }

  void OnDone() override { delete this; }

 private:
  void Write() {
    const ChunkView view = ChunkAt(*payload_, offset_, chunk_bytes_);
    chunk_.set_offset(view.offset);
    chunk_.set_total_bytes(view.total_bytes);
    chunk_.set_data(view.data.data(), view.data.size());
    chunk_.set_checksum(view.checksum);
    offset_ += view.data.size();
    StartWrite(&chunk_);
  }

  const std::shared_ptr<const std::string> payload_;
  uint64_t offset_ = 0;
  const size_t chunk_bytes_ = kDefaultChunkBytes;
  Counter* const bytes_sent_ = nullptr;
  v1::Chunk chunk_;
};

}  // namespace

GrpcPolicyService::GrpcPolicyService(const PolicyStore* store, const Options& options)
    : store_(store), options_(options) {
  if (options_.metrics != nullptr) {
    bytes_sent_ = options_.metrics->AddCounter("sluice_weight_bytes_total", "Bytes of weights and catalogs sent.");
  }
}

grpc::ServerWriteReactor<v1::Chunk>* GrpcPolicyService::FetchPolicy(grpc::CallbackServerContext* /*context*/,
                                                                    const v1::FetchPolicyRequest* request) {
  auto snapshot = store_->Find(request->job_id(), request->policy_version());
  if (!snapshot.ok()) return new ChunkReactor(snapshot.status());
  std::shared_ptr<const std::string> payload(*snapshot, &(*snapshot)->payload);
  return new ChunkReactor(std::move(payload), request->offset(), options_.chunk_bytes, bytes_sent_);
}

grpc::ServerWriteReactor<v1::Chunk>* GrpcPolicyService::FetchCatalog(grpc::CallbackServerContext* /*context*/,
                                                                     const v1::FetchCatalogRequest* request) {
  auto catalog = store_->FindCatalog(request->job_id(), request->catalog_version());
  if (!catalog.ok()) return new ChunkReactor(catalog.status());
  return new ChunkReactor(*std::move(catalog), 0, options_.chunk_bytes, bytes_sent_);
}

}  // namespace sluice::learner

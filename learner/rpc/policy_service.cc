#include "learner/rpc/policy_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failpoint/failpoint.h"
#include "common/rpc/status.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

// A payload that many streams may send at once.
struct SharedPayload {
  std::shared_ptr<const std::string> bytes;  // keeps whatever owns it alive
  std::shared_ptr<const ChunkTable> checksums;
};

// v1::Chunk on the wire: the small fields, then the data, which stays where it is.
grpc::ByteBuffer Encode(const ChunkView& chunk, const std::shared_ptr<const std::string>& owner) {
  std::array<uint8_t, 64> head;
  uint8_t* at = head.data();
  at = WireFormatLite::WriteUInt64ToArray(v1::Chunk::kOffsetFieldNumber, chunk.offset, at);
  at = WireFormatLite::WriteUInt64ToArray(v1::Chunk::kTotalBytesFieldNumber, chunk.total_bytes, at);
  at = WireFormatLite::WriteUInt64ToArray(v1::Chunk::kChecksumFieldNumber, chunk.checksum, at);
  at = WireFormatLite::WriteTagToArray(v1::Chunk::kDataFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, at);
  at = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(chunk.data.size()), at);
  std::array<grpc::Slice, 2> slices = {grpc::Slice(head.data(), static_cast<size_t>(at - head.data()))};
  if (chunk.data.empty()) return grpc::ByteBuffer(slices.data(), 1);
  // gRPC only reads from it.
  slices[1] = grpc::Slice(
      const_cast<char*>(chunk.data.data()), chunk.data.size(),
      [](void* held) { delete static_cast<std::shared_ptr<const std::string>*>(held); },
      new std::shared_ptr<const std::string>(owner));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// Sends a payload chunk by chunk, or just ends. Deletes itself when the stream is done.
class ChunkReactor : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit ChunkReactor(const absl::Status& status) { Finish(ToGrpc(status)); }

  ChunkReactor(SharedPayload payload, uint64_t offset, size_t chunk_bytes, Counter* bytes_sent, Counter* chunks_hashed)
      : payload_(std::move(payload)),
        offset_(offset),
        chunk_bytes_(chunk_bytes),
        bytes_sent_(bytes_sent),
        chunks_hashed_(chunks_hashed) {
    if (offset_ > payload_.bytes->size()) {
      Finish(ToGrpc(absl::InvalidArgumentError(
          absl::StrCat("offset: want at most ", payload_.bytes->size(), ", got ", offset_))));
      return;
    }
    Write();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(ToGrpc(absl::CancelledError("the peer closed the stream")));
      return;
    }
    if (bytes_sent_ != nullptr) bytes_sent_->Increment(static_cast<double>(writing_bytes_));
    if (offset_ == payload_.bytes->size()) {
      Finish(grpc::Status::OK);
      return;
    }
    Write();
  }

  void OnDone() override { delete this; }

 private:
  void Write() {
    bool hashed = false;
    const ChunkView view = ChunkAt(*payload_.bytes, *payload_.checksums, offset_, chunk_bytes_, &hashed);
    if (hashed && chunks_hashed_ != nullptr) chunks_hashed_->Increment();
    message_ = Encode(view, payload_.bytes);
    writing_bytes_ = view.data.size();
    offset_ += view.data.size();
    StartWrite(&message_);
  }

  const SharedPayload payload_;
  uint64_t offset_ = 0;
  const size_t chunk_bytes_ = kDefaultChunkBytes;
  Counter* const bytes_sent_ = nullptr;
  Counter* const chunks_hashed_ = nullptr;
  grpc::ByteBuffer message_;
  size_t writing_bytes_ = 0;
};

// InvalidArgument: not a message of this type.
template <typename Request>
absl::StatusOr<Request> Parse(const grpc::ByteBuffer* bytes) {
  grpc::ByteBuffer copy(*bytes);  // of references; parsing consumes it
  Request request;
  const grpc::Status status = grpc::SerializationTraits<Request>::Deserialize(&copy, &request);
  if (!status.ok()) return absl::InvalidArgumentError("the request is not a message of its type");
  return request;
}

}  // namespace

GrpcPolicyService::GrpcPolicyService(const PolicyStore* store, const Options& options)
    : store_(store), options_(options) {
  if (options_.metrics != nullptr) {
    bytes_sent_ = options_.metrics->AddCounter("sluice_weight_bytes_total", "Bytes of weights and catalogs sent.");
    chunks_hashed_ = options_.metrics->AddCounter(
        "sluice_weight_chunks_hashed_total", "Chunks hashed while they were sent; those of weights come with theirs.");
  }
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcPolicyService::FetchPolicy(grpc::CallbackServerContext* /*context*/,
                                                                           const grpc::ByteBuffer* request) {
  const auto parsed = Parse<v1::FetchPolicyRequest>(request);
  if (!parsed.ok()) return new ChunkReactor(parsed.status());
  const auto snapshot = store_->Find(parsed->job_id(), parsed->policy_version());
  if (!snapshot.ok()) return new ChunkReactor(snapshot.status());
  SLUICE_FAILPOINT("publish/transfer");
  SharedPayload payload;
  payload.bytes = std::shared_ptr<const std::string>(*snapshot, &(*snapshot)->payload);
  payload.checksums = std::shared_ptr<const ChunkTable>(*snapshot, &(*snapshot)->chunks);
  return new ChunkReactor(std::move(payload), parsed->offset(), options_.chunk_bytes, bytes_sent_, chunks_hashed_);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcPolicyService::FetchCatalog(grpc::CallbackServerContext* /*context*/,
                                                                            const grpc::ByteBuffer* request) {
  const auto parsed = Parse<v1::FetchCatalogRequest>(request);
  if (!parsed.ok()) return new ChunkReactor(parsed.status());
  auto catalog = store_->FindCatalog(parsed->job_id(), parsed->catalog_version());
  if (!catalog.ok()) return new ChunkReactor(catalog.status());
  SharedPayload payload;
  payload.bytes = *std::move(catalog);
  payload.checksums = std::make_shared<const ChunkTable>();
  return new ChunkReactor(std::move(payload), 0, options_.chunk_bytes, bytes_sent_, chunks_hashed_);
}

}  // namespace sluice::learner

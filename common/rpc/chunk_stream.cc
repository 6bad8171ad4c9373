#include "common/rpc/chunk_stream.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "sluice/v1/policy.pb.h"

namespace sluice {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

// v1::Chunk on the wire: the small fields, then the data, which stays where it is.
grpc::ByteBuffer Encode(const ChunkView& chunk, const std::shared_ptr<const void>& owner) {
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
      [](void* held) { delete static_cast<std::shared_ptr<const void>*>(held); },
      new std::shared_ptr<const void>(owner));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// Sends a payload chunk by chunk, or just ends. Deletes itself when the stream is done.
class ChunkReactor : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit ChunkReactor(const absl::Status& status) { Finish(ToGrpc(status)); }

  ChunkReactor(SharedPayload payload, uint64_t offset, ChunkStreamOptions options)
      : payload_(std::move(payload)), offset_(offset), options_(std::move(options)) {
    if (offset_ > payload_.bytes.size()) {
      Finish(ToGrpc(
          absl::InvalidArgumentError(absl::StrCat("offset: want at most ", payload_.bytes.size(), ", got ", offset_))));
      return;
    }
    Write();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(ToGrpc(absl::CancelledError("the peer closed the stream")));
      return;
    }
    if (options_.bytes_sent != nullptr) options_.bytes_sent->Increment(static_cast<double>(writing_bytes_));
    if (offset_ == payload_.bytes.size()) {
      Finish(grpc::Status::OK);
      return;
    }
    Write();
  }

  void OnDone() override {
    if (options_.on_done) options_.on_done();
    delete this;
  }

 private:
  void Write() {
    bool hashed = false;
    const ChunkView view = ChunkAt(payload_.bytes, *payload_.checksums, offset_, options_.chunk_bytes, &hashed);
    if (hashed && options_.chunks_hashed != nullptr) options_.chunks_hashed->Increment();
    message_ = Encode(view, payload_.owner);
    writing_bytes_ = view.data.size();
    offset_ += view.data.size();
    StartWrite(&message_);
  }

  const SharedPayload payload_;
  uint64_t offset_ = 0;
  const ChunkStreamOptions options_;
  grpc::ByteBuffer message_;
  size_t writing_bytes_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamChunks(SharedPayload payload, uint64_t offset,
                                                         ChunkStreamOptions options) {
  return new ChunkReactor(std::move(payload), offset, std::move(options));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseStream(const absl::Status& status) {
  return new ChunkReactor(status);
}

}  // namespace sluice

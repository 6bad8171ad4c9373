// Payloads as streams of v1::Chunk: what PolicyService answers with, at a learner rank and at an actor alike.
#ifndef SLUICE_COMMON_RPC_CHUNK_STREAM_H_
#define SLUICE_COMMON_RPC_CHUNK_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"
#include "common/transfer/transfer.h"

namespace sluice {

// A payload that many streams may send at once.
struct SharedPayload {
  std::shared_ptr<const void> owner;  // keeps `bytes` alive and unchanged
  absl::string_view bytes;
  std::shared_ptr<const ChunkTable> checksums;  // may be an empty table
};

struct ChunkStreamOptions {
  size_t chunk_bytes = kDefaultChunkBytes;
  Counter* bytes_sent = nullptr;     // optional
  Counter* chunks_hashed = nullptr;  // optional; chunks that the table did not know
  std::function<void()> on_done;     // when the stream is over, however it ends; may be empty
};

// Sends `payload` from `offset` on, then ends the stream; InvalidArgument to the peer if it has no such offset. Chunks
// leave as buffers that point into the payload: nothing is copied or, with a table, hashed. Deletes itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamChunks(SharedPayload payload, uint64_t offset,
                                                         ChunkStreamOptions options);
// Ends the stream with `status`.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseStream(const absl::Status& status);

// InvalidArgument: not a message of this type.
template <typename Request>
absl::StatusOr<Request> ParseRequest(const grpc::ByteBuffer* bytes) {
  grpc::ByteBuffer copy(*bytes);  // of references; parsing consumes it
  Request request;
  const grpc::Status status = grpc::SerializationTraits<Request>::Deserialize(&copy, &request);
  if (!status.ok()) return absl::InvalidArgumentError("the request is not a message of its type");
  return request;
}

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_CHUNK_STREAM_H_

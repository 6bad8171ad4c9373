// Large payloads (weights, catalogs) in checksummed chunks: cutting them, and putting them together again without
// believing anything.
//
// A transfer that returned without an error proves nothing about the bytes that arrived, so the receiver hashes what it
// holds: XXH3-64 a chunk, to refuse damage at once and resume from there, and XXH3-128 over the whole.
#ifndef SLUICE_COMMON_TRANSFER_TRANSFER_H_
#define SLUICE_COMMON_TRANSFER_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// Between 1 and 4 MiB gRPC's streams are fastest; larger messages cost more than they save.
inline constexpr size_t kDefaultChunkBytes = 2 << 20;
inline constexpr size_t kMaxChunkBytes = 4 << 20;

// XXH3-128 in 32 hexadecimal digits, as xxhsum -H2 prints it.
std::string PayloadChecksum(absl::string_view payload);
// XXH3-64.
uint64_t ChunkChecksum(absl::string_view data);

// A piece of a payload; `data` belongs to whoever made it.
struct ChunkView {
  uint64_t offset = 0;
  uint64_t total_bytes = 0;
  absl::string_view data;
  uint64_t checksum = 0;
};

// The chunk that starts at `offset` <= payload.size(), of at most `chunk_bytes`. Empty only at the end.
ChunkView ChunkAt(absl::string_view payload, uint64_t offset, size_t chunk_bytes = kDefaultChunkBytes);

// Puts a payload together from its chunks in order. Not thread-safe.
class Assembler {
 public:
  struct Expected {
    uint64_t total_bytes = 0;  // 0: what the first chunk says, within max_bytes
    std::string checksum;      // PayloadChecksum; empty: the caller checks the content in another way
    uint64_t max_bytes = uint64_t{16} << 30;
  };

  explicit Assembler(Expected expected) : expected_(std::move(expected)) {}

  // DataLoss: a damaged chunk, or not the one that comes next (nothing is added: ask again from next_offset());
  // InvalidArgument: larger than allowed, or not the length that was announced.
  absl::Status Add(const ChunkView& chunk);

  // Forgets what came so far.
  void Restart();

  uint64_t next_offset() const { return payload_.size(); }
  bool complete() const { return total_known_ && payload_.size() == total_bytes_; }

  // The payload, moved out. DataLoss: incomplete, or its checksum is not the announced one; the assembler then starts
  // over from offset 0.
  absl::StatusOr<std::string> Finish();

 private:
  const Expected expected_;
  bool total_known_ = false;
  uint64_t total_bytes_ = 0;
  std::string payload_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_TRANSFER_TRANSFER_H_

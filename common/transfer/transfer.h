// Large payloads (weights, catalogs) in checksummed chunks: cutting them, and putting them together again without
// believing anything.
//
// A transfer that returned without an error proves nothing about the bytes that arrived, so the receiver hashes what it
// holds: XXH3-64 a chunk, to refuse damage at once and resume from there, and XXH3-128 over the whole. Both are made
// while a chunk is still in the cache, so that neither side walks over the memory twice.
#ifndef SLUICE_COMMON_TRANSFER_TRANSFER_H_
#define SLUICE_COMMON_TRANSFER_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

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

// The checksums of a payload's chunks, made once however many receivers it goes to. Chunks begin at multiples of
// chunk_bytes.
struct ChunkTable {
  size_t chunk_bytes = 0;  // 0: there is no table
  std::vector<uint64_t> checksums;
};

// Copies a payload and hashes it on the way: fills `table` for chunks of `chunk_bytes` and returns the
// PayloadChecksum. `to` has room for all of `from`, and does not overlap it.
std::string CopyAndHash(absl::string_view from, char* to, size_t chunk_bytes, ChunkTable* table);

// The chunk that starts at `offset` <= payload.size(), of at most `chunk_bytes`. Empty only at the end.
ChunkView ChunkAt(absl::string_view payload, uint64_t offset, size_t chunk_bytes = kDefaultChunkBytes);
// The same with the checksum from the payload's table, if the table knows it: `hashed` (optional) tells whether it had
// to be computed. Off the table's grid the chunk ends where the next one of the grid begins.
ChunkView ChunkAt(absl::string_view payload, const ChunkTable& table, uint64_t offset, size_t chunk_bytes,
                  bool* hashed = nullptr);

// Puts a payload together from its chunks in order, in memory of its own or of the caller. Not thread-safe.
class Assembler {
 public:
  struct Expected {
    uint64_t total_bytes = 0;  // 0: what the first chunk says, within max_bytes
    std::string checksum;      // PayloadChecksum; empty: the caller checks the content in another way
    uint64_t max_bytes = uint64_t{16} << 30;
  };

  explicit Assembler(Expected expected);
  // Writes into `place`, which must be as long as the payload and outlive the assembler. What it holds is the payload
  // only after a good Verify.
  Assembler(Expected expected, absl::Span<char> place);
  ~Assembler();

  // DataLoss: a damaged chunk, or not the one that comes next (nothing is added: ask again from next_offset());
  // InvalidArgument: larger than allowed, or not the length that was announced.
  absl::Status Add(const ChunkView& chunk);

  // Add in two steps, for who can write the data where it belongs: the place of `size` bytes of a chunk, with Add's
  // errors but for the damage; then, once they are written there, the check of their checksum.
  absl::StatusOr<char*> Begin(uint64_t offset, uint64_t total_bytes, size_t size);
  absl::Status End(uint64_t checksum);

  // Forgets what came so far.
  void Restart();

  uint64_t next_offset() const { return size_; }
  bool complete() const { return total_known_ && size_ == total_bytes_; }

  // Whether all of it is there and right. DataLoss: incomplete; or its checksum is not the announced one, and the
  // assembler then starts over from offset 0.
  absl::Status Verify();
  // Verify, then the payload of an assembler with memory of its own, moved out.
  absl::StatusOr<std::string> Finish();

 private:
  struct Hash;

  const Expected expected_;
  const absl::Span<char> place_;  // empty: own_
  std::string own_;
  bool total_known_ = false;
  uint64_t total_bytes_ = 0;
  uint64_t size_ = 0;           // checked bytes
  size_t begun_ = 0;            // bytes after them whose place was given out
  std::unique_ptr<Hash> hash_;  // over the checked bytes
};

}  // namespace sluice

#endif  // SLUICE_COMMON_TRANSFER_TRANSFER_H_

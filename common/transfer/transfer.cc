#include "common/transfer/transfer.h"

#include <algorithm>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"

namespace sluice {

std::string PayloadChecksum(absl::string_view payload) {
  const XXH128_hash_t hash = XXH3_128bits(payload.data(), payload.size());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

uint64_t ChunkChecksum(absl::string_view data) { return XXH3_64bits(data.data(), data.size()); }

ChunkView ChunkAt(absl::string_view payload, uint64_t offset, size_t chunk_bytes) {
  SLUICE_CHECK(offset <= payload.size(), absl::StrCat("chunk at ", offset, " of ", payload.size(), " bytes"));
  ChunkView chunk;
  chunk.offset = offset;
  chunk.total_bytes = payload.size();
  chunk.data = payload.substr(offset, chunk_bytes);
  chunk.checksum = ChunkChecksum(chunk.data);
  return chunk;
}

absl::Status Assembler::Add(const ChunkView& chunk) {
  const uint64_t wanted_total = total_known_ ? total_bytes_ : expected_.total_bytes;
  if ((total_known_ || expected_.total_bytes != 0) && chunk.total_bytes != wanted_total) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a payload of ", wanted_total, " bytes, the chunk is of one of ", chunk.total_bytes));
  }
  if (chunk.total_bytes > expected_.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the payload has ", chunk.total_bytes, " bytes, at most ", expected_.max_bytes, " are taken"));
  }
  if (chunk.data.size() > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk of ", chunk.data.size(), " bytes, at most ", kMaxChunkBytes, " are taken"));
  }
  if (chunk.offset != payload_.size()) {
    return absl::DataLossError(absl::StrCat("want the chunk at offset ", payload_.size(), ", got ", chunk.offset));
  }
  if (chunk.data.size() > chunk.total_bytes - chunk.offset) {
    return absl::InvalidArgumentError(absl::StrCat("the chunk at ", chunk.offset, " has ", chunk.data.size(),
                                                   " bytes and passes the end at ", chunk.total_bytes));
  }
  if (chunk.data.empty() && chunk.offset != chunk.total_bytes) {
    return absl::DataLossError(absl::StrCat("the chunk at offset ", chunk.offset, " is empty"));
  }
  if (ChunkChecksum(chunk.data) != chunk.checksum) {
    return absl::DataLossError(absl::StrCat("the chunk at offset ", chunk.offset, " was damaged on the way"));
  }
  total_known_ = true;
  total_bytes_ = chunk.total_bytes;
  payload_.reserve(total_bytes_);
  payload_.append(chunk.data.data(), chunk.data.size());
  return absl::OkStatus();
}

void Assembler::Restart() {
  payload_.clear();
  total_known_ = false;
}

absl::StatusOr<std::string> Assembler::Finish() {
  if (!complete()) {
    return absl::DataLossError(absl::StrCat("the payload ends at ", payload_.size(), " of ",
                                            total_known_ ? total_bytes_ : expected_.total_bytes, " bytes"));
  }
  std::string payload = std::exchange(payload_, std::string());
  total_known_ = false;
  if (!expected_.checksum.empty()) {
    if (const std::string got = PayloadChecksum(payload); got != expected_.checksum) {
      return absl::DataLossError(absl::StrCat("the payload's checksum: want ", expected_.checksum, ", got ", got));
    }
  }
  return payload;
}

}  // namespace sluice

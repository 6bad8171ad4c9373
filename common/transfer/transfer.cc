#include "common/transfer/transfer.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

// The library's own choice among the instruction sets of x86, made when it is first asked.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#endif

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"

namespace sluice {
namespace {

std::string Hexadecimal(const XXH128_hash_t& hash) { return absl::StrFormat("%016x%016x", hash.high64, hash.low64); }

// XXH3-128 of what is added, bit by bit.
class RunningHash {
 public:
  RunningHash() : state_(XXH3_createState(), XXH3_freeState) { Reset(); }
  void Reset() { XXH3_128bits_reset(state_.get()); }
  void Add(absl::string_view data) { XXH3_128bits_update(state_.get(), data.data(), data.size()); }
  std::string Digest() const { return Hexadecimal(XXH3_128bits_digest(state_.get())); }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

}  // namespace

struct Assembler::Hash : public RunningHash {};

std::string PayloadChecksum(absl::string_view payload) {
  return Hexadecimal(XXH3_128bits(payload.data(), payload.size()));
}

uint64_t ChunkChecksum(absl::string_view data) { return XXH3_64bits(data.data(), data.size()); }

std::string CopyAndHash(absl::string_view from, char* to, size_t chunk_bytes, ChunkTable* table) {
  SLUICE_CHECK(chunk_bytes > 0, "chunks hold something");
  RunningHash whole;
  table->chunk_bytes = chunk_bytes;
  table->checksums.clear();
  table->checksums.reserve(from.size() / chunk_bytes + 1);
  for (size_t offset = 0; offset < from.size(); offset += chunk_bytes) {
    const absl::string_view chunk = from.substr(offset, chunk_bytes);
    std::memcpy(to + offset, chunk.data(), chunk.size());
    // Of the copy: that is what travels.
    const absl::string_view copied(to + offset, chunk.size());
    table->checksums.push_back(ChunkChecksum(copied));
    whole.Add(copied);
  }
  return whole.Digest();
}

ChunkView ChunkAt(absl::string_view payload, uint64_t offset, size_t chunk_bytes) {
  return ChunkAt(payload, ChunkTable(), offset, chunk_bytes);
}

ChunkView ChunkAt(absl::string_view payload, const ChunkTable& table, uint64_t offset, size_t chunk_bytes,
                  bool* hashed) {
  SLUICE_CHECK(offset <= payload.size(), absl::StrCat("chunk at ", offset, " of ", payload.size(), " bytes"));
  const bool grid = table.chunk_bytes == chunk_bytes && chunk_bytes > 0;
  const size_t beyond = grid ? offset % chunk_bytes : 0;  // bytes past the last boundary of the grid
  ChunkView chunk;
  chunk.offset = offset;
  chunk.total_bytes = payload.size();
  chunk.data = payload.substr(offset, chunk_bytes - beyond);
  const bool known = grid && beyond == 0 && offset / chunk_bytes < table.checksums.size();
  chunk.checksum = known ? table.checksums[offset / chunk_bytes] : ChunkChecksum(chunk.data);
  if (hashed != nullptr) *hashed = !known;
  return chunk;
}

Assembler::Assembler(Expected expected) : Assembler(std::move(expected), {}) {}

Assembler::Assembler(Expected expected, absl::Span<char> place)
    : expected_(std::move(expected)), place_(place), hash_(std::make_unique<Hash>()) {}

Assembler::~Assembler() = default;

absl::Status Assembler::Add(const ChunkView& chunk) {
  SLUICE_ASSIGN_OR_RETURN(char* const to, Begin(chunk.offset, chunk.total_bytes, chunk.data.size()));
  std::copy(chunk.data.begin(), chunk.data.end(), to);
  return End(chunk.checksum);
}

absl::StatusOr<char*> Assembler::Begin(uint64_t offset, uint64_t total_bytes, size_t size) {
  const uint64_t wanted_total = total_known_ ? total_bytes_ : expected_.total_bytes;
  if ((total_known_ || expected_.total_bytes != 0) && total_bytes != wanted_total) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a payload of ", wanted_total, " bytes, the chunk is of one of ", total_bytes));
  }
  if (total_bytes > expected_.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the payload has ", total_bytes, " bytes, at most ", expected_.max_bytes, " are taken"));
  }
  if (!place_.empty() && total_bytes != place_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the payload has ", total_bytes, " bytes, its place has ", place_.size()));
  }
  if (size > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk of ", size, " bytes, at most ", kMaxChunkBytes, " are taken"));
  }
  if (offset != size_) return absl::DataLossError(absl::StrCat("want the chunk at offset ", size_, ", got ", offset));
  if (size > total_bytes - offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("the chunk at ", offset, " has ", size, " bytes and passes the end at ", total_bytes));
  }
  if (size == 0 && offset != total_bytes) {
    return absl::DataLossError(absl::StrCat("the chunk at offset ", offset, " is empty"));
  }
  total_known_ = true;
  total_bytes_ = total_bytes;
  begun_ = size;
  if (!place_.empty()) return place_.data() + offset;
  own_.reserve(total_bytes);
  own_.resize(offset + size);
  return own_.data() + offset;
}

absl::Status Assembler::End(uint64_t checksum) {
  const char* const begin = (place_.empty() ? own_.data() : place_.data()) + size_;
  const absl::string_view data(begin, std::exchange(begun_, 0));
  if (ChunkChecksum(data) != checksum) {
    return absl::DataLossError(absl::StrCat("the chunk at offset ", size_, " was damaged on the way"));
  }
  size_ += data.size();
  if (!expected_.checksum.empty()) hash_->Add(data);
  return absl::OkStatus();
}

void Assembler::Restart() {
  own_.clear();
  total_known_ = false;
  size_ = 0;
  begun_ = 0;
  hash_->Reset();
}

absl::Status Assembler::Verify() {
  if (!complete()) {
    return absl::DataLossError(absl::StrCat("the payload ends at ", size_, " of ",
                                            total_known_ ? total_bytes_ : expected_.total_bytes, " bytes"));
  }
  if (expected_.checksum.empty()) return absl::OkStatus();
  if (const std::string got = hash_->Digest(); got != expected_.checksum) {
    Restart();
    return absl::DataLossError(absl::StrCat("the payload's checksum: want ", expected_.checksum, ", got ", got));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Assembler::Finish() {
  SLUICE_CHECK(place_.empty(), "the payload lies in the caller's memory");
  SLUICE_RETURN_IF_ERROR(Verify());
  own_.resize(size_);  // less a chunk that was begun and refused
  std::string payload = std::move(own_);
  Restart();
  return payload;
}

}  // namespace sluice

#include "learner/record/record_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"
#include "common/transfer/transfer.h"

namespace sluice::learner {
namespace {

constexpr size_t kFrameHead = sizeof(uint32_t) + sizeof(uint64_t);
// One rank's file: above any budget that a person would set and below what memory holds.
constexpr int64_t kMaxFileBytes = int64_t{16} << 30;
constexpr char kSuffix[] = ".groups";

std::string FileOfRank(const std::string& folder, int rank) {
  return JoinPath(folder, absl::StrFormat("rank-%04d%s", rank, kSuffix));
}

// Without the last '\n', which AppendFile adds.
std::string Frame(absl::string_view payload) {
  const uint32_t length = static_cast<uint32_t>(payload.size());
  const uint64_t checksum = ChunkChecksum(payload);
  std::string frame(kFrameHead, '\0');
  std::memcpy(frame.data(), &length, sizeof(length));
  std::memcpy(frame.data() + sizeof(length), &checksum, sizeof(checksum));
  absl::StrAppend(&frame, payload);
  return frame;
}

// The frame at the beginning of `left`, which it is cut off from; absent if the end cuts it off.
absl::StatusOr<std::optional<absl::string_view>> NextFrame(absl::string_view* left) {
  if (left->size() < kFrameHead) return std::nullopt;
  uint32_t length = 0;
  uint64_t checksum = 0;
  std::memcpy(&length, left->data(), sizeof(length));
  std::memcpy(&checksum, left->data() + sizeof(length), sizeof(checksum));
  if (left->size() - kFrameHead <= length) return std::nullopt;
  const absl::string_view payload = left->substr(kFrameHead, length);
  if ((*left)[kFrameHead + length] != '\n' || ChunkChecksum(payload) != checksum) {
    return absl::DataLossError("the checksum does not match");
  }
  left->remove_prefix(kFrameHead + length + 1);
  return payload;
}

struct ScannedFile {
  RecordHeader header;
  std::vector<GroupRecord> groups;
  std::vector<size_t> ends;  // offset behind each group
  size_t header_end = 0;
};

absl::StatusOr<ScannedFile> Scan(const std::string& path, const std::string& bytes) {
  absl::string_view left = bytes;
  const auto damaged = [&](const absl::Status& status) {
    return absl::DataLossError(absl::StrCat("'", path, "', byte ", bytes.size() - left.size(), ": ", status.message()));
  };
  ScannedFile scanned;
  absl::StatusOr<std::optional<absl::string_view>> frame = NextFrame(&left);
  if (!frame.ok()) return damaged(frame.status());
  if (!*frame) return scanned;  // killed before the header was whole
  absl::StatusOr<RecordHeader> header = DecodeHeader(**frame);
  if (!header.ok()) return damaged(header.status());
  scanned.header = *std::move(header);
  scanned.header_end = bytes.size() - left.size();
  while (true) {
    frame = NextFrame(&left);
    if (!frame.ok()) return damaged(frame.status());
    if (!*frame) return scanned;
    absl::StatusOr<GroupRecord> record = DecodeRecord(**frame);
    if (!record.ok()) return damaged(record.status());
    scanned.groups.push_back(*std::move(record));
    scanned.ends.push_back(bytes.size() - left.size());
  }
}

absl::StatusOr<std::vector<std::string>> RecordFiles(const std::string& folder) {
  std::vector<std::string> files;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  for (const std::string& name : names) {
    if (absl::EndsWith(name, kSuffix)) files.push_back(JoinPath(folder, name));
  }
  return files;
}

}  // namespace

std::string RecordFolder(const std::string& run_folder) { return JoinPath(run_folder, "record"); }

absl::Status RewindRecord(const std::string& folder, std::optional<uint64_t> step) {
  if (!step) SLUICE_RETURN_IF_ERROR(RemoveAll(folder));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> files, RecordFiles(folder));
  for (const std::string& path : files) {
    SLUICE_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kMaxFileBytes));
    SLUICE_ASSIGN_OR_RETURN(const ScannedFile scanned, Scan(path, bytes));
    size_t end = scanned.header_end;
    for (size_t i = 0; i < scanned.groups.size() && scanned.groups[i].step < *step; ++i) end = scanned.ends[i];
    if (end == bytes.size()) continue;
    bytes.resize(end);
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RecordWriter>> RecordWriter::Open(const std::string& folder, int rank,
                                                                 const RecordHeader& header, int64_t max_bytes) {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string path = FileOfRank(folder, rank);
  const std::string first = Frame(Encode(header));
  int64_t bytes = 0;
  if (PathExists(path)) {
    SLUICE_ASSIGN_OR_RETURN(const std::string there, ReadFile(path, kMaxFileBytes));
    bytes = static_cast<int64_t>(there.size());
    if (bytes > 0 && !absl::StartsWith(there, first)) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", path, "' holds groups of another job; move it away to record this one"));
    }
  }
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<AppendFile> file, AppendFile::Open(path));
  if (bytes == 0) {
    SLUICE_RETURN_IF_ERROR(file->Append(first));
    bytes = static_cast<int64_t>(first.size()) + 1;
  }
  return std::unique_ptr<RecordWriter>(new RecordWriter(std::move(file), bytes, max_bytes));
}

absl::StatusOr<bool> RecordWriter::Append(absl::Span<const GroupRecord> step) {
  if (full_) return false;
  if (step.empty()) return true;
  std::string bytes;
  for (const GroupRecord& record : step) {
    if (!bytes.empty()) bytes += '\n';
    bytes += Frame(Encode(record));
  }
  const int64_t size = static_cast<int64_t>(bytes.size()) + 1;
  if (bytes_ + size > max_bytes_) {
    full_ = true;
    return false;
  }
  SLUICE_RETURN_IF_ERROR(file_->Append(bytes));
  bytes_ += size;
  return true;
}

absl::StatusOr<RecordedRun> ReadRecord(const std::string& run_folder) {
  const std::string folder = RecordFolder(run_folder);
  std::vector<std::string> files;
  if (IsDirectory(folder)) {
    SLUICE_ASSIGN_OR_RETURN(files, RecordFiles(folder));
  }
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat("the run '", run_folder, "' has no recorded groups", RelativeTo(run_folder),
                                            "; run the job with rl.record true"));
  }
  RecordedRun run;
  std::map<uint64_t, std::map<uint64_t, GroupRecord>> steps;  // by step, by ordinal
  bool first = true;
  for (const std::string& path : files) {
    SLUICE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
    SLUICE_ASSIGN_OR_RETURN(ScannedFile scanned, Scan(path, bytes));
    if (scanned.header_end == 0) continue;
    if (!first && !(scanned.header == run.header)) {
      return absl::DataLossError(absl::StrCat("'", path, "' holds groups of another job than the files beside it"));
    }
    first = false;
    run.header = scanned.header;
    for (GroupRecord& record : scanned.groups) {
      const uint64_t ordinal = record.ordinal;
      if (!steps[record.step].emplace(ordinal, std::move(record)).second) {
        return absl::DataLossError(absl::StrCat("'", path, "' holds ordinal ", ordinal, " a second time"));
      }
    }
  }
  for (auto& [step, groups] : steps) {
    if (step != run.steps.size() || groups.size() != run.header.groups_per_step) {
      run.left_out += groups.size();
      continue;
    }
    std::vector<GroupRecord>& in_order = run.steps.emplace_back();
    for (auto& [ordinal, record] : groups) in_order.push_back(std::move(record));
  }
  return run;
}

}  // namespace sluice::learner

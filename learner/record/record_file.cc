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

absl::StatusOr<std::vector<std::string>> FilesOfRun(const std::string& run_folder) {
  const std::string folder = RecordFolder(run_folder);
  std::vector<std::string> files;
  if (IsDirectory(folder)) {
    SLUICE_ASSIGN_OR_RETURN(files, RecordFiles(folder));
  }
  if (!files.empty()) return files;
  return absl::NotFoundError(absl::StrCat("the run '", run_folder, "' has no recorded groups", RelativeTo(run_folder),
                                          "; run the job with rl.record true"));
}

// The frames of a file one after the other, without the whole of it in memory. What is not looked at is not checked,
// but that a frame ends where it should.
class FrameWalk {
 public:
  explicit FrameWalk(const InputFile* file) : file_(file) {}

  // Goes to the next frame. False: the file ends, or the frame that it cuts off begins.
  absl::StatusOr<bool> Next() {
    begin_ = end_;
    SLUICE_ASSIGN_OR_RETURN(const absl::string_view head, At(begin_, kFrameHead));
    if (head.empty()) return false;
    std::memcpy(&length_, head.data(), sizeof(length_));
    end_ = begin_ + static_cast<int64_t>(kFrameHead) + length_ + 1;
    SLUICE_ASSIGN_OR_RETURN(const absl::string_view last, At(end_ - 1, 1));
    if (last.empty()) return false;
    if (last != "\n") return Damaged(absl::DataLossError("the frame does not end where its length says"));
    return true;
  }
  // The frame's payload from its beginning, `bytes` of it or all.
  absl::StatusOr<absl::string_view> Payload(size_t bytes) {
    return At(begin_ + static_cast<int64_t>(kFrameHead), std::min<size_t>(bytes, length_));
  }
  // The whole payload, which has its checksum.
  absl::StatusOr<absl::string_view> CheckedPayload() {
    SLUICE_ASSIGN_OR_RETURN(absl::string_view frame, At(begin_, static_cast<size_t>(end_ - begin_)));
    const absl::StatusOr<std::optional<absl::string_view>> payload = NextFrame(&frame);
    if (!payload.ok()) return Damaged(payload.status());
    return payload->value_or("");
  }
  absl::Status Damaged(const absl::Status& status) const {
    return absl::DataLossError(absl::StrCat("'", file_->path(), "', byte ", begin_, ": ", status.message()));
  }

 private:
  // Valid until the next call; empty if the file ends before.
  absl::StatusOr<absl::string_view> At(int64_t offset, size_t bytes) {
    if (offset + static_cast<int64_t>(bytes) > file_->bytes()) return absl::string_view();
    const auto size = static_cast<int64_t>(buffer_.size());
    if (offset < start_ || offset + static_cast<int64_t>(bytes) > start_ + size) {
      start_ = offset;
      buffer_.resize(
          static_cast<size_t>(std::min(file_->bytes() - offset, std::max(kPieceBytes, static_cast<int64_t>(bytes)))));
      SLUICE_RETURN_IF_ERROR(file_->ReadAt(offset, buffer_.data(), buffer_.size()));
    }
    return absl::string_view(buffer_).substr(static_cast<size_t>(offset - start_), bytes);
  }

  static constexpr int64_t kPieceBytes = 1 << 20;
  const InputFile* const file_;
  int64_t begin_ = 0, end_ = 0;  // of the frame
  uint32_t length_ = 0;          // of its payload
  std::string buffer_;
  int64_t start_ = 0;  // of buffer_ in the file
};

absl::Status FindInFile(const std::string& path, const std::set<uint64_t>& ordinals, FoundGroups* found) {
  constexpr size_t kHeadBytes = 3 * sizeof(uint64_t);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> file, InputFile::Open(path));
  FrameWalk walk(file.get());
  SLUICE_ASSIGN_OR_RETURN(const bool has_header, walk.Next());
  if (!has_header) return absl::OkStatus();  // killed before it was whole
  SLUICE_ASSIGN_OR_RETURN(const absl::string_view header, walk.CheckedPayload());
  if (const auto decoded = DecodeHeader(header); !decoded.ok()) return walk.Damaged(decoded.status());
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, walk.Next());
    if (!more) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(const absl::string_view bytes, walk.Payload(kHeadBytes));
    const absl::StatusOr<RecordHead> head = DecodeHead(bytes);
    if (!head.ok()) return walk.Damaged(head.status());
    found->last_step = std::max(found->last_step.value_or(0), head->step);
    if (head->ordinal > *ordinals.rbegin()) return absl::OkStatus();  // as all that follow
    if (ordinals.count(head->ordinal) == 0) continue;
    SLUICE_ASSIGN_OR_RETURN(const absl::string_view payload, walk.CheckedPayload());
    absl::StatusOr<GroupRecord> record = DecodeRecord(payload);
    if (!record.ok()) return walk.Damaged(record.status());
    FoundGroups::Group group{*std::move(record), path.substr(path.rfind('/') + 1)};
    if (!found->groups.emplace(head->ordinal, std::move(group)).second) {
      return absl::DataLossError(absl::StrCat("'", path, "' holds ordinal ", head->ordinal, " a second time"));
    }
  }
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
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOfRun(run_folder));
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

absl::StatusOr<FoundGroups> FindGroups(const std::string& run_folder, const std::set<uint64_t>& ordinals,
                                       int64_t max_bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOfRun(run_folder));
  int64_t bytes = 0;
  for (const std::string& path : files) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t more, FileBytes(path));
    bytes += more;
  }
  if (bytes > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the recorded groups in '", RecordFolder(run_folder), "' have ",
                                                     bytes, " bytes, and at most ", max_bytes, " are looked through"));
  }
  FoundGroups found;
  if (ordinals.empty()) return found;
  for (const std::string& path : files) SLUICE_RETURN_IF_ERROR(FindInFile(path, ordinals, &found));
  return found;
}

}  // namespace sluice::learner

#include "learner/ledger/terminal_table.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/failpoint/failpoint.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
constexpr char kTemporary[] = ".tmp";
constexpr char kHeader[] = "ordinal,user,position,state,reason,step\n";
constexpr uint64_t kHeaderBytes = sizeof(kHeader) - 1;
// Six fields with a word each: far below.
constexpr uint64_t kMaxLineBytes = 512;

uint64_t OrdinalOf(absl::string_view line) {
  uint64_t ordinal = 0;
  // Lines are TerminalLine's.
  SLUICE_CHECK(absl::SimpleAtoi(line.substr(0, line.find(',')), &ordinal),
               "a line of the terminal table has no ordinal");
  return ordinal;
}

// What TerminalLine wrote, without its '\n'; nullopt: something else.
std::optional<TerminalRow> ParseTerminalRow(absl::string_view line) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  TerminalRow row;
  if (fields.size() != 6 || !absl::SimpleAtoi(fields[0], &row.ordinal) || !absl::SimpleAtoi(fields[1], &row.user) ||
      !absl::SimpleAtoi(fields[2], &row.position) || !absl::SimpleAtoi(fields[5], &row.step)) {
    return std::nullopt;
  }
  row.reason = std::string(fields[4]);
  for (const TerminalState state :
       {TerminalState::kTrained, TerminalState::kDropped, TerminalState::kFailed, TerminalState::kCancelled}) {
    row.state = state;
    if (fields[3] == TerminalStateName(state)) return row;
  }
  return std::nullopt;
}

}  // namespace

const char* TerminalStateName(TerminalState state) {
  switch (state) {
    case TerminalState::kTrained:
      return "trained";
    case TerminalState::kDropped:
      return "dropped";
    case TerminalState::kFailed:
      return "failed";
    case TerminalState::kCancelled:
      break;
  }
  return "cancelled";
}

std::string TerminalLine(const TerminalRow& row) {
  return absl::StrCat(row.ordinal, ",", row.user, ",", row.position, ",", TerminalStateName(row.state), ",", row.reason,
                      ",", row.step, "\n");
}

std::string MergeTerminalLines(const std::vector<std::string>& ranks) {
  std::vector<std::pair<uint64_t, absl::string_view>> lines;
  for (const std::string& rank : ranks) {
    for (const absl::string_view line : absl::StrSplit(rank, '\n', absl::SkipEmpty())) {
      lines.emplace_back(OrdinalOf(line), line);
    }
  }
  std::sort(lines.begin(), lines.end());
  std::string merged;
  for (const auto& [ordinal, line] : lines) absl::StrAppend(&merged, line, "\n");
  return merged;
}

absl::Status TerminalTable::Verify(const std::string& path, const TableMark& mark) {
  Sha256Stream hasher;
  const absl::Status status = HashPrefix(path, mark.bytes, &hasher);
  if (!status.ok()) return absl::DataLossError(absl::StrCat("the ledger's table is damaged: ", status.message()));
  if (hasher.Digest() == mark.sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the first ", mark.bytes, " bytes of '", path,
                                          "' are not those of the checkpoint (SHA-256 differs)"));
}

absl::Status TerminalTable::Begin(const TableFence& fence, const std::function<absl::Status(const FileSink&)>& write) {
  const std::string aside = absl::StrCat(path_, ".", fence.epoch, kTemporary);
  const auto begin = [&]() -> absl::Status {
    const absl::Cleanup remove = [&aside] { RemoveAll(aside).IgnoreError(); };
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(aside, write));
    // Before the name is taken: by the name one that stops here would open its successor's.
    SLUICE_ASSIGN_OR_RETURN(file_, AppendFile::Open(aside));
    if (fence.check) SLUICE_RETURN_IF_ERROR(fence.check());
    SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_table_fence"));
    return RenamePath(aside, path_);
  };
  absl::Status status = begin();
  // Files that vanish under a writer are a consequence of what the fence says.
  if (!status.ok() && fence.check) SLUICE_RETURN_IF_ERROR(fence.check());
  return status;
}

absl::StatusOr<std::unique_ptr<TerminalTable>> TerminalTable::Create(const std::string& path, const TableFence& fence) {
  std::unique_ptr<TerminalTable> table(new TerminalTable(path));
  table->bytes_ = kHeaderBytes;
  table->hasher_.Update(kHeader);
  SLUICE_RETURN_IF_ERROR(table->Begin(fence, [](const FileSink& sink) { return sink(kHeader); }));
  return table;
}

absl::StatusOr<std::unique_ptr<TerminalTable>> TerminalTable::Reopen(const std::string& path, const TableMark& mark,
                                                                     const TableFence& fence) {
  SLUICE_RETURN_IF_ERROR(Verify(path, mark));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> old, InputFile::Open(path));
  std::unique_ptr<TerminalTable> table(new TerminalTable(path));
  SLUICE_RETURN_IF_ERROR(table->Begin(fence, [&](const FileSink& sink) -> absl::Status {
    std::string piece;
    for (; table->bytes_ < mark.bytes; table->bytes_ += piece.size()) {
      piece.resize(static_cast<size_t>(std::min(kPieceBytes, mark.bytes - table->bytes_)));
      SLUICE_RETURN_IF_ERROR(old->ReadAt(static_cast<int64_t>(table->bytes_), piece.data(), piece.size()));
      table->hasher_.Update(piece);
      SLUICE_RETURN_IF_ERROR(sink(piece));
    }
    return absl::OkStatus();
  }));
  return table;
}

absl::Status TerminalTable::RemoveUnfinished(const std::string& path) {
  const std::filesystem::path table(path);
  const std::string parent = table.parent_path().string();
  const std::string start = table.filename().string() + ".";
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(parent));
  for (const std::string& name : names) {
    if (absl::StartsWith(name, start) && absl::EndsWith(name, kTemporary)) {
      SLUICE_RETURN_IF_ERROR(RemoveAll(JoinPath(parent, name)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TerminalTableReader>> TerminalTableReader::Open(const std::string& path,
                                                                               uint64_t bytes) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<InputFile> file, InputFile::Open(path));
  if (static_cast<uint64_t>(file->bytes()) < bytes) {
    return absl::DataLossError(absl::StrCat("the ledger's table '", path, "' has ", file->bytes(), " bytes, and had ",
                                            bytes, " at the last checkpoint"));
  }
  std::unique_ptr<TerminalTableReader> reader(new TerminalTableReader(std::move(file), bytes));
  std::string header(kHeaderBytes, '\0');
  if (bytes < kHeaderBytes || !reader->file_->ReadAt(0, header.data(), header.size()).ok() || header != kHeader) {
    return reader->Damaged(0, "there is no header");
  }
  return reader;
}

absl::Status TerminalTableReader::Damaged(uint64_t byte, absl::string_view what) const {
  return absl::DataLossError(
      absl::StrCat("the ledger's table '", file_->path(), "' is damaged: byte ", byte, ": ", what));
}

absl::StatusOr<std::optional<TerminalTableReader::Line>> TerminalTableReader::LineFrom(uint64_t byte,
                                                                                       uint64_t end) const {
  // From the byte before: if that ends a line, one begins here.
  const uint64_t from = byte - 1;
  std::string block(static_cast<size_t>(std::min<uint64_t>(2 * kMaxLineBytes, bytes_ - from)), '\0');
  SLUICE_RETURN_IF_ERROR(file_->ReadAt(static_cast<int64_t>(from), block.data(), block.size()));
  const size_t before = block.find('\n');
  if (before == std::string::npos) return Damaged(byte, "no line ends here");
  Line line;
  line.begin = from + before + 1;
  if (line.begin >= end) return std::nullopt;
  const absl::string_view rest = absl::string_view(block).substr(before + 1);
  const size_t length = rest.find('\n');
  if (length == absl::string_view::npos) return Damaged(line.begin, "no line ends here");
  line.end = line.begin + length + 1;
  std::optional<TerminalRow> row = ParseTerminalRow(rest.substr(0, length));
  if (!row) return Damaged(line.begin, "want ordinal,user,position,state,reason,step");
  line.row = *std::move(row);
  return line;
}

absl::StatusOr<std::optional<TerminalRow>> TerminalTableReader::Find(uint64_t ordinal) const {
  // Lines of lower ordinals end at `low` at the latest, those of higher ones begin at `high` at the earliest.
  uint64_t low = kHeaderBytes, high = bytes_;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    SLUICE_ASSIGN_OR_RETURN(std::optional<Line> line, LineFrom(middle, high));
    if (!line) {
      // All lines that are left begin before `middle`: few, as a line is short. `low` is where one begins.
      if (high - low > 2 * kMaxLineBytes) return Damaged(middle, "no line ends here");
      SLUICE_ASSIGN_OR_RETURN(line, LineFrom(low, high));
      if (!line) return Damaged(low, "no line begins here");
    }
    if (line->row.ordinal == ordinal) return std::move(line->row);
    if (line->row.ordinal < ordinal) {
      low = line->end;
    } else {
      high = line->begin;
    }
  }
  return std::nullopt;
}

absl::Status TerminalTable::Append(const std::string& lines) {
  if (lines.empty()) return absl::OkStatus();
  // Append ends the last line itself.
  SLUICE_RETURN_IF_ERROR(file_->Append(absl::string_view(lines).substr(0, lines.size() - 1)));
  SLUICE_RETURN_IF_ERROR(file_->Sync());
  bytes_ += lines.size();
  hasher_.Update(lines);
  return absl::OkStatus();
}

}  // namespace sluice::learner

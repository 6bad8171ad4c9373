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

uint64_t OrdinalOf(absl::string_view line) {
  uint64_t ordinal = 0;
  // Lines are TerminalLine's.
  SLUICE_CHECK(absl::SimpleAtoi(line.substr(0, line.find(',')), &ordinal),
               "a line of the terminal table has no ordinal");
  return ordinal;
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
  const absl::Status status = begin();
  // Files that vanish under a writer are a consequence of what the fence says.
  if (!status.ok() && fence.check) SLUICE_RETURN_IF_ERROR(fence.check());
  return status;
}

absl::StatusOr<std::unique_ptr<TerminalTable>> TerminalTable::Create(const std::string& path, const TableFence& fence) {
  std::unique_ptr<TerminalTable> table(new TerminalTable(path));
  table->bytes_ = sizeof(kHeader) - 1;
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

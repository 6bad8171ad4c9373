#include "learner/ledger/terminal_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
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

absl::StatusOr<std::unique_ptr<TerminalTable>> TerminalTable::Create(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, kHeader));
  std::unique_ptr<TerminalTable> table(new TerminalTable(path));
  table->bytes_ = sizeof(kHeader) - 1;
  table->hasher_.Update(kHeader);
  SLUICE_ASSIGN_OR_RETURN(table->file_, AppendFile::Open(path));
  return table;
}

absl::StatusOr<std::unique_ptr<TerminalTable>> TerminalTable::Reopen(const std::string& path, const TableMark& mark) {
  SLUICE_RETURN_IF_ERROR(Verify(path, mark));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> old, InputFile::Open(path));
  std::unique_ptr<TerminalTable> table(new TerminalTable(path));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, [&](const FileSink& sink) -> absl::Status {
    std::string piece;
    for (; table->bytes_ < mark.bytes; table->bytes_ += piece.size()) {
      piece.resize(static_cast<size_t>(std::min(kPieceBytes, mark.bytes - table->bytes_)));
      SLUICE_RETURN_IF_ERROR(old->ReadAt(static_cast<int64_t>(table->bytes_), piece.data(), piece.size()));
      table->hasher_.Update(piece);
      SLUICE_RETURN_IF_ERROR(sink(piece));
    }
    return absl::OkStatus();
  }));
  SLUICE_ASSIGN_OR_RETURN(table->file_, AppendFile::Open(path));
  return table;
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

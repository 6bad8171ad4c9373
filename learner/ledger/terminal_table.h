// The ledger's terminal table, ledger.csv of a run folder: one line for each ordinal that has ended, in ordinal order.
//
//   ordinal,user,position,state,reason,step
//   0,17,4,trained,open,0
//
// (user, position) is the prompt: the event that was to be predicted. `step` is the update that took the ordinal in,
// from 0. Attempts, leases, epochs and versions are left out on purpose: they tell how a result was come by, and a job
// that was interrupted must have the same table as one that was not.
//
// The table grows at checkpoints, and a checkpoint keeps its mark: what is longer belongs to a timeline that was
// abandoned and is cut off, what is shorter or other is damage.
#ifndef SLUICE_LEARNER_LEDGER_TERMINAL_TABLE_H_
#define SLUICE_LEARNER_LEDGER_TERMINAL_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file/file.h"
#include "learner/ledger/group_source.h"

namespace sluice::learner {

// "trained", "dropped", "failed", "cancelled".
const char* TerminalStateName(TerminalState state);

struct TerminalRow {
  uint64_t ordinal = 0;
  int32_t user = 0;
  int32_t position = 0;
  TerminalState state = TerminalState::kTrained;
  std::string reason;  // lower-case letters and '_'
  uint64_t step = 0;
  bool operator==(const TerminalRow&) const = default;
};

// One line, with its '\n'.
std::string TerminalLine(const TerminalRow& row);

// The lines of several ranks as one text in ordinal order.
std::string MergeTerminalLines(const std::vector<std::string>& ranks);

// How far the table had come: its length and the SHA-256 of what is in it.
struct TableMark {
  uint64_t bytes = 0;
  std::string sha256;
  bool operator==(const TableMark&) const = default;
};

struct TableFence {
  // Part of the temporary name: no writer of another epoch ever uses that.
  uint64_t epoch = 0;
  // Asked when a table is written aside, just before it takes its name; an error leaves what was there. Null: OK.
  std::function<absl::Status()> check;
};

// Not thread-safe.
class TerminalTable {
 public:
  // DataLoss, naming the file, unless its first `mark.bytes` bytes are those that the mark was made of.
  static absl::Status Verify(const std::string& path, const TableMark& mark);

  // A new table, with its header alone. Replaces the file. Errors of the fence come before those of the file system.
  static absl::StatusOr<std::unique_ptr<TerminalTable>> Create(const std::string& path, const TableFence& fence = {});
  // Goes on from a mark that Verify accepts, in a new file of the same name, so that one who was taken for dead and
  // still has the old one open does not write into it.
  static absl::StatusOr<std::unique_ptr<TerminalTable>> Reopen(const std::string& path, const TableMark& mark,
                                                               const TableFence& fence = {});
  // Removes what is being written aside, and what killed processes left: none of it takes its name any more once this
  // returns, even if its writer goes on. For who has made sure that fences refuse all others from now on.
  static absl::Status RemoveUnfinished(const std::string& path);

  // Appends whole lines and waits for the disk.
  absl::Status Append(const std::string& lines);

  TableMark mark() const { return {bytes_, hasher_.Digest()}; }

 private:
  explicit TerminalTable(std::string path) : path_(std::move(path)) {}
  // Makes the file of what `write` writes.
  absl::Status Begin(const TableFence& fence, const std::function<absl::Status(const FileSink&)>& write);

  const std::string path_;
  std::unique_ptr<AppendFile> file_;
  uint64_t bytes_ = 0;
  Sha256Stream hasher_;
};

// Rows of a table by their ordinals, by halving: of a table of any length a few kilobytes are read. The table may grow
// meanwhile. Thread-safe.
class TerminalTableReader {
 public:
  // The first `bytes` bytes count, a mark's: what is longer belongs to no checkpoint. DataLoss: it is shorter, or
  // begins with something else than a table's header. NotFound: there is no file.
  static absl::StatusOr<std::unique_ptr<TerminalTableReader>> Open(const std::string& path, uint64_t bytes);

  // nullopt: the ordinal has not ended. DataLoss names the byte where there is no line of a table.
  absl::StatusOr<std::optional<TerminalRow>> Find(uint64_t ordinal) const;

 private:
  TerminalTableReader(std::unique_ptr<InputFile> file, uint64_t bytes) : file_(std::move(file)), bytes_(bytes) {}
  absl::Status Damaged(uint64_t byte, absl::string_view what) const;
  // The first line that begins at or after `byte`, below `end`, and where it begins.
  struct Line {
    uint64_t begin = 0;
    uint64_t end = 0;  // behind its '\n'
    TerminalRow row;
  };
  absl::StatusOr<std::optional<Line>> LineFrom(uint64_t byte, uint64_t end) const;

  const std::unique_ptr<InputFile> file_;
  const uint64_t bytes_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_TERMINAL_TABLE_H_

// The folder of an rl run without the run: ledger, checkpoints and record as a job of two ranks with steps of four
// groups leaves them. Useful for tests of what reads run folders.
#ifndef SLUICE_TESTS_TESTING_TRACED_RUN_H_
#define SLUICE_TESTS_TESTING_TRACED_RUN_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file/file.h"
#include "learner/ledger/ledger_snapshot.h"
#include "learner/ledger/terminal_table.h"
#include "learner/record/record_file.h"

namespace sluice::learner {

class TracedRun {
 public:
  static constexpr uint64_t kGroups = 4;  // of a step

  explicit TracedRun(std::string path) : path_(std::move(path)) { EXPECT_TRUE(MakeDirectories(path_).ok()); }

  const std::string& path() const { return path_; }
  std::string table_path() const { return JoinPath(path_, "ledger.csv"); }
  std::string CheckpointFolder(uint64_t step) const {
    return JoinPath(path_, absl::StrFormat("checkpoints/step-%08d", step));
  }
  static void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
  }

  // What the next checkpoint has more: every group of the step ended as trained, the k-th of user k.
  void EndStep(uint64_t step, const std::string& reason = "open", TerminalState state = TerminalState::kTrained) {
    if (table_ == nullptr) table_ = TerminalTable::Create(table_path()).value();
    std::string lines;
    for (uint64_t i = 0; i < kGroups; ++i) {
      lines += TerminalLine({kGroups * step + i, static_cast<int32_t>(i), 2, state, reason, step});
    }
    ASSERT_TRUE(table_->Append(lines).ok());
  }
  // `step` steps are done and one more is issued, whose first group was leased twice and no other one ever.
  void SaveCheckpoint(uint64_t step) {
    const std::string folder = CheckpointFolder(step);
    ASSERT_TRUE(MakeDirectories(JoinPath(folder, "model")).ok());
    for (uint64_t rank = 0; rank < 2; ++rank) {
      LedgerSnapshot ledger;
      ledger.issued = 2 * step + 2;
      ledger.trained = 2 * step;
      for (uint64_t i = 0; i < 2; ++i) {
        ledger.open.emplace_back(kGroups * step + 2 * rank + i, rank == 0 && i == 0 ? 2 : 0);
      }
      Write(JoinPath(folder, absl::StrCat("ledger-", rank, ".json")), LedgerSnapshotText(ledger));
    }
    const TableMark mark = table_->mark();
    Write(JoinPath(folder, "state.json"),
          nlohmann::json{{"step", step}, {"ledgers", 2}, {"table", {{"bytes", mark.bytes}, {"sha256", mark.sha256}}}}
              .dump());
    Write(JoinPath(folder, "manifest.json"), "{}");
  }
  // As rank 0; one call a step.
  void Record(const std::vector<GroupRecord>& step) {
    const auto writer = RecordWriter::Open(RecordFolder(path_), 0, {"catalog-a", 3, kGroups}, 1 << 20);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(step).value());
  }

 private:
  const std::string path_;
  std::unique_ptr<TerminalTable> table_;
};

}  // namespace sluice::learner

#endif  // SLUICE_TESTS_TESTING_TRACED_RUN_H_

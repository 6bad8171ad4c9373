#include "learner/ledger/terminal_table.h"

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

constexpr char kHeader[] = "ordinal,user,position,state,reason,step\n";

class TerminalTableTest : public ::testing::Test {
 protected:
  TerminalTableTest() {
    std::string pattern = ::testing::TempDir() + "/table.XXXXXX";
    folder_ = mkdtemp(pattern.data());
    path_ = folder_ + "/ledger.csv";
  }
  ~TerminalTableTest() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string folder_;
  std::string path_;
};

TEST(TerminalLineTest, NamesEveryState) {
  EXPECT_EQ(TerminalLine({7, 3, 2, TerminalState::kTrained, "open", 1}), "7,3,2,trained,open,1\n");
  EXPECT_EQ(TerminalLine({8, 3, 2, TerminalState::kFailed, "bad_data", 1}), "8,3,2,failed,bad_data,1\n");
  EXPECT_EQ(TerminalLine({9, 3, 2, TerminalState::kDropped, "stale", 1}), "9,3,2,dropped,stale,1\n");
  EXPECT_EQ(TerminalLine({10, 3, 2, TerminalState::kCancelled, "time_limit", 1}), "10,3,2,cancelled,time_limit,1\n");
}

TEST(TerminalLineTest, LinesOfRanksAreMergedByOrdinalAndNotByText) {
  EXPECT_EQ(MergeTerminalLines({"0,a\n8,b\n", "", "4,c\n12,d\n"}), "0,a\n4,c\n8,b\n12,d\n");
  EXPECT_EQ(MergeTerminalLines({"", ""}), "");
}

TEST_F(TerminalTableTest, AReopenedTableGoesOnWhereItsMarkWas) {
  const std::unique_ptr<TerminalTable> table = TerminalTable::Create(path_).value();
  ASSERT_TRUE(table->Append("0,a\n1,b\n").ok());
  const TableMark mark = table->mark();
  EXPECT_EQ(mark.sha256, Sha256(std::string(kHeader) + "0,a\n1,b\n"));
  ASSERT_TRUE(table->Append("2,of a timeline that is abandoned\n").ok());

  const std::unique_ptr<TerminalTable> again = TerminalTable::Reopen(path_, mark).value();
  EXPECT_EQ(again->mark(), mark);
  ASSERT_TRUE(again->Append("2,c\n").ok());
  ASSERT_TRUE(again->Append("").ok());
  EXPECT_EQ(ReadFile(path_).value(), std::string(kHeader) + "0,a\n1,b\n2,c\n");
  EXPECT_EQ(again->mark().sha256, FileSha256(path_).value());
  EXPECT_EQ(again->mark().bytes, static_cast<uint64_t>(FileBytes(path_).value()));
}

// Its lines used to land among those of the rank that had taken over, whose checkpoints then were all damaged.
TEST_F(TerminalTableTest, OneThatWasTakenForDeadDoesNotWriteIntoItsSuccessorsTable) {
  const std::unique_ptr<TerminalTable> dead = TerminalTable::Create(path_).value();
  ASSERT_TRUE(dead->Append("0,a\n").ok());
  const std::unique_ptr<TerminalTable> successor = TerminalTable::Reopen(path_, dead->mark()).value();
  ASSERT_TRUE(successor->Append("1,b\n").ok());
  ASSERT_TRUE(dead->Append("1,of the dead\n").ok());
  ASSERT_TRUE(successor->Append("2,c\n").ok());
  EXPECT_TRUE(TerminalTable::Verify(path_, successor->mark()).ok());
  EXPECT_EQ(ReadFile(path_).value(), std::string(kHeader) + "0,a\n1,b\n2,c\n");
}

// Between its look at the epoch and the rename it used to replace its successor's table, whose checkpoints then were
// all damaged.
TEST_F(TerminalTableTest, OneThatStopsBehindItsFenceWhileOthersTakeOverReplacesNothing) {
  for (const bool reopens : {false, true}) {
    SCOPED_TRACE(reopens);
    ASSERT_TRUE(TerminalTable::RemoveUnfinished(path_).ok());
    const TableMark mark = TerminalTable::Create(path_).value()->mark();
    std::unique_ptr<TerminalTable> successor;
    bool taken_over = false;
    const TableFence fence = {1, [&]() -> absl::Status {
                                if (std::exchange(taken_over, true)) return absl::AbortedError("epoch 2 has it");
                                // Its epoch was the latest when it looked; now it stops, and goes on when others have
                                // the job.
                                EXPECT_TRUE(TerminalTable::RemoveUnfinished(path_).ok());
                                successor = TerminalTable::Create(path_, {2, nullptr}).value();
                                EXPECT_TRUE(successor->Append("0,of the living\n").ok());
                                return absl::OkStatus();
                              }};
    const absl::Status late =
        (reopens ? TerminalTable::Reopen(path_, mark, fence) : TerminalTable::Create(path_, fence)).status();
    EXPECT_EQ(late, absl::AbortedError("epoch 2 has it"));
    EXPECT_TRUE(TerminalTable::Verify(path_, successor->mark()).ok());
    EXPECT_EQ(ReadFile(path_).value(), std::string(kHeader) + "0,of the living\n");
  }
}

TEST_F(TerminalTableTest, AFenceThatRefusesLeavesWhatWasThere) {
  const std::unique_ptr<TerminalTable> table = TerminalTable::Create(path_, {2, nullptr}).value();
  ASSERT_TRUE(table->Append("0,a\n").ok());
  const TableFence refuses = {1, [] { return absl::AbortedError("epoch 2 has it"); }};
  EXPECT_EQ(TerminalTable::Create(path_, refuses).status(), absl::AbortedError("epoch 2 has it"));
  EXPECT_EQ(TerminalTable::Reopen(path_, table->mark(), refuses).status(), absl::AbortedError("epoch 2 has it"));
  EXPECT_EQ(ReadFile(path_).value(), std::string(kHeader) + "0,a\n");
  EXPECT_FALSE(PathExists(path_ + ".1.tmp"));
}

TEST_F(TerminalTableTest, WhatIsUnfinishedGoesAndNothingElse) {
  ASSERT_TRUE(TerminalTable::Create(path_).ok());
  for (const char* end : {".1.tmp", ".2.tmp.tmp", ".tmp", ".old"}) {
    ASSERT_TRUE(WriteFileAtomically(path_ + end, "x").ok());
  }
  ASSERT_TRUE(TerminalTable::RemoveUnfinished(path_).ok());
  for (const char* end : {".1.tmp", ".2.tmp.tmp", ".tmp"}) EXPECT_FALSE(PathExists(path_ + end)) << end;
  EXPECT_TRUE(PathExists(path_ + ".old"));
  EXPECT_TRUE(PathExists(path_));
  ASSERT_TRUE(RemoveAll(path_ + ".old").ok());
}

TEST_F(TerminalTableTest, ATableThatIsShorterOtherOrGoneIsDataLoss) {
  const std::unique_ptr<TerminalTable> table = TerminalTable::Create(path_).value();
  ASSERT_TRUE(table->Append("0,a\n").ok());
  const TableMark mark = table->mark();
  const std::string whole = ReadFile(path_).value();
  std::string other = whole;
  other[other.size() - 2] ^= 1;
  for (const std::string& damaged : {other, whole.substr(0, whole.size() - 1)}) {
    ASSERT_TRUE(WriteFileAtomically(path_, damaged).ok());
    const absl::Status status = TerminalTable::Reopen(path_, mark).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    EXPECT_EQ(ReadFile(path_).value(), damaged) << "what is damaged is not cut";
  }
  ASSERT_TRUE(RemoveAll(path_).ok());
  EXPECT_EQ(TerminalTable::Verify(path_, mark).code(), absl::StatusCode::kDataLoss);
}

TEST_F(TerminalTableTest, ANewTableReplacesWhatWasThere) {
  ASSERT_TRUE(WriteFileAtomically(path_, "of an attempt that wrote no checkpoint\n").ok());
  ASSERT_TRUE(TerminalTable::Create(path_).ok());
  EXPECT_EQ(ReadFile(path_).value(), kHeader);
}

class TerminalTableReaderTest : public TerminalTableTest {
 protected:
  // Rows of every third ordinal below `end`, with lines of many lengths; the last of them is of a step that is
  // cancelled.
  std::vector<TerminalRow> WriteEveryThird(uint64_t end) {
    std::vector<TerminalRow> rows;
    std::string text;
    for (uint64_t ordinal = 0; ordinal < end; ordinal += 3) {
      const std::string reason(1 + ordinal * 7 % 40, 'a');
      rows.push_back({ordinal, static_cast<int32_t>(ordinal * 31 % 997), static_cast<int32_t>(ordinal % 12),
                      ordinal + 3 < end ? TerminalState::kTrained : TerminalState::kCancelled, reason, ordinal / 16});
      text += TerminalLine(rows.back());
    }
    table_ = TerminalTable::Create(path_).value();
    EXPECT_TRUE(table_->Append(text).ok());
    return rows;
  }
  absl::StatusOr<std::optional<TerminalRow>> Find(uint64_t ordinal) {
    const auto reader = TerminalTableReader::Open(path_, table_->mark().bytes);
    if (!reader.ok()) return reader.status();
    return (*reader)->Find(ordinal);
  }
  std::unique_ptr<TerminalTable> table_;
};

TEST_F(TerminalTableReaderTest, FindsEveryRowAndNoOther) {
  for (const uint64_t end : {1, 4, 50, 3000}) {
    const std::vector<TerminalRow> rows = WriteEveryThird(end);
    for (uint64_t ordinal = 0; ordinal < end + 5; ++ordinal) {
      const auto found = Find(ordinal);
      ASSERT_TRUE(found.ok()) << found.status();
      const bool there = ordinal % 3 == 0 && ordinal < end;
      ASSERT_EQ(found->has_value(), there) << ordinal << " of " << end;
      if (there) {
        ASSERT_EQ(**found, rows[ordinal / 3]);
      }
    }
  }
}

TEST_F(TerminalTableReaderTest, WhatLiesBehindTheMarkIsNotThere) {
  WriteEveryThird(30);
  const TableMark mark = table_->mark();
  ASSERT_TRUE(table_->Append(TerminalLine({30, 1, 1, TerminalState::kTrained, "open", 2})).ok());
  const auto reader = TerminalTableReader::Open(path_, mark.bytes).value();
  EXPECT_EQ(reader->Find(30).value(), std::nullopt);
  EXPECT_NE(reader->Find(27).value(), std::nullopt);
  EXPECT_NE(Find(30).value(), std::nullopt);
}

TEST_F(TerminalTableReaderTest, DamageIsNamedWithItsPlace) {
  WriteEveryThird(3000);
  const std::string whole = ReadFile(path_).value();
  const size_t middle = whole.size() / 2;
  std::string torn = whole;
  torn.replace(middle - 2000, 4000, 4000, 'x');
  ASSERT_TRUE(WriteFileAtomically(path_, torn).ok());
  const absl::Status status = Find(1500).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_ + "' is damaged: byte "));

  ASSERT_TRUE(WriteFileAtomically(path_, whole.substr(0, middle)).ok());
  EXPECT_THAT(std::string(Find(0).status().message()),
              HasSubstr(absl::StrCat(" has ", middle, " bytes, and had ", whole.size(), " at the last checkpoint")));
  ASSERT_TRUE(WriteFileAtomically(path_, "of something else\n" + whole).ok());
  EXPECT_THAT(std::string(Find(0).status().message()), HasSubstr("byte 0: there is no header"));
  ASSERT_TRUE(WriteFileAtomically(path_, std::string(kHeader) + "0,1,1,vanished,open,0\n" + whole).ok());
  const auto reader = TerminalTableReader::Open(path_, sizeof(kHeader) - 1 + 22).value();
  EXPECT_THAT(std::string(reader->Find(0).status().message()),
              HasSubstr("want ordinal,user,position,state,reason,step"));
}

}  // namespace
}  // namespace sluice::learner

#include "learner/record/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/learner/record/recorded_market.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;

constexpr int64_t kPlenty = 1 << 30;

class RecordFileTest : public testing::Test {
 protected:
  RecordFileTest() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    run_folder_ = JoinPath(testing::TempDir(), absl::StrCat("record-", info->name()));
    EXPECT_TRUE(RemoveAll(run_folder_).ok());
    run_ = RecordMarket({.steps = 4, .groups_per_step = 8}, RlOptions());
  }
  ~RecordFileTest() override { EXPECT_TRUE(RemoveAll(run_folder_).ok()); }

  std::string folder() const { return RecordFolder(run_folder_); }
  std::string file(int rank) const { return JoinPath(folder(), absl::StrCat("rank-000", rank, ".groups")); }
  // Writes steps [first, last) as `ranks` ranks with equal slices would.
  void Write(size_t first, size_t last, size_t ranks, int64_t max_bytes = kPlenty) {
    for (size_t rank = 0; rank < ranks; ++rank) {
      auto writer = RecordWriter::Open(folder(), static_cast<int>(rank), run_.header, max_bytes);
      ASSERT_TRUE(writer.ok()) << writer.status();
      for (size_t step = first; step < last; ++step) {
        const size_t slice = 8 / ranks;
        const auto written = (*writer)->Append(absl::MakeConstSpan(run_.steps[step]).subspan(rank * slice, slice));
        ASSERT_TRUE(written.ok()) << written.status();
      }
    }
  }
  void ExpectSteps(size_t count) {
    const absl::StatusOr<RecordedRun> back = ReadRecord(run_folder_);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->header, run_.header);
    ASSERT_EQ(back->steps.size(), count);
    for (size_t step = 0; step < count; ++step) {
      for (size_t i = 0; i < 8; ++i) EXPECT_EQ(Encode(back->steps[step][i]), Encode(run_.steps[step][i]));
    }
  }
  void Damage(const std::string& path, size_t byte) {
    std::string bytes = ReadFile(path).value();
    bytes[byte] = static_cast<char>(bytes[byte] ^ 1);
    ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  }

  std::string run_folder_;
  RecordedRun run_;
};

TEST_F(RecordFileTest, StepsComeBackInOrdinalOrderFromAnyNumberOfRanks) {
  Write(0, 4, 1);
  ExpectSteps(4);
  ASSERT_TRUE(RewindRecord(folder(), std::nullopt).ok());
  Write(0, 4, 2);
  ExpectSteps(4);
}

TEST_F(RecordFileTest, AResumedJobDropsWhatItsCheckpointDoesNotKnow) {
  Write(0, 4, 2);
  ASSERT_TRUE(RewindRecord(folder(), 2).ok());
  ExpectSteps(2);
  Write(2, 4, 4);  // and goes on with another number of ranks
  ExpectSteps(4);
}

TEST_F(RecordFileTest, ATornTailIsWhatAKilledProcessLeft) {
  Write(0, 3, 1);
  const std::string whole = ReadFile(file(0)).value();
  Write(3, 4, 1);
  const std::string longer = ReadFile(file(0)).value();
  for (const size_t size : {whole.size(), whole.size() + 1, whole.size() + 20, longer.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomically(file(0), longer.substr(0, size)).ok());
    ExpectSteps(3);
    ASSERT_TRUE(RewindRecord(folder(), 3).ok());
    EXPECT_EQ(ReadFile(file(0)).value(), whole);
  }
  ASSERT_TRUE(WriteFileAtomically(file(0), whole.substr(0, 5)).ok());  // within the header
  ASSERT_TRUE(RewindRecord(folder(), 3).ok());
  Write(0, 1, 1);
  ExpectSteps(1);
}

TEST_F(RecordFileTest, DamageIsDataLossAndNamesItsPlace) {
  Write(0, 4, 1);
  const std::string bytes = ReadFile(file(0)).value();
  Damage(file(0), bytes.size() - 100);
  const absl::Status status = ReadRecord(run_folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr(file(0)));
  EXPECT_THAT(status.message(), HasSubstr("the checksum does not match"));
  EXPECT_EQ(RewindRecord(folder(), 1).code(), absl::StatusCode::kDataLoss);
}

TEST_F(RecordFileTest, TheBudgetEndsTheRecordAtWholeSteps) {
  Write(0, 2, 1);
  const int64_t two_steps = static_cast<int64_t>(ReadFile(file(0)).value().size());
  ASSERT_TRUE(RewindRecord(folder(), std::nullopt).ok());
  Write(0, 4, 1, two_steps + 10);
  EXPECT_EQ(static_cast<int64_t>(ReadFile(file(0)).value().size()), two_steps);
  ExpectSteps(2);
  auto writer = RecordWriter::Open(folder(), 0, run_.header, two_steps + 10);
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE((*writer)->Append(run_.steps[2]).value());
  EXPECT_TRUE((*writer)->full());
}

TEST_F(RecordFileTest, StepsThatAreNotWholeAreLeftOutAndCounted) {
  Write(0, 4, 2);
  const std::string bytes = ReadFile(file(1)).value();
  ASSERT_TRUE(WriteFileAtomically(file(1), bytes.substr(0, bytes.size() - 1)).ok());
  ExpectSteps(3);
  EXPECT_EQ(ReadRecord(run_folder_)->left_out, 7u);
}

TEST_F(RecordFileTest, OtherJobsAndOrdinalsTwiceAreRefused) {
  EXPECT_EQ(ReadRecord(run_folder_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ReadRecord(run_folder_).status().message(), HasSubstr("run the job with rl.record true"));
  Write(0, 2, 1);
  RecordHeader other = run_.header;
  other.catalog_version = "other";
  EXPECT_EQ(RecordWriter::Open(folder(), 0, other, kPlenty).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(RecordWriter::Open(folder(), 1, other, kPlenty).ok());
  EXPECT_THAT(ReadRecord(run_folder_).status().message(), HasSubstr("another job"));
  ASSERT_TRUE(WriteFileAtomically(file(1), ReadFile(file(0)).value()).ok());
  EXPECT_THAT(ReadRecord(run_folder_).status().message(), HasSubstr("a second time"));
}

TEST_F(RecordFileTest, SingleGroupsAreFoundAsTheWholeRecordHasThem) {
  Write(0, 4, 2);
  const uint64_t first = run_.steps[0][0].ordinal;
  const std::set<uint64_t> wanted = {first + 1, first + 7, first + 20, first + 1000};
  const FoundGroups found = FindGroups(run_folder_, wanted, kPlenty).value();
  ASSERT_EQ(found.groups.size(), 3u);
  for (const auto& [ordinal, group] : found.groups) {
    const uint64_t place = ordinal - first;
    EXPECT_EQ(Encode(group.record), Encode(run_.steps[place / 8][place % 8]));
    EXPECT_EQ(group.file, place % 8 < 4 ? "rank-0000.groups" : "rank-0001.groups");
  }
  EXPECT_EQ(found.last_step, 3u);
  EXPECT_TRUE(FindGroups(run_folder_, {}, kPlenty)->groups.empty());
}

TEST_F(RecordFileTest, AGroupIsFoundBeforeATornTailAndBehindNothingElse) {
  Write(0, 2, 1);
  const std::string bytes = ReadFile(file(0)).value();
  const uint64_t last = run_.steps[1][7].ordinal;
  ASSERT_TRUE(WriteFileAtomically(file(0), bytes.substr(0, bytes.size() - 1)).ok());
  EXPECT_EQ(FindGroups(run_folder_, {last}, kPlenty)->groups.size(), 0u);
  EXPECT_EQ(FindGroups(run_folder_, {last - 1}, kPlenty)->groups.size(), 1u);
  ASSERT_TRUE(WriteFileAtomically(file(0), bytes.substr(0, 5)).ok());
  EXPECT_EQ(FindGroups(run_folder_, {last}, kPlenty)->last_step, std::nullopt);
  // A bit of the group itself; that of a length ends the walk with its place.
  ASSERT_TRUE(WriteFileAtomically(file(0), bytes).ok());
  Damage(file(0), bytes.size() - 30);
  EXPECT_THAT(std::string(FindGroups(run_folder_, {last}, kPlenty).status().message()),
              HasSubstr("rank-0000.groups', byte "));
  EXPECT_EQ(FindGroups(run_folder_, {last - 1}, kPlenty)->groups.size(), 1u) << "others are read";
}

TEST_F(RecordFileTest, ARecordThatIsNotThereOrTooLargeIsSaidSo) {
  EXPECT_EQ(FindGroups(run_folder_, {0}, kPlenty).status().code(), absl::StatusCode::kNotFound);
  Write(0, 2, 1);
  const absl::Status status = FindGroups(run_folder_, {0}, 1000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 1000 are looked through"));
}

}  // namespace
}  // namespace sluice::learner

#include "actor/journal/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"
#include "common/sync/thread.h"

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    options_.folder =
        absl::StrCat(testing::TempDir(), "/journal-", testing::UnitTest::GetInstance()->current_test_info()->name());
    EXPECT_TRUE(RemoveAll(options_.folder).ok());
    options_.actor_id = "actor \"one\"";
    options_.longest_wait = absl::ZeroDuration();  // nobody writes beside the test
    options_.wall = [] { return absl::FromUnixMicros(1'000'000); };
    options_.now = [this] { return now_; };
  }

  std::unique_ptr<Journal> Open() {
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(options_);
    EXPECT_TRUE(journal.ok()) << journal.status();
    return *std::move(journal);
  }

  static LeaseBlock Block() {
    LeaseBlock block;
    block.job_id = "job-1";
    block.epoch = 3;
    block.lease_id = 9;
    block.policy_version = 4;
    block.prompts.resize(2);
    block.prompts[0].prompt.ordinal = 16;
    block.prompts[0].prompt.attempt = 1;
    block.prompts[1].prompt.ordinal = 17;
    block.prompts[1].prompt.attempt = 2;
    return block;
  }

  std::string Text(int number) const {
    return ReadFile(absl::StrCat(options_.folder, "/journal-0000000", number, ".jsonl")).value_or("");
  }

  // The lines of a file whose check is right, without check and time.
  std::vector<std::string> Lines(int number) const {
    std::vector<std::string> lines;
    for (const absl::string_view line : absl::StrSplit(Text(number), '\n', absl::SkipEmpty())) {
      const size_t at = line.rfind(",\"check\":\"");
      if (at == absl::string_view::npos) continue;
      nlohmann::json object = nlohmann::json::parse(std::string(line), nullptr, false);
      if (object.is_discarded() || Sha256(line.substr(0, at)).substr(0, 8) != object["check"]) continue;
      object.erase("check");
      object.erase("time_us");
      lines.push_back(object.dump());
    }
    return lines;
  }

  absl::Time now_ = absl::FromUnixSeconds(100);
  JournalOptions options_;
};

constexpr char kHeader[] = R"({"actor":"actor \"one\"","event":"file","format":1,"number":1})";

TEST_F(JournalTest, TellsWhatBecameOfALease) {
  const auto journal = Open();
  const LeaseBlock block = Block();
  ScoredGroup scored;
  scored.score_status = ScoreStatus::kOk;
  scored.ranker_version = "r7";
  const std::vector<PromptOutcome> outcomes = {{16, 1, 9, scored}, {17, 2, 9, Abandoned{"no", false}}};
  journal->Leased(block);
  journal->Sampled(block, 5);
  journal->Scored(block, outcomes);
  journal->SendingResults(block, outcomes);
  journal->Answered(16, 1, true, "");
  journal->Answered(17, 2, false, "late");
  journal->GaveBack(block, "the \"actor\" drains");
  journal->Close();
  EXPECT_TRUE(journal->WriteOnce());
  EXPECT_FALSE(journal->WriteOnce());
  EXPECT_THAT(
      Lines(1),
      ElementsAre(kHeader,
                  R"({"epoch":3,"event":"leased","groups":[[16,1],[17,2]],"job":"job-1","lease":9,"version":4})",
                  R"({"epoch":3,"event":"sampled","groups":[[16,1],[17,2]],"job":"job-1","lease":9,"version":5})",
                  R"({"epoch":3,"event":"scored","groups":[[16,1,"ok"],[17,2,"abandoned"]],"job":"job-1","lease":9,)"
                  R"("ranker":"r7"})",
                  R"({"epoch":3,"event":"sent","groups":[[16,1],[17,2]],"job":"job-1","lease":9})",
                  R"({"event":"accepted","group":[16,1]})", R"({"event":"refused","group":[17,2],"reason":"late"})",
                  R"({"epoch":3,"event":"gave_back","groups":[[16,1],[17,2]],"job":"job-1","lease":9,)"
                  R"("reason":"the \"actor\" drains"})"));
}

TEST_F(JournalTest, EvaluationLeavesNoLine) {
  const auto journal = Open();
  LeaseBlock block = Block();
  block.kind = LeaseKind::kDecode;
  journal->Leased(block);
  journal->SendingResults(block, {});
  journal->WriteOnce();
  EXPECT_THAT(Lines(1), ElementsAre());
}

TEST_F(JournalTest, TheLineOfResultsIsWrittenBeforeTheyLeave) {
  options_.longest_wait = absl::Hours(1);  // a hang fails the test by its limit
  const auto journal = Open();
  const Thread writer = StartThread("writer", [&] { journal->Run(); });
  for (int i = 0; i < 100; ++i) {
    journal->SendingResults(Block(), {});
    EXPECT_EQ(Lines(1).size(), i + 2);
  }
  journal->Close();
}

TEST_F(JournalTest, ASlowDiskIsWaitedForOnceUntilItHasCaughtUp) {
  options_.longest_wait = absl::Nanoseconds(1);
  const auto journal = Open();
  journal->SendingResults(Block(), {});  // gives up
  journal->SendingResults(Block(), {});  // does not wait at all
  EXPECT_TRUE(journal->WriteOnce());
  EXPECT_EQ(Lines(1).size(), 3);
  EXPECT_EQ(journal->dropped(), 0);
}

TEST_F(JournalTest, BeginsANewFileWhenOneIsFullAndKeepsTheNewest) {
  options_.max_file_bytes = 1;  // each write fills one
  options_.max_files = 2;
  const auto journal = Open();
  for (int i = 0; i < 4; ++i) {
    journal->Answered(static_cast<uint64_t>(i), 1, true, "");
    journal->WriteOnce();
  }
  EXPECT_THAT(*ListDirectory(options_.folder), ElementsAre("journal-00000003.jsonl", "journal-00000004.jsonl", "lock"));
  EXPECT_THAT(Lines(4), ElementsAre(HasSubstr("\"number\":4"), HasSubstr("[3,1]")));
}

TEST_F(JournalTest, TheNextProcessBeginsANewFileAsTheLastLineOfTheOldOneMayBeTorn) {
  Open();
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/journal-00000007.jsonl", "{\"event\":\"sent\",\"gro").ok());
  const auto journal = Open();
  journal->Answered(1, 1, true, "");
  journal->WriteOnce();
  EXPECT_EQ(Text(7), "{\"event\":\"sent\",\"gro");
  EXPECT_EQ(Lines(8).size(), 2);
}

TEST_F(JournalTest, AFolderHasOneWriter) {
  const auto journal = Open();
  const absl::Status second = Journal::Open(options_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr("in use by another process"));
}

TEST_F(JournalTest, LinesBeyondTheQueueAreDroppedAndTheirNumberIsTold) {
  options_.max_queued_lines = 2;
  const auto journal = Open();
  for (int i = 0; i < 5; ++i) journal->Answered(static_cast<uint64_t>(i), 1, true, "");
  EXPECT_EQ(journal->dropped(), 3);
  journal->WriteOnce();
  EXPECT_THAT(Lines(1),
              ElementsAre(kHeader, R"({"event":"dropped","lines":3})", HasSubstr("[0,1]"), HasSubstr("[1,1]")));
}

// A limit on the size of files, which is much like a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    before_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, before_handler_);
  }

 private:
  rlimit before_{};
  void (*before_handler_)(int) = nullptr;
};

TEST_F(JournalTest, AFullDiskStopsNothingAndIsToldInTheFileOnceThereIsRoom) {
  const auto journal = Open();
  journal->Answered(1, 1, true, "");
  journal->WriteOnce();
  {
    const FullDisk full(Text(1).size() + 20);
    journal->Answered(2, 1, true, "");  // is cut off after 20 bytes
    journal->Answered(3, 1, true, "");
    journal->WriteOnce();
  }
  EXPECT_EQ(journal->dropped(), 2);
  EXPECT_EQ(Lines(1).size(), 2);
  journal->Answered(4, 1, true, "");
  journal->WriteOnce();
  EXPECT_THAT(Lines(1),
              ElementsAre(kHeader, HasSubstr("[1,1]"), R"({"event":"dropped","lines":2})", HasSubstr("[4,1]")));
}

TEST_F(JournalTest, AFolderThatCannotBeMadeIsRefused) {
  ASSERT_TRUE(MakeDirectories(options_.folder).ok());
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/file", "").ok());
  options_.folder += "/file";
  EXPECT_EQ(Journal::Open(options_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::actor

#include "common/trace/trace_journals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/trace/trace_entries.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A line as docs/journal.md has it, `fields` without braces.
std::string Line(const std::string& fields) {
  const std::string object = absl::StrCat("{", fields);
  return absl::StrCat(object, ",\"check\":\"", Sha256(object).substr(0, 8), "\"}");
}
std::string OfLease(const std::string& event, const std::string& rest, int second, const std::string& job = "job-1") {
  return Line(
      absl::StrFormat(R"("event":"%s","job":"%s","epoch":3,"lease":9%s,"time_us":%d000000)", event, job, rest, second));
}

class TraceJournalsTest : public testing::Test {
 protected:
  TraceJournalsTest() {
    folder_ = JoinPath(testing::TempDir(),
                       absl::StrCat("journals-", testing::UnitTest::GetInstance()->current_test_info()->name()));
    EXPECT_TRUE(RemoveAll(folder_).ok());
    trace_.set_job_id("job-1");
    for (const uint64_t ordinal : {16, 17}) {
      v1::GroupTrace* group = trace_.add_groups();
      group->set_ordinal(ordinal);
      v1::TraceGap* gap = group->add_unknown();
      gap->set_what(kActorGap);
      gap->set_why("actors alone write that down");
    }
  }
  ~TraceJournalsTest() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string WriteFile(const std::string& actor, int number, std::vector<std::string> lines) {
    EXPECT_TRUE(MakeDirectories(JoinPath(folder_, actor)).ok());
    const std::string path = JoinPath(folder_, absl::StrFormat("%s/journal-%08d.jsonl", actor, number));
    lines.insert(lines.begin(),
                 Line(absl::StrFormat(R"("event":"file","format":1,"number":%d,"actor":"%s")", number, actor)));
    EXPECT_TRUE(WriteFileAtomically(path, absl::StrJoin(lines, "\n") + "\n").ok());
    return path;
  }
  // "SECOND EVENT ATTEMPT ACTOR" of each entry.
  std::vector<std::string> Entries(int group) {
    std::vector<std::string> entries;
    for (const v1::TraceEntry& entry : trace_.groups(group).entries()) {
      entries.push_back(
          absl::StrCat(entry.time().seconds(), " ", entry.event(), " ", entry.attempt(), " ", entry.actor()));
    }
    return entries;
  }
  std::string Failure(const std::vector<std::string>& paths) {
    const absl::Status status = AddJournals(paths, OtherJob::kRefused, &trace_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  std::string folder_;
  v1::TraceResponse trace_;
};

TEST_F(TraceJournalsTest, AGroupIsFollowedFromActorToActor) {
  WriteFile("one", 1,
            {OfLease("leased", R"(,"version":4,"groups":[[15,1],[16,1]])", 10),
             OfLease("sampled", R"(,"version":5,"groups":[[15,1],[16,1]])", 11),
             OfLease("gave_back", R"(,"reason":"the actor stops","groups":[[15,1],[16,1]])", 12)});
  WriteFile("two", 1,
            {OfLease("leased", R"(,"version":6,"groups":[[16,2]])", 20),
             OfLease("scored", R"(,"ranker":"r-7","groups":[[16,2,"ok"]])", 22),
             OfLease("sampled", R"(,"version":6,"groups":[[16,2]])", 21), OfLease("sent", R"(,"groups":[[16,2]])", 23),
             Line(R"("event":"refused","group":[16,2],"reason":"late","time_us":24000000)")});
  const JournalNotes notes = AddJournals({folder_}, OtherJob::kRefused, &trace_).value();
  EXPECT_EQ(notes.files, 2);
  EXPECT_EQ(notes.lines, 10u);
  EXPECT_EQ(notes.Text(), "journals: 10 lines in 2 files");
  EXPECT_THAT(Entries(0), ElementsAre("10 leased 1 one", "11 sampled 1 one", "12 gave_back 1 one", "20 leased 2 two",
                                      "21 sampled 2 two", "22 scored 2 two", "23 sent 2 two", "24 refused 2 two"));
  const auto& entries = trace_.groups(0).entries();
  EXPECT_EQ(entries[0].text(), "to be sampled under version 4 or a later one");
  EXPECT_FALSE(entries[0].has_policy_version());
  EXPECT_EQ(entries[1].policy_version(), 5u);
  EXPECT_EQ(entries[2].reason(), "the actor stops");
  EXPECT_EQ(entries[5].scores(), "ok");
  EXPECT_EQ(entries[5].ranker(), "r-7");
  EXPECT_EQ(entries[7].reason(), "late");
  EXPECT_EQ(entries[7].lease(), 9u);
  EXPECT_EQ(entries[7].epoch(), 3u);
  EXPECT_EQ(trace_.groups(0).unknown_size(), 0);
  ASSERT_EQ(trace_.groups(1).unknown_size(), 1);
  EXPECT_EQ(trace_.groups(1).unknown(0).why(), "none of the 2 journals names it");
}

// Ordinals begin at 0 in every job, and one actor works for many.
TEST_F(TraceJournalsTest, WhatHappenedToAnotherJobsGroupOfThatOrdinalIsNotTold) {
  WriteFile(
      "one", 1,
      {OfLease("sent", R"(,"groups":[[16,1]])", 10, "job-0"),
       Line(R"("event":"accepted","group":[16,1],"time_us":11000000)"), OfLease("sent", R"(,"groups":[[16,1]])", 20),
       Line(R"("event":"accepted","group":[16,1],"time_us":21000000)"),
       Line(R"("event":"accepted","group":[17,1],"time_us":22000000)")});  // its lease is not in the journal
  ASSERT_TRUE(AddJournals({folder_}, OtherJob::kRefused, &trace_).ok());
  EXPECT_THAT(Entries(0), ElementsAre("20 sent 1 one", "21 accepted 1 one"));
  EXPECT_THAT(Entries(1), ElementsAre());
}

TEST_F(TraceJournalsTest, TornLinesArePassedOverAndGapsAreSaid) {
  const std::string sent = OfLease("sent", R"(,"groups":[[16,1]])", 10);
  std::string forged = OfLease("refused", R"(,"groups":[[16,1]])", 10);
  forged.replace(forged.find("job-1"), 5, "job-9");
  WriteFile("one", 2, {sent.substr(0, sent.size() - 1), forged, "", Line(R"("event":"dropped","lines":40)"), sent});
  WriteFile("one", 4, {});
  const JournalNotes notes = AddJournals({folder_}, OtherJob::kRefused, &trace_).value();
  EXPECT_EQ(notes.torn, 2u);
  EXPECT_THAT(Entries(0), ElementsAre("10 sent 1 one"));
  EXPECT_THAT(notes.gaps, ElementsAre(HasSubstr("journal-00000002.jsonl files are gone"),
                                      HasSubstr("journal-00000002.jsonl lacks 40 lines"),
                                      HasSubstr("journal-00000004.jsonl does not follow on file 2")));
  EXPECT_THAT(notes.Text(), HasSubstr(", 2 torn ones passed over; before "));
  EXPECT_EQ(trace_.groups(1).unknown(0).why(), "none of the 2 journals names it, and lines are missing there");
}

TEST_F(TraceJournalsTest, AFileThatTwoPathsNameIsReadOnce) {
  const std::string path = WriteFile("one", 1, {OfLease("sent", R"(,"groups":[[16,1]])", 10)});
  EXPECT_EQ(AddJournals({folder_, path, JoinPath(folder_, "one/.")}, OtherJob::kRefused, &trace_)->files, 1);
  EXPECT_EQ(trace_.groups(0).entries_size(), 1);
}

TEST_F(TraceJournalsTest, WhatCannotBeReadIsNamedWithItsPlace) {
  EXPECT_THAT(Failure({JoinPath(folder_, "nowhere")}),
              HasSubstr("there is no journal at '" + JoinPath(folder_, "nowhere") + "'"));
  WriteFile("one", 1, {OfLease("sent", R"(,"groups":[[16,1]])", 10, "job-0")});
  EXPECT_THAT(Failure({folder_}),
              HasSubstr("the journals are of job-0 and not of job-1; name those of the actors that worked for it"));
  // A run without a coordinator has a name that its folder does not tell.
  EXPECT_TRUE(AddJournals({folder_}, OtherJob::kOnlyOne, &trace_).ok());
  EXPECT_THAT(Entries(0), ElementsAre("10 sent 1 one"));
  const std::string other = JoinPath(folder_, "two/journal-00000001.jsonl");
  ASSERT_TRUE(MakeDirectories(JoinPath(folder_, "two")).ok());
  ASSERT_TRUE(WriteFileAtomically(other, Line(R"("event":"file","format":2,"number":1,"actor":"a")") + "\n").ok());
  EXPECT_THAT(Failure({other}), HasSubstr("is a journal of format 2; this release reads format 1"));
}

}  // namespace
}  // namespace sluice

#include "common/job_lines/job_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class JobLinesTest : public ::testing::Test {
 protected:
  JobLines Make(JobLinesOptions options = {}) {
    return JobLines(options, [this] { return now_; });
  }
  // Said at the present.
  JobLine Line(const std::string& text, const std::string& job = "job") const {
    return {job, "actor-1", "info", text, now_};
  }
  static std::vector<std::string> Texts(const std::vector<JobLine>& lines) {
    std::vector<std::string> texts;
    for (const JobLine& line : lines) texts.push_back(line.source + " " + line.level + " " + line.text);
    return texts;
  }

  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(JobLinesTest, LinesComeOutInTheirOrderWithTheTimeAtWhichTheyWereSaid) {
  JobLines lines = Make();
  lines.Tell(Line("works for it"));
  now_ += absl::Seconds(5);
  lines.Tell({"job", "", "error", "no\nmodel", now_});
  now_ += absl::Seconds(5);
  const std::vector<JobLine> taken = lines.Take("job", 20);
  EXPECT_THAT(Texts(taken), ElementsAre("actor-1 info works for it", " error no model"));
  EXPECT_EQ(taken[1].time, absl::UnixEpoch() + absl::Seconds(5));
  EXPECT_EQ(taken[1].job_id, "job");
  EXPECT_THAT(lines.Take("job", 20), IsEmpty());
}

TEST_F(JobLinesTest, ALineIsShortAndEndsInAWholeCharacter) {
  JobLines lines = Make({.max_bytes = 10});
  lines.Tell(Line("123456789\xC3\xA9 and more"));  // the tenth byte is half of a character
  lines.Tell(Line("1234567890"));
  EXPECT_THAT(Texts(lines.Take("job", 20)), ElementsAre("actor-1 info 123456789", "actor-1 info 1234567890"));
}

TEST_F(JobLinesTest, WhatIsTooMuchIsLeftOutAndCounted) {
  JobLines lines = Make({.burst = 2, .per_second = 1});
  for (int i = 0; i < 10; ++i) lines.Tell(Line(std::to_string(i)));
  EXPECT_THAT(Texts(lines.Take("job", 20)),
              ElementsAre("actor-1 info 0", "actor-1 info 1", " warning 8 lines left out"));
  lines.Tell(Line("too early"));
  now_ += absl::Seconds(1);
  lines.Tell(Line("in time"));
  EXPECT_THAT(Texts(lines.Take("job", 20)), ElementsAre("actor-1 info in time", " warning 1 line left out"));
}

TEST_F(JobLinesTest, AsManyWaitAsMayAndAsManyAreTakenAsWanted) {
  JobLines lines = Make({.max_waiting = 3, .burst = 1000});
  for (int i = 0; i < 5; ++i) lines.Tell(Line(std::to_string(i)));
  EXPECT_THAT(Texts(lines.Take("job", 2)), ElementsAre("actor-1 info 0", "actor-1 info 1"))
      << "no room to say what is missing";
  EXPECT_THAT(Texts(lines.Take("job", 2)), ElementsAre("actor-1 info 2", " warning 2 lines left out"));
}

TEST_F(JobLinesTest, LinesOfAnotherJobAreForgottenAndNotCounted) {
  JobLines lines = Make({.burst = 2});
  lines.Tell(Line("of the old job", "old"));
  lines.Tell(Line("of the new job", "new"));
  lines.Tell(Line("left out", "old"));
  EXPECT_THAT(Texts(lines.Take("new", 20)), ElementsAre("actor-1 info of the new job"));
  EXPECT_THAT(lines.Take("old", 20), IsEmpty());
}

}  // namespace
}  // namespace sluice

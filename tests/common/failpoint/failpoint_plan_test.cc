#include "common/failpoint/failpoint_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr FailpointName kNames[] = {{"actor/send"}, {"disk/write", true}, {"disk/read", true}};
enum { kSend, kWrite, kRead };

class FailpointPlanTest : public testing::Test {
 protected:
  FailpointPlan PlanOf(absl::string_view text) {
    absl::StatusOr<std::vector<FailpointAction>> actions = ParseFailpoints(text, kNames);
    EXPECT_TRUE(actions.ok()) << actions.status();
    return FailpointPlan(kNames, *std::move(actions), [this](absl::string_view name, const FailpointAction& action) {
      done_.push_back(absl::StrCat(name, " ", action.text));
    });
  }

  std::vector<std::string> done_;
};

TEST_F(FailpointPlanTest, ActsOnThePassThatWasAskedForAndOnNoOther) {
  FailpointPlan plan = PlanOf("actor/send=kill@3");
  for (int pass = 1; pass <= 2; ++pass) EXPECT_TRUE(plan.Pass(kSend).ok());
  EXPECT_THAT(done_, ElementsAre());
  EXPECT_TRUE(plan.Pass(kSend).ok());  // the third
  EXPECT_TRUE(plan.Pass(kSend).ok());
  EXPECT_TRUE(plan.Pass(kRead).ok());  // nothing was asked of it
  EXPECT_THAT(done_, ElementsAre("actor/send kill@3"));
}

TEST_F(FailpointPlanTest, AnErrorIsReturnedOnceWithItsCodeAndTheNameOfThePlace) {
  FailpointPlan plan = PlanOf("disk/write=error(NO_SPACE)@2;disk/read=error(UNAVAILABLE)");
  EXPECT_TRUE(plan.Pass(kWrite).ok());
  const absl::Status full = plan.Pass(kWrite);
  EXPECT_EQ(ExitCodeFor(full), ExitCode::kNoSpace);
  EXPECT_THAT(std::string(full.message()), HasSubstr("disk/write"));
  EXPECT_TRUE(plan.Pass(kWrite).ok());
  EXPECT_EQ(plan.Pass(kRead).code(), absl::StatusCode::kUnavailable);
}

TEST_F(FailpointPlanTest, APatternCountsEachNameByItself) {
  FailpointPlan plan = PlanOf("disk/*=sleep(2s)");
  EXPECT_TRUE(plan.Pass(kWrite).ok());
  EXPECT_TRUE(plan.Pass(kRead).ok());
  EXPECT_TRUE(plan.Pass(kSend).ok());
  EXPECT_THAT(done_, ElementsAre("disk/write sleep(2s)", "disk/read sleep(2s)"));
}

TEST_F(FailpointPlanTest, APatternAsksErrorsOfThosePlacesThatReturnThem) {
  FailpointPlan plan = PlanOf("*=error(ABORTED)");
  EXPECT_TRUE(plan.Pass(kSend).ok());
  EXPECT_EQ(plan.Pass(kWrite).code(), absl::StatusCode::kAborted);
}

TEST_F(FailpointPlanTest, TheLastEntryOfANameHolds) {
  FailpointPlan plan = PlanOf(" disk/*=kill ; disk/read=exit(7) ;");
  EXPECT_TRUE(plan.Pass(kRead).ok());
  EXPECT_TRUE(plan.Pass(kWrite).ok());
  EXPECT_THAT(done_, ElementsAre("disk/read exit(7)", "disk/write kill"));
}

TEST_F(FailpointPlanTest, OneOfManyThreadsActs) {
  FailpointPlan plan = PlanOf("disk/read=error(ABORTED)@150");
  std::atomic<int> errors = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) errors += plan.Pass(kRead).ok() ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(errors, 1);
}

TEST_F(FailpointPlanTest, WhatCannotBeReadIsRefusedWithTheEntryAndTheRemedy) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"disk/reed=kill", "there is no failpoint 'disk/reed'; docs/failpoints.md lists them"},
      {"tape/*=kill", "there is no failpoint 'tape/*'"},
      {"disk/read", "want NAME=ACTION"},
      {"disk/read=", "want kill, stop, exit(CODE)"},
      {"disk/read=explode", "want kill, stop, exit(CODE)"},
      {"disk/read=kill@0", "the number of a pass, from 1"},
      {"disk/read=kill@", "the number of a pass"},
      {"disk/read=kill@2@3", "the number of a pass"},
      {"disk/read=kill@-1", "the number of a pass"},
      {"disk/read=exit(256)", "want exit(0) to exit(255)"},
      {"disk/read=exit(x", "want kill, stop, exit(CODE)"},
      {"disk/read=sleep(2)", "want a time such as sleep(2s)"},
      {"disk/read=sleep(-2s)", "want a time"},
      {"disk/read=sleep(inf)", "want a time"},
      {"disk/read=error(OK)", "'OK' is no code of an error"},
      {"disk/read=error(EIO)", "'EIO' is no code of an error"},
      {"actor/send=error(ABORTED)", "no error can be returned there"},
  };
  for (const auto& [entry, reason] : wrong) {
    const absl::Status status = ParseFailpoints(absl::StrCat("disk/write=kill;", entry), kNames).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << entry;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("'", entry, "': "))) << entry;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason)) << entry;
  }
}

TEST_F(FailpointPlanTest, AnEmptyTextAsksForNothing) {
  FailpointPlan plan = PlanOf("");
  EXPECT_TRUE(plan.Pass(kRead).ok());
  EXPECT_THAT(done_, ElementsAre());
}

TEST(FailpointNamesTest, AreAllDifferent) {
  std::set<std::string> names;
  for (const FailpointName& one : kFailpointNames) EXPECT_TRUE(names.insert(std::string(one.name)).second) << one.name;
}

TEST(FailpointNamesTest, AreFoundByTheirIndex) {
  static_assert(kFailpointNames[FailpointIndex("actor/after_send", false)].name == "actor/after_send");
  static_assert(kFailpointNames[FailpointIndex("reward/before_answer", true)].name == "reward/before_answer");
}

}  // namespace
}  // namespace sluice

#include "learner/run/operational_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace sluice::learner {
namespace {

using testing::HasSubstr;

TEST(OperationalBudgetTest, StepsInARowSpendItAndAGoodOneGivesItBack) {
  OperationalBudget budget(0.2, /*max_steps=*/2, /*max_seconds=*/1000);
  EXPECT_TRUE(budget.Add(0.2, 1, OnFailure::kHold).ok());  // not above the share
  EXPECT_EQ(budget.steps(), 0);
  EXPECT_TRUE(budget.Add(1, 2, OnFailure::kHold).ok());
  EXPECT_TRUE(budget.Add(1, 3, OnFailure::kHold).ok());
  EXPECT_TRUE(budget.Add(0, 4, OnFailure::kHold).ok());
  EXPECT_TRUE(budget.Add(1, 5, OnFailure::kHold).ok());
  EXPECT_TRUE(budget.Add(0.21, 6, OnFailure::kHold).ok());
  const absl::Status held = budget.Add(1, 7, OnFailure::kHold, "connection refused");
  EXPECT_EQ(ExitCodeFor(held), ExitCode::kHeld);
  EXPECT_THAT(std::string(held.message()), HasSubstr("3 steps in a row, over 2 s, had more than 20 %"));
  EXPECT_THAT(std::string(held.message()), HasSubstr("(last: connection refused)"));
}

TEST(OperationalBudgetTest, TimeSpendsItToo) {
  OperationalBudget budget(0.2, /*max_steps=*/50, /*max_seconds=*/600);
  EXPECT_TRUE(budget.Add(1, 1000, OnFailure::kFail).ok());
  EXPECT_TRUE(budget.Add(1, 1600, OnFailure::kFail).ok());
  EXPECT_EQ(budget.Add(1, 1601, OnFailure::kFail).code(), absl::StatusCode::kUnavailable);
}

TEST(OperationalBudgetTest, AJobThatMayTrainOnLoggedTruthAloneIsNotHeld) {
  OperationalBudget budget(0.2, 1, 1);
  for (int step = 0; step < 9; ++step) EXPECT_TRUE(budget.Add(1, 100 * step, OnFailure::kNllOnly).ok());
  EXPECT_EQ(budget.steps(), 9);
}

TEST(OperationalBudgetTest, AResumedJobGoesOnCounting) {
  OperationalBudget before(0.2, 2, 600);
  EXPECT_TRUE(before.Add(1, 5000, OnFailure::kHold).ok());
  std::map<std::string, double> numbers;
  before.Save(&numbers);
  OperationalBudget after(0.2, 2, 600);
  after.Restore(numbers);
  EXPECT_EQ(after.steps(), 1);
  EXPECT_TRUE(after.Add(1, 5600, OnFailure::kHold).ok());
  EXPECT_EQ(ExitCodeFor(after.Add(1, 5601, OnFailure::kHold)), ExitCode::kHeld);
  after.Restore({});
  EXPECT_EQ(after.steps(), 0);
}

}  // namespace
}  // namespace sluice::learner

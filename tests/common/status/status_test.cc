#include "common/status/status.h"

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

absl::StatusOr<std::unique_ptr<int>> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return std::make_unique<int>(value / 2);
}

absl::StatusOr<int> Quarter(int value) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<int> half, Half(value));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<int> quarter, Half(*half));
  return *quarter;
}

absl::Status CheckQuarter(int value, int* calls) {
  SLUICE_RETURN_IF_ERROR(Quarter(value).status());
  ++*calls;
  return absl::OkStatus();
}

TEST(StatusTest, AssignOrReturnMovesTheValueOut) { EXPECT_EQ(Quarter(12).value(), 3); }

TEST(StatusTest, AssignOrReturnReturnsTheFirstError) {
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));  // 6 / 2 is odd
}

TEST(StatusTest, ReturnIfErrorGoesOnOnlyWhenOk) {
  int calls = 0;
  EXPECT_TRUE(CheckQuarter(8, &calls).ok());
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(CheckQuarter(7, &calls).ok());
  EXPECT_EQ(calls, 1);
}

TEST(StatusTest, AnnotateKeepsCodeAndPutsTheContextFirst) {
  EXPECT_EQ(Annotate(absl::NotFoundError("no such file"), "data set 'a'"),
            absl::NotFoundError("data set 'a': no such file"));
}

TEST(StatusTest, AnnotateLeavesOkAlone) { EXPECT_TRUE(Annotate(absl::OkStatus(), "anything").ok()); }

TEST(StatusDeathTest, ABrokenPromiseEndsTheProcessWithPlaceConditionAndMessage) {
  const int have = 3;
  EXPECT_DEATH(SLUICE_CHECK(have == 4, "want 4 heads, got " + std::to_string(have)),
               "status_test\\.cc:[0-9]+: check failed: have == 4: want 4 heads, got 3");
}

TEST(StatusTest, AKeptPromiseEvaluatesItsConditionOnceAndNoMessage) {
  int evaluated = 0;
  int described = 0;
  SLUICE_CHECK(++evaluated == 1, "case " + std::to_string(++described));
  EXPECT_EQ(evaluated, 1);
  EXPECT_EQ(described, 0);
}

}  // namespace
}  // namespace sluice

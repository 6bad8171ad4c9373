#include "common/status/exit_code.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

struct Case {
  absl::StatusCode code;
  int exit;
};

// The published table, as numbers: scripts and schedulers depend on them.
TEST(ExitCodeTest, EveryCanonicalCodeHasItsPublishedNumber) {
  const std::vector<Case> cases = {
      {absl::StatusCode::kOk, 0},
      {absl::StatusCode::kUnknown, 1},
      {absl::StatusCode::kInternal, 1},
      {absl::StatusCode::kInvalidArgument, 2},
      {absl::StatusCode::kOutOfRange, 2},
      {absl::StatusCode::kAlreadyExists, 2},
      {absl::StatusCode::kNotFound, 3},
      {absl::StatusCode::kDataLoss, 3},
      {absl::StatusCode::kPermissionDenied, 4},
      {absl::StatusCode::kUnauthenticated, 4},
      {absl::StatusCode::kFailedPrecondition, 4},
      {absl::StatusCode::kUnimplemented, 4},
      {absl::StatusCode::kUnavailable, 11},
      {absl::StatusCode::kDeadlineExceeded, 11},
      {absl::StatusCode::kAborted, 11},
      {absl::StatusCode::kResourceExhausted, 11},
      {absl::StatusCode::kCancelled, 12},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(static_cast<int>(ExitCodeFor(absl::Status(c.code, "x"))), c.exit) << absl::StatusCodeToString(c.code);
  }
}

TEST(ExitCodeTest, StatusesMadeForAnExitCodeKeepIt) {
  EXPECT_EQ(static_cast<int>(ExitCodeFor(PreemptedError("stopped"))), 10);
  EXPECT_EQ(static_cast<int>(ExitCodeFor(HeldError("loss is not finite"))), 13);
  EXPECT_EQ(static_cast<int>(ExitCodeFor(NoSpaceError("disk full"))), 14);
}

TEST(ExitCodeTest, StatusesMadeForAnExitCodeStillSayWhatTheCallerMayDo) {
  EXPECT_EQ(PreemptedError("x").code(), absl::StatusCode::kAborted);
  EXPECT_EQ(HeldError("x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(NoSpaceError("x").code(), absl::StatusCode::kResourceExhausted);
}

TEST(ExitCodeTest, ContextAddedOnTheWayUpDoesNotLoseTheExitCode) {
  const absl::Status annotated = Annotate(Annotate(NoSpaceError("disk full"), "checkpoint 7"), "step 120");
  EXPECT_EQ(annotated.message(), "step 120: checkpoint 7: disk full");
  EXPECT_EQ(ExitCodeFor(annotated), ExitCode::kNoSpace);
}

}  // namespace
}  // namespace sluice

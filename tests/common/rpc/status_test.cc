#include "common/rpc/status.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(StatusTest, AServerThatEndsACallWentAway) {
  const grpc::Status ended(grpc::StatusCode::CANCELLED, "CANCELLED");
  EXPECT_EQ(FromServer(ended).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(FromGrpc(ended).code(), absl::StatusCode::kCancelled);
}

TEST(StatusTest, OtherStatusesOfAServerAreItsOwn) {
  EXPECT_TRUE(FromServer(grpc::Status::OK).ok());
  EXPECT_EQ(FromServer(grpc::Status(grpc::StatusCode::ABORTED, "join again")), absl::AbortedError("join again"));
}

}  // namespace
}  // namespace sluice

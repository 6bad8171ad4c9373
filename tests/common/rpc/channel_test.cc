#include "common/rpc/channel.h"

#include <gtest/gtest.h>

#include "common/rpc/status.h"

namespace sluice {
namespace {

TEST(CheckAddressTest, TakesHostAndPort) {
  EXPECT_TRUE(CheckAddress("--coordinator", "127.0.0.1:7000").ok());
  EXPECT_TRUE(CheckAddress("--coordinator", "learner.sluice.svc:65535").ok());
  EXPECT_TRUE(CheckAddress("--coordinator", "[::1]:1").ok());
}

TEST(CheckAddressTest, NamesTheFlagAndWhatItGot) {
  for (const char* bad : {"", "localhost", ":7000", "host:", "host:0", "host:65536", "host:http"}) {
    const absl::Status status = CheckAddress("--coordinator", bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(std::string(status.message()).find("--coordinator"), std::string::npos);
    EXPECT_NE(std::string(status.message()).find(std::string("'") + bad + "'"), std::string::npos);
  }
}

TEST(StatusTest, EveryCodeSurvivesTheWire) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status sent(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(FromGrpc(ToGrpc(sent)), sent);
  }
}

TEST(StatusTest, LongMessagesAreCutToFitATrailer) {
  const grpc::Status status = ToGrpc(absl::InternalError(std::string(10'000, 'x')));
  EXPECT_EQ(status.error_message().size(), 4096u);
  EXPECT_EQ(status.error_message().substr(4093), "...");
}

TEST(IsLoopbackTest, OnlyWhatIsThisMachineForCertain) {
  for (const char* address : {"127.0.0.1:1", "127.9.8.7:1", "localhost:1", "[::1]:1"}) EXPECT_TRUE(IsLoopback(address));
  for (const char* address : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "128.0.0.1:1", "localhost.example.com:1", "127.1:1",
                              "127.0.0.1.example.com:1"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

}  // namespace
}  // namespace sluice

#include "common/collective/backend.h"

#include <torch/types.h>

#include <string>

#include "common/sync/memory_kv_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

const at::Device kGpu(at::kCUDA, 0);

TEST(ParseBackendTest, AutoFollowsTheDevice) {
  EXPECT_EQ(ParseBackend("auto", at::kCPU).value(), CollectiveBackend::kGloo);
  EXPECT_EQ(ParseBackend("auto", kGpu).value(), CollectiveBackend::kNccl);
  EXPECT_EQ(ParseBackend("gloo", kGpu).value(), CollectiveBackend::kGloo);
  EXPECT_EQ(ParseBackend("nccl", kGpu).value(), CollectiveBackend::kNccl);
}

TEST(ParseBackendTest, RefusesNcclOnTheProcessorAndOtherWords) {
  const absl::Status status = ParseBackend("nccl", at::kCPU).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("add --device cuda:N, or use --collective gloo"));
  EXPECT_EQ(ParseBackend("mpi", kGpu).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseBackend("", kGpu).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ParseWeightsTest, AutoBroadcastsOnGpusAloneAndNotWhereProcessesSpeakTls) {
  EXPECT_EQ(ParseWeights("auto", kGpu, false).value(), CollectiveBackend::kNccl);
  EXPECT_EQ(ParseWeights("auto", kGpu, true).value(), std::nullopt);
  EXPECT_EQ(ParseWeights("auto", at::kCPU, false).value(), std::nullopt);
  EXPECT_EQ(ParseWeights("nccl", kGpu, true).value(), CollectiveBackend::kNccl);
  EXPECT_EQ(ParseWeights("gloo", at::kCPU, true).value(), CollectiveBackend::kGloo);
  EXPECT_EQ(ParseWeights("grpc", kGpu, false).value(), std::nullopt);
}

class AgreeOnBackendTest : public ::testing::Test {
 protected:
  // As if all ranks but this one had come already.
  absl::Status Agree(CollectiveBackend mine, const std::vector<std::string>& others) {
    for (size_t i = 0; i < others.size(); ++i) {
      EXPECT_TRUE(store_.Set("epoch/7/job/backend/" + std::to_string(i + 1), others[i]).ok());
    }
    return AgreeOnBackend(store_, mine, 0, 3, 7, "job", absl::ZeroDuration(), [] { return absl::UnixEpoch(); });
  }

  MemoryKvStore store_;
};

TEST_F(AgreeOnBackendTest, RanksOfOneKindMayFormTheirGroup) {
  EXPECT_TRUE(Agree(CollectiveBackend::kNccl, {"nccl", "nccl"}).ok());
  EXPECT_EQ(store_.Get("epoch/7/job/backend/0", absl::ZeroDuration()).value(), "nccl");
}

TEST_F(AgreeOnBackendTest, NamesTheRankThatHasNotCome) {
  const absl::Status status = Agree(CollectiveBackend::kGloo, {"gloo"});
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2 of 3 has not come to the group of epoch 7"));
}

TEST_F(AgreeOnBackendTest, RefusesAGroupOfTwoKinds) {
  const absl::Status status = Agree(CollectiveBackend::kGloo, {"gloo", "nccl"});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 reduces over gloo and rank 2 over nccl"));
}

}  // namespace
}  // namespace sluice

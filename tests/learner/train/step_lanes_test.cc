#include "learner/train/step_lanes.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/sync/mutex.h"

namespace sluice::learner {
namespace {

std::unique_ptr<Policy> SmallPolicy() {
  PolicyConfig config;
  config.vocab_size = 12;
  config.hidden_size = 8;
  config.num_layers = 1;
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 4;
  config.intermediate_size = 16;
  config.max_positions = 32;
  config.encoder = PromptEncoderKind::kCodes;
  config.item_embedding = false;
  return Policy::Create(config, nullptr, 1).value();
}

TEST(SplitByCostTest, EqualCostsAreCutEvenly) {
  const std::vector<int64_t> costs(8, 5);
  EXPECT_EQ(SplitByCost(costs, 2), (std::vector<LaneRange>{{0, 4}, {4, 8}}));
  EXPECT_EQ(SplitByCost(costs, 1), (std::vector<LaneRange>{{0, 8}}));
}

TEST(SplitByCostTest, ALongPieceGoesToTheLaneThatHasRoom) {
  // 10 of 16 in the first piece: its middle lies before half, so the first lane takes it and nothing more.
  EXPECT_EQ(SplitByCost({10, 2, 2, 2}, 2), (std::vector<LaneRange>{{0, 1}, {1, 4}}));
  EXPECT_EQ(SplitByCost({2, 2, 2, 10}, 2), (std::vector<LaneRange>{{0, 3}, {3, 4}}));
}

TEST(SplitByCostTest, LanesWithoutPiecesAreEmpty) {
  EXPECT_EQ(SplitByCost({}, 2), (std::vector<LaneRange>{{0, 0}, {0, 0}}));
  size_t pieces = 0;
  for (const LaneRange& range : SplitByCost({3}, 4)) pieces += range.end - range.begin;
  EXPECT_EQ(pieces, 1u);
}

TEST(SplitByCostTest, EveryPieceIsInOneLaneAndNoLaneIsFarAboveItsShare) {
  Random random(4);
  for (int round = 0; round < 500; ++round) {
    std::vector<int64_t> costs(random.Below(40));
    for (int64_t& cost : costs) cost = static_cast<int64_t>(random.Below(100));
    const int lanes = 1 + static_cast<int>(random.Below(8));
    const std::vector<LaneRange> ranges = SplitByCost(costs, lanes);
    ASSERT_EQ(ranges.size(), static_cast<size_t>(lanes));
    const int64_t total = std::accumulate(costs.begin(), costs.end(), int64_t{0});
    size_t place = 0;
    for (const LaneRange& range : ranges) {
      EXPECT_EQ(range.begin, place);
      place = range.end;
      const int64_t cost = std::accumulate(costs.begin() + range.begin, costs.begin() + range.end, int64_t{0});
      EXPECT_LE(cost, total / lanes + 101);  // half a piece at either end
    }
    EXPECT_EQ(place, costs.size());
  }
}

TEST(StepLanesTest, LanesRunAtTheSameTimeWithOneThreadEach) {
  const std::unique_ptr<Policy> policy = SmallPolicy();
  const int threads = torch::get_num_threads();
  const std::unique_ptr<StepLanes> lanes = StepLanes::Create(policy.get(), nullptr, 3).value();
  Mutex mutex;
  CondVar changed;
  int inside = 0;
  for (int round = 1; round <= 2; ++round) {
    const absl::Status status = lanes->Run([&](int) {
      EXPECT_EQ(torch::get_num_threads(), 1);
      MutexLock lock(&mutex);
      ++inside;
      changed.NotifyAll();
      // Ends only if all three are inside together.
      while (inside < 3 * round) changed.Wait(&mutex);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(torch::get_num_threads(), threads);
}

TEST(StepLanesTest, LanesShareParametersAndSumTheirGradients) {
  const std::unique_ptr<Policy> policy = SmallPolicy();
  const std::unique_ptr<StepLanes> lanes = StepLanes::Create(policy.get(), nullptr, 3).value();
  for (int lane = 0; lane < 3; ++lane) {
    EXPECT_EQ(lanes->policy(lane).parameters().data_ptr(), policy->parameters().data_ptr());
    EXPECT_EQ(lanes->reference(lane), nullptr);
    lanes->policy(lane).gradients().fill_(lane == 0 ? 1 : 10 * lane);
  }
  lanes->SumGradients();
  EXPECT_TRUE(policy->gradients().eq(31).all().item<bool>());
}

TEST(StepLanesTest, ARangeIsCutIntoRunsOfWholeGrains) {
  const std::unique_ptr<Policy> policy = SmallPolicy();
  for (const int count : {1, 3}) {
    const std::unique_ptr<StepLanes> lanes = StepLanes::Create(policy.get(), nullptr, count).value();
    for (const int64_t size : {0, 1, 7, 8, 100}) {
      Mutex mutex;
      std::vector<int> seen(static_cast<size_t>(size), 0);
      lanes->ForRange(size, 8, [&](int64_t begin, int64_t end) {
        MutexLock lock(&mutex);
        EXPECT_TRUE(count == 1 || begin % 8 == 0) << begin;
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(size), 1)) << size;
    }
  }
}

TEST(StepLanesTest, TheFirstErrorByLaneComesBackAndExceptionsAreCaught) {
  const std::unique_ptr<Policy> policy = SmallPolicy();
  const std::unique_ptr<StepLanes> lanes = StepLanes::Create(policy.get(), nullptr, 3).value();
  const absl::Status failed = lanes->Run([](int lane) -> absl::Status {
    if (lane == 1) throw std::runtime_error("broken");
    return lane == 2 ? absl::DataLossError("lost") : absl::OkStatus();
  });
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal) << failed;
  EXPECT_TRUE(lanes->Run([](int) { return absl::OkStatus(); }).ok());
}

TEST(StepLanesTest, ASmallPolicyTakesALaneAThreadAndADeviceOne) {
  const std::unique_ptr<Policy> policy = SmallPolicy();
  EXPECT_EQ(LanesFor(*policy, 4), 4);
  EXPECT_EQ(LanesFor(*policy, 0), 1);
  ASSERT_TRUE(policy->Place({.generic = true}).ok());
  EXPECT_EQ(LanesFor(*policy, 4), 1);
  EXPECT_FALSE(StepLanes::Create(policy.get(), nullptr, 0).ok());
}

}  // namespace
}  // namespace sluice::learner

#include "learner/objective/gate_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

TEST(RegionTest, IsTheMostFrequentCodeAndOfEqualsTheLatest) {
  EXPECT_EQ(RegionOf({}), kNoRegion);
  EXPECT_EQ(RegionOf({7}), 7);
  EXPECT_EQ(RegionOf({3, 3, 5}), 3);
  EXPECT_EQ(RegionOf({3, 5}), 5);
  EXPECT_EQ(RegionOf({5, 3, 5, 3, 9}), 3);
}

TEST(GateStateTest, EstimatesTheMeanOfARegionsTwoMeans) {
  GateState state;
  state.Observe({{4, 1, 0.5}, {4, 0, 1}, {kNoRegion, 1, 1}, {9, 1, 1}}, 1);
  EXPECT_EQ(state.Estimate(4, 3), std::nullopt);  // two groups are too few
  EXPECT_DOUBLE_EQ(*state.Estimate(4, 2), (0.5 + 0.75) / 2);
  EXPECT_EQ(state.Estimate(5, 1), std::nullopt);
  EXPECT_EQ(state.Estimates(2), std::nullopt);  // one region alone has no middle
  const std::optional<GateState::Range> range = state.Estimates(1);
  ASSERT_TRUE(range);
  EXPECT_DOUBLE_EQ(range->low, 0.625);
  EXPECT_DOUBLE_EQ(range->high, 1);
  EXPECT_EQ(state.Standing(4, 1), 0);
  EXPECT_EQ(state.Standing(9, 1), 1);
  EXPECT_EQ(state.regions().count(kNoRegion), 0u);
}

TEST(GateStateTest, RegionsThatAreAllAlikeHaveNoRange) {
  GateState state;
  state.Observe({{1, 1, 0.5}, {2, 1, 0.5}}, 1);
  EXPECT_EQ(state.Estimates(1), std::nullopt);
  EXPECT_EQ(state.Standing(1, 1), std::nullopt);
}

TEST(GateStateTest, OldStepsFade) {
  GateState state;
  state.Observe({{1, 0, 0}}, 0.5);
  state.Observe({{1, 1, 1}}, 0.5);  // .5 groups of 0, 1 of 1
  EXPECT_DOUBLE_EQ(*state.Estimate(1, 1), 1 / 1.5);
  state.Observe({}, 0.5);
  state.Observe({}, 0.5);
  EXPECT_EQ(state.Estimate(1, 1), std::nullopt);  // 1.5 / 4 groups are left
}

// Any split of a step's places over ranks adds up to the same numbers, and to the same state to the last bit.
TEST(GateStateTest, IsTheSameForAnyNumberOfRanks) {
  Random random(3);
  std::vector<GateState> of_ranks(3);
  for (int step = 0; step < 20; ++step) {
    std::vector<GateObservation> observations(24);
    for (GateObservation& one : observations) {
      one = {static_cast<int32_t>(random.Below(5)) - 1, random.Uniform() < 0.5 ? 1.0 : 0.0, random.Uniform()};
    }
    for (size_t world = 1; world <= of_ranks.size(); ++world) {
      std::vector<double> sum;
      for (size_t rank = 0; rank < world; ++rank) {
        std::vector<GateObservation> mine;
        std::vector<size_t> places;
        for (size_t place = rank * 24 / world; place < (rank + 1) * 24 / world; ++place) {
          if (place == 7) continue;  // bad data: nobody judged it
          mine.push_back(observations[place]);
          places.push_back(place);
        }
        const std::vector<double> numbers = PackObservations(mine, places, 24);
        sum.resize(numbers.size(), 0);
        for (size_t i = 0; i < numbers.size(); ++i) sum[i] += numbers[i];
      }
      of_ranks[world - 1].Observe(UnpackObservations(sum), 0.97);
    }
  }
  EXPECT_EQ(of_ranks[0], of_ranks[1]);
  EXPECT_EQ(of_ranks[0], of_ranks[2]);
  EXPECT_GE(of_ranks[0].regions().size(), 4u);
}

TEST(GateStateTest, SurvivesACheckpointBitByBit) {
  Random random(5);
  GateState state;
  GateOptions dose;
  dose.target_dose = 0.4;
  for (int step = 0; step < 10; ++step) {
    state.Observe({{static_cast<int32_t>(random.Below(300)), 1, random.Uniform()}}, 0.9);
    state.ControlDose(random.Uniform(), 3, dose);
  }
  std::map<std::string, double> numbers = {{"gate_state", 5}, {"gate_statf/region/1/groups", 5}, {"zeta", 1}};
  state.Save("gate_state/", &numbers);
  GateState restored;
  restored.Observe({{77777, 1, 1}}, 1);  // forgotten
  restored.Restore("gate_state/", numbers);
  EXPECT_EQ(restored, state);
  restored.Restore("gate_state/", {});
  EXPECT_EQ(restored, GateState());
}

TEST(DoseControlTest, HoldsLambdaTimesTheRateNearTheTargetWithinBounds) {
  GateOptions options;
  options.target_dose = 0.3;
  options.dose_range = 4;
  GateState state;
  EXPECT_EQ(state.lambda_scale(), 1);
  state.ControlDose(0.2, 3, options);  // dose .6: lambda is halved
  EXPECT_DOUBLE_EQ(state.lambda_scale(), 0.5);
  for (int step = 0; step < 100; ++step) state.ControlDose(0.05, 3, options);
  EXPECT_NEAR(state.lambda_scale() * 3 * 0.05, 0.3, 1e-4);
  for (int step = 0; step < 100; ++step) state.ControlDose(1, 3, options);
  EXPECT_EQ(state.lambda_scale(), 0.25);  // .1 would be needed
  for (int step = 0; step < 400; ++step) state.ControlDose(0, 3, options);
  EXPECT_EQ(state.lambda_scale(), 4);
  GateState closed;
  closed.ControlDose(0, 3, options);
  EXPECT_EQ(closed.lambda_scale(), 4);  // nothing comes through: as much as is allowed
}

}  // namespace
}  // namespace sluice::learner

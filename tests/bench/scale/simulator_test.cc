#include "tests/bench/scale/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/bench/scale/event_queue.h"
#include "tests/bench/scale/fair_link.h"

namespace sluice::scale {
namespace {

// Nothing is scarce but what a test makes so; times are round numbers to reckon with.
ScaleSpec Plenty() {
  ScaleSpec spec;
  spec.actors = 8;
  spec.rankers = 100;
  spec.steps = 30;
  spec.warmup_steps = 10;
  spec.groups_per_step = 64;
  spec.group_size = 2;
  spec.prompt_s = 0.01;
  spec.score_call_s = 0.001;
  spec.score_group_s = 0;
  spec.take_in_s = 1e-6;
  spec.judge_s = 0;
  spec.train_s = 1e-4;
  spec.update_s = 1e-3;
  spec.weight_bytes = spec.gradient_bytes = 1e6;
  return spec;
}

ScaleResult Simulated(const ScaleSpec& spec) {
  const absl::StatusOr<ScaleResult> result = Simulate(spec);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : ScaleResult();
}

TEST(SimulatorTest, ThroughputOfScarceActorsIsLeasesOverTheirTime) {
  ScaleSpec spec = Plenty();
  const ScaleResult result = Simulated(spec);
  // 8 actors, each 8 groups in 8 * 10 ms of sampling, 1 ms of scoring and a round trip.
  EXPECT_NEAR(result.groups_per_s, 8 * 8 / (0.080 + 0.001 + 0.0002), 0.03 * result.groups_per_s);
  EXPECT_EQ(result.bounds.name_of_lowest(), "actors");
  EXPECT_GT(result.actor_sampling, 0.95);
}

TEST(SimulatorTest, ThroughputOfScarceRankersIsGroupsOverTheirTime) {
  ScaleSpec spec = Plenty();
  spec.rankers = 2;
  spec.score_group_s = 0.02;
  const ScaleResult result = Simulated(spec);
  EXPECT_NEAR(result.groups_per_s, 2 * 8 / (0.001 + 8 * 0.02), 0.03 * result.groups_per_s);
  EXPECT_EQ(result.bounds.name_of_lowest(), "rankers");
  EXPECT_GT(result.ranker_busy, 0.95);
}

TEST(SimulatorTest, ThroughputOfAScarceLearnerIsAStepOverItsTime) {
  ScaleSpec spec = Plenty();
  spec.ranks = 2;
  spec.train_s = 0.05;
  const ScaleResult result = Simulated(spec);
  // 32 groups a rank; a ring of two sends the gradient once; encoding 1 MB at 2 GB/s.
  const double step = 0.001 + 32 * 0.05 + 1e6 / 1.25e9 + 0.0002 + 1e6 / 2e9;
  EXPECT_NEAR(result.step_s, step, 0.03 * step);
  EXPECT_EQ(result.bounds.name_of_lowest(), "train");
  EXPECT_GT(result.rank_training, 0.95);
}

TEST(SimulatorTest, ASynchronousStepIsTheSumOfItsPartsAndNothingIsStale) {
  ScaleSpec spec = Plenty();
  spec.staleness = 0;
  spec.actors = 4;
  spec.weight_bytes = 5e7;
  const ScaleResult result = Simulated(spec);
  const double weights = 4 * 5e7 / 1.25e9 + 5e7 / 5e9;  // four actors share the rank's link; then each verifies
  const double lease = 0.080 + 0.001 + 0.0002;
  const double step = weights + 2 * lease + 0.0004 + (0.001 + 64 * 1e-4 + 5e7 / 2e9);  // 8 blocks: two turns
  EXPECT_NEAR(result.step_s, step, 0.03 * step);
  EXPECT_EQ(result.staleness.size(), 1u);
  EXPECT_EQ(result.staleness.begin()->first, 0u);
}

TEST(SimulatorTest, NoGroupIsStalerThanTheBoundWhateverIsSlow) {
  for (const int bound : {0, 1, 2, 4}) {
    for (const double bytes : {1e5, 2e8}) {
      ScaleSpec spec = Plenty();
      spec.staleness = bound;
      spec.actors = 24;
      spec.weight_bytes = bytes;
      spec.jitter = 0.8;
      spec.actor_mtbf_s = 20;
      spec.actor_restart_s = 1;
      const ScaleResult result = Simulated(spec);
      ASSERT_FALSE(result.staleness.empty());
      EXPECT_LE(result.staleness.rbegin()->first, static_cast<uint64_t>(bound)) << "bytes " << bytes;
      EXPECT_EQ(result.stale_closed, 0u);
    }
  }
}

TEST(SimulatorTest, TheBooksBalanceWhileActorsDieAndLeasesRunOut) {
  ScaleSpec spec = Plenty();
  spec.ranks = 2;
  spec.actors = 12;
  spec.jitter = 1;
  spec.actor_mtbf_s = 3;
  spec.actor_restart_s = 0.5;
  spec.lease_deadline_s = 0.3;  // little more than it takes: some run out
  spec.max_attempts = 100;
  const ScaleResult result = Simulated(spec);  // Simulate checks the books
  EXPECT_GT(result.actor_deaths, 0u);
  EXPECT_GT(result.refused, 0u);
  EXPECT_EQ(result.balance.trained, 30u * 64u);
  EXPECT_TRUE(result.balance.Holds());
  EXPECT_EQ(result.balance.open, 0u);
}

TEST(SimulatorTest, GroupsThatNoAttemptBroughtAreTrainedUnsampled) {
  ScaleSpec spec = Plenty();
  spec.lease_deadline_s = 0.05;  // less than any lease takes
  spec.max_attempts = 2;
  spec.steps = 3;
  spec.warmup_steps = 0;
  const ScaleResult result = Simulated(spec);
  // A result that comes before anybody noticed that its lease is over still counts, so a few may get through.
  EXPECT_GE(result.unsampled, 3u * 64u - 8);
  EXPECT_EQ(result.balance.trained, 3u * 64u);
}

TEST(SimulatorTest, ATreeBringsWeightsToManyActorsWhereAFlatFanOutTakesLong) {
  ScaleSpec spec = Plenty();
  spec.staleness = 0;
  spec.actors = 40;
  spec.groups_per_step = 320;
  spec.weight_bytes = 1e8;
  spec.steps = 6;
  spec.warmup_steps = 2;
  const ScaleResult flat = Simulated(spec);
  // 40 copies through one link of 1.25 GB/s.
  EXPECT_NEAR(flat.fetch_seconds_max, 40 * 1e8 / 1.25e9 + 1e8 / 5e9, 0.02 * flat.fetch_seconds_max);
  spec.fan_out = 2;
  const ScaleResult tree = Simulated(spec);
  // Two copies a link, and five levels that each lag by a chunk or two.
  const double chunk = 2097152 / 1.25e9;
  EXPECT_GE(tree.fetch_seconds_max, 2 * 1e8 / 1.25e9 + 1e8 / 5e9 - 1e-6);
  EXPECT_LE(tree.fetch_seconds_max, 2 * 1e8 / 1.25e9 + 1e8 / 5e9 + 10 * chunk);
  EXPECT_GT(tree.groups_per_s, 5 * flat.groups_per_s);
}

TEST(SimulatorTest, IsAFunctionOfItsSpecAndSeed) {
  ScaleSpec spec = Plenty();
  spec.jitter = 0.5;
  spec.actor_mtbf_s = 10;
  const std::string once = Simulated(spec).ToJson(false).dump();
  EXPECT_EQ(once, Simulated(spec).ToJson(false).dump());
  spec.seed = 2;
  EXPECT_NE(once, Simulated(spec).ToJson(false).dump());
}

TEST(SimulatorTest, RefusesSpecsThatCannotBe) {
  const auto refused = [](const char* text) {
    return ScaleSpec::FromJson(nlohmann::json::parse(text)).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused("{}"));
  EXPECT_TRUE(refused(R"({"actor": 3})"));
  EXPECT_TRUE(refused(R"({"actors": "many"})"));
  EXPECT_TRUE(refused(R"({"actors": 0})"));
  EXPECT_TRUE(refused(R"({"ranks": 3})"));  // 64 groups are no multiple of 3 * 8
  EXPECT_TRUE(refused(R"({"train_s": -1})"));
  EXPECT_TRUE(refused(R"({"steps": 5, "warmup_steps": 5})"));
}

TEST(SimulatorTest, ARunPastItsVirtualLimitIsAnError) {
  ScaleSpec spec = Plenty();
  spec.virtual_limit_s = 0.5;
  EXPECT_EQ(Simulate(spec).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(FairLinkTest, TransfersShareTheLinkEvenly) {
  EventQueue events;
  FairLink link(&events, 100, 80);
  std::vector<double> ends;
  const auto note = [&] { ends.push_back(events.now()); };
  link.Start(1000, note);
  events.At(5, [&] { link.Start(1000, note); });
  while (events.Step()) {
  }
  // Alone at the receiver's 80 a second until 5 s: 600 left. Then 50 a second each until 17 s; the other has 400 left
  // and 80 a second again.
  EXPECT_THAT(ends, testing::ElementsAre(testing::DoubleNear(17, 0.1), testing::DoubleNear(22, 0.1)));
}

TEST(EventQueueTest, EventsOfOneMomentKeepTheirOrder) {
  EventQueue events;
  std::string order;
  events.At(2, [&] { order += "c"; });
  events.At(1, [&] {
    order += "a";
    events.After(0, [&] { order += "b"; });
  });
  events.At(2, [&] { order += "d"; });
  while (events.Step()) {
  }
  EXPECT_EQ(order, "abcd");
}

TEST(ReduceSecondsTest, ARingSendsAlmostTwiceTheBytes) {
  EXPECT_EQ(ReduceSeconds(1e9, 1, 1e9, 0), 0);
  EXPECT_DOUBLE_EQ(ReduceSeconds(1e9, 4, 1e9, 0), 1.5);
}

}  // namespace
}  // namespace sluice::scale

#include "learner/objective/control.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace sluice::learner {
namespace {

// 40 groups: every 5th is open, every 8th was not asked (and of those no one counts as open).
std::vector<GateSay> Step() {
  std::vector<GateSay> says;
  for (int i = 0; i < 40; ++i) {
    says.push_back(i % 8 == 0 ? GateSay::kNotAsked : i % 5 == 0 ? GateSay::kOpen : GateSay::kClosed);
  }
  return says;
}

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

TEST(ControlTest, WithoutAControlTheGateDecides) {
  const std::vector<GateSay> says = Step();
  const std::vector<double> admission = ControlledAdmission(says, GateControl::kNone, 0, 1);
  for (size_t i = 0; i < says.size(); ++i) EXPECT_EQ(admission[i], says[i] == GateSay::kOpen);
}

TEST(ControlTest, ARandomGateAdmitsAsManyOfTheSameGroups) {
  const std::vector<GateSay> says = Step();
  const double open = static_cast<double>(std::count(says.begin(), says.end(), GateSay::kOpen));
  ASSERT_EQ(open, 7);  // 5, 10, ... 35
  std::vector<double> times(says.size(), 0);
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const std::vector<double> admission = ControlledAdmission(says, GateControl::kRandom, 0, seed);
    ASSERT_EQ(Sum(admission), open);
    EXPECT_EQ(admission, ControlledAdmission(says, GateControl::kRandom, 0, seed));
    for (size_t i = 0; i < says.size(); ++i) times[i] += admission[i];
  }
  // Each of the 35 asked groups in 7 / 35 of the draws, whatever the gate said of it; standard error .006.
  for (size_t i = 0; i < says.size(); ++i) {
    EXPECT_NEAR(times[i] / 4000, says[i] == GateSay::kNotAsked ? 0 : open / 35, 0.03) << i;
  }
}

TEST(ControlTest, AGivenRateIsMetOnAverage) {
  const std::vector<GateSay> says = Step();
  double sum = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const double admitted = Sum(ControlledAdmission(says, GateControl::kRandom, 0.25, seed));
    EXPECT_TRUE(admitted == 8 || admitted == 9);  // .25 of 35
    sum += admitted;
  }
  EXPECT_NEAR(sum / 4000, 8.75, 0.03);
  EXPECT_EQ(Sum(ControlledAdmission(says, GateControl::kRandom, 1, 3)), 35);
}

TEST(ControlTest, AnEqualDoseSpreadsTheRateOverAllThatWereAsked) {
  const std::vector<GateSay> says = Step();
  const std::vector<double> own = ControlledAdmission(says, GateControl::kEqualDose, 0, 1);
  const std::vector<double> given = ControlledAdmission(says, GateControl::kEqualDose, 0.1, 1);
  for (size_t i = 0; i < says.size(); ++i) {
    EXPECT_DOUBLE_EQ(own[i], says[i] == GateSay::kNotAsked ? 0 : 7.0 / 35);
    EXPECT_DOUBLE_EQ(given[i], says[i] == GateSay::kNotAsked ? 0 : 0.1);
  }
  EXPECT_NEAR(Sum(own), 7, 1e-12);  // the gate's dose
}

TEST(ControlTest, ThinningLetsARandomPartOfTheOpenGroupsThrough) {
  const std::vector<GateSay> says = Step();
  std::vector<double> times(says.size(), 0);
  double sum = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const std::vector<double> admission = ControlledAdmission(says, GateControl::kThin, 0.1, seed);
    const double admitted = Sum(admission);
    EXPECT_TRUE(admitted == 3 || admitted == 4);  // .1 of 35
    sum += admitted;
    for (size_t i = 0; i < says.size(); ++i) times[i] += admission[i];
  }
  EXPECT_NEAR(sum / 4000, 3.5, 0.03);
  for (size_t i = 0; i < says.size(); ++i) {
    EXPECT_NEAR(times[i] / 4000, says[i] == GateSay::kOpen ? 0.5 : 0, 0.03) << i;
  }
  // More than the gate opens is not there.
  EXPECT_EQ(ControlledAdmission(says, GateControl::kThin, 0.9, 1), ControlledAdmission(says, GateControl::kNone, 0, 1));
}

TEST(ControlTest, AStepWithoutVerdictsAdmitsNothing) {
  const std::vector<GateSay> says(4, GateSay::kNotAsked);
  for (const GateControl control :
       {GateControl::kNone, GateControl::kRandom, GateControl::kEqualDose, GateControl::kThin}) {
    EXPECT_EQ(Sum(ControlledAdmission(says, control, 0, 1)), 0);
    EXPECT_EQ(Sum(ControlledAdmission(says, control, 1, 1)), 0);
  }
  EXPECT_TRUE(ControlledAdmission({}, GateControl::kRandom, 0, 1).empty());
}

TEST(ControlTest, AControlledPlanHasTheWeightsOfItsAdmission) {
  RlOptions options;
  options.lambda = 3;
  options.kl.beta = 0.5;
  GroupPlan plan;
  plan.has_rewards = true;
  plan.gate_open = true;
  plan.nll_unit = 0.25;
  plan.completions.resize(1);
  plan.completions[0].unit_weight = 0.2;
  plan.completions[0].unit_kl = 0.1;
  plan.completions[0].unit_levels = {1, -1};
  ApplyControl(0.5, options, &plan);
  EXPECT_EQ(plan.verdict.reason, GateReason::kControlOpen);
  EXPECT_DOUBLE_EQ(plan.completions[0].token_weight, 3 * 0.5 * 0.2);
  EXPECT_DOUBLE_EQ(plan.completions[0].kl_weight, 3 * 0.5 * 0.5 * 0.1);
  EXPECT_EQ(plan.completions[0].level_weights, (std::vector<double>{1.5, -1.5}));
  EXPECT_DOUBLE_EQ(plan.nll_token_weight, 0.25);
  ApplyControl(0, options, &plan);
  EXPECT_EQ(plan.verdict.reason, GateReason::kControlClosed);
  EXPECT_EQ(plan.completions[0].token_weight, 0);
  EXPECT_TRUE(plan.completions[0].level_weights.empty());
  EXPECT_TRUE(plan.gate_open);  // the statistics keep what the gate said
}

}  // namespace
}  // namespace sluice::learner

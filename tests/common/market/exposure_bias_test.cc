#include "common/market/exposure_bias.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace sluice {
namespace {

// Item i occurs 1000 * (i + 1) times, in sequences of 10.
std::vector<std::vector<int32_t>> Log() {
  std::vector<int32_t> events;
  for (int round = 0; round < 1000; ++round) {
    for (int32_t item = 0; item < 4; ++item) events.insert(events.end(), static_cast<size_t>(item + 1), item);
  }
  std::vector<std::vector<int32_t>> sequences;
  for (size_t i = 0; i < events.size(); i += 10) sequences.emplace_back(events.begin() + i, events.begin() + i + 10);
  return sequences;
}

std::vector<double> Shares(const std::vector<std::vector<int32_t>>& left) {
  std::vector<double> shares(4, 0.0);
  for (const auto& sequence : left) {
    for (const int32_t item : sequence) shares[item] += 1 / (1000.0 * (item + 1));
  }
  return shares;
}

void ExpectShare(double got, double want, int events) {
  EXPECT_NEAR(got, want, 4 * std::sqrt(want * (1 - want) / events) + 1e-12);
}

TEST(ExposureBiasTest, WithoutExponentsNothingIsLost) {
  EXPECT_EQ(InjectExposureBias(Log(), 4, {}, 1), Log());
  EXPECT_EQ(InjectExposureBias({{}, {}}, 4, {.missing = 1}, 1), (std::vector<std::vector<int32_t>>{{}, {}}));
}

TEST(ExposureBiasTest, RareItemsGoMissingByThePowerOfTheirCount) {
  const std::vector<double> shares = Shares(InjectExposureBias(Log(), 4, {.missing = 2}, 1));
  for (int item = 0; item < 4; ++item) ExpectShare(shares[item], std::pow((item + 1) / 4.0, 2), 1000 * (item + 1));
}

// A slate of two: the place is 2 if the other item is at least as frequent.
TEST(ExposureBiasTest, EventsLowInTheirSlateAreLost) {
  const std::vector<double> shares = Shares(InjectExposureBias(Log(), 4, {.position = 1, .slate = 2}, 1));
  const double not_rarer[] = {1, 0.9, 0.7, 0.4};  // share of the events of items at least as frequent
  for (int item = 0; item < 4; ++item) {
    ExpectShare(shares[item], 1 - not_rarer[item] / 2, 1000 * (item + 1));
  }
}

TEST(ExposureBiasTest, RepeatsForASeedAndAStrongerBiasLosesMoreOfTheSame) {
  const auto weak = InjectExposureBias(Log(), 4, {.missing = 1}, 3);
  EXPECT_EQ(weak, InjectExposureBias(Log(), 4, {.missing = 1}, 3));
  EXPECT_NE(weak, InjectExposureBias(Log(), 4, {.missing = 1}, 4));
  const auto strong = InjectExposureBias(Log(), 4, {.missing = 3}, 3);
  for (size_t user = 0; user < weak.size(); ++user) {
    // A subsequence of what the weaker bias left.
    size_t at = 0;
    for (const int32_t item : strong[user]) {
      while (at < weak[user].size() && weak[user][at] != item) ++at;
      ASSERT_LT(at++, weak[user].size());
    }
  }
}

}  // namespace
}  // namespace sluice

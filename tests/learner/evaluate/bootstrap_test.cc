#include "learner/evaluate/bootstrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

TEST(PairedBootstrapTest, IntervalOfConstantDifferenceIsThatDifference) {
  const std::vector<double> a(50, 0.75), b(50, 0.5);
  const auto interval = PairedBootstrap(a, b, {.resamples = 200});
  ASSERT_TRUE(interval.ok());
  EXPECT_DOUBLE_EQ(interval->mean, 0.25);
  EXPECT_DOUBLE_EQ(interval->low, 0.25);
  EXPECT_DOUBLE_EQ(interval->high, 0.25);
}

TEST(PairedBootstrapTest, WidthMatchesTheNormalApproximation) {
  // 2,000 independent differences of mean 0.1 and standard deviation 1: the 95
  // % interval has a half-width of 1.96 / sqrt(2000) = 0.0438.
  Random random(3);
  std::vector<double> a, b;
  double mean = 0, squares = 0;
  for (int i = 0; i < 2000; ++i) {
    b.push_back(random.Normal());
    a.push_back(b.back() + 0.1 + random.Normal());
    mean += a.back() - b.back();
    squares += (a.back() - b.back()) * (a.back() - b.back());
  }
  mean /= 2000;
  const double half = 1.96 * std::sqrt((squares / 2000 - mean * mean) / 2000);
  const auto interval = PairedBootstrap(a, b, {.seed = 7});
  ASSERT_TRUE(interval.ok());
  EXPECT_NEAR(interval->mean, mean, 1e-12);
  EXPECT_NEAR(interval->high - interval->mean, half, 0.12 * half);
  EXPECT_NEAR(interval->mean - interval->low, half, 0.12 * half);
}

TEST(PairedBootstrapTest, RepeatsForASeedAndRefusesUnpairedInput) {
  const std::vector<double> a = {1, 0, 1, 1, 0, 0, 1}, b = {0, 0, 1, 0, 0, 1, 1};
  const BootstrapOptions options = {.resamples = 500, .confidence = 0.9, .seed = 4};
  const auto first = PairedBootstrap(a, b, options), second = PairedBootstrap(a, b, options);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->low, second->low);
  EXPECT_EQ(first->high, second->high);
  const auto code = [&](absl::Span<const double> control, BootstrapOptions changed) {
    return PairedBootstrap(a, control, changed).status().code();
  };
  EXPECT_EQ(code(absl::MakeSpan(b).subspan(1), options), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(b, {.resamples = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(b, {.confidence = 1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PairedBootstrap({}, {}, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BootstrapMeansTest, EverySeriesIsJudgedOnTheSameDraws) {
  Random random(6);
  std::vector<double> a, b, sum;
  for (int i = 0; i < 37; ++i) {
    a.push_back(random.Normal());
    b.push_back(random.Normal());
    sum.push_back(a.back() + b.back());
  }
  const absl::Span<const double> series[] = {a, b, sum};
  const auto means = BootstrapMeans(series, {.resamples = 21});  // no multiple of what is drawn together
  ASSERT_TRUE(means.ok()) << means.status();
  std::vector<double> of_a = (*means)[0];
  for (size_t r = 0; r < 21; ++r) EXPECT_NEAR((*means)[2][r], (*means)[0][r] + (*means)[1][r], 1e-12);
  std::sort(of_a.begin(), of_a.end());
  EXPECT_EQ(std::unique(of_a.begin(), of_a.end()), of_a.end()) << "resamples differ from one another";
}

TEST(BootstrapMeansTest, ASeriesOfOnesHasTheMeanOneInEveryResample) {
  const std::vector<double> ones(100, 1.0);
  const absl::Span<const double> series[] = {ones};
  const auto means = BootstrapMeans(series, {.resamples = 10});
  ASSERT_TRUE(means.ok()) << means.status();
  for (const double mean : (*means)[0]) EXPECT_DOUBLE_EQ(mean, 1);
}

}  // namespace
}  // namespace sluice::learner

#include "learner/train/adamw.h"

#include <torch/types.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

constexpr int kSize = 5;

// Loshchilov and Hutter 2019, algorithm 2, one number at a time: decay apart from the moments, bias-corrected.
class SlowAdamW {
 public:
  SlowAdamW(std::vector<double> parameters, std::vector<double> mask, const OptimizerOptions& options)
      : parameters_(std::move(parameters)), mask_(std::move(mask)), options_(options) {}

  void Step(std::vector<double> gradient, double rate) {
    ++steps_;
    double squares = 0;
    for (const double g : gradient) squares += g * g;
    const double norm = std::sqrt(squares);
    for (int i = 0; i < kSize; ++i) {
      if (options_.clip_norm > 0 && norm > options_.clip_norm) gradient[i] = gradient[i] / norm * options_.clip_norm;
      m_[i] = options_.beta1 * m_[i] + (1 - options_.beta1) * gradient[i];
      v_[i] = options_.beta2 * v_[i] + (1 - options_.beta2) * gradient[i] * gradient[i];
      const double m_hat = m_[i] / (1 - std::pow(options_.beta1, steps_));
      const double v_hat = v_[i] / (1 - std::pow(options_.beta2, steps_));
      const double decayed = parameters_[i] * (1 - rate * options_.weight_decay * mask_[i]);
      parameters_[i] = decayed - rate * m_hat / (std::sqrt(v_hat) + options_.epsilon);
    }
  }
  const std::vector<double>& parameters() const { return parameters_; }

 private:
  std::vector<double> parameters_;
  std::vector<double> mask_;
  OptimizerOptions options_;
  std::vector<double> m_ = std::vector<double>(kSize, 0.0);
  std::vector<double> v_ = std::vector<double>(kSize, 0.0);
  int steps_ = 0;
};

struct Arenas {
  at::Tensor parameters, gradients, mask;
};

Arenas MakeArenas(at::ScalarType dtype) {
  return {torch::tensor({1.0, -2.0, 0.5, 3.0, 0.0}, torch::kDouble).to(dtype), torch::zeros({kSize}, dtype),
          torch::tensor({1, 0, 1, 0, 1}, torch::kDouble).to(dtype)};
}

OptimizerOptions Options() {
  OptimizerOptions options;
  options.weight_decay = 0.1;
  options.clip_norm = 1.5;
  return options;
}

struct Case {
  at::ScalarType dtype;
  double tolerance;
  bool by_tensors;
};
class AdamWTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, AdamWTest,
                         ::testing::Values(Case{at::kDouble, 1e-13, false}, Case{at::kFloat, 2e-6, false},
                                           Case{at::kDouble, 1e-13, true}, Case{at::kFloat, 2e-6, true}));

TEST_P(AdamWTest, FollowsTheAlgorithmStepByStep) {
  Arenas arenas = MakeArenas(GetParam().dtype);
  AdamW optimizer(arenas.parameters, arenas.gradients, arenas.mask, Options(), GetParam().by_tensors);
  SlowAdamW slow({1.0, -2.0, 0.5, 3.0, 0.0}, {1, 0, 1, 0, 1}, Options());
  Random random(1);
  int clipped = 0;
  for (int step = 1; step <= 30; ++step) {
    std::vector<double> gradient(kSize);
    for (double& g : gradient) g = random.Normal() * (step % 3 == 0 ? 2.0 : 0.2);
    arenas.gradients.copy_(torch::tensor(gradient, torch::kDouble));
    const double rate = 0.05 / step;
    const double norm = optimizer.Step(rate).value();
    slow.Step(gradient, rate);
    clipped += norm > 1.5;
    for (int i = 0; i < kSize; ++i) {
      EXPECT_NEAR(arenas.parameters[i].item<double>(), slow.parameters()[i], GetParam().tolerance) << step;
    }
  }
  EXPECT_GT(clipped, 3);  // both sides of the clip were seen
  EXPECT_LT(clipped, 27);
  EXPECT_EQ(optimizer.steps(), 30);
}

TEST(AdamWStepTest, ReturnsTheNormBeforeClippingAndZeroNeverClips) {
  Arenas arenas = MakeArenas(at::kDouble);
  OptimizerOptions options = Options();
  options.clip_norm = 0;
  AdamW optimizer(arenas.parameters, arenas.gradients, arenas.mask, options);
  arenas.gradients.copy_(torch::tensor({3.0, 4.0, 0.0, 0.0, 0.0}, torch::kDouble));
  EXPECT_DOUBLE_EQ(optimizer.Step(0.1).value(), 5.0);
  EXPECT_DOUBLE_EQ(optimizer.first_moments()[0].item<double>(), (1 - options.beta1) * 3.0);
}

TEST(AdamWStepTest, TheNormOfMillionsOfSinglesIsThatOfDoubles) {
  const int64_t size = 6'000'011;  // neither whole vectors nor whole blocks
  const at::Tensor gradients = torch::full({size}, 1e-3f);
  for (const bool by_tensors : {false, true}) {
    AdamW optimizer(torch::zeros({size}), gradients, torch::zeros({size}), {}, by_tensors);
    const double single = 1e-3f;
    EXPECT_NEAR(optimizer.Step(0).value() / (single * std::sqrt(static_cast<double>(size))), 1, 1e-12);
  }
}

TEST(AdamWStepTest, ABadGradientReachesNeitherWeightsNorMoments) {
  const double infinite = std::numeric_limits<double>::infinity(), none = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [bad, by_tensors] :
       {std::pair(none, false), std::pair(infinite, false), std::pair(none, true), std::pair(infinite, true)}) {
    Arenas arenas = MakeArenas(at::kDouble);
    AdamW optimizer(arenas.parameters, arenas.gradients, arenas.mask, Options(), by_tensors);
    arenas.gradients[2] = bad;
    EXPECT_EQ(optimizer.Step(0.1).status().code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(arenas.parameters.equal(MakeArenas(at::kDouble).parameters));
    EXPECT_EQ(optimizer.first_moments().abs().sum().item<double>(), 0);
    EXPECT_EQ(optimizer.steps(), 0);
    // And the next good gradient works.
    arenas.gradients.fill_(0.1);
    EXPECT_TRUE(optimizer.Step(0.1).ok());
  }
}

TEST(AdamWStepTest, ARestoredOptimizerContinuesWithTheSameBits) {
  Arenas whole = MakeArenas(at::kFloat);
  AdamW uninterrupted(whole.parameters, whole.gradients, whole.mask, Options());
  Arenas resumed = MakeArenas(at::kFloat);
  for (int step = 0; step < 6; ++step) {
    whole.gradients.fill_(0.1 * (step + 1));
    ASSERT_TRUE(uninterrupted.Step(0.01).ok());
    if (step == 2) {
      resumed.parameters.copy_(whole.parameters);
      AdamW next(resumed.parameters, resumed.gradients, resumed.mask, Options());
      const at::Tensor first = uninterrupted.first_moments().clone();
      const at::Tensor second = uninterrupted.second_moments().clone();
      ASSERT_TRUE(next.Restore(uninterrupted.steps(), first, second).ok());
      for (int rest = 3; rest < 6; ++rest) {
        resumed.gradients.fill_(0.1 * (rest + 1));
        ASSERT_TRUE(next.Step(0.01).ok());
      }
    }
  }
  EXPECT_TRUE(resumed.parameters.equal(whole.parameters));
}

TEST(AdamWStepTest, RefusesMomentsOfAnotherSize) {
  Arenas arenas = MakeArenas(at::kFloat);
  AdamW optimizer(arenas.parameters, arenas.gradients, arenas.mask, Options());
  EXPECT_EQ(optimizer.Restore(1, torch::zeros({4}), torch::zeros({kSize})).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ScheduledLearningRateTest, WarmsUpLinearlyThenFollowsHalfACosine) {
  OptimizerOptions options;
  options.learning_rate = 2;
  options.warmup_fraction = 0.2;
  options.final_fraction = 0.1;
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 0.1, 0), 1);
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 0.2, 0), 2);
  EXPECT_NEAR(ScheduledLearningRate(options, 0.6, 0), 2 * (0.1 + 0.9 * 0.5), 1e-12);  // half of the way down
  EXPECT_NEAR(ScheduledLearningRate(options, 1, 0), 0.2, 1e-12);
  EXPECT_NEAR(ScheduledLearningRate(options, 7, 0), 0.2, 1e-12);  // past the end
  for (double p = 0.2; p < 1; p += 0.01) {
    EXPECT_GT(ScheduledLearningRate(options, p, 0), ScheduledLearningRate(options, p + 0.01, 0));
  }
}

TEST(ScheduledLearningRateTest, NoUpdateOfTheWarmUpIsWastedOnARateOfZero) {
  OptimizerOptions options;
  options.learning_rate = 2;
  options.warmup_fraction = 0.25;
  // 16 updates, of which 4 warm up.
  for (int update = 0; update < 4; ++update) {
    EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, update / 16.0, 1 / 16.0), 2 * (update + 1) / 4.0);
  }
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 4 / 16.0, 1 / 16.0), 2);
  EXPECT_LT(ScheduledLearningRate(options, 5 / 16.0, 1 / 16.0), 2);
  options.warmup_fraction = 0.01;  // less than one update
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 0, 1 / 16.0), 2);
  options.warmup_fraction = 1;  // all of them
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 15 / 16.0, 1 / 16.0), 2);
}

TEST(ScheduledLearningRateTest, WithoutWarmUpItStartsAtThePeak) {
  OptimizerOptions options;
  options.warmup_fraction = 0;
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 0, 0), options.learning_rate);
  options.warmup_fraction = 1;
  EXPECT_DOUBLE_EQ(ScheduledLearningRate(options, 0.5, 0), options.learning_rate / 2);
}

}  // namespace
}  // namespace sluice::learner

#include "learner/objective/policy_terms.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

constexpr PolicyLossKind kKinds[] = {PolicyLossKind::kReinforce, PolicyLossKind::kPpo,  PolicyLossKind::kTruncated,
                                     PolicyLossKind::kEcpo,      PolicyLossKind::kGbpo, PolicyLossKind::kSaGcpo};
constexpr RatioLevel kLevels[] = {RatioLevel::kToken, RatioLevel::kSequenceMean, RatioLevel::kSequence};

// The objectives as the papers print them, in probabilities, with every sg() taken from `held` instead of from the
// probability that moves.
double Written(PolicyLossKind kind, double p, double held, double old, double advantage, const PolicyLossOptions& o) {
  const auto clip = [&](double r) { return std::min(std::max(r, 1 - o.clip_low), 1 + o.clip_high); };
  switch (kind) {
    case PolicyLossKind::kReinforce:
      return p / held * advantage;
    case PolicyLossKind::kPpo:
      return std::min(p / old * advantage, clip(p / old) * advantage);
    case PolicyLossKind::kTruncated:
      return std::min(held / old, o.truncation) * advantage * std::log(p);
    case PolicyLossKind::kEcpo: {
      const double other = advantage >= 0 ? old : std::max(held / (1 + o.clip_high + o.ecpo_delta), old);
      return std::min(p / other * advantage, clip(p / other) * advantage);
    }
    case PolicyLossKind::kGbpo:
      return p / (advantage >= 0 ? std::max(old, held) : std::max(old, 1 - held)) * advantage;
    case PolicyLossKind::kSaGcpo: {
      const double t = advantage > 0 ? o.soft_positive : o.soft_negative;
      return 4 / t / (1 + std::exp(-t * (p / old - 1))) * advantage;
    }
  }
  return 0;
}

double Reduce(RatioLevel level, const std::vector<double>& log_probs) {
  const double sum = std::accumulate(log_probs.begin(), log_probs.end(), 0.0);
  return std::exp(level == RatioLevel::kSequenceMean ? sum / static_cast<double>(log_probs.size()) : sum);
}

double WrittenSequence(const std::vector<double>& log_probs, const std::vector<double>& held,
                       const std::vector<double>& old, double weight, const PolicyLossOptions& o) {
  if (o.ratio != RatioLevel::kToken) {
    return Written(o.kind, Reduce(o.ratio, log_probs), Reduce(o.ratio, held), Reduce(o.ratio, old),
                   weight * static_cast<double>(log_probs.size()), o);
  }
  double sum = 0;
  for (size_t t = 0; t < log_probs.size(); ++t) {
    sum += Written(o.kind, std::exp(log_probs[t]), std::exp(held[t]), std::exp(old[t]), weight, o);
  }
  return sum;
}

TEST(PolicyTermsTest, ValuesAndSlopesAreThoseOfTheWrittenObjectives) {
  Random random(3);
  int flat = 0, sloped = 0;
  for (const PolicyLossKind kind : kKinds) {
    for (const RatioLevel level : kLevels) {
      PolicyLossOptions options;
      options.kind = kind;
      options.ratio = level;
      for (int trial = 0; trial < 200; ++trial) {
        const double weight = random.Normal();
        std::vector<double> now(3), old(3);
        for (size_t t = 0; t < now.size(); ++t) {
          now[t] = -0.05 - 2 * random.Uniform();
          old[t] = std::min(-0.01, now[t] + 0.4 * random.Normal());
        }
        const TokenTerms terms = PolicyTerms(now, old, weight, options);
        ASSERT_NEAR(terms.value, WrittenSequence(now, now, old, weight, options), 1e-12);
        for (size_t t = 0; t < now.size(); ++t) {
          constexpr double kStep = 1e-6;
          std::vector<double> above = now, below = now;
          above[t] += kStep;
          below[t] -= kStep;
          const double slope =
              (WrittenSequence(above, now, old, weight, options) - WrittenSequence(below, now, old, weight, options)) /
              (2 * kStep);
          EXPECT_NEAR(terms.slopes[t], slope, 1e-7) << static_cast<int>(kind) << " " << static_cast<int>(level);
          (slope == 0 ? flat : sloped)++;
        }
      }
    }
  }
  EXPECT_GT(flat, 100);  // clipped ones
  EXPECT_GT(sloped, 5000);
}

TEST(PolicyTermsTest, OnPolicyEveryRatioGivesTheSlopeOfReinforce) {
  const std::vector<double> log_probs = {-1.5, -0.2, -0.9};
  for (const PolicyLossKind kind : kKinds) {
    if (kind == PolicyLossKind::kGbpo) continue;  // bounds the slope even on-policy
    for (const RatioLevel level : kLevels) {
      for (const double weight : {0.7, -0.4}) {
        PolicyLossOptions options;
        options.kind = kind;
        options.ratio = level;
        for (const double slope : PolicyTerms(log_probs, log_probs, weight, options).slopes) {
          // The product ratio moves with every token, so a token's slope is L times that of the mean.
          EXPECT_NEAR(slope, weight * (level == RatioLevel::kSequence ? 3 : 1), 1e-12) << static_cast<int>(kind);
        }
      }
    }
  }
}

TEST(PolicyTermsTest, ReinforceIgnoresWhoSampled) {
  const TokenTerms terms = PolicyTerms({-1.0, -2.0}, {}, 0.5, {});
  EXPECT_DOUBLE_EQ(terms.value, 1);
  EXPECT_EQ(terms.slopes, (std::vector<double>{0.5, 0.5}));
}

TEST(PolicyTermsTest, AZeroAdvantageMovesNothingUnderAnyObjective) {
  for (const PolicyLossKind kind : kKinds) {
    PolicyLossOptions options;
    options.kind = kind;
    for (const double slope : PolicyTerms({-1.0, -3.0}, {-2.0, -1.0}, 0, options).slopes) EXPECT_EQ(slope, 0);
  }
}

TEST(PolicyTermsTest, EcpoBoundsTheRatioOfNegativesWherePpoDoesNot) {
  PolicyLossOptions options;
  options.kind = PolicyLossKind::kPpo;
  // The policy has made a bad completion e times as probable as when it was sampled.
  EXPECT_NEAR(PolicyTerms({-1.0}, {-2.0}, -1, options).slopes[0], -std::exp(1.0), 1e-12);
  options.kind = PolicyLossKind::kEcpo;
  EXPECT_NEAR(PolicyTerms({-1.0}, {-2.0}, -1, options).slopes[0], -1.3, 1e-12);  // 1 + .2 + .1
  // Positives are those of PPO: clipped here.
  EXPECT_EQ(PolicyTerms({-1.0}, {-2.0}, 1, options).slopes[0], 0);
}

TEST(PolicyTermsTest, GbpoBoundsNegativeSlopesLikeABinaryCrossEntropy) {
  PolicyLossOptions options;
  options.kind = PolicyLossKind::kGbpo;
  // p = 1e-3 under both: the denominator is 1 - p, not p.
  const double small = std::log(1e-3);
  EXPECT_NEAR(PolicyTerms({small}, {small}, -1, options).slopes[0], -1e-3 / (1 - 1e-3), 1e-15);
  EXPECT_NEAR(PolicyTerms({small}, {small}, 1, options).slopes[0], 1, 1e-12);
}

TEST(PolicyTermsTest, TruncatedWeightsNeverExceedTheirBound) {
  PolicyLossOptions options;
  options.kind = PolicyLossKind::kTruncated;
  options.truncation = 2;
  EXPECT_DOUBLE_EQ(PolicyTerms({-1.0}, {-9.0}, 0.5, options).slopes[0], 1);
  EXPECT_NEAR(PolicyTerms({-2.0}, {-1.0}, 0.5, options).slopes[0], 0.5 * std::exp(-1.0), 1e-15);
}

TEST(K3KlTest, TheMeanUnderThePolicyIsTheExactKl) {
  const std::vector<double> policy = {0.5, 0.3, 0.15, 0.05};
  const std::vector<double> reference = {0.4, 0.1, 0.2, 0.3};
  double estimate = 0, exact = 0;
  for (size_t v = 0; v < policy.size(); ++v) {
    const KlTerm term = K3Kl(std::log(policy[v]), std::log(reference[v]));
    EXPECT_GE(term.value, 0);
    estimate += policy[v] * term.value;
    exact += policy[v] * std::log(policy[v] / reference[v]);
  }
  EXPECT_NEAR(estimate, exact, 1e-14);
}

TEST(K3KlTest, TheSlopeIsThatOfTheValueAndZeroAtTheReference) {
  for (const double log_prob : {-3.0, -1.0, -0.1}) {
    constexpr double kStep = 1e-6;
    const double slope = (K3Kl(log_prob + kStep, -1.2).value - K3Kl(log_prob - kStep, -1.2).value) / (2 * kStep);
    EXPECT_NEAR(K3Kl(log_prob, -1.2).slope, slope, 1e-8);
  }
  EXPECT_EQ(K3Kl(-1.2, -1.2).slope, 0);
  EXPECT_EQ(K3Kl(-1.2, -1.2).value, 0);
}

}  // namespace
}  // namespace sluice::learner

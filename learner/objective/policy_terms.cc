#include "learner/objective/policy_terms.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/status/status.h"

namespace sluice::learner {
namespace {

// Value and slope of one unit at log-probability `log_prob`.
struct UnitTerm {
  double value = 0;
  double slope = 0;
};

// min(r w, clip(r) w) at r = exp(log_ratio). At a bound the unclipped branch counts, as min and max are written.
UnitTerm Clipped(double log_ratio, double weight, double low, double high) {
  const double ratio = std::exp(log_ratio);
  const double clipped = std::clamp(ratio, low, high);
  if (clipped * weight < ratio * weight) return {clipped * weight, 0};
  return {ratio * weight, ratio * weight};
}

UnitTerm Term(double log_prob, double behavior, double weight, const PolicyLossOptions& options) {
  const double low = 1 - options.clip_low;
  const double high = 1 + options.clip_high;
  switch (options.kind) {
    case PolicyLossKind::kReinforce:
      break;
    case PolicyLossKind::kPpo:
      return Clipped(log_prob - behavior, weight, low, high);
    case PolicyLossKind::kTruncated: {
      const double held = std::min(std::exp(log_prob - behavior), options.truncation) * weight;
      return {held * log_prob, held};
    }
    case PolicyLossKind::kEcpo: {
      const double old = weight < 0 ? std::max(log_prob - std::log(high + options.ecpo_delta), behavior) : behavior;
      return Clipped(log_prob - old, weight, low, high);
    }
    case PolicyLossKind::kGbpo: {
      const double probability = std::exp(log_prob);
      const double old = std::max(std::exp(behavior), weight < 0 ? 1 - probability : probability);
      // Both are 0 only where the policy has given the unit up; then there is nothing to push.
      const double term = old > 0 ? weight * probability / old : 0;
      return {term, term};
    }
    case PolicyLossKind::kSaGcpo: {
      const double temperature = weight > 0 ? options.soft_positive : options.soft_negative;
      const double ratio = std::exp(log_prob - behavior);
      const double gate = 1 / (1 + std::exp(-temperature * (ratio - 1)));
      // exp may overflow to infinity far away, where the sigmoid is flat.
      const double slope = gate < 1 ? 4 * gate * (1 - gate) * ratio * weight : 0;
      return {gate * 4 / temperature * weight, slope};
    }
  }
  return {weight, weight};
}

}  // namespace

bool NeedsBehavior(PolicyLossKind kind) { return kind != PolicyLossKind::kReinforce; }

TokenTerms PolicyTerms(absl::Span<const double> log_probs, absl::Span<const double> behavior_log_probs, double weight,
                       const PolicyLossOptions& options) {
  const size_t length = log_probs.size();
  const bool compares = NeedsBehavior(options.kind);
  SLUICE_CHECK(length > 0, "a completion has tokens");
  SLUICE_CHECK(!compares || behavior_log_probs.size() == length, "one behaviour log-probability a token");
  TokenTerms terms;
  terms.slopes.assign(length, 0);
  if (options.ratio == RatioLevel::kToken) {
    for (size_t t = 0; t < length; ++t) {
      const UnitTerm unit = Term(log_probs[t], compares ? behavior_log_probs[t] : 0, weight, options);
      terms.value += unit.value;
      terms.slopes[t] = unit.slope;
    }
    return terms;
  }
  const double tokens = static_cast<double>(length);
  const double share = options.ratio == RatioLevel::kSequenceMean ? 1 / tokens : 1;
  const double sequence = share * std::accumulate(log_probs.begin(), log_probs.end(), 0.0);
  const double behavior =
      compares ? share * std::accumulate(behavior_log_probs.begin(), behavior_log_probs.end(), 0.0) : 0;
  const UnitTerm unit = Term(sequence, behavior, weight * tokens, options);
  terms.value = unit.value;
  std::fill(terms.slopes.begin(), terms.slopes.end(), share * unit.slope);
  return terms;
}

KlTerm K3Kl(double log_prob, double reference_log_prob) {
  const double log_ratio = reference_log_prob - log_prob;
  // expm1 keeps the value of nearly equal policies from being lost in 1 - 1.
  const double excess = std::expm1(log_ratio);
  return {excess - log_ratio, -excess};
}

}  // namespace sluice::learner

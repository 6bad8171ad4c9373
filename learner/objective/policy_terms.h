// The policy-gradient term of one completion as a function of its log-probabilities: value and slope of each token.
//
// A training pass needs nothing else of an objective: with the slopes held constant, -sum_t slope_t * log p_t has the
// objective's gradient whatever ratios, clips and stop-gradients it is made of. So all of them live here, on plain
// arrays in double, proven by finite differences, and the pass stays one weighted sum.
//
// Pure functions; thread-safe. L is the number of tokens of a semantic ID.
#ifndef SLUICE_LEARNER_OBJECTIVE_POLICY_TERMS_H_
#define SLUICE_LEARNER_OBJECTIVE_POLICY_TERMS_H_

#include <vector>

#include "absl/types/span.h"
#include "learner/options/options.h"

namespace sluice::learner {

struct TokenTerms {
  double value = 0;            // of the completion's part of the objective, which is maximised
  std::vector<double> slopes;  // [L] d value / d log p_t, what the objective stops being a constant
};

// True if `kind` compares the policy with the one that sampled.
bool NeedsBehavior(PolicyLossKind kind);

// sum over units u of g(r_u, w): a unit is a token (RatioLevel::kToken) or the whole sequence, whose log-ratio is the
// mean (kSequenceMean, GSPO) or the sum (kSequence) of its tokens' and which counts L times a token's weight.
// `weight` is the advantage times all constant factors of one token; r = p / p_old, sg() is held constant.
//
//   kReinforce  w p / sg(p): value w, slope w. GRPO of ReRe, MiniOneRec, V-STAR and GRPO-SR: one update a group.
//   kPpo        min(r w, clip(r, 1 - clip_low, 1 + clip_high) w). Source: arXiv 1707.06347 eq. 7; at sequence level
//               with kSequenceMean: GSPO, arXiv 2507.18071 eq. 5
//   kTruncated  sg(min(r, truncation)) w log p: truncated importance weights for stale groups
//   kEcpo       kPpo with p_old replaced, where w < 0, by max(sg(p) / (1 + clip_high + ecpo_delta), p_old), so that
//               its ratio never exceeds 1 + clip_high + ecpo_delta. Source: OneRec, arXiv 2506.13695
//   kGbpo       w p / p'_old, p'_old = max(p_old, sg(p)) where w >= 0, max(p_old, 1 - sg(p)) where w < 0: no clip;
//               negative slopes are bounded as those of a binary cross-entropy. Source: OneRec-V2, arXiv 2508.20900
//   kSaGcpo     w f(r), f(r) = sigmoid(T (r - 1)) 4 / T, T = soft_positive or soft_negative by the sign of w; f'(1) is
//               1. Source: OxygenREC, arXiv 2512.22386
//
//   log_probs:          [L] of the policy in training, natural logarithm
//   behavior_log_probs: [L] of the policy that sampled, same space; not read (may be empty) by kReinforce
TokenTerms PolicyTerms(absl::Span<const double> log_probs, absl::Span<const double> behavior_log_probs, double weight,
                       const PolicyLossOptions& options);

struct KlTerm {
  double value = 0;  // nats, >= 0
  double slope = 0;  // d value / d log p
};

// k3 estimate of KL(policy || reference) at one sampled token: r - log r - 1 with r = p_ref / p.
// Source: the GRPO core of ReRe and MiniOneRec as released (DeepSeekMath, arXiv 2402.03300, eq. 4).
KlTerm K3Kl(double log_prob, double reference_log_prob);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_POLICY_TERMS_H_

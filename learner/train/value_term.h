// The value loss of V-STAR (arXiv 2602.10699, section 4.1 as digested) over hidden states of a training pass:
//
//   L_V = weight / count * sum_i sum_l ( V(s_il) - sg(y_il) )^2,   y_il = r_il + gamma V(s_i,l+1)
//
// with step rewards r from learner/objective/step_rewards.h. V(s_l) is read at the hidden state of the completion's
// token l, which the causal policy computes without seeing later ones.
#ifndef SLUICE_LEARNER_TRAIN_VALUE_TERM_H_
#define SLUICE_LEARNER_TRAIN_VALUE_TERM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/policy.h"
#include "learner/options/options.h"

namespace sluice::learner {

struct ValueTermSettings {
  double weight = 0;  // 0: no value loss
  double gamma = 0.99;
  Bootstrap bootstrap = Bootstrap::kAlways;
  double count = 0;  // values over all groups and ranks: the denominator
};

// One completion.
struct ValuedBranch {
  absl::Span<const int64_t> rows;         // [L] rows of the hidden states of its tokens
  absl::Span<const double> step_rewards;  // [L]
  bool first_token_right = false;         // its first token is the target's
};

struct ValueTermResult {
  at::Tensor loss;  // its gradient is L_V's, targets held constant; its value is not
  double squared_errors = 0;
  double count = 0;
};
// `branches` are at least one, and settings.count at least their values. The policy has a value head.
//   hidden: [rows, D] after the final norm.
ValueTermResult ValueTerm(const Policy& policy, const at::Tensor& hidden, absl::Span<const ValuedBranch> branches,
                          const ValueTermSettings& settings);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_VALUE_TERM_H_

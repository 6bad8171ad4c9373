#include "common/model/token_log_probs.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <limits>

#include "common/model/kernels/kernels.h"
#include "common/status/status.h"
#include "common/tensor/device.h"

namespace sluice {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Rows that are worth a thread's wake-up.
constexpr int64_t kRowGrain = 16;

class ChosenLogProbsFunction : public Function<ChosenLogProbsFunction> {
 public:
  // Returns full [E] and in_legal [E], which is empty without legal tokens.
  static variable_list forward(AutogradContext* context, const at::Tensor& given,
                               const c10::intrusive_ptr<TokenChoice>& choice) {
    const at::Tensor logits = given.contiguous();
    const int64_t rows = logits.size(0), width = logits.size(1);
    const int64_t count = static_cast<int64_t>(choice->rows.size());
    const bool any_legal = !choice->legal_first.empty();
    const at::Tensor log_sums = at::empty({rows}, logits.options());
    const at::Tensor legal_log_sums = at::empty({any_legal ? rows : 0}, logits.options());
    const at::Tensor full = at::empty({count}, logits.options());
    const at::Tensor in_legal = at::empty({any_legal ? count : 0}, logits.options());
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "chosen_log_probs", [&] {
      const auto& kernels = Kernels<scalar_t>();
      const scalar_t* const x = logits.const_data_ptr<scalar_t>();
      scalar_t* const sums = log_sums.data_ptr<scalar_t>();
      scalar_t* const legal_sums = legal_log_sums.data_ptr<scalar_t>();
      at::parallel_for(0, rows, kRowGrain, [&](int64_t begin, int64_t end) {
        kernels.log_sum_exp(begin, end, width, x, sums);
        if (!any_legal) return;
        kernels.log_sum_exp_of(begin, end, width, x, choice->legal_first.data(), choice->legal.data(), legal_sums);
      });
      scalar_t* const out = full.data_ptr<scalar_t>();
      scalar_t* const legal_out = in_legal.data_ptr<scalar_t>();
      for (int64_t e = 0; e < count; ++e) {
        const int64_t row = choice->rows[e];
        const scalar_t chosen = x[row * width + choice->tokens[e]];
        out[e] = chosen - sums[row];
        if (any_legal) legal_out[e] = chosen - legal_sums[row];
      }
    });
    context->saved_data["choice"] = c10::IValue::make_capsule(choice);
    context->save_for_backward({logits, log_sums, legal_log_sums});
    return {full, in_legal};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto choice = c10::static_intrusive_pointer_cast<TokenChoice>(context->saved_data["choice"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &logits = saved[0], &log_sums = saved[1], &legal_log_sums = saved[2];
    const int64_t rows = logits.size(0), width = logits.size(1);
    const int64_t count = static_cast<int64_t>(choice->rows.size());
    const bool any_legal = !choice->legal_first.empty();
    const at::Tensor grad_full = grads[0].contiguous(), grad_legal = grads[1].contiguous();
    const at::Tensor result = at::empty_like(logits);
    // d log p = d chosen - d log sum.
    const at::Tensor grad_sums = at::zeros({rows}, logits.options());
    const at::Tensor grad_legal_sums = at::zeros({any_legal ? rows : 0}, logits.options());
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "chosen_log_probs_backward", [&] {
      const auto& kernels = Kernels<scalar_t>();
      const scalar_t* const x = logits.const_data_ptr<scalar_t>();
      const scalar_t* const df = grad_full.const_data_ptr<scalar_t>();
      const scalar_t* const dl = grad_legal.const_data_ptr<scalar_t>();
      scalar_t* const dx = result.data_ptr<scalar_t>();
      scalar_t* const sums = grad_sums.data_ptr<scalar_t>();
      scalar_t* const legal_sums = grad_legal_sums.data_ptr<scalar_t>();
      for (int64_t e = 0; e < count; ++e) {
        sums[choice->rows[e]] -= df[e];
        if (any_legal) legal_sums[choice->rows[e]] -= dl[e];
      }
      at::parallel_for(0, rows, kRowGrain, [&](int64_t begin, int64_t end) {
        kernels.log_sum_exp_backward(begin, end, width, x, log_sums.const_data_ptr<scalar_t>(), sums, dx);
        if (!any_legal) return;
        kernels.log_sum_exp_of_backward(begin, end, width, x, choice->legal_first.data(), choice->legal.data(),
                                        legal_log_sums.const_data_ptr<scalar_t>(), legal_sums, dx);
      });
      for (int64_t e = 0; e < count; ++e) {
        dx[choice->rows[e] * width + choice->tokens[e]] += df[e] + (any_legal ? dl[e] : scalar_t(0));
      }
    });
    return {result, at::Tensor()};
  }
};

// [E]
at::Tensor ChosenLogits(const at::Tensor& logits, absl::Span<const int64_t> rows, absl::Span<const int32_t> tokens) {
  std::vector<int64_t> places(rows.size());
  for (size_t e = 0; e < rows.size(); ++e) places[e] = rows[e] * logits.size(1) + tokens[e];
  return logits.reshape({-1}).index_select(0, Upload(places, logits.device()));
}

}  // namespace

TokenLogProbs TokenLogProbsByTensors(const at::Tensor& logits, const TokenChoice& choice) {
  const int64_t count = static_cast<int64_t>(choice.rows.size());
  const at::Device device = logits.device();
  const at::Tensor rows = Upload(choice.rows, device);
  const at::Tensor chosen = ChosenLogits(logits, choice.rows, choice.tokens);
  TokenLogProbs log_probs;
  log_probs.full = chosen - logits.logsumexp(1).index_select(0, rows);
  if (choice.legal_first.empty()) return log_probs;
  int64_t widest = 1;
  for (size_t r = 0; r + 1 < choice.legal_first.size(); ++r) {
    widest = std::max(widest, choice.legal_first[r + 1] - choice.legal_first[r]);
  }
  std::vector<int64_t> legal(static_cast<size_t>(count * widest), 0), numbers(static_cast<size_t>(count));
  for (int64_t e = 0; e < count; ++e) {
    const int64_t begin = choice.legal_first[choice.rows[e]], end = choice.legal_first[choice.rows[e] + 1];
    std::copy(choice.legal.begin() + begin, choice.legal.begin() + end, legal.begin() + e * widest);
    numbers[static_cast<size_t>(e)] = end - begin;
  }
  const at::Tensor illegal = at::arange(widest, rows.options()).unsqueeze(0).ge(Upload(numbers, device).unsqueeze(1));
  const at::Tensor legal_logits = logits.index_select(0, rows)
                                      .gather(1, Upload(legal, device).view({count, widest}))
                                      .masked_fill(illegal, -std::numeric_limits<double>::infinity());
  log_probs.in_legal = chosen - legal_logits.logsumexp(1);
  return log_probs;
}

TokenLogProbs TokenLogProbsUnderNodes(const at::Tensor& logits, absl::Span<const int64_t> rows,
                                      absl::Span<const int32_t> tokens, absl::Span<const int64_t> node_of_row,
                                      int64_t widest, const TrieTables& tables) {
  SLUICE_CHECK(static_cast<int64_t>(node_of_row.size()) == logits.size(0), "a node for every row of the logits");
  const at::Device device = logits.device();
  const at::Tensor row = Upload(rows, device), chosen = ChosenLogits(logits, rows, tokens);
  const ChildTable legal = tables.ChildrenOf(Upload(node_of_row, device), widest);
  // A row without legal tokens has an infinite sum that nobody asks for, and its gradient is masked away.
  const at::Tensor sums = logits.gather(1, legal.tokens)
                              .masked_fill(legal.valid.logical_not(), -std::numeric_limits<double>::infinity())
                              .logsumexp(1);
  return {chosen - logits.logsumexp(1).index_select(0, row), chosen - sums.index_select(0, row)};
}

TokenLogProbs ChosenLogProbs(const at::Tensor& logits, const c10::intrusive_ptr<TokenChoice>& choice) {
  SLUICE_CHECK(choice->rows.size() == choice->tokens.size(), "a row for each token");
  const bool any_legal = !choice->legal_first.empty();
  SLUICE_CHECK(!any_legal || static_cast<int64_t>(choice->legal_first.size()) == logits.size(0) + 1,
               "legal tokens of every row of the logits");
  if (!logits.device().is_cpu()) return TokenLogProbsByTensors(logits, *choice);
  const variable_list found = ChosenLogProbsFunction::apply(logits, choice);
  return {found[0], any_legal ? found[1] : at::Tensor()};
}

}  // namespace sluice

#include "learner/train/device_numbers.h"

#include <torch/types.h>

#include "common/tensor/device.h"

namespace sluice::learner {

at::Tensor ReportedSums(const ReportedRows& rows, const at::Tensor& nll_log_probs, const at::Tensor& grpo_log_probs) {
  const at::NoGradGuard no_grad;
  std::vector<double> values;
  for (const std::vector<double>* const one : {&rows.nll, &rows.grpo, &rows.compared, &rows.recorded}) {
    values.insert(values.end(), one->begin(), one->end());
  }
  const at::Tensor known = Upload(values, nll_log_probs.device()).view({4, nll_log_probs.numel()});
  const at::Tensor nll = nll_log_probs.detach().to(at::kDouble), grpo = grpo_log_probs.detach().to(at::kDouble);
  const at::Tensor differences = known[2] * (grpo - known[3]).abs();
  return at::stack({-(known[0] * nll).sum(), -(known[1] * grpo).sum(), differences.sum(), differences.max()});
}

at::Tensor JoinReportedSums(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  if (!b.defined()) return a;
  return at::cat({a.narrow(0, 0, 3) + b.narrow(0, 0, 3), at::maximum(a.narrow(0, 3, 1), b.narrow(0, 3, 1))});
}

std::vector<double> FetchTogether(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined()) parts.push_back(tensor.detach().to(at::kDouble).reshape({-1}));
  }
  if (parts.empty()) return {};
  const at::Tensor host = at::cat(parts).to(at::kCPU);
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

}  // namespace sluice::learner

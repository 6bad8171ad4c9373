// The numbers that a training step reports, where they are computed on a device: they stay there until the step's end.
#ifndef SLUICE_LEARNER_TRAIN_DEVICE_NUMBERS_H_
#define SLUICE_LEARNER_TRAIN_DEVICE_NUMBERS_H_

#include <ATen/core/Tensor.h>

#include <vector>

namespace sluice::learner {

// What a pass's rows count for in a step's report, [R] each.
struct ReportedRows {
  std::vector<double> nll;       // 1: in the NLL; 0: not
  std::vector<double> grpo;      // weight of the row's log-probability in the second term
  std::vector<double> compared;  // 1: an actor recorded the row's log-probability; 0: none
  std::vector<double> recorded;  // that
};

// [4] double on the log-probabilities' device: the sums of -nll * nll_log_probs and of -grpo * grpo_log_probs, the sum
// and the largest of compared * |grpo_log_probs - recorded|. log_probs: [R], detached or not. No host read.
at::Tensor ReportedSums(const ReportedRows& rows, const at::Tensor& nll_log_probs, const at::Tensor& grpo_log_probs);

// Two of them together: the last is the larger one. Either may be undefined. No host read.
at::Tensor JoinReportedSums(const at::Tensor& a, const at::Tensor& b);

// Several tensors' values as doubles, one after the other, by one read of their device; undefined ones have none.
std::vector<double> FetchTogether(const std::vector<at::Tensor>& tensors);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_DEVICE_NUMBERS_H_

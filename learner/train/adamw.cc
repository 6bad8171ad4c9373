#include "learner/train/adamw.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "learner/train/adamw_tensors.h"

namespace sluice::learner {
namespace {

// Elements that one thread updates at a time.
constexpr int64_t kGrain = 1 << 16;

template <typename T>
void UpdateByKernel(const AdamWCoefficients& c, const at::Tensor& p, const at::Tensor& g, const at::Tensor& mask,
                    const at::Tensor& m, const at::Tensor& v, const ParallelFor& parallel_for) {
  T* const parameters = p.mutable_data_ptr<T>();
  const T* const gradients = g.const_data_ptr<T>();
  const T* const decay_mask = mask.const_data_ptr<T>();
  T* const first = m.mutable_data_ptr<T>();
  T* const second = v.mutable_data_ptr<T>();
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    UpdateAdamW(begin, end, c, parameters, gradients, decay_mask, first, second);
  });
}

// In blocks that are summed in order, so that the norm does not depend on the number of threads.
template <typename T>
double Norm(const at::Tensor& values, const ParallelFor& parallel_for) {
  const T* const data = values.const_data_ptr<T>();
  const int64_t size = values.numel();
  std::vector<double> blocks(static_cast<size_t>((size + kGrain - 1) / kGrain));
  parallel_for(static_cast<int64_t>(blocks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      blocks[static_cast<size_t>(block)] = SumOfSquares(block * kGrain, std::min(size, (block + 1) * kGrain), data);
    }
  });
  double sum = 0;
  for (const double of_block : blocks) sum += of_block;
  return std::sqrt(sum);
}

}  // namespace

double ScheduledLearningRate(const OptimizerOptions& options, double progress, double share) {
  progress = std::clamp(progress, 0.0, 1.0);
  if (progress < options.warmup_fraction) {
    return options.learning_rate * std::min(1.0, (progress + share) / options.warmup_fraction);
  }
  const double rest = 1 - options.warmup_fraction;
  const double passed = rest > 0 ? (progress - options.warmup_fraction) / rest : 1.0;
  const double cosine = 0.5 * (1 + std::cos(M_PI * passed));
  return options.learning_rate * (options.final_fraction + (1 - options.final_fraction) * cosine);
}

AdamW::AdamW(at::Tensor parameters, at::Tensor gradients, at::Tensor decay_mask, const OptimizerOptions& options,
             bool by_tensors)
    : parameters_(std::move(parameters)),
      gradients_(std::move(gradients)),
      decay_mask_(std::move(decay_mask)),
      first_(torch::zeros_like(parameters_)),
      second_(torch::zeros_like(parameters_)),
      options_(options),
      by_tensors_(by_tensors || !parameters_.device().is_cpu()) {
  SLUICE_CHECK(gradients_.device() == parameters_.device() && decay_mask_.device() == parameters_.device(),
               "arenas on one device");
  SLUICE_CHECK(gradients_.numel() == parameters_.numel() && decay_mask_.numel() == parameters_.numel(),
               "arenas of one size");
  SLUICE_CHECK(
      gradients_.scalar_type() == parameters_.scalar_type() && decay_mask_.scalar_type() == parameters_.scalar_type(),
      "arenas of one dtype");
}

void TorchParallelFor(int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
  at::parallel_for(0, size, grain, work);
}

AdamWCoefficients AdamW::Coefficients(double learning_rate) const {
  const double step = static_cast<double>(steps_ + 1);
  return {
      .scale = 1,
      .rate = learning_rate,
      .decay = learning_rate * options_.weight_decay,
      .beta1 = options_.beta1,
      .beta2 = options_.beta2,
      .correction1 = 1 / (1 - std::pow(options_.beta1, step)),
      .correction2 = 1 / (1 - std::pow(options_.beta2, step)),
      .epsilon = options_.epsilon,
  };
}

at::Tensor AdamW::Update(double learning_rate) {
  SLUICE_CHECK(by_tensors_, "an optimizer whose update needs nothing from the host");
  const at::Tensor norm = NormByTensors(gradients_);
  UpdateAdamWByTensors(Coefficients(learning_rate), options_.clip_norm, norm, parameters_, gradients_, decay_mask_,
                       first_, second_);
  return norm;
}

absl::Status AdamW::Settle(double norm) {
  if (!std::isfinite(norm)) {
    return absl::InternalError(absl::StrCat("the gradient norm of step ", steps_ + 1, " is ", norm,
                                            "; the weights were left as they are. Lower the learning rate, or look "
                                            "for a bad record in the last groups"));
  }
  ++steps_;
  return absl::OkStatus();
}

absl::StatusOr<double> AdamW::Step(double learning_rate, const ParallelFor& parallel_for) {
  if (by_tensors_) {
    const double norm = Update(learning_rate).item<double>();
    SLUICE_RETURN_IF_ERROR(Settle(norm));
    return norm;
  }
  const double norm = gradients_.scalar_type() == at::kDouble ? Norm<double>(gradients_, parallel_for)
                                                              : Norm<float>(gradients_, parallel_for);
  AdamWCoefficients coefficients = Coefficients(learning_rate);
  SLUICE_RETURN_IF_ERROR(Settle(norm));
  const double clip = options_.clip_norm;
  coefficients.scale = clip > 0 && norm > clip ? clip / norm : 1.0;
  if (parameters_.scalar_type() == at::kDouble) {
    UpdateByKernel<double>(coefficients, parameters_, gradients_, decay_mask_, first_, second_, parallel_for);
  } else {
    UpdateByKernel<float>(coefficients, parameters_, gradients_, decay_mask_, first_, second_, parallel_for);
  }
  return norm;
}

absl::Status AdamW::Restore(int64_t steps, const at::Tensor& first, const at::Tensor& second) {
  if (first.numel() != first_.numel() || second.numel() != second_.numel()) {
    return absl::InvalidArgumentError(absl::StrCat("want optimizer moments of ", first_.numel(), " values, got ",
                                                   first.numel(), " and ", second.numel()));
  }
  first_.copy_(first.reshape_as(first_));
  second_.copy_(second.reshape_as(second_));
  steps_ = steps;
  return absl::OkStatus();
}

}  // namespace sluice::learner

// The paired bootstrap: how far a mean over prompts, or a difference of two such means, may be off.
//
// Prompts are drawn with replacement, as many as there are, `resamples` times; everything that is compared is judged on
// the same draws. Intervals are the percentiles of the resampled means. Deterministic in the seed; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_BOOTSTRAP_H_
#define SLUICE_LEARNER_EVALUATE_BOOTSTRAP_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice::learner {

struct BootstrapOptions {
  int resamples = 2000;
  double confidence = 0.95;
  uint64_t seed = 1;
};

// Mean difference over prompts and its percentile interval.
struct DifferenceInterval {
  double mean = 0;
  double low = 0;
  double high = 0;
};

// The resampled means of several series over the same prompts: [series][resamples], in the order of the draws, so that
// differences of means are differences of these numbers. InvalidArgument: no series, no prompts, different lengths,
// resamples < 1, confidence outside (0, 1).
absl::StatusOr<std::vector<std::vector<double>>> BootstrapMeans(absl::Span<const absl::Span<const double>> series,
                                                                const BootstrapOptions& options);

// The order statistics that leave (1 - confidence) / 2 of the resamples outside on either side, around `mean`.
DifferenceInterval PercentileInterval(double mean, std::vector<double> resampled, double confidence);

// Mean difference `treatment` - `control`, aligned prompt by prompt. Errors of BootstrapMeans.
absl::StatusOr<DifferenceInterval> PairedBootstrap(absl::Span<const double> treatment, absl::Span<const double> control,
                                                   const BootstrapOptions& options);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_BOOTSTRAP_H_

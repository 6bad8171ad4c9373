#include "learner/evaluate/bootstrap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// Resamples that read the values together: the values are many and pass through the caches once for all of them.
constexpr size_t kTogether = 8;

absl::Status Check(absl::Span<const absl::Span<const double>> series, const BootstrapOptions& options) {
  if (options.resamples < 1 || !(options.confidence > 0 && options.confidence < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("want at least 1 resample and a confidence inside (0, 1), got ",
                                                   options.resamples, " and ", options.confidence));
  }
  if (series.empty() || series[0].empty()) {
    return absl::InvalidArgumentError("a comparison wants at least one series with at least one prompt");
  }
  for (const absl::Span<const double>& values : series) {
    if (values.size() != series[0].size()) {
      return absl::InvalidArgumentError(absl::StrCat("a paired comparison wants one value a prompt of everything, got ",
                                                     series[0].size(), " and ", values.size()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::vector<double>>> BootstrapMeans(absl::Span<const absl::Span<const double>> series,
                                                                const BootstrapOptions& options) {
  SLUICE_RETURN_IF_ERROR(Check(series, options));
  const size_t prompts = series[0].size();
  const size_t resamples = static_cast<size_t>(options.resamples);
  std::vector<std::vector<double>> means(series.size(), std::vector<double>(resamples));
  std::vector<std::array<double, kTogether>> drawn(prompts);  // how often, in each of the resamples at hand
  for (size_t first = 0; first < resamples; first += kTogether) {
    const size_t count = std::min(kTogether, resamples - first);
    for (std::array<double, kTogether>& counts : drawn) counts.fill(0);
    for (size_t r = 0; r < count; ++r) {
      Random random(options.seed, first + r);
      for (size_t i = 0; i < prompts; ++i) drawn[random.Below(prompts)][r] += 1;
    }
    for (size_t s = 0; s < series.size(); ++s) {
      std::array<double, kTogether> sums{};
      const double* const values = series[s].data();
      for (size_t i = 0; i < prompts; ++i) {
        for (size_t r = 0; r < kTogether; ++r) sums[r] += drawn[i][r] * values[i];
      }
      for (size_t r = 0; r < count; ++r) means[s][first + r] = sums[r] / static_cast<double>(prompts);
    }
  }
  return means;
}

DifferenceInterval PercentileInterval(double mean, std::vector<double> resampled, double confidence) {
  SLUICE_CHECK(!resampled.empty(), "an interval of no resamples");
  std::sort(resampled.begin(), resampled.end());
  const double tail = (1 - confidence) / 2;
  const size_t last = resampled.size() - 1;
  const size_t low = std::min(last, static_cast<size_t>(std::floor(tail * static_cast<double>(resampled.size()))));
  return {.mean = mean, .low = resampled[low], .high = resampled[last - low]};
}

absl::StatusOr<DifferenceInterval> PairedBootstrap(absl::Span<const double> treatment, absl::Span<const double> control,
                                                   const BootstrapOptions& options) {
  if (treatment.size() != control.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a paired comparison wants one value a prompt of everything, got ",
                                                   treatment.size(), " and ", control.size()));
  }
  std::vector<double> differences(treatment.size());
  double total = 0;
  for (size_t i = 0; i < differences.size(); ++i) total += differences[i] = treatment[i] - control[i];
  const absl::Span<const double> series[] = {differences};
  SLUICE_ASSIGN_OR_RETURN(std::vector<std::vector<double>> means, BootstrapMeans(series, options));
  return PercentileInterval(total / static_cast<double>(differences.size()), std::move(means[0]), options.confidence);
}

}  // namespace sluice::learner

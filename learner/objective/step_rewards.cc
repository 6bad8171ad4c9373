#include "learner/objective/step_rewards.h"

#include <cmath>
#include <cstddef>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"
#include "learner/objective/rewards.h"

namespace sluice::learner {
namespace {

double Cosine(absl::Span<const double> a, absl::Span<const float> b) {
  double product = 0, a_squares = 0, b_squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += a[i] * b[i];
    a_squares += a[i] * a[i];
    b_squares += static_cast<double>(b[i]) * b[i];
  }
  const double lengths = std::sqrt(a_squares) * std::sqrt(b_squares);
  return lengths > 0 ? product / lengths : 0;
}

// Sum of the embeddings below a prefix: its direction is the mean's, and the cosine asks for no more.
using Buckets = std::map<std::vector<int32_t>, std::vector<double>>;

}  // namespace

absl::StatusOr<std::vector<double>> ParseStepWeights(absl::string_view text, int levels) {
  std::vector<double> weights;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    double weight = 0;
    if (!absl::SimpleAtod(word, &weight) || !std::isfinite(weight) || weight < 0) {
      return absl::InvalidArgumentError(absl::StrCat("step weights: want numbers of at least 0, got \"", word, "\""));
    }
    weights.push_back(weight);
  }
  if (weights.empty()) {
    weights = {0.3, 0.5, 1};
    if (levels < 3) weights.erase(weights.begin(), weights.begin() + (3 - levels));
    weights.resize(static_cast<size_t>(levels), 1);
  }
  if (weights.size() != static_cast<size_t>(levels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("step weights: want one a level, ", levels, " in all, got ", weights.size()));
  }
  return weights;
}

std::vector<std::vector<double>> StepRewards(const std::vector<absl::Span<const int32_t>>& completions,
                                             absl::Span<const int32_t> target,
                                             const std::vector<absl::Span<const float>>& embeddings,
                                             absl::Span<const float> target_embedding, absl::Span<const double> weights,
                                             StepEmbedding embedding) {
  SLUICE_CHECK(embeddings.size() == completions.size(), "one embedding a completion");
  SLUICE_CHECK(weights.size() == target.size(), "one weight a level");
  for (const absl::Span<const float>& one : embeddings) {
    SLUICE_CHECK(one.size() == target_embedding.size(), "embeddings have one width");
  }
  const std::vector<int> shared = SharedPrefixes(completions, target);
  std::vector<std::vector<double>> rewards(completions.size(), std::vector<double>(target.size(), 0.0));
  for (size_t level = 0; level < target.size(); ++level) {
    const auto prefix_of = [&](size_t i) {
      return std::vector<int32_t>(completions[i].begin(),
                                  completions[i].begin() + static_cast<std::ptrdiff_t>(level) + 1);
    };
    Buckets buckets;
    for (size_t i = 0; i < completions.size() && embedding == StepEmbedding::kPrefixMean; ++i) {
      std::vector<double>& sum = buckets[prefix_of(i)];
      sum.resize(target_embedding.size(), 0);
      for (size_t e = 0; e < sum.size(); ++e) sum[e] += embeddings[i][e];
    }
    for (size_t i = 0; i < completions.size(); ++i) {
      if (static_cast<size_t>(shared[i]) > level) {
        rewards[i][level] = weights[level];
        continue;
      }
      const std::vector<double> own = embedding == StepEmbedding::kPrefixMean
                                          ? buckets[prefix_of(i)]
                                          : std::vector<double>(embeddings[i].begin(), embeddings[i].end());
      rewards[i][level] = -weights[level] * (1 - Cosine(own, target_embedding));
    }
  }
  return rewards;
}

std::vector<double> TemporalDifferenceTargets(absl::Span<const double> rewards, absl::Span<const double> values,
                                              double gamma, Bootstrap bootstrap, bool first_token_right) {
  SLUICE_CHECK(rewards.size() == values.size(), "one value a reward");
  std::vector<double> targets(rewards.begin(), rewards.end());
  if (bootstrap == Bootstrap::kFirstTokenWrong && first_token_right) return targets;
  for (size_t level = 0; level + 1 < targets.size(); ++level) targets[level] += gamma * values[level + 1];
  return targets;
}

ValueLoss SquaredValueLoss(absl::Span<const double> values, absl::Span<const double> targets) {
  SLUICE_CHECK(!values.empty() && values.size() == targets.size(), "one target a value, and at least one");
  ValueLoss loss;
  const double count = static_cast<double>(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = values[i] - targets[i];
    loss.value += error * error / count;
    loss.slopes.push_back(2 * error / count);
  }
  return loss;
}

}  // namespace sluice::learner

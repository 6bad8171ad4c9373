#include "learner/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// prompts, unconstrained, invalid; then for each level hits, gains and the
// reciprocal rank.
constexpr size_t kFixedSums = 3 + 2 * (2 * kCutoffs.size() + 1);

std::optional<size_t> CutoffIndex(int cutoff) {
  for (size_t i = 0; i < kCutoffs.size(); ++i) {
    if (kCutoffs[i] == cutoff) return i;
  }
  return std::nullopt;
}

}  // namespace

RankingMetrics::RankingMetrics(int64_t num_leaves, int depth)
    : depth_(depth), leaf_count_(static_cast<size_t>(num_leaves), 0.0) {}

void RankingMetrics::AddRank(int32_t rank, LevelSums* sums) {
  if (rank < 1) return;
  for (size_t i = 0; i < kCutoffs.size(); ++i) {
    if (rank > kCutoffs[i]) continue;
    sums->hits[i] += 1;
    sums->gains[i] += 1 / std::log2(rank + 1.0);
  }
  sums->reciprocal += 1.0 / rank;
}

void RankingMetrics::Add(const PromptOutcome& outcome) {
  prompts_ += 1;
  AddRank(outcome.item_rank, &item_);
  AddRank(outcome.sid_rank, &sid_);
  unconstrained_ += outcome.unconstrained;
  invalid_ += outcome.invalid;
  for (const int32_t leaf : std::set<int32_t>(outcome.top_leaves.begin(), outcome.top_leaves.end())) {
    SLUICE_CHECK(leaf >= 0 && static_cast<size_t>(leaf) < leaf_count_.size(), "leaf outside the catalog");
    leaf_count_[leaf] += 1;
  }
}

std::vector<double> RankingMetrics::ToSums() const {
  std::vector<double> sums = {prompts_, unconstrained_, invalid_};
  sums.reserve(kFixedSums + leaf_count_.size());
  for (const LevelSums* level : {&item_, &sid_}) {
    sums.insert(sums.end(), level->hits.begin(), level->hits.end());
    sums.insert(sums.end(), level->gains.begin(), level->gains.end());
    sums.push_back(level->reciprocal);
  }
  sums.insert(sums.end(), leaf_count_.begin(), leaf_count_.end());
  return sums;
}

absl::Status RankingMetrics::SetSums(absl::Span<const double> sums) {
  if (sums.size() != kFixedSums + leaf_count_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("want ", kFixedSums + leaf_count_.size(),
                                                   " sums of ranking metrics, got ", sums.size(),
                                                   ": the ranks do not evaluate the same catalog"));
  }
  const double* next = sums.data();
  prompts_ = *next++;
  unconstrained_ = *next++;
  invalid_ = *next++;
  for (LevelSums* level : {&item_, &sid_}) {
    for (double& value : level->hits) value = *next++;
    for (double& value : level->gains) value = *next++;
    level->reciprocal = *next++;
  }
  for (double& value : leaf_count_) value = *next++;
  return absl::OkStatus();
}

std::optional<double> RankingMetrics::Mean(double sum, int cutoff) const {
  if (prompts_ == 0 || cutoff > depth_) return std::nullopt;
  return sum / prompts_;
}

std::optional<double> RankingMetrics::HitRate(HitLevel level, int cutoff) const {
  const std::optional<size_t> index = CutoffIndex(cutoff);
  if (!index.has_value()) return std::nullopt;
  return Mean((level == HitLevel::kItem ? item_ : sid_).hits[*index], cutoff);
}

std::optional<double> RankingMetrics::Ndcg(HitLevel level, int cutoff) const {
  const std::optional<size_t> index = CutoffIndex(cutoff);
  if (!index.has_value()) return std::nullopt;
  return Mean((level == HitLevel::kItem ? item_ : sid_).gains[*index], cutoff);
}

std::optional<double> RankingMetrics::ReciprocalRank(HitLevel level) const {
  return Mean((level == HitLevel::kItem ? item_ : sid_).reciprocal, 0);
}

std::optional<double> RankingMetrics::Hallucination() const {
  if (unconstrained_ == 0) return std::nullopt;
  return invalid_ / unconstrained_;
}

std::optional<double> RankingMetrics::Coverage() const {
  if (prompts_ == 0 || leaf_count_.empty()) return std::nullopt;
  const auto seen = std::count_if(leaf_count_.begin(), leaf_count_.end(), [](double count) { return count > 0; });
  return static_cast<double>(seen) / static_cast<double>(leaf_count_.size());
}

std::map<std::string, double> RankingMetrics::ToMap() const {
  std::map<std::string, double> values = {{"prompts", prompts_}};
  const auto put = [&values](const std::string& name, const std::optional<double>& value) {
    if (value.has_value()) values[name] = *value;
  };
  for (const auto& [level, prefix] : {std::pair(HitLevel::kItem, ""), std::pair(HitLevel::kSid, "sid_")}) {
    for (const int cutoff : kCutoffs) {
      put(absl::StrCat(prefix, "hr@", cutoff), HitRate(level, cutoff));
      put(absl::StrCat(prefix, "ndcg@", cutoff), Ndcg(level, cutoff));
    }
    put(absl::StrCat(prefix, "mrr"), ReciprocalRank(level));
  }
  put("hallucination", Hallucination());
  put("coverage", Coverage());
  return values;
}

std::vector<double> HitsAt(absl::Span<const PromptOutcome> outcomes, HitLevel level, int cutoff) {
  std::vector<double> hits;
  hits.reserve(outcomes.size());
  for (const PromptOutcome& outcome : outcomes) {
    const int32_t rank = level == HitLevel::kItem ? outcome.item_rank : outcome.sid_rank;
    hits.push_back(rank >= 1 && rank <= cutoff ? 1.0 : 0.0);
  }
  return hits;
}

absl::StatusOr<DifferenceInterval> PairedBootstrap(absl::Span<const double> treatment, absl::Span<const double> control,
                                                   int resamples, double confidence, uint64_t seed) {
  if (treatment.empty() || treatment.size() != control.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a paired comparison wants one value a prompt from both models, got ", treatment.size(), " and ",
                     control.size()));
  }
  if (resamples < 1 || !(confidence > 0 && confidence < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("want at least 1 resample and a confidence inside (0, 1), got ", resamples, " and ", confidence));
  }
  const size_t count = treatment.size();
  std::vector<double> differences(count);
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += differences[i] = treatment[i] - control[i];

  std::vector<double> means(static_cast<size_t>(resamples));
  for (size_t r = 0; r < means.size(); ++r) {
    Random random(seed, r);
    double sum = 0;
    for (size_t i = 0; i < count; ++i) sum += differences[random.Below(count)];
    means[r] = sum / static_cast<double>(count);
  }
  std::sort(means.begin(), means.end());
  // The order statistics that leave (1 - confidence) / 2 of the resamples
  // outside on either side.
  const double tail = (1 - confidence) / 2;
  const size_t last = means.size() - 1;
  const size_t low = std::min(last, static_cast<size_t>(std::floor(tail * static_cast<double>(means.size()))));
  return DifferenceInterval{.mean = total / static_cast<double>(count), .low = means[low], .high = means[last - low]};
}

}  // namespace sluice::learner

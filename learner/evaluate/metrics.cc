#include "learner/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

std::optional<size_t> CutoffIndex(int cutoff) {
  for (size_t i = 0; i < kCutoffs.size(); ++i) {
    if (kCutoffs[i] == cutoff) return i;
  }
  return std::nullopt;
}

// Counts every entry of a list once.
void CountEach(absl::Span<const int32_t> entries, const char* what, std::vector<double>* counts) {
  for (const int32_t entry : std::set<int32_t>(entries.begin(), entries.end())) {
    SLUICE_CHECK(entry >= 0 && static_cast<size_t>(entry) < counts->size(), absl::StrCat(what, " outside the catalog"));
    (*counts)[static_cast<size_t>(entry)] += 1;
  }
}

// Gini coefficient of numbers that are not negative and not all 0.
double Gini(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const double count = static_cast<double>(values.size());
  double weighted = 0, total = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    weighted += (2 * static_cast<double>(i + 1) - count - 1) * values[i];
    total += values[i];
  }
  return weighted / (count * total);
}

}  // namespace

std::vector<uint8_t> HeadItems(absl::Span<const int64_t> events, double share) {
  std::vector<size_t> order(events.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return events[a] > events[b]; });
  const double wanted = share * static_cast<double>(std::accumulate(events.begin(), events.end(), int64_t{0}));
  std::vector<uint8_t> head(events.size(), 0);
  int64_t sum = 0;
  for (const size_t item : order) {
    if (static_cast<double>(sum) >= wanted) break;
    head[item] = 1;
    sum += events[item];
  }
  return head;
}

RankingMetrics::RankingMetrics(CatalogShape catalog, int depth)
    : catalog_(std::move(catalog)),
      depth_(depth),
      shared_first_(static_cast<size_t>(catalog_.levels), 0.0),
      shared_top_(static_cast<size_t>(catalog_.levels), 0.0),
      leaf_count_(static_cast<size_t>(catalog_.num_leaves), 0.0),
      item_count_(catalog_.head.size(), 0.0) {}

void RankingMetrics::AddRank(int32_t rank, LevelSums* sums) {
  if (rank < 1) return;
  for (size_t i = 0; i < kCutoffs.size(); ++i) {
    if (rank > kCutoffs[i]) continue;
    sums->hits[i] += 1;
    sums->gains[i] += 1 / std::log2(rank + 1.0);
    sums->reciprocals[i] += 1.0 / rank;
  }
  sums->reciprocal += 1.0 / rank;
}

void RankingMetrics::Add(const PromptOutcome& outcome) {
  prompts_ += 1;
  AddRank(outcome.item_rank, &item_);
  AddRank(outcome.sid_rank, &sid_);
  for (size_t level = 0; level < shared_first_.size(); ++level) {
    const int32_t codes = static_cast<int32_t>(level) + 1;
    if (outcome.shared_first >= codes) shared_first_[level] += 1;
    if (outcome.shared_top >= codes) shared_top_[level] += 1;
  }
  if (outcome.diversity.has_value()) {
    diversity_ += *outcome.diversity;
    diverse_ += 1;
  }
  unconstrained_ += outcome.unconstrained;
  invalid_ += outcome.invalid;
  unconstrained_wide_ += outcome.unconstrained_wide;
  invalid_wide_ += outcome.invalid_wide;
  if (outcome.true_mass.has_value() && outcome.true_utility.has_value()) {
    with_truth_ += 1;
    true_mass_ += *outcome.true_mass;
    true_utility_ += *outcome.true_utility;
  }
  CountEach(outcome.top_leaves, "leaf", &leaf_count_);
  if (!item_count_.empty()) CountEach(outcome.top_items, "item", &item_count_);
}

template <typename Self, typename Visitor>
void RankingMetrics::VisitSums(Self& self, const Visitor& visit) {
  visit(self.prompts_);
  for (auto* level : {&self.item_, &self.sid_}) {
    for (auto* sums : {&level->hits, &level->gains, &level->reciprocals}) {
      for (auto& value : *sums) visit(value);
    }
    visit(level->reciprocal);
  }
  for (auto* value : {&self.diversity_, &self.diverse_, &self.unconstrained_, &self.invalid_, &self.unconstrained_wide_,
                      &self.invalid_wide_, &self.with_truth_, &self.true_mass_, &self.true_utility_}) {
    visit(*value);
  }
  for (auto* values : {&self.shared_first_, &self.shared_top_, &self.leaf_count_, &self.item_count_}) {
    for (auto& value : *values) visit(value);
  }
}

std::vector<double> RankingMetrics::ToSums() const {
  std::vector<double> sums;
  VisitSums(*this, [&sums](double value) { sums.push_back(value); });
  return sums;
}

absl::Status RankingMetrics::SetSums(absl::Span<const double> sums) {
  size_t want = 0;
  VisitSums(*this, [&want](double) { ++want; });
  if (sums.size() != want) {
    return absl::InvalidArgumentError(absl::StrCat("want ", want, " sums of ranking metrics, got ", sums.size(),
                                                   ": the ranks do not evaluate the same catalog"));
  }
  const double* next = sums.data();
  VisitSums(*this, [&next](double& value) { value = *next++; });
  return absl::OkStatus();
}

std::optional<double> RankingMetrics::Mean(double sum, int cutoff) const {
  if (prompts_ == 0 || cutoff > depth_) return std::nullopt;
  return sum / prompts_;
}

std::optional<double> RankingMetrics::MeanAt(const std::array<double, kCutoffs.size()>& sums, int cutoff) const {
  const std::optional<size_t> index = CutoffIndex(cutoff);
  if (!index.has_value()) return std::nullopt;
  return Mean(sums[*index], cutoff);
}

std::optional<double> RankingMetrics::HitRate(HitLevel level, int cutoff) const {
  return MeanAt((level == HitLevel::kItem ? item_ : sid_).hits, cutoff);
}

std::optional<double> RankingMetrics::Ndcg(HitLevel level, int cutoff) const {
  return MeanAt((level == HitLevel::kItem ? item_ : sid_).gains, cutoff);
}

std::optional<double> RankingMetrics::ReciprocalRank(HitLevel level, int cutoff) const {
  return MeanAt((level == HitLevel::kItem ? item_ : sid_).reciprocals, cutoff);
}

std::optional<double> RankingMetrics::ReciprocalRank(HitLevel level) const {
  return Mean((level == HitLevel::kItem ? item_ : sid_).reciprocal, 0);
}

std::optional<double> RankingMetrics::LevelAccuracy(int level, bool top) const {
  if (level < 1 || level > catalog_.levels) return std::nullopt;
  return Mean((top ? shared_top_ : shared_first_)[static_cast<size_t>(level - 1)], top ? kTopOfList : 1);
}

std::optional<double> RankingMetrics::Hallucination(bool wide) const {
  const double beams = wide ? unconstrained_wide_ : unconstrained_;
  if (beams == 0) return std::nullopt;
  return (wide ? invalid_wide_ : invalid_) / beams;
}

std::optional<double> RankingMetrics::Diversity() const {
  if (diverse_ == 0) return std::nullopt;
  return diversity_ / diverse_;
}

std::optional<double> RankingMetrics::TrueMass() const {
  if (with_truth_ == 0 || depth_ < kTopOfList) return std::nullopt;
  return true_mass_ / with_truth_;
}

std::optional<double> RankingMetrics::TrueUtility() const {
  if (with_truth_ == 0 || depth_ < kTopOfList) return std::nullopt;
  return true_utility_ / with_truth_;
}

std::optional<double> RankingMetrics::Coverage() const {
  if (prompts_ == 0 || leaf_count_.empty()) return std::nullopt;
  const auto seen = std::count_if(leaf_count_.begin(), leaf_count_.end(), [](double count) { return count > 0; });
  return static_cast<double>(seen) / static_cast<double>(leaf_count_.size());
}

std::optional<RankingMetrics::Exposure> RankingMetrics::ItemExposure() const {
  double places[2] = {0, 0}, seen[2] = {0, 0}, items[2] = {0, 0};  // of the tail, of the head
  for (size_t item = 0; item < item_count_.size(); ++item) {
    const size_t group = catalog_.head[item] != 0 ? 1 : 0;
    places[group] += item_count_[item];
    seen[group] += item_count_[item] > 0 ? 1 : 0;
    items[group] += 1;
  }
  const double total = places[0] + places[1];
  if (total == 0) return std::nullopt;
  Exposure exposure;
  exposure.item_coverage = (seen[0] + seen[1]) / (items[0] + items[1]);
  exposure.head_coverage = items[1] > 0 ? seen[1] / items[1] : 0;
  exposure.tail_coverage = items[0] > 0 ? seen[0] / items[0] : 0;
  exposure.head_exposure = places[1] / total;
  exposure.gini = Gini(item_count_);
  return exposure;
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
      put(absl::StrCat(prefix, "mrr@", cutoff), ReciprocalRank(level, cutoff));
    }
    put(absl::StrCat(prefix, "mrr"), ReciprocalRank(level));
  }
  for (int level = 1; level <= catalog_.levels; ++level) {
    put(absl::StrCat("level_", level, "_accuracy"), LevelAccuracy(level, false));
    put(absl::StrCat("level_", level, "_accuracy@", kTopOfList), LevelAccuracy(level, true));
  }
  put("hallucination", Hallucination());
  put(absl::StrCat("hallucination@", kWideBeams), Hallucination(true));
  put("diversity", Diversity());
  put("coverage", Coverage());
  put(absl::StrCat("mass@", kTopOfList), TrueMass());
  put(absl::StrCat("utility@", kTopOfList), TrueUtility());
  if (const std::optional<Exposure> exposure = ItemExposure()) {
    values["item_coverage"] = exposure->item_coverage;
    values["head_coverage"] = exposure->head_coverage;
    values["tail_coverage"] = exposure->tail_coverage;
    values["head_exposure"] = exposure->head_exposure;
    values["tail_exposure"] = 1 - exposure->head_exposure;
    values["gini"] = exposure->gini;
  }
  return values;
}

}  // namespace sluice::learner

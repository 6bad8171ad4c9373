// Ranking metrics of an evaluation: hit rate, NDCG and reciprocal rank,
// hallucination, coverage, and the paired bootstrap that compares two models on
// the same prompts.
//
// A prompt has one relevant item, its target. Item level counts where that very
// item stands in the list of items; SID level counts where its semantic ID
// stands in the list of semantic IDs. The two differ when several items share
// an ID. For rank r (from 1): HR@K = [r <= K], NDCG@K = [r <= K] / log2(r + 1),
// MRR = 1 / r (0 if absent).
//
// Everything that is kept is a sum, so the ranks of a group add their vectors
// (ToSums, one all-reduce) and divide once. Not thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_METRICS_H_
#define SLUICE_LEARNER_EVALUATE_METRICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice::learner {

inline constexpr std::array<int, 5> kCutoffs = {1, 5, 10, 20, 50};
// Hallucination and coverage look at this many first entries of a list.
inline constexpr int kTopOfList = 10;

enum class HitLevel { kItem, kSid };

// What one prompt contributed. Kept a prompt for paired comparisons.
struct PromptOutcome {
  int32_t user = -1;
  int32_t item_rank = 0;  // of the target among items, from 1; 0: not in the list
  int32_t sid_rank = 0;   // of the target's semantic ID among semantic IDs, from
                          // 1; 0: not in the list
  // First semantic IDs of the constrained list, at most kTopOfList trie leaves.
  std::vector<int32_t> top_leaves;
  // Of the first kTopOfList unconstrained beams: how many there were, and how
  // many are not in the catalog.
  int32_t unconstrained = 0;  // 0: not measured
  int32_t invalid = 0;
};

class RankingMetrics {
 public:
  // depth: width of the lists that are judged; metrics at cutoffs beyond it are
  // absent rather than too low.
  RankingMetrics(int64_t num_leaves, int depth);

  void Add(const PromptOutcome& outcome);

  // All state as numbers that may be added over ranks; the length depends on
  // num_leaves only.
  std::vector<double> ToSums() const;
  // InvalidArgument: the length is not that of ToSums. The inverse of ToSums
  // for one rank, the total for a sum.
  absl::Status SetSums(absl::Span<const double> sums);

  double prompts() const { return prompts_; }
  // Absent without prompts, or for a cutoff that is not in kCutoffs or lies
  // beyond the depth.
  std::optional<double> HitRate(HitLevel level, int cutoff) const;
  std::optional<double> Ndcg(HitLevel level, int cutoff) const;
  std::optional<double> ReciprocalRank(HitLevel level) const;
  // Share of the first kTopOfList unconstrained beams that are not in the
  // catalog; absent if not measured.
  std::optional<double> Hallucination() const;
  // Share of the catalog's semantic IDs that stand among the first kTopOfList
  // of at least one prompt.
  std::optional<double> Coverage() const;

  // Every metric that is present, by its name in reports and files: "hr@10",
  // "ndcg@10", "sid_hr@10", "sid_ndcg@10", "mrr", "sid_mrr", "hallucination",
  // "coverage", "prompts".
  std::map<std::string, double> ToMap() const;

 private:
  struct LevelSums {
    std::array<double, kCutoffs.size()> hits{};
    std::array<double, kCutoffs.size()> gains{};
    double reciprocal = 0;
  };
  std::optional<double> Mean(double sum, int cutoff) const;
  void AddRank(int32_t rank, LevelSums* sums);

  int depth_;
  double prompts_ = 0;
  LevelSums item_;
  LevelSums sid_;
  double unconstrained_ = 0;
  double invalid_ = 0;
  std::vector<double> leaf_count_;  // [leaves] prompts that have the leaf among
                                    // their first kTopOfList
};

// 1 where the target stands within the first `cutoff`, else 0; one value a
// prompt.
std::vector<double> HitsAt(absl::Span<const PromptOutcome> outcomes, HitLevel level, int cutoff);

// Mean difference `treatment` - `control` over prompts and its percentile
// interval.
struct DifferenceInterval {
  double mean = 0;
  double low = 0;
  double high = 0;
};

// Paired bootstrap: prompts are drawn with replacement, `resamples` times, both
// models judged on the same draw. The two spans are aligned prompt by prompt.
// Deterministic in the seed. InvalidArgument: no values, different lengths,
// resamples < 1, confidence outside (0, 1).
absl::StatusOr<DifferenceInterval> PairedBootstrap(absl::Span<const double> treatment, absl::Span<const double> control,
                                                   int resamples, double confidence, uint64_t seed);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_METRICS_H_

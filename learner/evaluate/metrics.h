// Ranking metrics of an evaluation: hit rate, NDCG and reciprocal rank, accuracy by level, hallucination, diversity,
// coverage and exposure.
//
// A prompt has one relevant item, its target. Item level counts where that very item stands in the list of items; SID
// level counts where its semantic ID stands in the list of semantic IDs. The two differ when several items share an ID.
// For rank r (from 1): HR@K = [r <= K], NDCG@K = [r <= K] / log2(r + 1), MRR@K = [r <= K] / r; MRR without a cutoff is
// over the whole list.
//
// Logged targets are what was shown and chosen. In a market whose truth is known two metrics look past the log:
// mass@10, the sum of the true choice probabilities (softmax of utility over all items) of the first 10 items, which is
// the expectation of HR@10 on unbiased targets; and utility@10, their mean true utility.
//
// Everything that is kept is a sum, so the ranks of a group add their vectors (ToSums, one all-reduce) and divide once.
// Not thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_METRICS_H_
#define SLUICE_LEARNER_EVALUATE_METRICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace sluice::learner {

inline constexpr std::array<int, 6> kCutoffs = {1, 3, 5, 10, 20, 50};
// Hallucination, diversity, coverage and exposure look at this many first entries of a list.
inline constexpr int kTopOfList = 10;
// Of the training events, that head items make up, unless an evaluation says otherwise.
inline constexpr double kHeadShare = 0.5;
// The second, wider look at unconstrained beams.
inline constexpr int kWideBeams = 50;

enum class HitLevel { kItem, kSid };

// What one prompt contributed. Kept a prompt for paired comparisons.
struct PromptOutcome {
  int32_t user = -1;
  int32_t position = 0;   // of the target among the user's events
  int32_t item_rank = 0;  // of the target among items, from 1; 0: not in the list
  int32_t sid_rank = 0;   // of the target's semantic ID among semantic IDs, from 1; 0: not in the list
  // The first entries of the constrained list, at most kTopOfList.
  std::vector<int32_t> top_leaves;  // semantic IDs, as trie leaves
  std::vector<int32_t> top_items;
  std::vector<float> top_log_probs;  // of top_items' semantic IDs, in nats; empty: not known
  // Codes in common with the target, counted from the first level on: of the first semantic ID in the list, and the
  // most among the first kTopOfList.
  int32_t shared_first = 0;
  int32_t shared_top = 0;
  // Mean over pairs of the first kTopOfList semantic IDs of 1 - (codes in common from the first on) / L. Absent with
  // fewer than two.
  std::optional<double> diversity;
  // Of the first kTopOfList unconstrained beams: how many there were, and how many are not in the catalog.
  int32_t unconstrained = 0;  // 0: not measured
  int32_t invalid = 0;
  // The same of the first kWideBeams, of a search that was at least so wide.
  int32_t unconstrained_wide = 0;
  int32_t invalid_wide = 0;
  // Of the first kTopOfList items of the list, in a market whose truth is known.
  std::optional<double> true_mass;     // sum of the true choice probabilities
  std::optional<double> true_utility;  // mean true utility
};

// What a policy chooses from.
struct CatalogShape {
  int64_t num_leaves = 0;
  int levels = 0;             // L; 0: accuracy by level is not measured
  std::vector<uint8_t> head;  // [items] 1: a head item (HeadItems); empty: exposure is not measured
};

// The head of a catalog: the most popular items (ties by item number), as few as make up at least `share` of all
// events. The rest is the tail. events: [items] how often each occurs in the training events. share in [0, 1].
std::vector<uint8_t> HeadItems(absl::Span<const int64_t> events, double share);

class RankingMetrics {
 public:
  // depth: width of the lists that are judged; metrics at cutoffs beyond it are absent rather than too low.
  RankingMetrics(CatalogShape catalog, int depth);

  void Add(const PromptOutcome& outcome);

  // All state as numbers that may be added over ranks; the length depends on the catalog only.
  std::vector<double> ToSums() const;
  // InvalidArgument: the length is not that of ToSums. The inverse of ToSums for one rank, the total for a sum.
  absl::Status SetSums(absl::Span<const double> sums);

  double prompts() const { return prompts_; }
  // Absent without prompts, or for a cutoff that is not in kCutoffs or lies beyond the depth.
  std::optional<double> HitRate(HitLevel level, int cutoff) const;
  std::optional<double> Ndcg(HitLevel level, int cutoff) const;
  std::optional<double> ReciprocalRank(HitLevel level, int cutoff) const;
  // Over the whole list.
  std::optional<double> ReciprocalRank(HitLevel level) const;
  // Share of prompts whose first semantic ID agrees with the target's in the first `level` codes (from 1); `top`: whose
  // first kTopOfList hold one that does.
  std::optional<double> LevelAccuracy(int level, bool top) const;
  // Share of the first kTopOfList unconstrained beams that are not in the catalog; `wide`: of the first kWideBeams.
  // Absent if not measured.
  std::optional<double> Hallucination(bool wide = false) const;
  // Mean over the prompts that have it.
  std::optional<double> Diversity() const;
  // Share of the catalog's semantic IDs that stand among the first kTopOfList of at least one prompt.
  std::optional<double> Coverage() const;

  // The places among the first kTopOfList items of all prompts, by the items that have them.
  struct Exposure {
    double item_coverage = 0;  // share of all items that have at least one place
    double head_coverage = 0;  // of the head items
    double tail_coverage = 0;  // of the tail items
    double head_exposure = 0;  // share of all places that head items have
    double gini = 0;           // of the places over all items: 0 all alike, towards 1 few items have them all
  };
  // Absent without head items, or without places.
  std::optional<Exposure> ItemExposure() const;

  // Means over the prompts whose truth is known; absent if none is, or if the lists are narrower than kTopOfList.
  std::optional<double> TrueMass() const;
  std::optional<double> TrueUtility() const;

  // Every metric that is present, by its name in reports and files: "hr@10", "ndcg@10", "mrr@10", "mrr", the same
  // behind "sid_", "level_1_accuracy", "level_1_accuracy@10", "hallucination", "hallucination@50", "diversity",
  // "coverage", "item_coverage", "head_coverage", "tail_coverage", "head_exposure", "tail_exposure", "gini", "prompts",
  // "mass@10", "utility@10".
  std::map<std::string, double> ToMap() const;

 private:
  struct LevelSums {
    std::array<double, kCutoffs.size()> hits{};
    std::array<double, kCutoffs.size()> gains{};
    std::array<double, kCutoffs.size()> reciprocals{};
    double reciprocal = 0;
  };
  std::optional<double> Mean(double sum, int cutoff) const;
  std::optional<double> MeanAt(const std::array<double, kCutoffs.size()>& sums, int cutoff) const;
  void AddRank(int32_t rank, LevelSums* sums);
  // Calls visit(number) for each number of the state, in one fixed order.
  template <typename Self, typename Visitor>
  static void VisitSums(Self& self, const Visitor& visit);

  CatalogShape catalog_;
  int depth_;
  double prompts_ = 0;
  LevelSums item_;
  LevelSums sid_;
  std::vector<double> shared_first_;  // [L] prompts that share at least so many codes
  std::vector<double> shared_top_;    // [L]
  double diversity_ = 0;
  double diverse_ = 0;  // prompts with a diversity
  double unconstrained_ = 0;
  double invalid_ = 0;
  double unconstrained_wide_ = 0;
  double invalid_wide_ = 0;
  double with_truth_ = 0;
  double true_mass_ = 0;
  double true_utility_ = 0;
  std::vector<double> leaf_count_;  // [leaves] prompts that have the leaf among their first kTopOfList
  std::vector<double> item_count_;  // [items] the same of items; empty without head items
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_METRICS_H_

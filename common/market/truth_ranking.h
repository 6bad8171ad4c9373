// Rankers whose error is known: the truth of a market with something wrong for the users of some regions.
//
// A name says which one:
//   truth                    true utility for everybody
//   truth:KIND:SHARE         wrong for users whose main region is among the first round(SHARE * regions)
//   ...~                     the right part has fixed noise of deviation 2 on it
//   ...@log                  the right part is utility + log popularity: good at logged choices
// as in truth:pop:0.5, truth:fine~:0.8, truth:pop@log:0.5, truth~@log. KINDs, the score of a user of a bad region:
//   pop    log popularity, standardised: the same for everybody
//   fine   utility of the item's cell + 3 * standardised log popularity: right taste, popular distractors win
//   cell   2 * utility of the cell - utility: right cell, reversed order inside
//   noise  fixed noise of user and item
// Cell vectors are the means of their items' vectors. Pure functions; thread-safe.
#ifndef SLUICE_COMMON_MARKET_TRUTH_RANKING_H_
#define SLUICE_COMMON_MARKET_TRUTH_RANKING_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/catalog/market_truth.h"

namespace sluice {

enum class RankerError { kNone, kPop, kFine, kCell, kNoise };

struct TruthRankingOptions {
  RankerError error = RankerError::kNone;
  double share = 0;     // of the regions, inside (0, 1]; 0 without an error
  bool noisy = false;   // ~
  bool logged = false;  // @log
  bool operator==(const TruthRankingOptions&) const = default;
};

// Whether a ranker's name is one of these, rightly written or not.
bool IsTruthRankingName(absl::string_view name);
// InvalidArgument says what a name looks like.
absl::StatusOr<TruthRankingOptions> ParseTruthRanking(absl::string_view name);

class TruthRanking {
 public:
  // InvalidArgument: a share that rounds to no region of this market.
  static absl::StatusOr<TruthRanking> Create(std::shared_ptr<const MarketTruth> truth,
                                             const TruthRankingOptions& options);

  // The same by a name. InvalidArgument also for a name of another kind and for no truth, as real events have none.
  static absl::StatusOr<TruthRanking> FromName(std::shared_ptr<const MarketTruth> truth, absl::string_view name);

  double Score(int32_t user, int32_t item) const;
  // Whether the ranker is right about this user (up to the noise of ~): what an oracle gate knows.
  bool Reliable(int32_t user) const { return truth_->Reliable(user, bad_regions_); }

  int bad_regions() const { return bad_regions_; }
  const MarketTruth& truth() const { return *truth_; }

 private:
  TruthRanking(std::shared_ptr<const MarketTruth> truth, const TruthRankingOptions& options, int bad_regions)
      : truth_(std::move(truth)), options_(options), bad_regions_(bad_regions) {}

  std::shared_ptr<const MarketTruth> truth_;
  TruthRankingOptions options_;
  int bad_regions_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MARKET_TRUTH_RANKING_H_

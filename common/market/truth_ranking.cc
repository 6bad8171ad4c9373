#include "common/market/truth_ranking.h"

#include <cmath>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/random/random.h"

namespace sluice {
namespace {

// Labels of the noise's seeds.
constexpr uint64_t kWrongNoise = 1;
constexpr uint64_t kRightNoise = 2;
// Deviation of the noise of ~; the deviation of utility in a group of 16 beams of the bench's policy is 1.6.
constexpr double kNoiseDeviation = 2;
constexpr double kPopularityWeight = 3;  // of kFine

double NoiseOf(const MarketTruth& truth, uint64_t label, int32_t user, int32_t item) {
  Random random(DeriveSeed(truth.seed(), {label, static_cast<uint64_t>(user)}), static_cast<uint64_t>(item));
  return random.Normal();
}

absl::Status BadName(absl::string_view name, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\": ", what,
                   "; want truth, or truth:KIND:SHARE with KIND one of pop, fine, cell, noise and SHARE above 0 and at "
                   "most 1; after the kind may stand ~ (noise on the right part), then @log (good at logged choices), "
                   "as in truth:pop:0.5, truth:fine~@log:0.8"));
}

}  // namespace

bool IsTruthRankingName(absl::string_view name) {
  return absl::ConsumePrefix(&name, "truth") && (name.empty() || name[0] == ':' || name[0] == '~' || name[0] == '@');
}

absl::StatusOr<TruthRankingOptions> ParseTruthRanking(absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, ':');
  if (parts.size() != 1 && parts.size() != 3) return BadName(name, "a share or a kind is missing");
  TruthRankingOptions options;
  absl::string_view word = parts.size() == 1 ? parts[0] : parts[1];
  options.logged = absl::ConsumeSuffix(&word, "@log");
  options.noisy = absl::ConsumeSuffix(&word, "~");
  if (parts.size() == 1) {
    if (word != "truth") return BadName(name, absl::StrCat("no ranker is called \"", word, "\""));
    return options;
  }
  if (parts[0] != "truth") return BadName(name, absl::StrCat("no ranker is called \"", parts[0], "\""));
  if (word == "pop") {
    options.error = RankerError::kPop;
  } else if (word == "fine") {
    options.error = RankerError::kFine;
  } else if (word == "cell") {
    options.error = RankerError::kCell;
  } else if (word == "noise") {
    options.error = RankerError::kNoise;
  } else {
    return BadName(name, absl::StrCat("no kind of error is called \"", parts[1], "\""));
  }
  if (!absl::SimpleAtod(parts[2], &options.share) || !(options.share > 0 && options.share <= 1)) {
    return BadName(name, absl::StrCat("\"", parts[2], "\" is no share"));
  }
  return options;
}

absl::StatusOr<TruthRanking> TruthRanking::Create(std::shared_ptr<const MarketTruth> truth,
                                                  const TruthRankingOptions& options) {
  const int bad = static_cast<int>(std::lround(options.share * truth->regions()));
  if (options.error != RankerError::kNone && bad == 0) {
    return absl::InvalidArgumentError(absl::StrCat("a share of ", options.share, " of ", truth->regions(),
                                                   " regions is less than half a region; want at least ",
                                                   0.5 / truth->regions()));
  }
  return TruthRanking(std::move(truth), options, options.error == RankerError::kNone ? 0 : bad);
}

absl::StatusOr<TruthRanking> TruthRanking::FromName(std::shared_ptr<const MarketTruth> truth, absl::string_view name) {
  const absl::StatusOr<TruthRankingOptions> options = ParseTruthRanking(name);
  if (!options.ok()) return options.status();
  if (truth == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name,
                     "\" is a ranker of a generated market, and this data set has no truth; prepare one with "
                     "prepare.market, or name another ranker"));
  }
  return Create(std::move(truth), *options);
}

double TruthRanking::Score(int32_t user, int32_t item) const {
  const double utility = truth_->Utility(user, item);
  if (Reliable(user)) {
    return utility + (options_.logged ? truth_->LogPopularity(item) : 0) +
           (options_.noisy ? kNoiseDeviation * NoiseOf(*truth_, kRightNoise, user, item) : 0);
  }
  switch (options_.error) {
    case RankerError::kPop:
      return truth_->StandardLogPopularity(item);
    case RankerError::kFine:
      return truth_->CellUtility(user, item) + kPopularityWeight * truth_->StandardLogPopularity(item);
    case RankerError::kCell:
      return 2 * truth_->CellUtility(user, item) - utility;
    case RankerError::kNoise:
      return NoiseOf(*truth_, kWrongNoise, user, item);
    case RankerError::kNone:
      break;  // everybody is reliable
  }
  return utility;
}

}  // namespace sluice

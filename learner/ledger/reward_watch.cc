#include "learner/ledger/reward_watch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/ledger/check_result.h"

namespace sluice::learner {
namespace {

// Groups of the canary, and how many make one: a group of few candidates agrees with a shuffled one by chance, the mean
// of several does not.
constexpr size_t kGoldenGroups = 8;
constexpr size_t kLeastGolden = 4;
// Fewer distinct scores say too little about an order.
constexpr size_t kLeastDistinct = 3;
constexpr double kLeastCorrelation = 0.5;
// Groups in a row whose scores are all equal: a ranker of few events may be right, so the canary is asked.
constexpr int kAlikeRow = 8;

// Of the candidates, then of the target if there is one; empty if the head is missing.
std::vector<float> ScoresOf(const ScoredGroup& group, const std::string& head, bool has_target) {
  for (const ScoreHead& one : group.heads) {
    if (one.name != head) continue;
    std::vector<float> scores = one.completion_scores;
    scores.insert(scores.end(), one.negative_scores.begin(), one.negative_scores.end());
    if (has_target) scores.push_back(one.target_score);
    return scores;
  }
  return {};
}

// From 0; equal values share the mean of their places.
std::vector<double> RanksOf(absl::Span<const float> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (size_t j = i; j < end; ++j) ranks[order[j]] = static_cast<double>(i + end - 1) / 2;
    i = end;
  }
  return ranks;
}

}  // namespace

double RankCorrelation(absl::Span<const float> a, absl::Span<const float> b) {
  const std::vector<double> x = RanksOf(a), y = RanksOf(b);
  const double mean = (static_cast<double>(a.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

RewardWatch::RewardWatch(RewardWatchOptions options, absl::Time now)
    : options_(std::move(options)),
      health_(options_.health, now),
      good_until_(now),
      next_canary_(now + options_.canary_interval) {}

bool RewardWatch::HasCanary() const { return golden_.size() >= kLeastGolden; }

// ------------------------------------------------------------------------------------------------------------ groups

bool RewardWatch::AcceptVersion(const std::string& version, std::string* why) {
  if (version == version_) return true;
  if (version_.empty()) {
    version_ = version;
    news_.push_back(absl::StrCat("scores are of ranker version ", version));
    return true;
  }
  if (!options_.follow_versions) {
    *why = absl::StrCat("the scores are of ranker version ", version, ", the job's so far of ", version_,
                        "; give the job back its ranker, or resume it to take the new one, or see "
                        "rl.reward.health.on_new_version");
    return false;
  }
  news_.push_back(absl::StrCat("ranker version ", version, " follows ", version_, ": the canary is made anew"));
  version_ = version;
  golden_.clear();
  alike_ = 0;
  health_.HasCanary(false);
  return true;
}

void RewardWatch::Inspect(const Prompt& prompt, absl::Duration delay, absl::Time now, ScoredGroup* group) {
  if (group->score_status == ScoreStatus::kNotAsked) return;
  if (group->score_status == ScoreStatus::kOk) {
    std::string why;
    if (!AcceptVersion(group->ranker_version, &why)) {
      VoidScores(std::move(why), group);
    } else if (!health_.trusted()) {
      // Says nothing new of the ranker: it is not counted.
      VoidScores(
          absl::StrCat("the ranker's scores are not believed until its canary is in range (", health_.cause(), ")"),
          group);
      return;
    }
  }
  if (group->score_status == ScoreStatus::kOk) {
    NoteScored(prompt, *group, now);
    health_.OnScored(delay, now);
  } else {
    health_.OnFailed(group->score_error, now);
  }
  FollowMoves();
}

void RewardWatch::NoteScored(const Prompt& prompt, const ScoredGroup& group, absl::Time now) {
  std::vector<float> scores = ScoresOf(group, options_.head, prompt.target >= 0);
  const std::set<float> distinct(scores.begin(), scores.end());
  alike_ = distinct.size() <= 1 ? alike_ + 1 : 0;
  if (alike_ >= kAlikeRow && HasCanary()) next_canary_ = std::min(next_canary_, now);
  if (golden_.size() >= kGoldenGroups || distinct.size() < kLeastDistinct || health_.state() != RewardState::kHealthy) {
    return;
  }
  Golden golden{prompt, std::move(scores)};
  golden.prompt.ordinal = golden_.size();
  golden.prompt.attempt = 1;
  golden.prompt.leaves.clear();
  for (const Completion& completion : group.completions) golden.prompt.leaves.push_back(completion.leaf);
  golden.prompt.leaves.insert(golden.prompt.leaves.end(), group.negative_leaves.begin(), group.negative_leaves.end());
  golden_.push_back(std::move(golden));
  health_.HasCanary(HasCanary());
}

// ------------------------------------------------------------------------------------------------------------ canary

std::vector<Prompt> RewardWatch::NextCanary(absl::Time now) {
  if (!asked_.empty() || !HasCanary() || health_.state() == RewardState::kOutage) return {};
  if (health_.state() != RewardState::kProbing && now < next_canary_) return {};
  asked_ = golden_;
  asked_version_ = version_;
  asked_at_ = now;
  answers_.clear();
  std::vector<Prompt> prompts;
  for (const Golden& golden : golden_) prompts.push_back(golden.prompt);
  return prompts;
}

bool RewardWatch::TakeCanary(ScoredGroup answer, absl::Time now) {
  if (answer.ordinal >= asked_.size()) return false;
  const uint64_t place = answer.ordinal;
  answers_.emplace(place, std::move(answer));
  if (answers_.size() < asked_.size()) return false;
  JudgeCanary(now);
  LoseCanary(now);
  FollowMoves();
  return true;
}

void RewardWatch::LoseCanary(absl::Time now) {
  asked_.clear();
  answers_.clear();
  alike_ = 0;
  next_canary_ = now + options_.canary_interval;
}

void RewardWatch::JudgeCanary(absl::Time now) {
  if (version_ != asked_version_) return;  // groups of a ranker that is followed overtook it
  const std::vector<Golden>& kept = asked_;
  double seconds = 0;  // of the call: each group has its share
  for (const auto& [place, answer] : answers_) {
    seconds += answer.score_seconds;
    std::string why = answer.score_error;
    if (answer.score_status == ScoreStatus::kOk && AcceptVersion(answer.ranker_version, &why)) continue;
    health_.OnFailed(why, now);
    return;
  }
  if (version_ != asked_version_) return;  // another ranker's scores are no standard for this one
  double correlation = 0;
  float low = kept[0].scores[0], high = low, lowest = INFINITY, highest = -INFINITY;
  for (size_t i = 0; i < kept.size(); ++i) {
    const std::vector<float>& before = kept[i].scores;
    const std::vector<float> after = ScoresOf(answers_.at(i), options_.head, kept[i].prompt.target >= 0);
    if (after.size() != before.size()) {
      health_.OnFailed(
          absl::StrCat("the canary: want ", before.size(), " scores of head '", options_.head, "', got ", after.size()),
          now);
      return;
    }
    correlation += RankCorrelation(before, after) / static_cast<double>(kept.size());
    low = std::min(low, *std::min_element(before.begin(), before.end()));
    high = std::max(high, *std::max_element(before.begin(), before.end()));
    lowest = std::min(lowest, *std::min_element(after.begin(), after.end()));
    highest = std::max(highest, *std::max_element(after.begin(), after.end()));
  }
  std::string why;
  if (correlation < kLeastCorrelation) {
    why = absl::StrFormat(
        "groups scored before are ranked otherwise now: rank correlation %.2f, want at least %.2f; the ranker answers "
        "in another order, everything alike, or with other weights under the same version",
        correlation, kLeastCorrelation);
  } else if (lowest < low - (high - low) || highest > high + (high - low)) {
    why = absl::StrFormat("groups scored before from %g to %g score from %g to %g now", low, high, lowest, highest);
  }
  health_.OnCanary(why.empty(), why, now);
  if (!why.empty()) return;
  good_until_ = asked_at_;
  for (size_t i = 0; i < kept.size(); ++i) health_.OnScored(absl::Seconds(seconds), now);
}

// -------------------------------------------------------------------------------------------------------------- news

void RewardWatch::FollowMoves() {
  for (const RewardTransition& move : health_.TakeTransitions()) {
    ++entered_[static_cast<size_t>(move.to)];
    news_.push_back(
        absl::StrCat("rewards: ", RewardStateName(move.from), " to ", RewardStateName(move.to), ": ", move.cause));
  }
}

void RewardWatch::Tick(absl::Time now) {
  health_.Tick(now);
  FollowMoves();
}

std::vector<std::string> RewardWatch::TakeNews() { return std::exchange(news_, {}); }

std::string RewardWatch::Trouble() const {
  if (health_.state() == RewardState::kHealthy) return "";
  return absl::StrCat(RewardStateName(health_.state()), ": ", health_.cause());
}

}  // namespace sluice::learner

// What a learner rank makes of the scores that come with its groups: counts them for RewardHealth, holds the ranker to
// one version, and asks a canary now and then.
//
// The canary is a few groups of the job's own beginning whose scores were kept. A ranker that answers, finitely and in
// the right shape, and yet wrongly (answers in another order, the same for everything, of damaged weights) shows when
// it scores them again: the ranks within a group must agree with what was kept (mean of Spearman's coefficient at
// least one half), and no score may lie further outside of the kept range than that range is wide. It is asked at
// intervals, at once when many groups in a row have all scores equal, and before and while an outage is probed.
//
// Pure state: time comes in as an argument. Not thread-safe; RolloutHub holds the lock.
#ifndef SLUICE_LEARNER_LEDGER_REWARD_WATCH_H_
#define SLUICE_LEARNER_LEDGER_REWARD_WATCH_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/ledger/reward_health.h"

namespace sluice::learner {

struct RewardWatchOptions {
  RewardHealthOptions health;
  // The head whose scores are the reward; the canary compares no other.
  std::string head = "score";
  // A ranker of another version than the first one met: false, its scores are refused; true, it is followed, and the
  // canary is made anew from its scores.
  bool follow_versions = false;
  // Between canaries while all is well.
  absl::Duration canary_interval = absl::Seconds(15);
};

// Spearman's rank correlation; equal values share their mean rank. 0 if either side is all equal. Same length.
double RankCorrelation(absl::Span<const float> a, absl::Span<const float> b);

class RewardWatch {
 public:
  RewardWatch(RewardWatchOptions options, absl::Time now);

  // Takes in a whole group whose scores were asked for; they took `delay`. Scores that must not be used are taken away:
  // the status becomes kInvalid, with the reason.
  void Inspect(const Prompt& prompt, absl::Duration delay, absl::Time now, ScoredGroup* group);

  // The canary's prompts, with what to score in Prompt::leaves and their place as ordinal, if it is time to ask; none
  // otherwise. TakeCanary or LoseCanary must follow before another one is asked.
  std::vector<Prompt> NextCanary(absl::Time now);
  // The answer for one of them; true once all have come and were judged.
  bool TakeCanary(ScoredGroup answer, absl::Time now);
  // Whoever had it gave it back, or left: says nothing of the ranker.
  void LoseCanary(absl::Time now);

  // When the last canary in range was asked; the begin of the watch before there was any.
  absl::Time good_until() const { return good_until_; }

  void Tick(absl::Time now);
  void OnStep() { health_.OnStep(); }
  const RewardHealth& health() const { return health_; }
  // Times that each state was entered.
  const std::array<uint64_t, kNumRewardStates>& entered() const { return entered_; }

  // Lines for the job's log since the last call: each move with its cause, and the ranker's version.
  std::vector<std::string> TakeNews();
  // "outage: ..." for people; empty when healthy.
  std::string Trouble() const;

 private:
  struct Golden {
    Prompt prompt;  // with leaves
    std::vector<float> scores;
  };

  // False: the version is refused, and `why` says so.
  bool AcceptVersion(const std::string& version, std::string* why);
  void NoteScored(const Prompt& prompt, const ScoredGroup& group, absl::Time now);
  void JudgeCanary(absl::Time now);
  void FollowMoves();
  bool HasCanary() const;

  const RewardWatchOptions options_;
  RewardHealth health_;
  std::array<uint64_t, kNumRewardStates> entered_{};
  std::string version_;  // empty: no answer yet
  std::vector<Golden> golden_;
  // The canary that is out, as golden_ was when it went; empty: none is.
  std::vector<Golden> asked_;
  std::string asked_version_;
  absl::Time asked_at_;
  std::map<uint64_t, ScoredGroup> answers_;
  absl::Time good_until_;
  absl::Time next_canary_;
  int alike_ = 0;  // groups in a row with all scores equal
  std::vector<std::string> news_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_REWARD_WATCH_H_

// Executes one lease block: decode, draw negatives, ask for
// scores, check the answers.
//
// A failed score is a status in the group, never a number and never the end of
// the group: the learner can still train it on logged truth. Not thread-safe;
// one worker a sampling thread.
#ifndef SLUICE_ACTOR_ROLLOUT_ROLLOUT_WORKER_H_
#define SLUICE_ACTOR_ROLLOUT_ROLLOUT_WORKER_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "actor/rollout/decoder.h"
#include "actor/rollout/lease_block.h"
#include "actor/rollout/reward_client.h"
#include "common/time/backoff.h"
#include "common/time/clock.h"

namespace sluice::actor {

class RolloutWorker {
 public:
  struct Options {
    BackoffOptions backoff;
    NowFunction now;
    // Waits for the given time; false if the actor is stopping, which ends the
    // retries.
    std::function<bool(absl::Duration)> wait;
    // Told when the groups of a block are sampled, before they are scored, and
    // under which policy version. May be empty.
    std::function<void(const LeaseBlock&, uint64_t)> on_sampled;
  };

  // Both outlive the worker. `rewards` may be null if every job has rewards
  // disabled.
  RolloutWorker(Decoder* decoder, RewardClient* rewards, Options options);

  // One outcome a prompt, in the block's order. Blocks for the decoding and the
  // scoring call.
  //
  // An error fails the block as a whole and the lease is to be given back:
  // FailedPrecondition (no policy, or not the version asked for: fetch it
  // first; another catalog; the job asks for scores without a reward client),
  // DeadlineExceeded (the lease is over), InvalidArgument (no prompts), or what
  // the decoder returned.
  absl::StatusOr<std::vector<PromptOutcome>> Execute(const JobContext& job, const LeaseBlock& block);

 private:
  absl::StatusOr<std::vector<PromptOutcome>> Rollout(const JobContext& job, const LeaseBlock& block,
                                                     Decoder::Snapshot* policy);
  absl::StatusOr<std::vector<PromptOutcome>> DecodeBeams(const JobContext& job, const LeaseBlock& block,
                                                         Decoder::Snapshot* policy);
  // Scores what the lease names, and samples nothing.
  absl::StatusOr<std::vector<PromptOutcome>> ScoreLeaves(const JobContext& job, const LeaseBlock& block,
                                                         const Trie& trie);
  // Writes the scores, or why there are none, into groups of `request`.
  void Score(const JobContext& job, const LeaseBlock& block, const RewardRequest& request,
             absl::Span<ScoredGroup* const> groups);
  absl::StatusOr<RewardResponse> AskForScores(const RewardRequest& request, const LeaseBlock& block,
                                              absl::Time deadline);

  Decoder* const decoder_;
  RewardClient* const rewards_;
  const Options options_;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_ROLLOUT_WORKER_H_

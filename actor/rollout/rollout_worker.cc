#include "actor/rollout/rollout_worker.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/rollout/check_scores.h"
#include "actor/rollout/negatives.h"
#include "common/failpoint/failpoint.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice::actor {
namespace {

// What an ordinal's seed is split into. Part of what makes a run repeatable:
// never renumber.
enum SeedLabel : uint64_t { kSampling = 1, kNegatives = 2, kRetries = 3 };

PromptOutcome OutcomeOf(const LeaseBlock& block, size_t index,
                        std::variant<ScoredGroup, DecodedPrompt, Abandoned> result) {
  const Prompt& prompt = block.prompts[index].prompt;
  return {prompt.ordinal, prompt.attempt, block.lease_id, std::move(result)};
}

// Only bad input makes a record bad: everything else may go better on another
// attempt.
Abandoned GiveUp(const absl::Status& status) {
  return {std::string(status.message()), status.code() == absl::StatusCode::kInvalidArgument};
}

std::vector<int32_t> LeavesOf(const std::vector<Completion>& completions) {
  std::vector<int32_t> leaves;
  for (const Completion& completion : completions) leaves.push_back(completion.leaf);
  return leaves;
}

std::vector<int32_t> ItemsOf(const Trie& trie, int32_t leaf) {
  const absl::Span<const int32_t> items = trie.ItemsOfLeaf(leaf);
  return {items.begin(), items.end()};
}

// The newest distinct items of the history, at most `count`; none of one that would leave nothing behind.
std::vector<int32_t> ItemsToLeaveOut(const std::vector<int32_t>& history, int count) {
  std::vector<int32_t> items;
  if (std::all_of(history.begin(), history.end(), [&](int32_t item) { return item == history.front(); })) return items;
  for (size_t i = history.size(); i > 0 && items.size() < static_cast<size_t>(count); --i) {
    if (std::find(items.begin(), items.end(), history[i - 1]) == items.end()) items.push_back(history[i - 1]);
  }
  return items;
}

absl::Status CheckPolicy(const JobContext& job, const LeaseBlock& block, const Decoder::Snapshot* policy,
                         const RewardClient* rewards) {
  if (block.prompts.empty()) return absl::InvalidArgumentError("the lease has no prompts");
  if (policy == nullptr) return absl::FailedPreconditionError("no policy is loaded yet");
  if (block.exact_version ? policy->version() != block.policy_version : policy->version() < block.policy_version) {
    return absl::FailedPreconditionError(absl::StrCat("want policy version ", block.policy_version,
                                                      block.exact_version ? "" : " or later", ", have ",
                                                      policy->version()));
  }
  if (policy->trie().version() != job.catalog_version) {
    return absl::FailedPreconditionError(
        absl::StrCat("want catalog ", job.catalog_version, ", have ", policy->trie().version()));
  }
  if (job.reward.enabled && rewards == nullptr && block.kind != LeaseKind::kDecode) {
    return absl::FailedPreconditionError("the job asks for scores, but no reward server is configured");
  }
  return absl::OkStatus();
}

}  // namespace

RolloutWorker::RolloutWorker(Decoder* decoder, RewardClient* rewards, Options options)
    : decoder_(decoder), rewards_(rewards), options_(std::move(options)) {}

absl::StatusOr<std::vector<PromptOutcome>> RolloutWorker::Execute(const JobContext& job, const LeaseBlock& block) {
  const std::shared_ptr<Decoder::Snapshot> policy = decoder_->Current();
  SLUICE_RETURN_IF_ERROR(CheckPolicy(job, block, policy.get(), rewards_));
  if (options_.now() >= block.deadline) {
    return absl::DeadlineExceededError(absl::StrCat("lease ", block.lease_id, " was over before work on it began"));
  }
  switch (block.kind) {
    case LeaseKind::kDecode:
      return DecodeBeams(job, block, policy.get());
    case LeaseKind::kScore:
      return ScoreLeaves(job, block, policy->trie());
    case LeaseKind::kRollout:
      break;
  }
  return Rollout(job, block, policy.get());
}

absl::StatusOr<std::vector<PromptOutcome>> RolloutWorker::DecodeBeams(const JobContext& job, const LeaseBlock& block,
                                                                      Decoder::Snapshot* policy) {
  SLUICE_ASSIGN_OR_RETURN(
      std::vector<Decoder::Snapshot::Beams> beams,
      policy->Decode(block.prompts, job.decode, block.constrained_beams, block.unconstrained_beams));
  SLUICE_CHECK(beams.size() == block.prompts.size(), "the decoder answers every prompt");
  std::vector<PromptOutcome> outcomes;
  for (size_t b = 0; b < beams.size(); ++b) {
    if (!beams[b].status.ok()) {
      outcomes.push_back(OutcomeOf(block, b, GiveUp(beams[b].status)));
      continue;
    }
    DecodedPrompt decoded;
    decoded.ordinal = block.prompts[b].prompt.ordinal;
    decoded.lease_id = block.lease_id;
    decoded.behavior_version = policy->version();
    decoded.constrained = std::move(beams[b].constrained);
    decoded.unconstrained = std::move(beams[b].unconstrained);
    outcomes.push_back(OutcomeOf(block, b, std::move(decoded)));
  }
  return outcomes;
}

absl::StatusOr<std::vector<PromptOutcome>> RolloutWorker::Rollout(const JobContext& job, const LeaseBlock& block,
                                                                  Decoder::Snapshot* policy) {
  const size_t size = block.prompts.size();
  std::vector<uint64_t> ordinal_seeds(size), sampling_seeds(size);
  for (size_t b = 0; b < size; ++b) {
    ordinal_seeds[b] = DeriveSeed(block.seed, {block.prompts[b].prompt.ordinal});
    sampling_seeds[b] = DeriveSeed(ordinal_seeds[b], {kSampling});
  }

  const absl::Time started = options_.now();
  SLUICE_ASSIGN_OR_RETURN(std::vector<Decoder::Snapshot::Sampled> sampled,
                          policy->Sample(block.prompts, job.decode, sampling_seeds));
  if (options_.on_sampled) options_.on_sampled(block, policy->version());
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("actor/after_sample"));
  SLUICE_CHECK(sampled.size() == size, "the decoder answers every prompt");
  const double sample_seconds = absl::ToDoubleSeconds(options_.now() - started) / static_cast<double>(size);

  std::vector<std::vector<int32_t>> generated(size);
  for (size_t b = 0; b < size; ++b) generated[b] = LeavesOf(sampled[b].completions);

  RewardRequest request{job.job_id, job.reward.ranker, job.catalog_version, job.reward.mean_of_items, {}};
  std::vector<PromptOutcome> outcomes(size);
  std::vector<ScoredGroup*> asked;
  for (size_t b = 0; b < size; ++b) {
    const Prompt& prompt = block.prompts[b].prompt;
    if (!sampled[b].status.ok()) {
      outcomes[b] = OutcomeOf(block, b, GiveUp(sampled[b].status));
      continue;
    }
    const Completion& target = sampled[b].target;
    const bool has_target = !target.tokens.empty();
    ScoredGroup group;
    group.ordinal = prompt.ordinal;
    group.attempt = prompt.attempt;
    group.lease_id = block.lease_id;
    group.behavior_version = policy->version();
    group.catalog_version = job.catalog_version;
    group.completions = std::move(sampled[b].completions);
    group.target_log_probs_full = target.log_probs_full;
    group.target_log_probs_trie = target.log_probs_trie;
    group.sample_seconds = sample_seconds;
    if (job.reward.enabled) {
      group.negative_leaves = DrawNegatives(generated, b, has_target ? target.leaf : Trie::kNone, job.reward.negatives,
                                            DeriveSeed(ordinal_seeds[b], {kNegatives}));
      GroupToScore to_score{prompt.ordinal, prompt.attempt, prompt.user, prompt.history, prompt.target, {}};
      for (const Completion& completion : group.completions) {
        to_score.candidates.push_back(ItemsOf(policy->trie(), completion.leaf));
      }
      for (const int32_t leaf : group.negative_leaves) to_score.candidates.push_back(ItemsOf(policy->trie(), leaf));
      to_score.leave_out = ItemsToLeaveOut(prompt.history, job.reward.history_items);
      request.groups.push_back(std::move(to_score));
    }
    outcomes[b] = OutcomeOf(block, b, std::move(group));
    if (job.reward.enabled) asked.push_back(&std::get<ScoredGroup>(outcomes[b].result));
  }
  if (asked.empty()) return outcomes;

  Score(job, block, request, asked);
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("actor/after_score"));
  return outcomes;
}

absl::StatusOr<std::vector<PromptOutcome>> RolloutWorker::ScoreLeaves(const JobContext& job, const LeaseBlock& block,
                                                                      const Trie& trie) {
  RewardRequest request{job.job_id, job.reward.ranker, job.catalog_version, job.reward.mean_of_items, {}};
  std::vector<PromptOutcome> outcomes;
  for (size_t b = 0; b < block.prompts.size(); ++b) {
    const Prompt& prompt = block.prompts[b].prompt;
    GroupToScore to_score{prompt.ordinal, prompt.attempt, prompt.user, prompt.history, prompt.target, {}};
    for (const int32_t leaf : prompt.leaves) {
      if (leaf < 0 || leaf >= trie.num_leaves()) {
        return absl::InvalidArgumentError(absl::StrCat("leaf ", leaf, " is not in the catalog"));
      }
      to_score.candidates.push_back(ItemsOf(trie, leaf));
    }
    request.groups.push_back(std::move(to_score));
    ScoredGroup group;
    group.ordinal = prompt.ordinal;
    group.attempt = prompt.attempt;
    group.lease_id = block.lease_id;
    group.catalog_version = job.catalog_version;
    outcomes.push_back(OutcomeOf(block, b, std::move(group)));
  }
  std::vector<ScoredGroup*> asked;
  for (PromptOutcome& outcome : outcomes) asked.push_back(&std::get<ScoredGroup>(outcome.result));
  Score(job, block, request, asked);
  return outcomes;
}

void RolloutWorker::Score(const JobContext& job, const LeaseBlock& block, const RewardRequest& request,
                          absl::Span<ScoredGroup* const> groups) {
  const absl::Time asked_at = options_.now();
  const absl::StatusOr<RewardResponse> response =
      AskForScores(request, block, std::min(asked_at + job.reward.deadline, block.deadline));
  ApplyScores(request, response, groups);
  const double score_seconds = absl::ToDoubleSeconds(options_.now() - asked_at) / static_cast<double>(groups.size());
  for (ScoredGroup* group : groups) group->score_seconds = score_seconds;
}

absl::StatusOr<RewardResponse> RolloutWorker::AskForScores(const RewardRequest& request, const LeaseBlock& block,
                                                           absl::Time deadline) {
  Random jitter(DeriveSeed(block.seed, {block.lease_id, kRetries}));
  for (int retry = 0;; ++retry) {
    absl::StatusOr<RewardResponse> response = rewards_->Score(request, deadline);
    const absl::StatusCode code = response.status().code();
    if (code != absl::StatusCode::kUnavailable && code != absl::StatusCode::kResourceExhausted) return response;
    absl::Duration delay = RetryDelay(retry, jitter.Uniform(), options_.backoff);
    if (const std::optional<absl::Duration> asked = RetryAfter(response.status())) delay = std::max(delay, *asked);
    if (options_.now() + delay >= deadline) {
      return Annotate(response.status(), absl::StrCat("gave up before the deadline after ", retry + 1, " calls"));
    }
    if (!options_.wait(delay)) return Annotate(response.status(), "the actor is stopping");
  }
}

}  // namespace sluice::actor

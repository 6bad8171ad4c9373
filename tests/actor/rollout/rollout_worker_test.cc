#include "actor/rollout/rollout_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "common/random/random.h"

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Items 0 to 8 on leaves 0 to 7: items 7 and 8 share leaf 7.
std::shared_ptr<const Trie> SharedTrie() {
  const std::vector<int32_t> tokens = {1, 3, 1, 4, 1, 5, 1, 6, 2, 3, 2, 4, 2, 5, 2, 6, 2, 6};
  return std::make_shared<const Trie>(*Trie::Build(2, tokens));
}

// Answers each prompt with scripted leaves; the target's log-probabilities are -7 and -6, others' -2 and -1.
class FakePolicy : public Decoder::Snapshot {
 public:
  explicit FakePolicy(uint64_t version) : version_(version), trie_(SharedTrie()) {}

  uint64_t version() const override { return version_; }
  const Trie& trie() const override { return *trie_; }

  absl::StatusOr<std::vector<Sampled>> Sample(absl::Span<const LeasedPrompt> prompts, const DecodeSettings& settings,
                                              absl::Span<const uint64_t> seeds) override {
    seeds_.assign(seeds.begin(), seeds.end());
    group_size_ = settings.group_size;
    std::vector<Sampled> sampled(prompts.size());
    for (size_t b = 0; b < prompts.size(); ++b) {
      sampled[b].status = statuses[b];
      if (!statuses[b].ok()) continue;
      for (const int32_t leaf : leaves[b]) sampled[b].completions.push_back(Make(leaf, -2, -1));
      if (prompts[b].prompt.target >= 0) sampled[b].target = Make(trie_->LeafOfItem(prompts[b].prompt.target), -7, -6);
    }
    return sampled;
  }
  absl::StatusOr<std::vector<Beams>> Decode(absl::Span<const LeasedPrompt> prompts, const DecodeSettings&,
                                            int constrained_beams, int unconstrained_beams) override {
    std::vector<Beams> beams(prompts.size());
    for (size_t b = 0; b < prompts.size(); ++b) {
      beams[b].status = statuses[b];
      beams[b].constrained.assign(constrained_beams, Make(static_cast<int32_t>(b), -2, -1));
      beams[b].unconstrained.assign(unconstrained_beams, Make(0, -2, -1));
    }
    return beams;
  }

  std::vector<std::vector<int32_t>> leaves = {{0, 1}, {2, 3}, {7, 5}};
  std::vector<absl::Status> statuses = {absl::OkStatus(), absl::OkStatus(), absl::OkStatus()};
  std::vector<uint64_t> seeds_;
  int group_size_ = 0;

 private:
  Completion Make(int32_t leaf, float full, float trie) const {
    const absl::Span<const int32_t> tokens = trie_->TokensOfLeaf(leaf);
    return {{tokens.begin(), tokens.end()}, leaf, {full, full}, {trie, trie}};
  }

  uint64_t version_;
  std::shared_ptr<const Trie> trie_;
};

class FakeDecoder : public Decoder {
 public:
  std::shared_ptr<Snapshot> Current() const override { return policy; }
  std::shared_ptr<FakePolicy> policy = std::make_shared<FakePolicy>(5);
};

// Scores every candidate by its first item; scripted failures come first, one a call.
class FakeRewards : public RewardClient {
 public:
  absl::StatusOr<RewardResponse> Score(const RewardRequest& request, absl::Time deadline) override {
    requests.push_back(request);
    deadlines.push_back(deadline);
    if (!failures.empty()) {
      const absl::Status failure = failures.front();
      failures.pop_front();
      if (!failure.ok()) return failure;
    }
    RewardResponse response{"ranker-1", request.catalog_version, {}};
    for (const GroupToScore& group : request.groups) {
      CandidateScores head{"score", {}, static_cast<float>(group.target)};
      for (const std::vector<int32_t>& items : group.candidates) head.scores.push_back(static_cast<float>(items[0]));
      for (const int32_t item : group.leave_out) head.left_out.push_back(static_cast<float>(-item));
      response.groups.push_back({group.ordinal, group.attempt, GroupScoreStatus::kOk, "", {head}});
    }
    return response;
  }

  std::deque<absl::Status> failures;
  std::vector<RewardRequest> requests;
  std::vector<absl::Time> deadlines;
};

class RolloutWorkerTest : public testing::Test {
 protected:
  RolloutWorkerTest() {
    job_.job_id = "job";
    job_.catalog_version = decoder_.policy->trie().version();
    job_.decode.group_size = 2;
    job_.reward.ranker = "blend";
    job_.reward.negatives = 2;
    job_.reward.deadline = absl::Seconds(5);
    block_.lease_id = 3;
    block_.policy_version = 5;
    block_.seed = 42;
    block_.deadline = now_ + absl::Seconds(60);
    for (int32_t b = 0; b < 3; ++b) {
      LeasedPrompt leased;
      leased.prompt = {static_cast<uint64_t>(10 + b), 1, b, {b}, -1};
      block_.prompts.push_back(leased);
    }
  }

  absl::StatusOr<std::vector<PromptOutcome>> Execute() {
    RolloutWorker::Options options;
    options.now = [this] { return now_; };
    options.wait = [this](absl::Duration delay) {
      waits_.push_back(delay);
      now_ += delay;
      return !stopping_;
    };
    return RolloutWorker(&decoder_, with_rewards_ ? &rewards_ : nullptr, options).Execute(job_, block_);
  }
  std::vector<ScoredGroup> ExecuteGroups() {
    const absl::StatusOr<std::vector<PromptOutcome>> outcomes = Execute();
    EXPECT_TRUE(outcomes.ok()) << outcomes.status();
    std::vector<ScoredGroup> groups;
    if (!outcomes.ok()) return groups;
    for (const PromptOutcome& outcome : *outcomes) groups.push_back(std::get<ScoredGroup>(outcome.result));
    return groups;
  }
  static std::vector<int32_t> Leaves(const ScoredGroup& group) {
    std::vector<int32_t> leaves;
    for (const Completion& completion : group.completions) leaves.push_back(completion.leaf);
    return leaves;
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  FakeDecoder decoder_;
  FakeRewards rewards_;
  bool with_rewards_ = true;
  bool stopping_ = false;
  std::vector<absl::Duration> waits_;
  JobContext job_;
  LeaseBlock block_;
};

TEST_F(RolloutWorkerTest, AGroupCarriesItsIdentityAndItsScores) {
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  ASSERT_THAT(groups, SizeIs(3));
  const ScoredGroup& group = groups[1];
  EXPECT_EQ(group.ordinal, 11);
  EXPECT_EQ(group.attempt, 1);
  EXPECT_EQ(group.lease_id, 3);
  EXPECT_EQ(group.behavior_version, 5);
  EXPECT_EQ(group.catalog_version, job_.catalog_version);
  EXPECT_THAT(Leaves(group), ElementsAre(2, 3));
  EXPECT_EQ(group.score_status, ScoreStatus::kOk);
  EXPECT_EQ(group.ranker_version, "ranker-1");
  ASSERT_THAT(group.heads, SizeIs(1));
  EXPECT_THAT(group.heads[0].completion_scores, ElementsAre(2, 3));
  EXPECT_THAT(group.heads[0].negative_scores, SizeIs(2));
}

TEST_F(RolloutWorkerTest, ACandidateIsAllItemsOfItsLeaf) {
  ExecuteGroups();
  ASSERT_THAT(rewards_.requests, SizeIs(1));
  const RewardRequest& request = rewards_.requests[0];
  EXPECT_EQ(request.job_id, "job");
  EXPECT_EQ(request.ranker, "blend");
  EXPECT_EQ(request.groups[2].user, 2);
  EXPECT_THAT(request.groups[2].history, ElementsAre(2));
  ASSERT_THAT(request.groups[2].candidates, SizeIs(4));
  EXPECT_THAT(request.groups[2].candidates[0], ElementsAre(7, 8));
  EXPECT_THAT(request.groups[2].candidates[1], ElementsAre(5));
}

TEST_F(RolloutWorkerTest, TheNewestDistinctItemsOfTheHistoryAreLeftOutInTurn) {
  block_.prompts[0].prompt.history = {1, 2, 3, 2};
  block_.prompts[1].prompt.history = {4, 4};  // without its one item nothing would be left
  block_.prompts[2].prompt.history = {5};
  EXPECT_THAT(ExecuteGroups()[0].history_items, IsEmpty());  // not asked for
  EXPECT_THAT(rewards_.requests[0].groups[0].leave_out, IsEmpty());
  job_.reward.history_items = 2;
  std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_THAT(groups[0].history_items, ElementsAre(2, 3));
  EXPECT_THAT(groups[0].heads[0].history_scores, ElementsAre(-2, -3));
  EXPECT_THAT(groups[1].history_items, IsEmpty());
  EXPECT_THAT(groups[2].history_items, IsEmpty());
  job_.reward.history_items = 10;
  EXPECT_THAT(ExecuteGroups()[0].history_items, ElementsAre(2, 3, 1));
}

// The learner puts a missed target into the group: it must see the group as the policy sampled it.
TEST_F(RolloutWorkerTest, AMissedTargetIsScoredBesideTheGroup) {
  block_.prompts[0].prompt.target = 4;  // not generated
  block_.prompts[1].prompt.target = 2;  // generated first
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_THAT(Leaves(groups[0]), ElementsAre(0, 1));
  EXPECT_THAT(groups[0].target_log_probs_full, ElementsAre(-7, -7));
  EXPECT_THAT(groups[0].target_log_probs_trie, ElementsAre(-6, -6));
  EXPECT_THAT(Leaves(groups[1]), ElementsAre(2, 3));
  EXPECT_THAT(groups[1].completions[0].log_probs_full, ElementsAre(-2, -2));
  EXPECT_THAT(groups[1].target_log_probs_full, ElementsAre(-7, -7));
  EXPECT_EQ(rewards_.requests[0].groups[0].target, 4);
  EXPECT_EQ(groups[0].heads[0].target_score, 4);
}

TEST_F(RolloutWorkerTest, NegativesAreOtherPromptsCompletions) {
  job_.reward.negatives = 10;
  block_.prompts[0].prompt.target = 5;  // generated for prompt 2
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_THAT(groups[0].negative_leaves, testing::UnorderedElementsAre(2, 3, 7));
  EXPECT_THAT(groups[1].negative_leaves, testing::UnorderedElementsAre(0, 1, 5, 7));
  EXPECT_THAT(groups[0].heads[0].negative_scores, SizeIs(3));
}

TEST_F(RolloutWorkerTest, EveryDrawDependsOnTheOrdinalAndTheBlockSeedAlone) {
  const std::vector<ScoredGroup> once = ExecuteGroups();
  const std::vector<uint64_t> seeds = decoder_.policy->seeds_;
  EXPECT_THAT(std::set<uint64_t>(seeds.begin(), seeds.end()), SizeIs(3));
  block_.lease_id = 99;
  block_.prompts[1].prompt.attempt = 2;
  const std::vector<ScoredGroup> again = ExecuteGroups();
  EXPECT_EQ(decoder_.policy->seeds_, seeds);
  for (size_t b = 0; b < 3; ++b) EXPECT_EQ(once[b].negative_leaves, again[b].negative_leaves);
  block_.seed = 43;
  ExecuteGroups();
  EXPECT_NE(decoder_.policy->seeds_, seeds);
}

TEST_F(RolloutWorkerTest, ABadRecordIsAbandonedAndItsNeighboursAreNot) {
  decoder_.policy->statuses[1] = absl::InvalidArgumentError("history item 99 is not in the catalog");
  const std::vector<PromptOutcome> outcomes = *Execute();
  ASSERT_THAT(outcomes, SizeIs(3));
  EXPECT_EQ(outcomes[1].ordinal, 11);
  EXPECT_TRUE(std::get<Abandoned>(outcomes[1].result).bad_data);
  EXPECT_THAT(std::get<Abandoned>(outcomes[1].result).reason, HasSubstr("item 99"));
  EXPECT_EQ(std::get<ScoredGroup>(outcomes[0].result).score_status, ScoreStatus::kOk);
  EXPECT_EQ(std::get<ScoredGroup>(outcomes[2].result).heads[0].completion_scores.size(), 2);
  EXPECT_THAT(rewards_.requests[0].groups, SizeIs(2));
}

TEST_F(RolloutWorkerTest, ScoringIsTriedAgainAfterATransientFailure) {
  rewards_.failures = {absl::UnavailableError("connection refused"),
                       WithRetryAfter(absl::ResourceExhaustedError("queue full"), absl::Milliseconds(700))};
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_EQ(groups[0].score_status, ScoreStatus::kOk);
  EXPECT_THAT(rewards_.requests, SizeIs(3));
  ASSERT_THAT(waits_, SizeIs(2));
  EXPECT_LT(waits_[0], absl::Milliseconds(20));
  EXPECT_EQ(waits_[1], absl::Milliseconds(700));
  EXPECT_EQ(rewards_.deadlines[0], rewards_.deadlines[2]);
}

TEST_F(RolloutWorkerTest, RetriesEndAtTheDeadlineWithAStatusAndNoNumber) {
  rewards_.failures.assign(1000, absl::UnavailableError("connection refused"));
  const absl::Time start = now_;
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_LT(now_ - start, absl::Seconds(5));
  EXPECT_GT(now_ - start, absl::Seconds(3));
  for (const ScoredGroup& group : groups) {
    EXPECT_EQ(group.score_status, ScoreStatus::kUnavailable);
    EXPECT_THAT(group.score_error, HasSubstr("connection refused"));
    EXPECT_THAT(group.heads, IsEmpty());
    EXPECT_THAT(group.completions, SizeIs(2));
  }
}

TEST_F(RolloutWorkerTest, TheLeaseEndsTheScoringTimeToo) {
  block_.deadline = now_ + absl::Seconds(2);
  ExecuteGroups();
  EXPECT_EQ(rewards_.deadlines[0], block_.deadline);
}

TEST_F(RolloutWorkerTest, OtherFailuresAndAStoppingActorAreNotTriedAgain) {
  rewards_.failures = {absl::InvalidArgumentError("no such ranker")};
  EXPECT_EQ(ExecuteGroups()[0].score_status, ScoreStatus::kRejected);
  rewards_.failures = {absl::DeadlineExceededError("slow")};
  EXPECT_EQ(ExecuteGroups()[0].score_status, ScoreStatus::kUnavailable);
  EXPECT_THAT(waits_, IsEmpty());
  stopping_ = true;
  rewards_.failures = {absl::UnavailableError("gone")};
  EXPECT_EQ(ExecuteGroups()[0].score_status, ScoreStatus::kUnavailable);
  EXPECT_THAT(rewards_.requests, SizeIs(3));
}

TEST_F(RolloutWorkerTest, WithoutRewardsNobodyIsAsked) {
  job_.reward.enabled = false;
  with_rewards_ = false;
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  EXPECT_EQ(groups[0].score_status, ScoreStatus::kNotAsked);
  EXPECT_THAT(groups[0].negative_leaves, IsEmpty());
  EXPECT_THAT(rewards_.requests, IsEmpty());
}

TEST_F(RolloutWorkerTest, ScoreLeasesSampleNothingAndScoreTheLeavesThatTheyName) {
  block_.kind = LeaseKind::kScore;
  block_.prompts.resize(2);
  block_.prompts[0].prompt.leaves = {7, 0};
  block_.prompts[0].prompt.target = 4;
  block_.prompts[1].prompt.leaves = {3, 3, 1};
  const std::vector<ScoredGroup> groups = ExecuteGroups();
  ASSERT_THAT(groups, SizeIs(2));
  EXPECT_THAT(decoder_.policy->seeds_, IsEmpty());
  ASSERT_THAT(rewards_.requests, SizeIs(1));
  EXPECT_THAT(rewards_.requests[0].groups[0].candidates, ElementsAre(ElementsAre(7, 8), ElementsAre(0)));
  EXPECT_EQ(groups[0].ordinal, 10);
  EXPECT_EQ(groups[0].lease_id, 3);
  EXPECT_THAT(groups[0].completions, IsEmpty());
  EXPECT_EQ(groups[0].score_status, ScoreStatus::kOk);
  EXPECT_THAT(groups[0].heads.at(0).negative_scores, ElementsAre(7, 0));
  EXPECT_EQ(groups[0].heads.at(0).target_score, 4);
  EXPECT_THAT(groups[1].heads.at(0).negative_scores, ElementsAre(3, 3, 1));

  rewards_.failures.assign(1, absl::InternalError("out of memory"));
  EXPECT_EQ(ExecuteGroups()[1].score_status, ScoreStatus::kUnavailable);
  block_.prompts[1].prompt.leaves = {8};  // leaves 0 to 7 are there
  EXPECT_EQ(Execute().status().code(), absl::StatusCode::kInvalidArgument);
  with_rewards_ = false;
  EXPECT_EQ(Execute().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RolloutWorkerTest, DecodeLeasesReturnBeamsUnscored) {
  block_.kind = LeaseKind::kDecode;
  block_.constrained_beams = 4;
  block_.unconstrained_beams = 1;
  decoder_.policy->statuses[2] = absl::InvalidArgumentError("empty history");
  const std::vector<PromptOutcome> outcomes = *Execute();
  const DecodedPrompt& decoded = std::get<DecodedPrompt>(outcomes[1].result);
  EXPECT_EQ(decoded.ordinal, 11);
  EXPECT_EQ(decoded.lease_id, 3);
  EXPECT_EQ(decoded.behavior_version, 5);
  EXPECT_THAT(decoded.constrained, SizeIs(4));
  EXPECT_EQ(decoded.constrained[0].leaf, 1);
  EXPECT_THAT(decoded.unconstrained, SizeIs(1));
  EXPECT_TRUE(std::get<Abandoned>(outcomes[2].result).bad_data);
  EXPECT_THAT(rewards_.requests, IsEmpty());
}

TEST_F(RolloutWorkerTest, ABlockIsRefusedUnderTheWrongPolicyCatalogOrTime) {
  const auto code = [this] { return Execute().status().code(); };
  block_.policy_version = 6;
  EXPECT_EQ(code(), absl::StatusCode::kFailedPrecondition);
  block_.policy_version = 4;
  EXPECT_EQ(code(), absl::StatusCode::kOk);
  block_.exact_version = true;
  EXPECT_EQ(code(), absl::StatusCode::kFailedPrecondition);
  block_.policy_version = 5;
  EXPECT_EQ(code(), absl::StatusCode::kOk);

  const std::string catalog = job_.catalog_version;
  job_.catalog_version = "another";
  EXPECT_EQ(code(), absl::StatusCode::kFailedPrecondition);
  job_.catalog_version = catalog;

  with_rewards_ = false;
  EXPECT_EQ(code(), absl::StatusCode::kFailedPrecondition);
  with_rewards_ = true;

  now_ = block_.deadline;
  EXPECT_EQ(code(), absl::StatusCode::kDeadlineExceeded);
  block_.deadline += absl::Hours(1);
  block_.prompts.clear();
  EXPECT_EQ(code(), absl::StatusCode::kInvalidArgument);
  decoder_.policy = nullptr;
  EXPECT_NE(code(), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace sluice::actor

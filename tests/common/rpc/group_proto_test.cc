#include "common/rpc/group_proto.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

Completion MakeCompletion() { return Completion{{3, 260, 520}, 17, {-0.5f, -1.f, -2.f}, {-0.25f, -0.5f, -1.f}}; }

void ExpectEqual(const Completion& a, const Completion& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.leaf, b.leaf);
  EXPECT_EQ(a.log_probs_full, b.log_probs_full);
  EXPECT_EQ(a.log_probs_trie, b.log_probs_trie);
}

TEST(GroupProtoTest, AScoredGroupSurvivesTheWire) {
  ScoredGroup group;
  group.ordinal = 1'000'000'000'000;
  group.attempt = 2;
  group.lease_id = 3;
  group.behavior_version = 4;
  group.catalog_version = "abc";
  group.completions = {MakeCompletion(), MakeCompletion()};
  group.completions[1].log_probs_trie.clear();
  group.completions[1].leaf = -1;
  group.score_error = "why";
  group.ranker_version = "r";
  group.heads = {ScoreHead{"score", {1.f, 2.f}, 3.f, {4.f}}, ScoreHead{"order", {5.f, 6.f}, 7.f, {8.f}}};
  group.negative_leaves = {9};
  group.history_items = {11, 12};
  for (ScoreHead& head : group.heads) head.history_scores = {0.25f, -0.5f};
  group.target_log_probs_full = {-1.f};
  group.target_log_probs_trie = {-2.f};
  group.sample_seconds = 0.5;
  group.score_seconds = 0.25;
  for (ScoreStatus status : {ScoreStatus::kOk, ScoreStatus::kUnavailable, ScoreStatus::kInvalid, ScoreStatus::kRejected,
                             ScoreStatus::kNotAsked}) {
    group.score_status = status;
    v1::ScoredGroup proto;
    ToProto(group, &proto);
    v1::ScoredGroup received;
    ASSERT_TRUE(received.ParseFromString(proto.SerializeAsString()));
    const absl::StatusOr<ScoredGroup> back = FromProto(received);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->ordinal, group.ordinal);
    EXPECT_EQ(back->attempt, group.attempt);
    EXPECT_EQ(back->lease_id, group.lease_id);
    EXPECT_EQ(back->behavior_version, group.behavior_version);
    EXPECT_EQ(back->catalog_version, group.catalog_version);
    ASSERT_EQ(back->completions.size(), 2u);
    ExpectEqual(back->completions[0], group.completions[0]);
    ExpectEqual(back->completions[1], group.completions[1]);
    EXPECT_EQ(back->score_status, status);
    EXPECT_EQ(back->score_error, group.score_error);
    EXPECT_EQ(back->ranker_version, group.ranker_version);
    ASSERT_EQ(back->heads.size(), 2u);
    EXPECT_EQ(back->heads[1].name, "order");
    EXPECT_EQ(back->heads[1].completion_scores, group.heads[1].completion_scores);
    EXPECT_EQ(back->heads[1].target_score, 7.f);
    EXPECT_EQ(back->heads[1].negative_scores, group.heads[1].negative_scores);
    EXPECT_EQ(back->negative_leaves, group.negative_leaves);
    EXPECT_EQ(back->history_items, group.history_items);
    EXPECT_EQ(back->heads[1].history_scores, group.heads[1].history_scores);
    EXPECT_EQ(back->target_log_probs_full, group.target_log_probs_full);
    EXPECT_EQ(back->target_log_probs_trie, group.target_log_probs_trie);
    EXPECT_EQ(back->sample_seconds, 0.5);
    EXPECT_EQ(back->score_seconds, 0.25);
  }
}

TEST(GroupProtoTest, AnUnknownStatusIsNotTakenForAKnownOne) {
  v1::ScoredGroup proto;
  EXPECT_EQ(FromProto(proto).status().code(), absl::StatusCode::kInvalidArgument);
  proto.set_score_status(static_cast<v1::ScoreStatus>(99));
  EXPECT_EQ(FromProto(proto).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(FromProto(v1::SAMPLER_UNSPECIFIED).ok());
  EXPECT_FALSE(FromProto(v1::LOG_PROB_SPACE_UNSPECIFIED).ok());
}

TEST(GroupProtoTest, PromptsAndBeamsSurviveTheWire) {
  Prompt prompt;
  prompt.ordinal = 8;
  prompt.attempt = 3;
  prompt.user = 4;
  prompt.history = {5, 6, 7};
  prompt.target = 9;
  prompt.excluded = {2, 5};
  prompt.leaves = {4, 4, 0};
  v1::PromptToSample prompt_proto;
  ToProto(prompt, &prompt_proto);
  const Prompt prompt_back = FromProto(prompt_proto);
  EXPECT_EQ(prompt_back.ordinal, 8u);
  EXPECT_EQ(prompt_back.attempt, 3u);
  EXPECT_EQ(prompt_back.user, 4);
  EXPECT_EQ(prompt_back.history, prompt.history);
  EXPECT_EQ(prompt_back.target, 9);
  EXPECT_EQ(prompt_back.excluded, prompt.excluded);
  EXPECT_EQ(prompt_back.leaves, prompt.leaves);

  DecodedPrompt decoded;
  decoded.ordinal = 1;
  decoded.lease_id = 2;
  decoded.behavior_version = 3;
  decoded.constrained = {MakeCompletion()};
  decoded.unconstrained = {MakeCompletion(), MakeCompletion()};
  v1::DecodedPrompt decoded_proto;
  ToProto(decoded, &decoded_proto);
  const DecodedPrompt decoded_back = FromProto(decoded_proto);
  EXPECT_EQ(decoded_back.lease_id, 2u);
  EXPECT_EQ(decoded_back.behavior_version, 3u);
  ASSERT_EQ(decoded_back.unconstrained.size(), 2u);
  ExpectEqual(decoded_back.constrained.at(0), decoded.constrained[0]);
}

TEST(GroupProtoTest, EnumsTranslateBothWays) {
  for (SamplerKind kind :
       {SamplerKind::kBeam, SamplerKind::kSample, SamplerKind::kValueGuided, SamplerKind::kDynamic}) {
    EXPECT_EQ(FromProto(ToProto(kind)).value(), kind);
  }
  for (LogProbSpace space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
    EXPECT_EQ(FromProto(ToProto(space)).value(), space);
  }
}

}  // namespace
}  // namespace sluice

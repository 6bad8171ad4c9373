#include "learner/ledger/check_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace sluice::learner {
namespace {

using testing::HasSubstr;

HubJob Job() {
  HubJob job;
  job.catalog_version = "c1";
  job.levels = 2;
  job.options.group_size = 3;
  job.options.gate.negatives = 2;
  // Leaf of [a, b] is 10 a + b, when b < 5.
  job.find_leaf = [](absl::Span<const int32_t> tokens) { return tokens[1] < 5 ? 10 * tokens[0] + tokens[1] : -1; };
  return job;
}

Completion MakeCompletion(int32_t a, int32_t b) {
  return Completion{{a, b}, b < 5 ? 10 * a + b : -1, {-1.f, -2.f}, {-0.5f, -1.f}};
}

Prompt MakePrompt() {
  Prompt prompt;
  prompt.target = 4;
  return prompt;
}

ScoredGroup MakeGroup() {
  ScoredGroup group;
  group.catalog_version = "c1";
  group.completions = {MakeCompletion(1, 1), MakeCompletion(1, 2), MakeCompletion(2, 3)};
  group.score_status = ScoreStatus::kOk;
  group.ranker_version = "r1";
  group.negative_leaves = {11, 12};
  group.heads = {ScoreHead{"score", {0.1f, 0.2f, 0.3f}, 0.5f, {0.f, -1.f}}};
  group.target_log_probs_full = {-1.f, -1.f};
  group.target_log_probs_trie = {-1.f, 0.f};
  return group;
}

TEST(CheckGroupTest, TakesAWholeGroup) { EXPECT_TRUE(CheckGroup(MakeGroup(), MakePrompt(), Job()).ok()); }

TEST(CheckGroupTest, ItemsOfTheHistoryAreThePromptsOwnAndScored) {
  HubJob job = Job();
  job.options.gate.kind = GateKind::kHistory;
  job.options.gate.history_items = 2;
  Prompt prompt = MakePrompt();
  prompt.history = {5, 6, 7, 6};
  ScoredGroup group = MakeGroup();
  EXPECT_TRUE(CheckGroup(group, prompt, job).ok());  // the server may be of a release that cannot
  group.history_items = {6, 7};
  group.heads[0].history_scores = {1, 2};
  EXPECT_TRUE(CheckGroup(group, prompt, job).ok()) << CheckGroup(group, prompt, job);
  const auto refused = [&](const std::string& why) {
    const absl::Status status = CheckGroup(group, prompt, job);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(why));
  };
  group.heads[0].history_scores = {1};
  refused("history_scores: want 2 values, got 1");
  group.heads[0].history_scores = {1, std::numeric_limits<float>::quiet_NaN()};
  refused("history_scores[1] is nan");
  group.heads[0].history_scores = {1, 2};
  group.history_items = {6, 6};
  refused("history_items[1]: item 6 is there twice");
  group.history_items = {6, 8};
  refused("history_items[1]: item 8 is not in the prompt's history");
  group.history_items = {5, 6, 7};
  refused("history_items: want at most 2, got 3");
  group.history_items = {6, 7};
  job.options.gate.kind = GateKind::kAdaGrpo;
  refused("history_items: want at most 0, got 2");
  job.options.record = true;  // asks for them too
  EXPECT_TRUE(CheckGroup(group, prompt, job).ok());
}

TEST(CheckGroupTest, TakesAnUnscoredGroup) {
  for (ScoreStatus status : {ScoreStatus::kUnavailable, ScoreStatus::kInvalid, ScoreStatus::kRejected}) {
    ScoredGroup group = MakeGroup();
    group.score_status = status;
    group.heads.clear();
    group.ranker_version.clear();
    EXPECT_TRUE(CheckGroup(group, MakePrompt(), Job()).ok());
  }
}

TEST(CheckGroupTest, ATargetOutsideItsPromptsTrieHasNoRenormalisedLogProbs) {
  ScoredGroup group = MakeGroup();
  group.target_log_probs_trie.clear();
  EXPECT_TRUE(CheckGroup(group, MakePrompt(), Job()).ok());
}

TEST(CheckGroupTest, OnlyBeamsAndSearchesMayBeFewer) {
  ScoredGroup group = MakeGroup();
  group.completions.pop_back();
  group.heads[0].completion_scores.pop_back();
  EXPECT_TRUE(CheckGroup(group, MakePrompt(), Job()).ok());
  HubJob job = Job();
  job.options.sampler = SamplerKind::kValueGuided;
  EXPECT_TRUE(CheckGroup(group, MakePrompt(), job).ok());
  for (const SamplerKind sampler : {SamplerKind::kSample, SamplerKind::kDynamic}) {
    job.options.sampler = sampler;
    EXPECT_THAT(std::string(CheckGroup(group, MakePrompt(), job).message()), HasSubstr("completions: want 3, got 2"));
  }
}

TEST(CheckGroupTest, NamesWhatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  struct Case {
    std::function<void(ScoredGroup*)> damage;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](ScoredGroup* g) { g->catalog_version = "c2"; }, "catalog_version: want c1, got c2"},
      {[](ScoredGroup* g) { g->completions.clear(); }, "completions: want 3, got 0"},
      {[](ScoredGroup* g) { g->completions.push_back(MakeCompletion(1, 3)); }, "completions: want 3, got 4"},
      {[](ScoredGroup* g) { g->completions[1].tokens.pop_back(); }, "completions[1].tokens: want 2"},
      {[](ScoredGroup* g) { g->completions[2].log_probs_full.push_back(-1); }, "completions[2].log_probs_full: want 2"},
      {[](ScoredGroup* g) { g->completions[0].log_probs_trie.clear(); }, "completions[0].log_probs_trie: want 2"},
      {[nan](ScoredGroup* g) { g->completions[0].log_probs_full[1] = nan; }, "completions[0].log_probs_full[1]"},
      {[infinity](ScoredGroup* g) { g->completions[0].log_probs_trie[0] = -infinity; }, "log_probs_trie[0] is -inf"},
      {[](ScoredGroup* g) { g->completions[0].log_probs_full[0] = 0.5f; }, "> 0"},
      {[](ScoredGroup* g) { g->completions[0].leaf = -1; }, "without a leaf"},
      {[](ScoredGroup* g) { g->completions[0].leaf = 12; }, "its tokens are leaf 11, it says 12"},
      {[](ScoredGroup* g) { g->heads.clear(); }, "score_status is OK"},
      {[](ScoredGroup* g) { g->score_status = ScoreStatus::kUnavailable; }, "score_status is not OK"},
      {[](ScoredGroup* g) { g->ranker_version.clear(); }, "ranker_version"},
      {[](ScoredGroup* g) { g->negative_leaves.push_back(1); }, "negative_leaves: want at most 2, got 3"},
      {[](ScoredGroup* g) { g->heads[0].completion_scores.pop_back(); }, "head score.completion_scores: want 3"},
      {[](ScoredGroup* g) { g->heads[0].negative_scores.pop_back(); }, "head score.negative_scores: want 2"},
      {[nan](ScoredGroup* g) { g->heads[0].completion_scores[2] = nan; }, "completion_scores[2]"},
      {[nan](ScoredGroup* g) { g->heads[0].target_score = nan; }, "target_score"},
      {[](ScoredGroup* g) { g->target_log_probs_full.clear(); }, "target_log_probs_full: want 2"},
      {[](ScoredGroup* g) { g->target_log_probs_trie.pop_back(); }, "target_log_probs_trie: want 2"},
  };
  for (const Case& bad : cases) {
    ScoredGroup group = MakeGroup();
    bad.damage(&group);
    const absl::Status status = CheckGroup(group, MakePrompt(), Job());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
}

TEST(CheckGroupTest, AJobWithoutRewardsTakesNoScores) {
  HubJob job = Job();
  job.options.objective = ObjectiveKind::kNllOnly;
  EXPECT_FALSE(CheckGroup(MakeGroup(), MakePrompt(), job).ok());
  ScoredGroup group = MakeGroup();
  group.heads.clear();
  group.score_status = ScoreStatus::kNotAsked;
  EXPECT_TRUE(CheckGroup(group, MakePrompt(), job).ok());
  EXPECT_FALSE(CheckGroup(group, MakePrompt(), Job()).ok());
}

TEST(CheckVersionTest, ExactMeansExact) {
  EXPECT_TRUE(CheckVersion(5, {.wanted = 5, .exact = true, .latest = 6}).ok());
  EXPECT_EQ(CheckVersion(6, {.wanted = 5, .exact = true, .latest = 6}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(CheckVersionTest, OtherwiseFromTheWantedToThePublished) {
  const VersionWindow window{.wanted = 5, .exact = false, .latest = 7};
  EXPECT_FALSE(CheckVersion(4, window).ok());
  EXPECT_TRUE(CheckVersion(5, window).ok());
  EXPECT_TRUE(CheckVersion(7, window).ok());
  EXPECT_FALSE(CheckVersion(8, window).ok());  // nobody can hold what was never published
}

TEST(CheckDecodedTest, UnconstrainedBeamsMayLeaveTheCatalogButNotInSecret) {
  DecodedPrompt decoded;
  decoded.constrained = {MakeCompletion(1, 1)};
  decoded.unconstrained = {MakeCompletion(1, 9), MakeCompletion(2, 1)};
  for (Completion& beam : decoded.unconstrained) beam.log_probs_trie.clear();
  EXPECT_TRUE(CheckDecoded(decoded, 2, 2, Job()).ok()) << CheckDecoded(decoded, 2, 2, Job());
  EXPECT_FALSE(CheckDecoded(decoded, 0, 2, Job()).ok());
  EXPECT_FALSE(CheckDecoded(decoded, 2, 3, Job()).ok());
  decoded.unconstrained[0].leaf = 19;
  EXPECT_FALSE(CheckDecoded(decoded, 2, 2, Job()).ok());
}

}  // namespace
}  // namespace sluice::learner

#include "actor/sampling/policy_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "actor/rollout/dynamic_sampling.h"
#include "actor/rollout/rollout_worker.h"
#include "common/catalog/vocabulary.h"
#include "common/decode/decode.h"
#include "common/decode/value_guided.h"
#include "common/model/policy.h"
#include "tests/testing/placement.h"

namespace sluice::actor {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int kCodes = 4;

// 16 items: every pair of codes on two levels.
std::shared_ptr<const Trie> SmallTrie() {
  const SidVocabulary vocabulary{2, kCodes};
  std::vector<int32_t> tokens;
  for (int32_t item = 0; item < kCodes * kCodes; ++item) {
    tokens.push_back(vocabulary.Token(0, item / kCodes));
    tokens.push_back(vocabulary.Token(1, item % kCodes));
  }
  return std::make_shared<const Trie>(*Trie::Build(2, tokens));
}

PolicyConfig MergedConfig(const Trie& trie) {
  PolicyConfig config;
  config.vocab_size = SidVocabulary{2, kCodes}.size();
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_positions = 16;
  config.initializer_range = 0.4;
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = trie.num_leaves();
  config.catalog_version = trie.version();
  config.begin_token = SidVocabulary::kBegin;
  config.begin_reversed_token = SidVocabulary::kBeginReversed;
  return config;
}

std::vector<int32_t> LeavesOf(const std::vector<Completion>& completions) {
  std::vector<int32_t> leaves;
  for (const Completion& completion : completions) leaves.push_back(completion.leaf);
  return leaves;
}

class PolicyDecoderTest : public testing::Test {
 protected:
  PolicyDecoderTest() : trie_(SmallTrie()), config_(MergedConfig(*trie_)) {
    for (uint64_t ordinal = 0; ordinal < 3; ++ordinal) {
      LeasedPrompt leased;
      leased.prompt.ordinal = ordinal;
      leased.prompt.history = {static_cast<int32_t>(ordinal), 7, 7};
      prompts_.push_back(leased);
    }
    settings_.group_size = 4;
  }

  std::unique_ptr<Policy> PolicyOf(uint64_t seed) { return *Policy::Create(config_, trie_, seed); }
  std::string PayloadOf(uint64_t seed) {
    const std::unique_ptr<Policy> policy = PolicyOf(seed);
    const at::Tensor arena = policy->parameters();
    return {reinterpret_cast<const char*>(arena.const_data_ptr<float>()), arena.numel() * sizeof(float)};
  }
  void Prepare(uint64_t version = 1, uint64_t seed = 1) {
    const absl::Status status = decoder_.SetJob(config_.ToJson(), trie_);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(decoder_.LoadWeights(version, PayloadOf(seed)).ok());
  }
  std::vector<Decoder::Snapshot::Sampled> Sample(Decoder::Snapshot& snapshot) {
    const std::vector<uint64_t> seeds(prompts_.size(), 1);
    auto sampled = snapshot.Sample(prompts_, settings_, seeds);
    EXPECT_TRUE(sampled.ok()) << sampled.status();
    return *std::move(sampled);
  }

  std::shared_ptr<const Trie> trie_;
  PolicyConfig config_;
  std::vector<LeasedPrompt> prompts_;
  DecodeSettings settings_;
  PolicyDecoder decoder_{TestPlacement()};
};

TEST_F(PolicyDecoderTest, HasNoSnapshotBeforeTheFirstWeights) {
  EXPECT_EQ(decoder_.LoadWeights(1, PayloadOf(1)).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(decoder_.SetJob(config_.ToJson(), trie_).ok());
  EXPECT_EQ(decoder_.Current(), nullptr);
  ASSERT_TRUE(decoder_.LoadWeights(1, PayloadOf(1)).ok());
  ASSERT_NE(decoder_.Current(), nullptr);
  EXPECT_EQ(decoder_.Current()->version(), 1);
  decoder_.EndJob();
  EXPECT_EQ(decoder_.Current(), nullptr);
}

TEST_F(PolicyDecoderTest, BeamsAreThoseOfTheLearnersPolicyWithoutTheHistory) {
  Prepare(1, 5);
  const std::vector<Decoder::Snapshot::Sampled> sampled = Sample(*decoder_.Current());
  const std::unique_ptr<Policy> learner = PolicyOf(5);
  for (int32_t b = 0; b < 3; ++b) {
    DecodePrompt prompt;
    prompt.input = *learner->EncodePrompt(prompts_[b].prompt.history);
    prompt.excluded_leaves = {b, 7};  // items are numbered as their leaves here
    const auto want = *ConstrainedBeamSearch(*learner, *trie_, {prompt}, 4, LogProbSpace::kFull);
    ASSERT_EQ(LeavesOf(sampled[b].completions), LeavesOf(want[0]));
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_THAT(sampled[b].completions[i].log_probs_trie,
                  testing::Pointwise(testing::FloatNear(1e-4f), want[0][i].log_probs_trie));
    }
  }
  settings_.exclude_history = false;
  settings_.group_size = 16;
  EXPECT_THAT(Sample(*decoder_.Current())[0].completions, SizeIs(16));
}

TEST_F(PolicyDecoderTest, AnItemThatSharesItsSemanticIdWithOneOfTheHistoryCanStillBeFound) {
  // Items 16 and 17 collide with items 7 and 9.
  const SidVocabulary vocabulary{2, kCodes};
  std::vector<int32_t> tokens;
  for (const int32_t code : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 7, 9}) {
    tokens.push_back(vocabulary.Token(0, code / kCodes));
    tokens.push_back(vocabulary.Token(1, code % kCodes));
  }
  trie_ = std::make_shared<const Trie>(*Trie::Build(2, tokens));
  config_ = MergedConfig(*trie_);
  Prepare();
  prompts_.resize(1);
  prompts_[0].prompt.history = {2, 7, 9, 17};
  settings_.group_size = 16;
  const std::vector<int32_t> found = LeavesOf(Sample(*decoder_.Current())[0].completions);
  EXPECT_THAT(found, SizeIs(14));
  EXPECT_THAT(found, testing::Contains(7)) << "for the sake of item 16";
  EXPECT_THAT(found, testing::Not(testing::Contains(2)));
  EXPECT_THAT(found, testing::Not(testing::Contains(9))) << "both of its items are in the history";
}

TEST_F(PolicyDecoderTest, TargetsAreScoredEvenWhenTheHistoryExcludesThem) {
  Prepare();
  prompts_[0].prompt.target = 9;
  prompts_[1].prompt.target = 7;
  const std::vector<Decoder::Snapshot::Sampled> sampled = Sample(*decoder_.Current());
  EXPECT_EQ(sampled[0].target.leaf, 9);
  EXPECT_THAT(sampled[0].target.log_probs_trie, SizeIs(2));
  EXPECT_EQ(sampled[1].target.leaf, 7);
  EXPECT_THAT(sampled[2].target.tokens, IsEmpty());
}

TEST_F(PolicyDecoderTest, SamplesFollowTheirSeeds) {
  Prepare();
  settings_.sampler = SamplerKind::kSample;
  settings_.group_size = 12;
  const auto snapshot = decoder_.Current();
  const auto once = *snapshot->Sample(prompts_, settings_, {1, 2, 3});
  const auto again = *snapshot->Sample(prompts_, settings_, {1, 9, 3});
  EXPECT_THAT(once[0].completions, SizeIs(12));
  EXPECT_EQ(LeavesOf(once[0].completions), LeavesOf(again[0].completions));
  EXPECT_NE(LeavesOf(once[1].completions), LeavesOf(again[1].completions));
}

TEST_F(PolicyDecoderTest, ASearchByValueGivesWhatTheLearnersPolicyGives) {
  config_.value_hidden = 8;
  Prepare(1, 5);
  settings_.sampler = SamplerKind::kValueGuided;
  settings_.group_size = 4;
  settings_.value_search.initial_width = 2;
  settings_.value_search.budget = 9;
  prompts_[1].prompt.target = 9;
  const std::vector<Decoder::Snapshot::Sampled> sampled = Sample(*decoder_.Current());
  const std::unique_ptr<Policy> learner = PolicyOf(5);
  for (int32_t b = 0; b < 3; ++b) {
    DecodePrompt prompt;
    prompt.input = *learner->EncodePrompt(prompts_[b].prompt.history);
    prompt.excluded_leaves = {b, 7};
    prompt.seed = 1;
    ValueSearchOptions search = settings_.value_search;
    search.results = 4;
    const auto want = *DecodeByValue(*learner, *trie_, {prompt}, search);
    EXPECT_EQ(LeavesOf(sampled[b].completions), LeavesOf(want[0].completions));
    EXPECT_LE(sampled[b].completions.size(), 4u);
    EXPECT_GE(sampled[b].completions.size(), 2u);
  }
  EXPECT_EQ(sampled[1].target.leaf, 9);
  EXPECT_THAT(sampled[1].target.log_probs_trie, SizeIs(2));

  // Whole semantic IDs go through the policy, so that a prompt of 15 positions is one too long for its 16.
  prompts_[0].prompt.history.assign(14, 3);
  EXPECT_EQ(Sample(*decoder_.Current())[0].status.code(), absl::StatusCode::kInvalidArgument);
  settings_.sampler = SamplerKind::kBeam;
  EXPECT_TRUE(Sample(*decoder_.Current())[0].status.ok());
}

TEST_F(PolicyDecoderTest, ASearchByValueNeedsAValueHead) {
  Prepare();
  settings_.sampler = SamplerKind::kValueGuided;
  settings_.value_search.initial_width = 2;
  const auto sampled = decoder_.Current()->Sample(prompts_, settings_, std::vector<uint64_t>(3, 1));
  EXPECT_EQ(sampled.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PolicyDecoderTest, DynamicGroupsAreChosenFromHalfAsManyMoreSamples) {
  Prepare();
  settings_.group_size = 12;
  settings_.sampler = SamplerKind::kSample;
  settings_.group_size = 18;
  const std::vector<Decoder::Snapshot::Sampled> drawn = Sample(*decoder_.Current());
  settings_.group_size = 12;
  settings_.sampler = SamplerKind::kDynamic;
  const int32_t target = drawn[0].completions[4].leaf;  // items are numbered as their leaves here
  prompts_[0].prompt.target = target;
  const std::vector<Decoder::Snapshot::Sampled> kept = Sample(*decoder_.Current());
  EXPECT_EQ(LeavesOf(kept[0].completions), LeavesOf(SelectDynamic(drawn[0].completions, target, 12)));
  EXPECT_EQ(LeavesOf(kept[1].completions), LeavesOf(SelectDynamic(drawn[1].completions, -1, 12)));
  EXPECT_EQ(kept[0].completions[0].leaf, target);
  EXPECT_EQ(kept[0].target.leaf, target);
}

TEST_F(PolicyDecoderTest, ABlockKeepsItsWeightsWhileNewOnesArrive) {
  Prepare(1, 1);
  const auto first = decoder_.Current();
  const auto before = Sample(*first);
  ASSERT_TRUE(decoder_.LoadWeights(2, PayloadOf(2)).ok());
  ASSERT_TRUE(decoder_.LoadWeights(4, PayloadOf(3)).ok());  // the first snapshot's arena must not be taken for it
  EXPECT_EQ(first->version(), 1);
  EXPECT_EQ(Sample(*first)[0].completions[0].log_probs_full, before[0].completions[0].log_probs_full);
  EXPECT_EQ(decoder_.Current()->version(), 4);
  EXPECT_NE(Sample(*decoder_.Current())[0].completions[0].log_probs_full, before[0].completions[0].log_probs_full);
}

TEST_F(PolicyDecoderTest, TwoArenasServeAllVersions) {
  Prepare(1, 1);
  const Decoder::Snapshot* first = decoder_.Current().get();
  ASSERT_TRUE(decoder_.LoadWeights(2, PayloadOf(2)).ok());
  const Decoder::Snapshot* second = decoder_.Current().get();
  for (uint64_t version = 3; version < 7; ++version) {
    ASSERT_TRUE(decoder_.LoadWeights(version, PayloadOf(version)).ok());
    EXPECT_EQ(decoder_.Current().get(), version % 2 == 1 ? first : second);
    EXPECT_EQ(decoder_.Current()->version(), version);
  }
}

TEST_F(PolicyDecoderTest, WrongWeightsLeaveTheCurrentOnesAlone) {
  Prepare(3, 1);
  std::string payload = PayloadOf(2);
  EXPECT_EQ(decoder_.LoadWeights(3, payload).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(decoder_.LoadWeights(2, payload).code(), absl::StatusCode::kFailedPrecondition);
  payload.pop_back();
  EXPECT_EQ(decoder_.LoadWeights(4, payload).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decoder_.Current()->version(), 3);
  EXPECT_TRUE(decoder_.LoadWeights(4, PayloadOf(2)).ok());
}

TEST_F(PolicyDecoderTest, SamplingGoesOnWithTheOldWeightsWhileNewOnesAreStaged) {
  Prepare(1, 1);
  const auto before = Sample(*decoder_.Current());
  const std::string payload = PayloadOf(2);
  const auto shadow = decoder_.Stage(payload.size());
  ASSERT_TRUE(shadow.ok()) << shadow.status();
  std::copy_n(payload.begin(), payload.size() / 2, shadow->begin());  // half of them came
  EXPECT_EQ(decoder_.Current()->version(), 1);
  EXPECT_EQ(Sample(*decoder_.Current())[0].completions[0].log_probs_full, before[0].completions[0].log_probs_full);
  // The transfer broke off; another one begins anew.
  const auto again = decoder_.Stage(payload.size());
  ASSERT_TRUE(again.ok());
  std::copy(payload.begin(), payload.end(), again->begin());
  ASSERT_TRUE(decoder_.Commit(2).ok());
  EXPECT_EQ(decoder_.Current()->version(), 2);
  EXPECT_NE(Sample(*decoder_.Current())[0].completions[0].log_probs_full, before[0].completions[0].log_probs_full);
  EXPECT_EQ(decoder_.Commit(3).code(), absl::StatusCode::kFailedPrecondition);  // nothing is staged
}

TEST_F(PolicyDecoderTest, AConfigurationOfAnotherCatalogIsRefused) {
  config_.catalog_version = "another";
  EXPECT_FALSE(decoder_.SetJob(config_.ToJson(), trie_).ok());
  EXPECT_FALSE(decoder_.SetJob("{", trie_).ok());
  EXPECT_EQ(decoder_.Current(), nullptr);
}

TEST_F(PolicyDecoderTest, BadRecordsAreNamedAndTheirNeighboursDecoded) {
  Prepare();
  const auto snapshot = decoder_.Current();
  const std::vector<LeasedPrompt> good = prompts_;
  const auto expect_bad = [&](const std::string& message) {
    const std::vector<Decoder::Snapshot::Sampled> sampled = Sample(*snapshot);
    EXPECT_EQ(sampled[1].status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(sampled[1].status.message()), HasSubstr(message));
    EXPECT_THAT(sampled[1].completions, IsEmpty());
    EXPECT_TRUE(sampled[0].status.ok() && sampled[2].status.ok());
    EXPECT_THAT(sampled[2].completions, SizeIs(4));
    prompts_ = good;
  };
  prompts_[1].prompt.history = {};
  expect_bad("history");
  prompts_[1].prompt.history = {3, 99};
  expect_bad("history item 99 is not in the catalog");
  prompts_[1].prompt.target = 16;
  expect_bad("target 16 is not in the catalog");
  prompts_[1].prompt.history.assign(20, 3);
  expect_bad("the policy has 16");
  prompts_[1].tokens = {1, 4000};
  expect_bad("prompt token 4000");

  prompts_.resize(1);
  prompts_[0].prompt.history = {};
  const auto beams = snapshot->Decode(prompts_, settings_, 3, 2);
  ASSERT_TRUE(beams.ok()) << beams.status();
  EXPECT_FALSE((*beams)[0].status.ok());
}

TEST_F(PolicyDecoderTest, PretokenisedPromptsAreTakenAsTheyAre) {
  Prepare();
  prompts_[0].tokens = {1, 5, 9};
  const auto sampled = Sample(*decoder_.Current());
  DecodePrompt prompt;
  prompt.input = {1, 5, 9};
  prompt.excluded_leaves = {0, 7};
  const auto want = *ConstrainedBeamSearch(*PolicyOf(1), *trie_, {prompt}, 4, LogProbSpace::kFull);
  EXPECT_EQ(LeavesOf(sampled[0].completions), LeavesOf(want[0]));
}

TEST_F(PolicyDecoderTest, DecodeGivesBothKindsOfBeams) {
  Prepare();
  const auto beams = decoder_.Current()->Decode(prompts_, settings_, 5, 3);
  ASSERT_TRUE(beams.ok()) << beams.status();
  for (int32_t b = 0; b < 3; ++b) {
    EXPECT_THAT((*beams)[b].unconstrained, SizeIs(3));
    EXPECT_THAT((*beams)[b].constrained, SizeIs(5));
    EXPECT_THAT(LeavesOf((*beams)[b].constrained), testing::Not(testing::Contains(testing::AnyOf(b, 7))));
  }
}

TEST_F(PolicyDecoderTest, AWorkerExecutesABlockWithIt) {
  Prepare(6);
  RolloutWorker::Options options;
  options.now = [] { return absl::UnixEpoch(); };
  options.wait = [](absl::Duration) { return false; };
  RolloutWorker worker(&decoder_, nullptr, options);
  JobContext job;
  job.catalog_version = trie_->version();
  job.decode = settings_;
  job.reward.enabled = false;
  LeaseBlock block;
  block.policy_version = 6;
  block.prompts = prompts_;
  block.prompts[0].prompt.target = 7;  // in the history: the sampler cannot produce it
  const auto outcomes = worker.Execute(job, block);
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  const ScoredGroup& group = std::get<ScoredGroup>((*outcomes)[0].result);
  ASSERT_THAT(group.completions, SizeIs(4));
  EXPECT_THAT(LeavesOf(group.completions), testing::Not(testing::Contains(7)));
  EXPECT_THAT(group.target_log_probs_full, SizeIs(2));  // teacher-forced, beside the group
  EXPECT_EQ(group.behavior_version, 6);
}

}  // namespace
}  // namespace sluice::actor

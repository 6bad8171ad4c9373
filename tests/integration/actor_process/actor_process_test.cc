// The actor's binary against a learner rank's hub and services: what it samples is what the policy says, checked with
// the policy in this process.
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/catalog/exclusion.h"
#include "common/catalog/vocabulary.h"
#include "common/decode/decode.h"
#include "common/model/policy.h"
#include "common/rpc/server.h"
#include "common/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"
#include "tests/testing/process.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kGenerous = absl::Seconds(120);
constexpr int kItems = 24;
constexpr uint64_t kGroups = 8;

// 24 items over 3 levels of 5 codes, all different.
std::shared_ptr<const Trie> MakeTrie() {
  const SidVocabulary vocabulary{3, 5};
  std::vector<int32_t> tokens;
  for (int item = 0; item < kItems; ++item) {
    tokens.push_back(vocabulary.Token(0, item % 5));
    tokens.push_back(vocabulary.Token(1, item / 5));
    tokens.push_back(vocabulary.Token(2, (3 * item) % 5));
  }
  return std::make_shared<const Trie>(Trie::Build(3, tokens).value());
}

PolicyConfig MakeConfig() {
  PolicyConfig config;
  config.vocab_size = SidVocabulary{3, 5}.size();
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 8;
  config.max_positions = 64;
  config.initializer_range = 0.4;  // far from uniform, so that beams have something to choose
  config.begin_token = SidVocabulary::kBegin;
  return config;
}

class ActorProcessTest : public ::testing::Test {
 protected:
  explicit ActorProcessTest(const learner::PublicationOptions& publication = {})
      : trie_(MakeTrie()),
        hub_({.now = MonotonicClock(), .metrics = &metrics_, .snapshots = &store_, .publication = publication}),
        rollouts_(&hub_),
        policies_(&store_) {}

  void SetUp() override {
    auto server = RpcServer::Start("127.0.0.1:0", {&rollouts_, &policies_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    learner::HubJob job;
    job.job_id = "job-1";
    job.epoch = 1;
    job.seed = 5;
    job.model_config_json = MakeConfig().ToJson();
    job.catalog_version = trie_->version();
    job.levels = 3;
    job.find_leaf = [this](absl::Span<const int32_t> tokens) { return trie_->FindLeaf(tokens); };
    job.groups_per_step = kGroups;
    job.options.staleness = 0;
    job.options.group_size = 6;
    job.options.lease_groups = 4;
    job.options.objective = learner::ObjectiveKind::kNllOnly;
    job.options.target_in_group = false;
    store_.PutCatalog("job-1", *trie_);
    ASSERT_TRUE(hub_.StartJob(job).ok());
  }
  void TearDown() override {
    hub_.DisconnectActors(absl::UnavailableError("the test is over"));
    server_->Shutdown(absl::ZeroDuration());
  }

  std::unique_ptr<Process> StartActor(const std::vector<std::string>& flags = {}) {
    std::vector<std::string> all = {"--learner", server_->address()};
    all.insert(all.end(), flags.begin(), flags.end());
    return std::make_unique<Process>("sluice-actor", all);
  }

  // New random weights under a version.
  void Publish(uint64_t version) {
    policy_ = Policy::Create(MakeConfig(), trie_, /*seed=*/version).value();
    const at::Tensor arena = policy_->parameters();
    hub_.Publish(learner::MakeSnapshot(
        version, absl::MakeConstSpan(arena.const_data_ptr<float>(), static_cast<size_t>(arena.numel()))));
  }

  static std::vector<Prompt> Prompts(uint64_t first, uint64_t count) {
    std::vector<Prompt> prompts(count);
    for (uint64_t i = 0; i < count; ++i) {
      prompts[i].ordinal = first + i;
      prompts[i].history = {static_cast<int32_t>(i), static_cast<int32_t>(i + 7), static_cast<int32_t>(i + 3)};
      prompts[i].target = static_cast<int32_t>((5 * i + 1) % kItems);
    }
    return prompts;
  }

  DecodePrompt Encoded(const Prompt& prompt) const {
    DecodePrompt decode;
    decode.input = policy_->EncodePrompt(prompt.history).value();
    for (int32_t item : prompt.history) decode.excluded_leaves.push_back(trie_->LeafOfItem(item));
    std::sort(decode.excluded_leaves.begin(), decode.excluded_leaves.end());
    return decode;
  }

  // Publishes, issues and checks two steps.
  void ExpectTwoStepsOfThePolicy();

  Metrics metrics_;
  std::shared_ptr<const Trie> trie_;
  std::unique_ptr<Policy> policy_;
  learner::PolicyStore store_;
  learner::RolloutHub hub_;
  learner::GrpcRolloutService rollouts_;
  learner::GrpcPolicyService policies_;
  std::unique_ptr<RpcServer> server_;
};

// The same arithmetic in two processes; only the batch differs, by rounding.
void ExpectSame(const std::vector<Completion>& got, const std::vector<Completion>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    EXPECT_EQ(got[i].leaf, want[i].leaf) << i;
    ASSERT_EQ(got[i].log_probs_full.size(), want[i].log_probs_full.size());
    for (size_t level = 0; level < got[i].log_probs_full.size(); ++level) {
      EXPECT_NEAR(got[i].log_probs_full[level], want[i].log_probs_full[level], 1e-4);
    }
  }
}

void ActorProcessTest::ExpectTwoStepsOfThePolicy() {
  for (uint64_t step = 0; step < 2; ++step) {
    Publish(/*version=*/step + 1);
    ASSERT_TRUE(hub_.Issue(step, Prompts(step * kGroups, kGroups)).ok());
    const auto groups = hub_.Wait(step, kGenerous);
    ASSERT_TRUE(groups.ok()) << groups.status();
    std::vector<learner::Verdict> verdicts;
    for (const learner::TakenGroup& taken : *groups) {
      ASSERT_TRUE(taken.group.has_value()) << taken.error;
      EXPECT_EQ(taken.group->behavior_version, step + 1);
      const auto want =
          ConstrainedBeamSearch(*policy_, *trie_, {Encoded(taken.prompt)}, /*width=*/6, LogProbSpace::kFull);
      ASSERT_TRUE(want.ok()) << want.status();
      ExpectSame(taken.group->completions, want->at(0));
      verdicts.push_back({taken.prompt.ordinal, learner::TerminalState::kTrained, "closed"});
    }
    ASSERT_TRUE(hub_.Commit(step, verdicts).ok());
  }
}

TEST_F(ActorProcessTest, SamplesWhatThePublishedPolicySays) {
  const auto actor = StartActor();
  ExpectTwoStepsOfThePolicy();
  actor->Signal(SIGTERM);
  EXPECT_EQ(actor->Wait(), 0) << actor->said();
  EXPECT_THAT(actor->said(), HasSubstr("draining"));
  EXPECT_EQ(hub_.num_actors(), 0);
}

// The rank sends each version to one actor and waits until both have it.
class TwoActorProcessesTest : public ActorProcessTest {
 protected:
  TwoActorProcessesTest() : ActorProcessTest({.min_actors = 2, .branching = 1}) {}
};

TEST_F(TwoActorProcessesTest, OneSendsTheWeightsOnToTheOther) {
  const auto first = StartActor({"--peer-address", "127.0.0.1:0"});
  const auto second = StartActor({"--peer-address", "127.0.0.1:0"});
  ExpectTwoStepsOfThePolicy();
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_publish_transfers_total{source=\"rank\"} 2"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_publish_transfers_total{source=\"peer\"} 2"));
  for (const auto& actor : {first.get(), second.get()}) {
    actor->Signal(SIGTERM);
    EXPECT_EQ(actor->Wait(), 0) << actor->said();
  }
}

TEST_F(ActorProcessTest, DecodesForEvaluation) {
  const auto actor = StartActor();
  Publish(1);
  std::vector<Prompt> prompts = Prompts(0, 5);
  // More than the history is left out, as evaluation wants it.
  for (Prompt& prompt : prompts) {
    prompt.excluded = prompt.history;
    prompt.excluded.push_back(20);
  }
  ASSERT_TRUE(hub_.OpenDecode({.policy_version = 1, .constrained_beams = 7, .unconstrained_beams = 4}).ok());
  hub_.AddBlock(0, prompts);
  std::vector<learner::DecodedBlock> blocks;
  const absl::Time until = absl::Now() + kGenerous;
  while (blocks.empty() && absl::Now() < until) {
    auto decoded = hub_.TakeDecoded(absl::Milliseconds(100));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    blocks = *std::move(decoded);
  }
  ASSERT_EQ(blocks.size(), 1u) << actor->said();
  hub_.CloseDecode();
  const std::vector<DecodedPrompt>& decoded = blocks[0].prompts;
  ASSERT_EQ(decoded.size(), prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    DecodePrompt encoded = Encoded(prompts[i]);
    encoded.excluded_leaves = ExcludedLeaves(*trie_, prompts[i].excluded);
    const auto constrained = ConstrainedBeamSearch(*policy_, *trie_, {encoded}, 7, LogProbSpace::kFull);
    const auto unconstrained = UnconstrainedBeamSearch(*policy_, *trie_, {encoded}, 4);
    ASSERT_TRUE(constrained.ok() && unconstrained.ok());
    ExpectSame(decoded[i].constrained, constrained->at(0));
    ExpectSame(decoded[i].unconstrained, unconstrained->at(0));
  }
}

TEST_F(ActorProcessTest, AnotherActorFinishesWhatAKilledOneLeaves) {
  const auto doomed = StartActor();
  ASSERT_FALSE(doomed->ReadLineWith("working for a job").empty()) << doomed->said();
  Publish(1);
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, kGroups)).ok());
  doomed->Signal(SIGKILL);
  const auto successor = StartActor();
  const auto groups = hub_.Wait(0, kGenerous);
  ASSERT_TRUE(groups.ok()) << groups.status();
  for (const learner::TakenGroup& taken : *groups) EXPECT_TRUE(taken.group.has_value()) << taken.error;
  EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
}

TEST_F(ActorProcessTest, ExitCodesTellWhatWasWrong) {
  Process without_rank("sluice-actor", {});
  EXPECT_EQ(without_rank.Wait(), 2);
  EXPECT_THAT(without_rank.said(), HasSubstr("--coordinator"));
  Process unknown_flag("sluice-actor", {"--lerner", "127.0.0.1:1"});
  EXPECT_EQ(unknown_flag.Wait(), 2);
  Process port_in_use("sluice-actor", {"--learner", server_->address(), "--address", server_->address()});
  EXPECT_EQ(port_in_use.Wait(), 11);
  EXPECT_THAT(port_in_use.said(), HasSubstr(absl::StrCat("cannot listen at ", server_->address())));
}

}  // namespace
}  // namespace sluice

// EvaluatePolicy with a rank's hub and real decoders of actors, in one process: only the wire between them is left out.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actor/rollout/rollout_worker.h"
#include "actor/sampling/policy_decoder.h"
#include "common/catalog/dataset.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/sync/bounded_queue.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/run/evaluate_policy.h"

namespace sluice {
namespace {

using learner::PromptOutcome;

constexpr int kItems = 100;
constexpr int kSemanticIds = 60;  // the items above share those of the first ones
constexpr uint64_t kVersion = 5;

// Users with 3 to 25 events of which a prompt shows the last 6.
std::shared_ptr<const Dataset> SomeUsers(int users) {
  Dataset::Contents contents;
  contents.levels = 2;
  contents.codes = 8;
  contents.max_history = 6;
  for (int item = 0; item < kItems; ++item) {
    contents.item_names.push_back(std::to_string(item));
    for (const int code : {item % kSemanticIds / 8, item % kSemanticIds % 8}) contents.item_codes.push_back(code);
  }
  contents.first_event = {0};
  Random random(4);
  for (int user = 0; user < users; ++user) {
    contents.user_names.push_back(std::to_string(user));
    const int events = 3 + static_cast<int>(random.Below(23));
    for (int event = 0; event < events; ++event) {
      contents.event_item.push_back(static_cast<int32_t>(random.Below(kItems)));
      contents.event_split.push_back(event == events - 1 ? SplitLabel::kTest : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  return Dataset::FromContents(std::move(contents)).value();
}

PolicyConfig SmallConfig(const Dataset& dataset) {
  PolicyConfig config;
  config.vocab_size = dataset.vocabulary().size();
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_positions = 32;
  config.initializer_range = 0.4;
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = dataset.trie().num_leaves();
  config.catalog_version = dataset.trie().version();
  config.begin_token = SidVocabulary::kBegin;
  config.begin_reversed_token = SidVocabulary::kBeginReversed;
  return config;
}

// How an actor behaves once it has a lease.
enum class Manner {
  kGood,
  kVanishes,      // its stream ends at its first lease
  kHalf,          // answers half of the first lease, then its stream ends
  kOtherWeights,  // has loaded something else, and says so
};

// Leases on their way to an actor; the hub may hold it longer than the actor lives.
struct Mailbox : public learner::ActorSink {
  bool Send(const learner::RankMessage& message) override {
    if (const auto* lease = std::get_if<learner::LeaseMessage>(&message)) return leases.TryPush(*lease);
    return true;
  }
  void Close(const absl::Status&) override {}

  BoundedQueue<learner::LeaseMessage> leases{64};
};

// An actor's decoder and worker on a thread of their own, attached to the hub.
class Actor {
 public:
  Actor(learner::RolloutHub* hub, std::string id, Manner manner, const Dataset& dataset, const PolicyConfig& config,
        const learner::PolicySnapshot& weights)
      : hub_(hub), manner_(manner) {
    job_.job_id = "job";
    job_.catalog_version = dataset.trie().version();
    job_.reward.enabled = false;
    job_.decode.exclude_history = false;  // of rollouts; evaluation says itself what is left out
    EXPECT_TRUE(decoder_.SetJob(config.ToJson(), dataset.shared_trie()).ok());
    const uint64_t version = manner == Manner::kOtherWeights ? kVersion + 1 : kVersion;
    EXPECT_TRUE(decoder_.LoadWeights(version, weights.payload).ok());
    handle_ = hub_->Attach(id, mailbox_).value();
    hub_->OnReady(handle_, "job", kVersion);
    hub_->OnCredit(handle_, 2);
    worker_thread_ = StartThread(id, [this] {
      while (auto lease = mailbox_->leases.Pop()) Execute(*lease);
    });
  }
  ~Actor() {
    mailbox_->leases.Close();
    worker_thread_.Join();
    hub_->Detach(handle_);
  }

 private:
  void Execute(const learner::LeaseMessage& lease) {
    if (gone_) return;
    actor::LeaseBlock block;
    block.job_id = lease.job_id;
    block.lease_id = lease.lease_id;
    EXPECT_EQ(lease.kind, learner::LeaseKind::kDecode);
    block.kind = actor::LeaseKind::kDecode;
    block.policy_version = manner_ == Manner::kOtherWeights ? kVersion + 1 : lease.policy_version;
    block.exact_version = lease.exact_version;
    for (const Prompt& prompt : lease.prompts) block.prompts.push_back({prompt, {}});
    block.constrained_beams = lease.constrained_beams;
    block.unconstrained_beams = lease.unconstrained_beams;
    actor::RolloutWorker worker(&decoder_, nullptr,
                                {.now = MonotonicClock(), .wait = [](absl::Duration) { return false; }});
    auto outcomes = worker.Execute(job_, block);
    ASSERT_TRUE(outcomes.ok()) << outcomes.status();
    size_t answers = outcomes->size();
    if (manner_ == Manner::kVanishes) answers = 0;
    if (manner_ == Manner::kHalf) answers /= 2;
    for (size_t i = 0; i < answers; ++i) {
      hub_->OnResult(handle_, {lease.job_id, lease.epoch, std::get<DecodedPrompt>(outcomes->at(i).result)});
    }
    if (answers < outcomes->size()) {
      gone_ = true;
      hub_->Detach(handle_);
      return;
    }
    hub_->OnCredit(handle_, 1);
  }

  learner::RolloutHub* const hub_;
  const Manner manner_;
  actor::JobContext job_;
  actor::PolicyDecoder decoder_;
  learner::RolloutHub::ActorHandle handle_ = 0;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  bool gone_ = false;  // of the thread
  Thread worker_thread_;
};

class EvaluateTest : public testing::Test {
 protected:
  EvaluateTest()
      : dataset_(SomeUsers(300)),
        examples_(dataset_->Examples(SplitLabel::kTest)),
        policy_(*Policy::Create(SmallConfig(*dataset_), dataset_->shared_trie(), 3)),
        collective_(MakeSingleCollective()),
        hub_({.now = MonotonicClock(), .actor_timeout = absl::Minutes(5)}) {
    learner::HubJob job;
    job.job_id = "job";
    job.model_config_json = policy_->config().ToJson();
    job.catalog_version = dataset_->trie().version();
    job.levels = 2;
    job.find_leaf = [this](absl::Span<const int32_t> tokens) { return dataset_->trie().FindLeaf(tokens); };
    job.groups_per_step = 1;
    job.options.objective = learner::ObjectiveKind::kNllOnly;
    EXPECT_TRUE(hub_.StartJob(job).ok());
    const at::Tensor arena = policy_->parameters();
    weights_ = learner::MakeSnapshot(kVersion,
                                     absl::MakeSpan(arena.const_data_ptr<float>(), static_cast<size_t>(arena.numel())));
    hub_.Publish(weights_);
  }

  std::unique_ptr<Actor> NewActor(const std::string& id, Manner manner) {
    return std::make_unique<Actor>(&hub_, id, manner, *dataset_, policy_->config(), *weights_);
  }

  struct Evaluation {
    std::map<std::string, double> metrics;
    std::vector<PromptOutcome> outcomes;
    learner::EvaluationProgress progress;
  };
  Evaluation Evaluate(bool with_actors, bool exclude_history = true) {
    learner::EvaluationSettings settings;
    settings.beams = 20;
    settings.unconstrained_beams = 5;
    settings.exclude_history = exclude_history;
    settings.batch_prompts = 8;
    settings.now = MonotonicClock();
    if (with_actors) settings.actors = {&hub_, kVersion};
    Evaluation evaluation;
    const auto metrics = EvaluatePolicy(*policy_, *dataset_, examples_, settings, *collective_, &evaluation.outcomes,
                                        [&evaluation](const learner::EvaluationProgress& progress) {
                                          evaluation.progress = progress;
                                          return absl::OkStatus();
                                        });
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    if (metrics.ok()) evaluation.metrics = metrics->ToMap();
    EXPECT_EQ(evaluation.progress.done, static_cast<int64_t>(examples_.size()));
    return evaluation;
  }

  static void ExpectSame(const Evaluation& got, const Evaluation& want) {
    EXPECT_EQ(got.metrics, want.metrics);  // to the last bit
    ASSERT_EQ(got.outcomes.size(), want.outcomes.size());
    for (size_t i = 0; i < want.outcomes.size(); ++i) {
      EXPECT_EQ(got.outcomes[i].user, want.outcomes[i].user) << i;
      EXPECT_EQ(got.outcomes[i].item_rank, want.outcomes[i].item_rank) << i;
      EXPECT_EQ(got.outcomes[i].sid_rank, want.outcomes[i].sid_rank) << i;
      EXPECT_EQ(got.outcomes[i].top_leaves, want.outcomes[i].top_leaves) << i;
      EXPECT_EQ(got.outcomes[i].top_items, want.outcomes[i].top_items) << i;
      EXPECT_EQ(got.outcomes[i].shared_top, want.outcomes[i].shared_top) << i;
      EXPECT_EQ(got.outcomes[i].diversity, want.outcomes[i].diversity) << i;
      EXPECT_EQ(got.outcomes[i].invalid, want.outcomes[i].invalid) << i;
    }
  }

  std::shared_ptr<const Dataset> dataset_;
  std::vector<Example> examples_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Collective> collective_;
  learner::RolloutHub hub_;
  std::shared_ptr<const learner::PolicySnapshot> weights_;
};

TEST_F(EvaluateTest, ActorsAndRanksComeToTheSameNumbers) {
  const Evaluation alone = Evaluate(/*with_actors=*/false);
  EXPECT_EQ(alone.progress.by_actors, 0);
  EXPECT_GT(alone.metrics.at("hr@20"), 0) << "a comparison of nothing with nothing would prove nothing";
  {
    const auto a = NewActor("a", Manner::kGood);
    const auto b = NewActor("b", Manner::kGood);
    const Evaluation helped = Evaluate(/*with_actors=*/true);
    // Two leases each before the rank takes its first block.
    EXPECT_GE(helped.progress.by_actors, 4 * 8);
    ExpectSame(helped, alone);
  }
  ExpectSame(Evaluate(/*with_actors=*/true), alone);  // nobody is attached any more
}

TEST_F(EvaluateTest, TheHistoryIsLeftOutByActorsAsTheEvaluationWantsIt) {
  const Evaluation alone = Evaluate(/*with_actors=*/false, /*exclude_history=*/false);
  const auto actor = NewActor("a", Manner::kGood);
  const Evaluation helped = Evaluate(/*with_actors=*/true, /*exclude_history=*/false);
  EXPECT_GT(helped.progress.by_actors, 0);
  ExpectSame(helped, alone);
  EXPECT_NE(Evaluate(/*with_actors=*/false).metrics, alone.metrics);
}

TEST_F(EvaluateTest, ActorsThatVanishOrAreBehindChangeNothing) {
  const Evaluation alone = Evaluate(/*with_actors=*/false);
  const auto vanishes = NewActor("vanishes", Manner::kVanishes);
  const auto half = NewActor("half", Manner::kHalf);
  const auto other = NewActor("other", Manner::kOtherWeights);
  const auto good = NewActor("good", Manner::kGood);
  const Evaluation helped = Evaluate(/*with_actors=*/true);
  EXPECT_GT(helped.progress.by_actors, 0);
  ExpectSame(helped, alone);
}

}  // namespace
}  // namespace sluice

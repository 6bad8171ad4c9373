// The learner's flow without actors' work: issue a step of 64 groups, lease, take in, judge, commit, with scripted
// actors in the process. items_per_second counts groups; the target is 20 thousand a second. `actors` are attached, and
// work in turn.
#include <benchmark/benchmark.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/metrics/metrics.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/objective/judge.h"
#include "tests/testing/scripted_group.h"
#include "tests/testing/synthetic_dataset.h"

namespace sluice::learner {
namespace {

constexpr int kGroups = 64;  // a step

class Inbox : public ActorSink {
 public:
  bool Send(const RankMessage& message) override {
    if (const auto* lease = std::get_if<LeaseMessage>(&message)) leases.push_back(*lease);
    if (const auto* ack = std::get_if<AckMessage>(&message)) SLUICE_CHECK(ack->accepted, ack->reason);
    return true;
  }
  void Close(const absl::Status&) override {}
  std::vector<LeaseMessage> leases;
};

void Flow(benchmark::State& state) {
  const auto dataset = SyntheticDataset(1000);
  Metrics metrics;
  RolloutHub hub({.now = MonotonicClock(), .metrics = &metrics});
  HubJob job;
  job.job_id = "job";
  job.epoch = 1;
  job.catalog_version = dataset->trie().version();
  job.levels = 4;
  job.find_leaf = [trie = dataset->shared_trie()](absl::Span<const int32_t> tokens) { return trie->FindLeaf(tokens); };
  job.groups_per_step = kGroups;
  job.options.reward.head = "score";
  SLUICE_CHECK(hub.StartJob(job).ok(), "the job opens");
  auto snapshot = std::make_shared<PolicySnapshot>();
  snapshot->version = 1;
  hub.Publish(snapshot);

  struct Actor {
    std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
    RolloutHub::ActorHandle handle = 0;
  };
  std::vector<Actor> actors(static_cast<size_t>(state.range(0)));
  for (size_t a = 0; a < actors.size(); ++a) {
    actors[a].handle = hub.Attach("actor-" + std::to_string(a), actors[a].inbox).value();
    hub.OnReady(actors[a].handle, "job", 1);
  }
  Random random(5);
  std::vector<ScoredGroup> scripts;
  for (int i = 0; i < 32; ++i) scripts.push_back(ScriptedGroup(*dataset, job.options.group_size, 4, &random));

  JudgeContext context;
  context.learner_version = 1;
  context.catalog_version = job.catalog_version;
  context.levels = 4;
  uint64_t step = 0;
  size_t worker = 0;
  for (auto _ : state) {
    std::vector<Prompt> prompts(kGroups);
    for (int i = 0; i < kGroups; ++i) {
      prompts[i].ordinal = step * kGroups + static_cast<uint64_t>(i);
      prompts[i].history.assign(20, i);
      prompts[i].target = i;
    }
    SLUICE_CHECK(hub.Issue(step, std::move(prompts)).ok(), "the step is issued");
    for (int block = 0; block < kGroups / job.options.lease_groups; ++block) {
      Actor& actor = actors[worker++ % actors.size()];
      hub.OnCredit(actor.handle, 1);
      SLUICE_CHECK(actor.inbox->leases.size() == 1, "credit brings a lease");
      const LeaseMessage lease = std::move(actor.inbox->leases.front());
      actor.inbox->leases.clear();
      for (const Prompt& prompt : lease.prompts) {
        ScoredGroup group = scripts[prompt.ordinal % scripts.size()];
        group.ordinal = prompt.ordinal;
        group.attempt = prompt.attempt;
        group.lease_id = lease.lease_id;
        hub.OnResult(actor.handle, ActorResult{"job", 1, std::move(group)});
      }
    }
    const auto taken = hub.Wait(step, absl::Seconds(1));
    SLUICE_CHECK(taken.ok(), taken.status().ToString());
    std::vector<Verdict> verdicts;
    for (const TakenGroup& one : *taken) {
      JudgeInput input{one.prompt.ordinal, &*one.group, dataset->trie().LeafOfItem(one.prompt.target)};
      const auto plan = Judge(input, job.options, context);
      SLUICE_CHECK(plan.ok(), plan.status().ToString());
      verdicts.push_back(
          {one.prompt.ordinal, TerminalState::kTrained, std::string(GateReasonName(plan->verdict.reason))});
    }
    SLUICE_CHECK(hub.Commit(step, verdicts).ok(), "the step is committed");
    ++step;
  }
  state.SetItemsProcessed(state.iterations() * kGroups);
}
BENCHMARK(Flow)->ArgName("actors")->Arg(1)->Arg(400)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace sluice::learner

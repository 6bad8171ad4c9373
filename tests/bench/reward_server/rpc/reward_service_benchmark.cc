// The reward server with the co-occurrence ranker on a catalog of Beauty's shape; requests as actors send them: 8
// groups of 16 completions, 4 negatives and the target.
//   Streams     throughput over gRPC with 1, 4 and 16 clients, each with one request under way, in another process;
//               items_per_second counts candidates, server_cpu_us a group's CPU time in the server
//   InProcess   the same work without gRPC: checks, ranker, results
//   QueueDelay  p50_ms and p99_ms: how long groups wait before they are computed, with Poisson arrivals at `load`
//   percent of
//               what the server can do. The real batcher on a virtual clock: computing takes the time that it was
//               measured to take in this run (cost 0: the co-occurrence ranker), or a fixed time a group and batch
//               (cost 1: 150 us a group and 500 us a batch, a small neural ranker on a CPU). What else runs here does
//               not disturb it.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/log/log.h"
#include "common/random/random.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/status/status.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "reward_server/batch/batcher.h"
#include "reward_server/ranker/cooccurrence_ranker.h"
#include "reward_server/ranker/ranker_set.h"
#include "reward_server/rpc/reward_service.h"
#include "tests/testing/forked_clients.h"
#include "tests/testing/synthetic_dataset.h"

namespace sluice::reward {
namespace {

constexpr int kGroups = 8;       // a request
constexpr int kCandidates = 21;  // a group, the target included
constexpr int kRequests = 20000;

double CpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::vector<std::vector<GroupToScore>> Requests(const Dataset& dataset, int count) {
  Random random(4);
  const std::vector<Example> examples = dataset.Examples(SplitLabel::kTrain);
  std::vector<std::vector<GroupToScore>> requests(static_cast<size_t>(count));
  for (auto& groups : requests) {
    for (int g = 0; g < kGroups; ++g) {
      const Example& example = examples[random.Below(examples.size())];
      GroupToScore& group = groups.emplace_back();
      group.ordinal = static_cast<uint64_t>(g);
      group.user = example.user;
      const auto history = dataset.History(example);
      group.history.assign(history.begin(), history.end());
      group.target = dataset.Target(example);
      for (int c = 0; c + 1 < kCandidates; ++c) {
        group.candidates.push_back(
            {static_cast<int32_t>(static_cast<double>(dataset.num_items()) * random.Uniform() * random.Uniform())});
      }
    }
  }
  return requests;
}

v1::ScoreRequest ToProto(const std::vector<GroupToScore>& groups, const std::string& catalog_version) {
  v1::ScoreRequest request;
  request.set_job_id("job");
  request.set_ranker("cooccurrence");
  request.set_catalog_version(catalog_version);
  for (const GroupToScore& group : groups) {
    v1::GroupToScore* to = request.add_groups();
    to->set_ordinal(group.ordinal);
    to->set_user(group.user);
    to->mutable_history()->Assign(group.history.begin(), group.history.end());
    to->set_target(group.target);
    for (const auto& items : group.candidates)
      to->add_candidates()->mutable_items()->Assign(items.begin(), items.end());
  }
  return request;
}

// In the client process: "<clients> <address>". Asks without a pause, and never ends by itself.
void RunClients(const std::string& order) {
  const std::vector<std::string> words = absl::StrSplit(order, ' ');
  const auto dataset = SyntheticDataset();
  std::vector<v1::ScoreRequest> requests;
  for (const auto& groups : Requests(*dataset, 64)) requests.push_back(ToProto(groups, dataset->trie().version()));
  std::vector<Thread> threads;
  for (int c = 0; c < std::stoi(words.at(0)); ++c) {
    threads.push_back(StartThread("client", [&, c] {
      const auto stub = v1::RewardService::NewStub(MakeChannel(words.at(1)));
      v1::ScoreResponse response;
      for (size_t i = static_cast<size_t>(c);; ++i) {
        grpc::ClientContext context;
        SetDeadline(&context, absl::Seconds(30));
        if (!stub->Score(&context, requests[i % requests.size()], &response).ok()) return;
      }
    }));
  }
}

ForkedClients clients(RunClients);

const std::shared_ptr<const Dataset>& TheDataset() {
  static const auto* const dataset = new std::shared_ptr<const Dataset>(SyntheticDataset());
  return *dataset;
}

// Counts what it scores.
class CountingRanker : public CooccurrenceRanker {
 public:
  using CooccurrenceRanker::CooccurrenceRanker;
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override {
    groups += static_cast<int64_t>(queries.size());
    return CooccurrenceRanker::Score(queries);
  }
  mutable std::atomic<int64_t> groups{0};
};

void Streams(benchmark::State& state) {
  InitLogging("bench", LogFormat::kText, LogLevel::kError);
  RankerSet rankers;
  auto owned = std::make_unique<CountingRanker>(TheDataset());
  const CountingRanker& ranker = *owned;
  rankers.Add(std::move(owned));
  const NowFunction now = MonotonicClock();
  Metrics metrics;
  Batcher batcher(BatcherOptions(), now, &metrics);
  RewardServiceImpl service(&rankers, TheDataset()->trie().version(), &batcher, now, &metrics);
  const auto server = RpcServer::Start("127.0.0.1:0", {&service}).value();
  Thread worker = StartThread("batch", [&] { batcher.Run(); });
  clients.Start(absl::StrCat(state.range(0), " ", server->address()));
  const auto wait_for = [&](int64_t groups) {
    while (ranker.groups < groups) absl::SleepFor(absl::Milliseconds(1));
  };
  wait_for(64 * kGroups);
  const int64_t begin = ranker.groups;
  const double cpu = CpuSeconds();
  for (auto _ : state) wait_for(ranker.groups + 32 * kGroups);
  const int64_t groups = ranker.groups - begin;
  state.counters["server_cpu_us"] = 1e6 * (CpuSeconds() - cpu) / static_cast<double>(groups);
  state.SetItemsProcessed(groups * kCandidates);
  clients.Stop();
  server->Shutdown(absl::ZeroDuration());
  batcher.Close();
}
BENCHMARK(Streams)->ArgName("clients")->Arg(1)->Arg(4)->Arg(16)->UseRealTime()->Unit(benchmark::kMillisecond);

void InProcess(benchmark::State& state) {
  const CooccurrenceRanker ranker(TheDataset());
  const auto requests = Requests(*TheDataset(), 512);
  size_t next = 0;
  for (auto _ : state) {
    std::vector<const GroupToScore*> groups;
    for (const GroupToScore& group : requests[next++ % requests.size()]) groups.push_back(&group);
    benchmark::DoNotOptimize(ScoreGroups(ranker, groups));
  }
  state.SetItemsProcessed(state.iterations() * kGroups * kCandidates);
}
BENCHMARK(InProcess)->Unit(benchmark::kMicrosecond);

// Scores nothing; its time passes on the virtual clock.
class TimedRanker : public Ranker {
 public:
  TimedRanker(absl::Time* now, absl::Duration batch, absl::Duration group) : now_(now), batch_(batch), group_(group) {}
  const std::string& name() const override { return name_; }
  const std::string& version() const override { return name_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return std::numeric_limits<int32_t>::max(); }
  int64_t num_users() const override { return std::numeric_limits<int32_t>::max(); }
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override {
    begun.push_back(*now_);
    *now_ += batch_ + group_ * static_cast<double>(queries.size());
    std::vector<absl::StatusOr<ItemScores>> answers;
    for (const ItemQuery& query : queries) answers.emplace_back(ItemScores{std::vector<float>(query.items.size())});
    return answers;
  }
  mutable std::vector<absl::Time> begun;  // of each batch

 private:
  absl::Time* const now_;
  const absl::Duration batch_, group_;
  const std::string name_ = "timed";
  const std::vector<std::string> heads_ = {"score"};
};

// CPU time of a group in the co-occurrence ranker, checks and results included.
absl::Duration MeasuredCost() {
  const CooccurrenceRanker ranker(TheDataset());
  const auto requests = Requests(*TheDataset(), 512);
  double least = 1e9;
  for (int round = 0; round < 5; ++round) {
    const double begin = CpuSeconds();
    for (const auto& request : requests) {
      std::vector<const GroupToScore*> groups;
      for (const GroupToScore& group : request) groups.push_back(&group);
      benchmark::DoNotOptimize(ScoreGroups(ranker, groups));
    }
    least = std::min(least, (CpuSeconds() - begin) / static_cast<double>(requests.size() * kGroups));
  }
  return absl::Seconds(least);
}

void QueueDelay(benchmark::State& state) {
  const double load = static_cast<double>(state.range(0)) / 100;
  const bool slow = state.range(1) == 1;
  const absl::Duration group_cost = slow ? absl::Microseconds(150) : MeasuredCost();
  const absl::Duration batch_cost = slow ? absl::Microseconds(500) : absl::Microseconds(20);
  const auto requests = Requests(*TheDataset(), 64);
  const BatcherOptions options;
  // What the server can do: one full batch after the other.
  const double full = static_cast<double>(options.max_batch_candidates / kCandidates);
  const double capacity = full / absl::ToDoubleSeconds(batch_cost + group_cost * full);  // groups a second
  const double rate = load * capacity;
  std::vector<double> waits;
  Random random(9);
  for (auto _ : state) {
    absl::Time now = absl::UnixEpoch();
    TimedRanker ranker(&now, batch_cost, group_cost);
    Metrics metrics;
    Batcher batcher(
        options, [&now] { return now; }, &metrics);
    int arrived = 0;
    absl::Time arrival = now;
    const auto submit = [&] {
      const absl::Time present = std::exchange(now, arrival);  // it was queued when it came
      ScoreTask task;
      task.ranker = &ranker;
      task.groups = requests[static_cast<size_t>(arrived) % requests.size()];
      task.done = [&waits, &ranker, came = arrival](absl::StatusOr<std::vector<GroupResult>> results) {
        SLUICE_CHECK(results.ok(), results.status().ToString());
        waits.push_back(absl::ToDoubleMilliseconds(ranker.begun.back() - came));
      };
      const absl::Status status = batcher.Submit(std::move(task));
      SLUICE_CHECK(status.ok(), status.ToString());
      now = present;
      arrival = ++arrived == kRequests ? absl::InfiniteFuture()
                                       : arrival + absl::Seconds(-std::log(1 - random.Uniform()) * kGroups / rate);
    };
    while (arrived < kRequests || batcher.queued_groups() > 0) {
      while (arrival <= now) submit();
      const size_t batches = ranker.begun.size();
      const absl::Time due = batcher.RunOnce();
      if (ranker.begun.size() == batches) now = std::min(due, arrival);
    }
    batcher.Close();
  }
  std::sort(waits.begin(), waits.end());
  state.counters["p50_ms"] = waits[waits.size() / 2];
  state.counters["p99_ms"] = waits[waits.size() * 99 / 100];
  state.counters["group_us"] = absl::ToDoubleMicroseconds(group_cost);
}
BENCHMARK(QueueDelay)
    ->ArgNames({"load", "cost"})
    ->Args({80, 0})
    ->Args({80, 1})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice::reward

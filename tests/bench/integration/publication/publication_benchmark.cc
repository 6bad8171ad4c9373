// Publication of weights: 500 MB through the code of learner and actor over gRPC on loopback, every checksum included,
// beside a bare gRPC stream of the same chunk size, a broadcast in a weight group over Gloo with each actor's hash, all
// taken in turn in the same run, and memcpy.
//
// Counters: GB/s of each (best of the run); over_bare: our rate over the bare stream's, for the transfer alone
// (an actor that fetches and verifies what is encoded already) and with the encoding that a version costs once, however
// many actors fetch it; cpu_over_bare: the same from the CPU time of the process, which a busy machine disturbs less.
// broadcast_over_transfer: the broadcast's rate over our transfer's.
#include <benchmark/benchmark.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "actor/rpc/policy_fetcher.h"
#include "common/collective/weight_group.h"
#include "common/random/random.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/status/status.h"
#include "common/sync/epoch_kv_store.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "common/transfer/transfer.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"

namespace sluice {
namespace {

constexpr size_t kPayloadBytes = 500'000'000;
constexpr uint64_t kPieceBytes = 64 << 20;  // of a broadcast, as learner/publish has it

double Seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The least wall and CPU time over the iterations of a run.
struct Best {
  double wall = 1e9;
  double cpu = 1e9;

  template <typename Work>
  void Measure(const Work& work) {
    const double wall_before = Seconds(CLOCK_MONOTONIC);
    const double cpu_before = Seconds(CLOCK_PROCESS_CPUTIME_ID);
    work();
    cpu = std::min(cpu, Seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before);
    wall = std::min(wall, Seconds(CLOCK_MONOTONIC) - wall_before);
  }
  double GigabytesPerSecond() const { return static_cast<double>(kPayloadBytes) / wall / 1e9; }
};

// Sends one chunk again and again: what gRPC itself costs. Deletes itself.
class BareReactor : public grpc::ServerWriteReactor<v1::Chunk> {
 public:
  explicit BareReactor(const v1::Chunk* chunk) : chunk_(chunk) { StartWrite(chunk_); }
  void OnWriteDone(bool ok) override {
    sent_ += chunk_->data().size();
    if (!ok || sent_ >= kPayloadBytes) {
      Finish(grpc::Status::OK);
    } else {
      StartWrite(chunk_);
    }
  }
  void OnDone() override { delete this; }

 private:
  const v1::Chunk* const chunk_;
  size_t sent_ = 0;
};

class BareService : public v1::PolicyService::CallbackService {
 public:
  BareService() { chunk_.set_data(std::string(kDefaultChunkBytes, 'w')); }
  grpc::ServerWriteReactor<v1::Chunk>* FetchPolicy(grpc::CallbackServerContext*,
                                                   const v1::FetchPolicyRequest*) override {
    return new BareReactor(&chunk_);
  }

 private:
  v1::Chunk chunk_;
};

size_t FetchBare(v1::PolicyService::Stub* stub) {
  grpc::ClientContext context;
  SetDeadline(&context, absl::Minutes(2));
  const auto reader = stub->FetchPolicy(&context, v1::FetchPolicyRequest());
  v1::Chunk chunk;
  size_t bytes = 0;
  while (reader->Read(&chunk)) bytes += chunk.data().size();
  SLUICE_CHECK(reader->Finish().ok(), "the bare stream ends well");
  return bytes;
}

// Rank 0 and `actors` members in threads, one group for all rounds.
class Broadcasts {
 public:
  explicit Broadcasts(int actors) : store_(std::make_shared<EpochKvStore>(MemoryKvStoreOptions())) {
    for (int rank = 0; rank <= actors; ++rank) {
      groups_.push_back(std::make_unique<WeightGroup>(GlooGroups("127.0.0.1"), store_));
    }
  }

  // `places`: each member's memory, that of rank 0 first, whose bytes come to all and hash to `checksum` there.
  void Round(const std::vector<absl::Span<char>>& places, const std::string& checksum) {
    std::vector<Thread> threads;
    for (size_t rank = 0; rank < groups_.size(); ++rank) {
      threads.push_back(StartThread("broadcast", [&, rank] {
        const GroupPlace place = {1, static_cast<int>(rank), static_cast<int>(groups_.size())};
        const absl::Status status = groups_[rank]->Broadcast(place, places[rank], kPieceBytes, absl::Minutes(1));
        SLUICE_CHECK(status.ok(), status.ToString());
        SLUICE_CHECK(rank == 0 || PayloadChecksum({places[rank].data(), places[rank].size()}) == checksum,
                     "it is whole");
      }));
    }
  }

 private:
  const std::shared_ptr<EpochKvStore> store_;
  std::vector<std::unique_ptr<WeightGroup>> groups_;
};

void Publication(benchmark::State& state) {
  const int actors = static_cast<int>(state.range(0));
  Random random(1);
  std::vector<float> arena(kPayloadBytes / sizeof(float));
  for (float& value : arena) value = static_cast<float>(random.Uniform());
  std::vector<float> copy(arena.size());

  learner::PolicyStore store;
  learner::SnapshotEncoder encoder;
  learner::GrpcPolicyService service(&store);
  BareService bare_service;
  auto server = RpcServer::Start("127.0.0.1:0", {&service}).value();
  auto bare_server = RpcServer::Start("127.0.0.1:0", {&bare_service}).value();
  auto bare_stub = v1::PolicyService::NewStub(MakeChannel(bare_server->address()));

  struct Actor {
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<actor::PolicyFetcher> fetcher;
    std::vector<char> shadow = std::vector<char>(kPayloadBytes);
  };
  std::vector<Actor> fetching(static_cast<size_t>(actors));
  for (Actor& one : fetching) {
    one.channel = MakeChannel(server->address());
    actor::PolicyFetcher::Options options;
    options.now = MonotonicClock();
    options.wait = [](absl::Duration) { return false; };
    one.fetcher = std::make_unique<actor::PolicyFetcher>(options);
  }

  Broadcasts broadcasts(actors);
  Best copied, bare, encoded, transferred, broadcast;
  uint64_t version = 0;
  for (auto _ : state) {
    copied.Measure([&] { std::memcpy(copy.data(), arena.data(), kPayloadBytes); });
    bare.Measure([&] {
      std::vector<Thread> threads;
      for (int i = 0; i < actors; ++i) {
        threads.push_back(StartThread("bare", [&] { SLUICE_CHECK(FetchBare(bare_stub.get()) >= kPayloadBytes, ""); }));
      }
    });
    ++version;
    std::shared_ptr<const learner::PolicySnapshot> snapshot;
    encoded.Measure([&] {
      snapshot = encoder.Encode(version, arena);
      store.Put("job", snapshot);
    });
    v1::PolicyOffer offer;
    offer.set_job_id("job");
    offer.set_policy_version(version);
    offer.set_payload_bytes(kPayloadBytes);
    offer.set_checksum(snapshot->checksum);
    transferred.Measure([&] {
      std::vector<Thread> threads;
      for (Actor& one : fetching) {
        threads.push_back(StartThread("fetch", [&] {
          const absl::Status status =
              one.fetcher->FetchPolicy(one.channel, offer, absl::MakeSpan(one.shadow), [] { return true; });
          SLUICE_CHECK(status.ok(), status.ToString());
        }));
      }
    });
    std::vector<absl::Span<char>> places = {{const_cast<char*>(snapshot->payload.data()), kPayloadBytes}};
    for (Actor& one : fetching) places.push_back(absl::MakeSpan(one.shadow));
    broadcast.Measure([&] { broadcasts.Round(places, snapshot->checksum); });
    for (Actor& one : fetching) {
      SLUICE_CHECK(std::memcmp(one.shadow.data(), arena.data(), kPayloadBytes) == 0, "the weights arrive");
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kPayloadBytes) * actors);
  state.counters["memcpy_GBps"] = copied.GigabytesPerSecond();
  state.counters["bare_GBps"] = actors * bare.GigabytesPerSecond();
  state.counters["encode_GBps"] = encoded.GigabytesPerSecond();
  state.counters["transfer_GBps"] = actors * transferred.GigabytesPerSecond();
  state.counters["broadcast_GBps"] = actors * broadcast.GigabytesPerSecond();
  state.counters["broadcast_over_transfer"] = transferred.wall / broadcast.wall;
  state.counters["over_bare"] = bare.wall / transferred.wall;
  state.counters["encoded_over_bare"] = bare.wall / (transferred.wall + encoded.wall);
  state.counters["cpu_over_bare"] = bare.cpu / transferred.cpu;
  state.counters["encoded_cpu_over_bare"] = bare.cpu / (transferred.cpu + encoded.cpu);
  bare_server->Shutdown(absl::ZeroDuration());
  server->Shutdown(absl::ZeroDuration());
}
// Few rounds, each of about a second; the first three take memory, the fourth uses it again.
BENCHMARK(Publication)->ArgName("actors")->Arg(1)->Arg(4)->Iterations(4)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice

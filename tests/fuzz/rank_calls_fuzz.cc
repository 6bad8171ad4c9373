// Every call of a learner rank: the stream of an actor, weights and catalog, the rendezvous of weight groups. Each
// input meets a job with prompts to give out, whose books must add up behind it. The keys of groups are forgotten now
// and then.
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/catalog/trie.h"
#include "common/rpc/rendezvous.h"
#include "common/rpc/server.h"
#include "common/sync/epoch_kv_store.h"
#include "common/time/clock.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/server_calls.h"

namespace sluice::learner {
namespace {

class World {
 public:
  World() : trie_(Trie::Build(2, {0, 2, 0, 3, 1, 2}).value()) {
    server_ = RpcServer::Start("127.0.0.1:0", {&rollouts_, &policies_, &rendezvous_}).value();
    channel_ = server_->InProcessChannel();
  }
  ~World() {
    hub_.DisconnectActors(absl::UnavailableError("over"));
    keys_.Close();
    server_->Shutdown(absl::ZeroDuration());
  }

  void Use(const fuzz::ServerCalls& calls, absl::string_view input) {
    HubJob job;
    job.job_id = "j";
    job.epoch = 4;
    job.seed = 9;
    job.model_config_json = "{}";
    job.catalog_version = "c";
    job.levels = 2;
    job.find_leaf = [this](absl::Span<const int32_t> tokens) { return trie_.FindLeaf(tokens); };
    job.groups_per_step = kPrompts;
    job.options.group_size = 2;
    job.options.lease_groups = 2;
    job.options.staleness = 2;
    fuzz::Require(hub_.StartJob(job).ok(), "a job cannot begin");
    auto snapshot = std::make_shared<PolicySnapshot>();
    snapshot->version = 3;
    snapshot->payload = "1234";
    snapshot->checksum = "abcd";
    store_.Put("j", snapshot);
    store_.PutCatalog("j", trie_);
    hub_.Publish(snapshot);
    std::vector<Prompt> prompts(kPrompts);
    for (uint64_t i = 0; i < kPrompts; ++i) {
      prompts[i].ordinal = i;
      prompts[i].history = {1, 2};
    }
    fuzz::Require(hub_.Issue(0, prompts).ok(), "prompts cannot be issued");
    calls.Make(input, "j", channel_);
    fuzz::Require(hub_.CheckLedger().ok(), "the ledger does not add up");
    hub_.DisconnectActors(absl::UnavailableError("over"));
    hub_.EndJob();
    store_.Clear();
  }

 private:
  static constexpr uint64_t kPrompts = 4;

  Trie trie_;
  PolicyStore store_;
  RolloutHub hub_{{.now = MonotonicClock(), .snapshots = &store_}};
  EpochKvStore keys_{{.max_keys = 8, .max_bytes = 4096, .max_value_bytes = 256, .max_waiters = 2}};
  GrpcRolloutService rollouts_{&hub_};
  GrpcPolicyService policies_{&store_};
  RendezvousService rendezvous_{&keys_};
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace
}  // namespace sluice::learner

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;  // NOLINT(google-build-using-namespace): a file of one function
  static const fuzz::ServerCalls calls(
      {"sluice.v1.RolloutService", "sluice.v1.PolicyService", "sluice.v1.RendezvousService"});
  constexpr int kInputsAWorld = 200;
  static std::unique_ptr<learner::World> world;
  static int left = 0;
  if (left-- == 0) {
    world.reset();
    world = std::make_unique<learner::World>();
    left = kInputsAWorld - 1;
  }
  world->Use(calls, fuzz::Text(data, size));
  return 0;
}

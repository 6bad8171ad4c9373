// Every call of the reward server, with two rankers behind a batcher.
#include <memory>

#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/rpc/server.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "reward_server/batch/batcher.h"
#include "reward_server/ranker/ranker_set.h"
#include "reward_server/rpc/reward_service.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/server_calls.h"
#include "tests/testing/fake_ranker.h"

namespace sluice::reward {
namespace {

class World {
 public:
  World() {
    rankers_.Add(std::make_unique<FakeRanker>("fake"));
    rankers_.Add(std::make_unique<FakeRanker>("other"));
    BatcherOptions options;
    options.max_delay = absl::ZeroDuration();
    batcher_ = std::make_unique<Batcher>(options, MonotonicClock(), &metrics_);
    worker_ = StartThread("batch", [this] { batcher_->Run(); });
    service_ = std::make_unique<RewardServiceImpl>(&rankers_, "c", batcher_.get(), MonotonicClock(), &metrics_);
    server_ = RpcServer::Start("127.0.0.1:0", {service_.get()}).value();
    channel_ = server_->InProcessChannel();
  }
  void Use(const fuzz::ServerCalls& calls, absl::string_view input) { calls.Make(input, "j", channel_); }

 private:
  Metrics metrics_;
  RankerSet rankers_;
  std::unique_ptr<Batcher> batcher_;
  Thread worker_;
  std::unique_ptr<RewardServiceImpl> service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace
}  // namespace sluice::reward

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;  // NOLINT(google-build-using-namespace): a file of one function
  static const fuzz::ServerCalls calls({"sluice.v1.RewardService"});
  static reward::World* const world = new reward::World;
  world->Use(calls, fuzz::Text(data, size));
  return 0;
}

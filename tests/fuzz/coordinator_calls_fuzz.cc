// Every call of the coordinator: of people, of ranks, of data that are pushed. Its books are on a file system in
// memory, and made anew now and then, so that they are neither full nor always empty.
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/time/clock.h"
#include "learner/coordinator/coordinator.h"
#include "learner/data/data_store.h"
#include "learner/job/job_store.h"
#include "learner/rpc/data_service.h"
#include "learner/rpc/guarded_job_service.h"
#include "learner/rpc/job_service.h"
#include "learner/rpc/member_service.h"
#include "sluice/v1/job.grpc.pb.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/server_calls.h"

namespace sluice::learner {
namespace {

class World {
 public:
  World() {
    std::string name = absl::StrCat(IsDirectory("/dev/shm") ? "/dev/shm" : "/tmp", "/sluice_fuzz_XXXXXX");
    fuzz::Require(mkdtemp(name.data()) != nullptr, "cannot make a folder");
    folder_ = name;
    JobStoreOptions store;
    store.runs_folder = JoinPath(folder_, "runs");
    store_ = JobStore::Open(JoinPath(folder_, "jobs.db"), store).value();
    coordinator_ = Coordinator::Create({}, store_.get(), MonotonicClock(), WallClock()).value();
    data_ = DataStore::Open({.root = JoinPath(folder_, "data"), .quota_bytes = 1 << 20}, WallClock()).value();
    JobServiceOptions jobs;
    jobs.runs_folder = store.runs_folder;
    jobs.data = data_.get();
    jobs_ = std::make_unique<JobService>(coordinator_.get(), jobs);
    const RateLimiterOptions no_limit{.per_second = 1e9, .burst = 1e9};
    guard_ = std::make_unique<GuardedJobService>(jobs_.get(), store_.get(), nullptr, nullptr, no_limit);
    data_service_ = std::make_unique<DataService>(
        data_.get(), store_.get(), [guard = guard_.get()](grpc::ServerContextBase* context, absl::string_view method) {
          return guard->AdmitData(context, method);
        });
    members_ = std::make_unique<MemberService>(coordinator_.get(), nullptr);
    server_ = RpcServer::Start("127.0.0.1:0", {guard_.get(), members_.get(), data_service_.get()}).value();
    channel_ = server_->InProcessChannel();
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    v1::SubmitRequest request;
    request.set_request_id("first");
    request.mutable_spec()->set_kind(v1::JOB_KIND_SFT);
    request.mutable_spec()->set_data("d");
    v1::SubmitResponse response;
    fuzz::Require(v1::JobService::NewStub(channel_)->Submit(&context, request, &response).ok(), "no job was taken");
    job_ = response.job_id();
  }
  ~World() {
    jobs_->Stop();
    coordinator_->kv()->Close();
    server_->Shutdown(absl::ZeroDuration());
    RemoveAll(folder_).IgnoreError();
  }

  void Use(const fuzz::ServerCalls& calls, absl::string_view input) {
    calls.Make(input, job_, channel_);
    coordinator_->Tick();
  }

 private:
  std::string folder_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<DataStore> data_;
  std::unique_ptr<JobService> jobs_;
  std::unique_ptr<GuardedJobService> guard_;
  std::unique_ptr<DataService> data_service_;
  std::unique_ptr<MemberService> members_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::string job_;
};

}  // namespace
}  // namespace sluice::learner

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;  // NOLINT(google-build-using-namespace): a file of one function
  constexpr int kInputsAWorld = 200;
  static const fuzz::ServerCalls calls({"sluice.v1.JobService", "sluice.v1.MemberService", "sluice.v1.DataService"});
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

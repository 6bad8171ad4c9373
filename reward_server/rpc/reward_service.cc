#include "reward_server/rpc/reward_service.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/failpoint/failpoint.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "reward_server/rpc/wire.h"

namespace sluice::reward {

// One call. Finish is called once: by Score itself if the request is refused, else by the task.
class RewardServiceImpl::ScoreReactor final : public grpc::ServerUnaryReactor {
 public:
  ScoreReactor(RewardServiceImpl* service, grpc::CallbackServerContext* context)
      : service_(service), context_(context), start_(service->now_()) {}

  absl::Time Deadline() const {
    const std::chrono::system_clock::time_point deadline = context_->deadline();
    if (deadline == std::chrono::system_clock::time_point::max()) return start_ + kDefaultDeadline;
    return start_ + absl::FromChrono(deadline - std::chrono::system_clock::now());
  }
  // Outlives the reactor with whoever holds it.
  std::shared_ptr<const std::atomic<bool>> cancelled() const { return cancelled_; }

  void End(const absl::Status& status) {
    if (status.code() == absl::StatusCode::kResourceExhausted) {
      const int64_t wait_ms = absl::ToInt64Milliseconds(service_->batcher_->RetryHint() + absl::Nanoseconds(999'999));
      context_->AddTrailingMetadata(kRetryAfterTrailer, absl::StrCat(wait_ms));
    }
    service_->Count(status, service_->now_() - start_);
    Finish(ToGrpc(status));
  }

 private:
  void OnCancel() override { cancelled_->store(true); }
  void OnDone() override { delete this; }

  RewardServiceImpl* const service_;
  grpc::CallbackServerContext* const context_;
  const absl::Time start_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

RewardServiceImpl::RewardServiceImpl(const RankerSet* rankers, std::string catalog_version, Batcher* batcher,
                                     NowFunction now, Metrics* metrics)
    : rankers_(rankers), catalog_version_(std::move(catalog_version)), batcher_(batcher), now_(std::move(now)) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kOk, absl::StatusCode::kInvalidArgument, absl::StatusCode::kFailedPrecondition,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kCancelled, absl::StatusCode::kUnknown}) {
    requests_[code] = metrics->AddCounter("sluice_reward_requests_total", "Score calls, by status code.",
                                          {{"code", absl::StatusCodeToString(code)}});
  }
  duration_ = metrics->AddHistogram("sluice_reward_request_duration_seconds", "Time of a Score call in the server.",
                                    {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10});
}

void RewardServiceImpl::Count(const absl::Status& status, absl::Duration duration) {
  const auto found = requests_.find(status.code());
  (found != requests_.end() ? found->second : requests_.at(absl::StatusCode::kUnknown))->Increment();
  duration_->Observe(absl::ToDoubleSeconds(duration));
}

absl::Status RewardServiceImpl::Begin(const v1::ScoreRequest& request, v1::ScoreResponse* response,
                                      ScoreReactor* reactor) {
  SLUICE_ASSIGN_OR_RETURN(const Ranker* ranker, rankers_->Find(request.ranker()));
  if (request.catalog_version() != catalog_version_) {
    return absl::FailedPreconditionError(absl::StrCat("the request is for catalog ", request.catalog_version(),
                                                      ", this server has ", catalog_version_,
                                                      "; start both on the same data set"));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("reward/before_score"));
  ScoreTask task;
  SLUICE_ASSIGN_OR_RETURN(task.groups, GroupsFromProto(request));
  task.ranker = ranker;
  task.deadline = reactor->Deadline();
  task.cancelled = [flag = reactor->cancelled()] { return flag->load(); };
  task.done = [reactor, response, ranker, this](absl::StatusOr<std::vector<GroupResult>> results) {
    if (const absl::Status status = SLUICE_FAILPOINT_STATUS("reward/before_answer"); !status.ok()) results = status;
    if (results.ok()) {
      response->set_ranker_version(ranker->version());
      response->set_catalog_version(catalog_version_);
      ResultsToProto(*results, response);
    }
    reactor->End(results.status());
  };
  return batcher_->Submit(std::move(task));
}

grpc::ServerUnaryReactor* RewardServiceImpl::Score(grpc::CallbackServerContext* context,
                                                   const v1::ScoreRequest* request, v1::ScoreResponse* response) {
  auto* reactor = new ScoreReactor(this, context);  // deletes itself in OnDone
  if (const absl::Status status = Begin(*request, response, reactor); !status.ok()) reactor->End(status);
  return reactor;
}

grpc::ServerUnaryReactor* RewardServiceImpl::Describe(grpc::CallbackServerContext* context,
                                                      const v1::DescribeRankersRequest* /*request*/,
                                                      v1::DescribeRankersResponse* response) {
  response->set_catalog_version(catalog_version_);
  for (const Ranker* ranker : rankers_->all()) {
    v1::DescribeRankersResponse::Ranker* to = response->add_rankers();
    to->set_name(ranker->name());
    to->set_version(ranker->version());
    for (const std::string& head : ranker->heads()) to->add_heads(head);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace sluice::reward

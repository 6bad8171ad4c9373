#include "actor/rpc/grpc_reward_client.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"

namespace sluice::actor {
namespace {

v1::ScoreRequest ToProto(const RewardRequest& request) {
  v1::ScoreRequest proto;
  proto.set_job_id(request.job_id);
  proto.set_ranker(request.ranker);
  proto.set_catalog_version(request.catalog_version);
  proto.set_mean_of_items(request.mean_of_items);
  for (const GroupToScore& group : request.groups) {
    v1::GroupToScore* to = proto.add_groups();
    to->set_ordinal(group.ordinal);
    to->set_attempt(group.attempt);
    to->set_user(group.user);
    to->mutable_history()->Assign(group.history.begin(), group.history.end());
    to->set_target(group.target);
    for (const std::vector<int32_t>& items : group.candidates) {
      to->add_candidates()->mutable_items()->Assign(items.begin(), items.end());
    }
    to->mutable_leave_out()->Assign(group.leave_out.begin(), group.leave_out.end());
  }
  return proto;
}

GroupScoreStatus FromProto(v1::GroupScoreStatus status) {
  switch (status) {
    case v1::GROUP_SCORE_STATUS_OK:
      return GroupScoreStatus::kOk;
    case v1::GROUP_SCORE_STATUS_INVALID_INPUT:
      return GroupScoreStatus::kInvalidInput;
    case v1::GROUP_SCORE_STATUS_NOT_FINITE:
      return GroupScoreStatus::kNotFinite;
    default:
      // Also what a later version may add: certainly not a score.
      return GroupScoreStatus::kFailed;
  }
}

RewardResponse FromProto(const v1::ScoreResponse& proto) {
  RewardResponse response;
  response.ranker_version = proto.ranker_version();
  response.catalog_version = proto.catalog_version();
  for (const v1::GroupScores& from : proto.groups()) {
    GroupScores group;
    group.ordinal = from.ordinal();
    group.attempt = from.attempt();
    group.status = FromProto(from.status());
    group.error = from.error();
    for (const v1::CandidateScores& head : from.heads()) {
      group.heads.push_back(CandidateScores{head.head(), std::vector<float>(head.scores().begin(), head.scores().end()),
                                            head.target(),
                                            std::vector<float>(head.left_out().begin(), head.left_out().end())});
    }
    response.groups.push_back(std::move(group));
  }
  return response;
}

}  // namespace

GrpcRewardClient::GrpcRewardClient(const std::shared_ptr<grpc::Channel>& channel, NowFunction now, Blocked* blocked)
    : stub_(v1::RewardService::NewStub(channel)), now_(std::move(now)), blocked_(blocked) {}

absl::StatusOr<RewardResponse> GrpcRewardClient::Score(const RewardRequest& request, absl::Time deadline) {
  const absl::Duration left = deadline - now_();
  if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("no time left to ask for scores");
  grpc::ClientContext context;
  SetDeadline(&context, left);
  {
    MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the actor is stopping");
    calls_.insert(&context);
  }
  const absl::Cleanup forget = [this, &context] {
    MutexLock lock(&mutex_);
    calls_.erase(&context);
  };
  v1::ScoreResponse response;
  const Blocked::Wait wait(blocked_);
  const grpc::Status status = stub_->Score(&context, ToProto(request), &response);
  if (status.ok()) return FromProto(response);
  const auto& trailer = context.GetServerTrailingMetadata();
  if (auto found = trailer.find("retry_after_ms"); found != trailer.end()) {
    int64_t milliseconds = 0;
    if (absl::SimpleAtoi(absl::string_view(found->second.data(), found->second.size()), &milliseconds) &&
        milliseconds >= 0) {
      return WithRetryAfter(FromGrpc(status), absl::Milliseconds(milliseconds));
    }
  }
  return FromGrpc(status);
}

void GrpcRewardClient::Cancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

}  // namespace sluice::actor

#include "learner/rpc/reward_check.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "sluice/v1/reward.grpc.pb.h"

namespace sluice::learner {
namespace {

// The smallest batch that asks for everything: a history, a target, and two candidates.
v1::ScoreRequest GoldenBatch(const std::string& ranker, const std::string& catalog) {
  v1::ScoreRequest request;
  request.set_job_id("admission");
  request.set_ranker(ranker);
  request.set_catalog_version(catalog);
  v1::GroupToScore* group = request.add_groups();
  group->set_user(-1);
  group->add_history(0);
  group->set_target(0);
  for (int i = 0; i < 2; ++i) group->add_candidates()->add_items(i);
  return request;
}

absl::StatusOr<v1::ScoreResponse> Score(v1::RewardService::Stub* stub, const v1::ScoreRequest& request,
                                        absl::Duration timeout) {
  grpc::ClientContext context;
  SetDeadline(&context, timeout);
  v1::ScoreResponse response;
  SLUICE_RETURN_IF_ERROR(FromServer(stub->Score(&context, request, &response)));
  if (response.groups_size() != 1) {
    return absl::FailedPreconditionError(absl::StrCat("asked for 1 group, got ", response.groups_size()));
  }
  if (response.groups(0).status() != v1::GROUP_SCORE_STATUS_OK) {
    return absl::FailedPreconditionError(absl::StrCat("the golden batch was not scored: ", response.groups(0).error()));
  }
  return response;
}

}  // namespace

absl::StatusOr<std::string> CheckReward(const RewardQuestion& question) {
  SLUICE_ASSIGN_OR_RETURN(const auto channel, MakeChannel(question.address, question.credentials, {Role::kReward}));
  const std::unique_ptr<v1::RewardService::Stub> stub = v1::RewardService::NewStub(channel);
  v1::DescribeRankersResponse described;
  {
    grpc::ClientContext context;
    context.set_wait_for_ready(false);
    SetDeadline(&context, question.timeout);
    const absl::Status status = FromServer(stub->Describe(&context, {}, &described));
    if (!status.ok()) {
      return Annotate(status, absl::StrCat("no reward server answers at ", question.address,
                                           "; start sluice-reward there, or give the coordinator another --reward"));
    }
  }
  const std::string where = absl::StrCat("the reward server at ", question.address);
  std::vector<std::string> names;
  for (const auto& ranker : described.rankers()) names.push_back(ranker.name());
  const std::string name = question.ranker.empty() && !names.empty() ? names.front() : question.ranker;
  // A market's truth comes with an error in its name: "truth:KIND:SHARE" is one of "truth".
  const auto found = std::find(names.begin(), names.end(), name.substr(0, name.find(':')));
  if (found == names.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat(where, " has no ranker '", name, "'; it has ", absl::StrJoin(names, ", ")));
  }
  if (!question.catalog_version.empty() && question.catalog_version != described.catalog_version()) {
    return absl::FailedPreconditionError(absl::StrCat(where, " scores catalog ", described.catalog_version(),
                                                      ", and the job's data set has catalog ", question.catalog_version,
                                                      "; start it with --data of the job"));
  }
  const v1::ScoreRequest batch = GoldenBatch(name, described.catalog_version());
  SLUICE_ASSIGN_OR_RETURN(const v1::ScoreResponse first, Score(stub.get(), batch, question.timeout));
  SLUICE_ASSIGN_OR_RETURN(const v1::ScoreResponse again, Score(stub.get(), batch, question.timeout));
  if (!google::protobuf::util::MessageDifferencer::Equals(first, again)) {
    return absl::FailedPreconditionError(
        absl::StrCat(where, ": ranker '", name, "' scored the same batch differently the second time"));
  }
  return absl::StrCat("ranker '", name, "' ", first.ranker_version(), " at ", question.address,
                      " is ready and repeats its golden batch");
}

}  // namespace sluice::learner

#include "learner/rpc/describe_job.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "common/version/version.h"
#include "learner/rpc/job_messages.h"

namespace sluice::learner {
namespace {

// Among so many latest events the first cause is looked for: more than a job tells between two steps.
constexpr int kLookedAt = 2000;
constexpr int64_t kMaxStateBytes = int64_t{64} << 20;

// The digest of the data that the last checkpoint was made with; nothing if there is none, or it is being replaced.
std::string DataDigestOf(const std::string& checkpoint) {
  if (checkpoint.empty()) return "";
  const absl::StatusOr<std::string> text = ReadFile(JoinPath(checkpoint, "state.json"), kMaxStateBytes);
  if (!text.ok()) return "";
  const nlohmann::json state = nlohmann::json::parse(*text, nullptr, false);
  const auto digest = state.is_object() ? state.find("data_digest") : state.end();
  return digest != state.end() && digest->is_string() ? digest->get<std::string>() : "";
}

}  // namespace

v1::MemberSummary MemberMessage(const Member& member, int rank, absl::Time now) {
  v1::MemberSummary summary;
  summary.set_member_id(member.id);
  summary.set_rank(rank);
  summary.set_address(member.address);
  summary.set_phase(member.phase);
  summary.set_heartbeat_age_s(absl::ToDoubleSeconds(now - member.last_heard));
  summary.set_actors(member.actors);
  summary.set_host(member.host);
  summary.set_version(member.version);
  return summary;
}

absl::StatusOr<v1::DescribeResponse> DescribeJob(Coordinator* coordinator, const std::string& job_id) {
  JobStore* store = coordinator->store();
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store->Get(job_id));
  SLUICE_ASSIGN_OR_RETURN(const std::string owner, store->Owner(job_id));
  SLUICE_ASSIGN_OR_RETURN(const auto metrics, store->LatestMetrics(job_id));
  SLUICE_ASSIGN_OR_RETURN(const auto results, store->Results(job_id));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<JobEvent> events, store->LastEvents(job_id, kLookedAt));
  v1::DescribeResponse response;
  *response.mutable_summary() = SummaryMessage(job);
  if (!response.mutable_spec()->ParseFromString(job.spec)) {
    return absl::DataLossError(absl::StrCat("the spec of job ", job_id, " cannot be read"));
  }
  response.set_owner(owner);
  response.set_spec_digest(job.spec_digest);
  response.set_run_folder(job.run_folder);
  response.set_last_checkpoint(job.last_checkpoint);
  response.set_policy_version(job.policy_version);
  response.set_epoch(job.epoch);
  response.set_forked_from(job.forked_from);
  response.set_fork_checkpoint(job.fork_checkpoint);
  if (job.wish == JobWish::kCancel && !IsTerminal(job.state)) response.set_wish("cancel");
  if (job.wish == JobWish::kPause) response.set_wish("pause");
  response.set_server_version(std::string(ReleaseVersion()));
  (*response.mutable_digests())["spec"] = job.spec_digest;
  if (const std::string data = DataDigestOf(job.last_checkpoint); !data.empty()) {
    (*response.mutable_digests())["data"] = data;
  }
  if (job.state != JobState::kSucceeded && job.state != JobState::kCancelled) {
    if (const JobEvent* cause = FirstCause(events)) *response.mutable_first_cause() = ToMessage(*cause);
  }
  *response.mutable_ledger() = ToMessage(job.balance);
  response.mutable_metrics()->insert(metrics.begin(), metrics.end());
  response.mutable_results()->insert(results.begin(), results.end());
  const CoordinatorSnapshot snapshot = coordinator->Snapshot();
  if (snapshot.job_id != job_id) return response;
  for (int rank = 0; rank < snapshot.world_size && rank < static_cast<int>(snapshot.members.size()); ++rank) {
    *response.add_members() = MemberMessage(snapshot.members[rank], rank, snapshot.now);
  }
  return response;
}

}  // namespace sluice::learner

#include "learner/rpc/admission.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/job_plan/job_plan.h"
#include "common/plan/plan.h"
#include "common/progress/progress.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "learner/rpc/reward_check.h"
#include "learner/rpc/storage_check.h"

namespace sluice::learner {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr char kDigestPrefix[] = "digest:";
// So many ended jobs are looked at for one that is similar.
constexpr int kLookedAt = 200;

absl::Status ResolveOne(const DataStore* data, const char* key, std::string* value) {
  if (!absl::StartsWith(*value, kDigestPrefix)) return absl::OkStatus();
  if (data == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(key,
                                                   ": this coordinator takes no pushed data; start it with "
                                                   "--data-root, or give a path"));
  }
  const std::string rest(absl::StripPrefix(*value, kDigestPrefix));
  const size_t slash = rest.find('/');
  absl::StatusOr<PushedFolder> folder = data->Find(rest.substr(0, slash));
  if (!folder.ok()) return absl::InvalidArgumentError(absl::StrCat(key, ": ", folder.status().message()));
  *value = folder->folder;
  if (slash == std::string::npos) return absl::OkStatus();
  const std::string file = rest.substr(slash + 1);
  if (std::none_of(folder->files.begin(), folder->files.end(),
                   [&file](const PushedFile& one) { return one.path == file; })) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, ": the pushed folder ", folder->digest.substr(0, 12), " has no file '", file, "'"));
  }
  *value = JoinPath(*value, file);
  return absl::OkStatus();
}

// What must be alike for one job's pace to say something of another's.
bool SameWork(const v1::JobSpec& a, const v1::JobSpec& b) {
  v1::ModelSpec model_a = a.model(), model_b = b.model();
  model_a.clear_path();
  model_b.clear_path();
  if (a.kind() != b.kind() || a.data() != b.data() || !MessageDifferencer::Equals(model_a, model_b)) return false;
  switch (a.kind()) {
    case v1::JOB_KIND_RL:
      return a.rl().groups_per_step() == b.rl().groups_per_step() && a.rl().group_size() == b.rl().group_size() &&
             a.rl().objective() == b.rl().objective();
    case v1::JOB_KIND_SFT:
      return a.sft().targets_per_step() == b.sft().targets_per_step();
    case v1::JOB_KIND_EVALUATE:
      return a.evaluate().beams() == b.evaluate().beams();
    default:
      return a.prepare().events() == b.prepare().events();
  }
}

class Admission {
 public:
  Admission(const v1::PlanRequest& request, const AdmissionOptions& options, Coordinator* coordinator,
            const DataStore* data)
      : request_(request), options_(options), coordinator_(coordinator), data_(data) {}

  absl::StatusOr<v1::PlanResponse> Run() {
    v1::JobSpec given = request_.spec();
    const absl::Status resolved = ResolvePushedData(data_, &given);
    absl::StatusOr<v1::JobSpec> effective = resolved.ok() ? CompleteSpec(given) : absl::StatusOr<v1::JobSpec>(resolved);
    if (!effective.ok()) {
      if (!absl::IsInvalidArgument(effective.status())) return effective.status();
      Add("spec", v1::PlanCheck::RESULT_FAILED, effective.status().message());
      return std::move(response_);
    }
    spec_ = *std::move(effective);
    response_.set_effective_yaml(SpecToYaml(spec_));
    response_.set_spec_digest(SpecDigest(spec_));
    Add("spec", v1::PlanCheck::RESULT_OK, absl::StrCat("digest ", response_.spec_digest().substr(0, 12)));
    plan_ = PlanJob(spec_, coordinator_->options().ranks, std::max(1, request_.threads()));
    CheckData();
    CheckModel();
    CheckGroup();
    SLUICE_RETURN_IF_ERROR(CheckQueue());
    CheckStorage();
    CheckRewards();
    SLUICE_RETURN_IF_ERROR(Estimate());
    response_.set_plan_json(plan_.dump());
    return std::move(response_);
  }

 private:
  void Add(const char* name, v1::PlanCheck::Result result, absl::string_view message) {
    v1::PlanCheck* check = response_.add_checks();
    check->set_name(name);
    check->set_result(result);
    check->set_message(std::string(message));
  }

  double Count(const char* name) const {
    const auto& counts = plan_.at("counts");
    return counts.contains(name) ? counts.at(name).get<double>() : 0;
  }

  void CheckData() {
    if (spec_.kind() == v1::JOB_KIND_PREPARE) {
      if (spec_.prepare().has_market()) return Add("data", v1::PlanCheck::RESULT_SKIPPED, "the market is generated");
      if (PathExists(spec_.prepare().events())) {
        return Add("data", v1::PlanCheck::RESULT_OK, absl::StrCat("events at ", spec_.prepare().events()));
      }
      return Add("data", v1::PlanCheck::RESULT_FAILED,
                 absl::StrCat("there are no events at '", spec_.prepare().events(), "' on the coordinator's machine"));
    }
    const absl::StatusOr<std::shared_ptr<const Dataset>> data = Dataset::Load(spec_.data());
    if (!data.ok()) return Add("data", v1::PlanCheck::RESULT_FAILED, data.status().message());
    catalog_ = (*data)->trie().version();
    Add("data", v1::PlanCheck::RESULT_OK,
        absl::StrCat(spec_.data(), ": ", (*data)->num_items(), " items, every file as its manifest says, digest ",
                     (*data)->digest().substr(0, 12)));
  }

  void CheckModel() {
    if (spec_.model().path().empty()) {
      return Add("model", v1::PlanCheck::RESULT_SKIPPED,
                 spec_.kind() == v1::JOB_KIND_PREPARE ? "a prepare job has none" : "a new one with random weights");
    }
    for (const char* place : {"", "export/best", "export/final", "model"}) {
      const std::string file = JoinPath(JoinPath(spec_.model().path(), place), "config.json");
      if (PathExists(file)) return Add("model", v1::PlanCheck::RESULT_OK, absl::StrCat("read from ", file));
    }
    Add("model", v1::PlanCheck::RESULT_FAILED,
        absl::StrCat("there is no model at '", spec_.model().path(), "' on the coordinator's machine"));
  }

  void CheckGroup() {
    const CoordinatorSnapshot snapshot = coordinator_->Snapshot();
    const int ranks = coordinator_->options().ranks;
    const double ways = ranks * static_cast<double>(std::max(1, spec_.rl().lease_groups()));
    if (spec_.kind() == v1::JOB_KIND_RL && std::fmod(spec_.rl().groups_per_step(), ways) != 0) {
      return Add("group", v1::PlanCheck::RESULT_FAILED,
                 absl::StrCat("rl.groups_per_step ", spec_.rl().groups_per_step(), " does not divide over ", ranks,
                              " ranks in leases of ", spec_.rl().lease_groups(), " groups: use a multiple of ",
                              static_cast<int64_t>(ways)));
    }
    if (snapshot.epoch == 0) {
      return Add("group", v1::PlanCheck::RESULT_WARNING,
                 absl::StrCat("no learner group has formed (", snapshot.reason, "); the job will wait"));
    }
    Add("group", v1::PlanCheck::RESULT_OK, absl::StrCat(ranks, " of ", ranks, " ranks are there"));
  }

  absl::Status CheckQueue() {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<JobRecord> waiting, coordinator_->store()->Unfinished());
    const int ahead = static_cast<int>(waiting.size());
    if (ahead >= options_.max_queued) {
      Add("queue", v1::PlanCheck::RESULT_FAILED, absl::StrCat(ahead, " jobs wait already: the queue is full"));
    } else if (ahead > 0) {
      Add("queue", v1::PlanCheck::RESULT_WARNING, absl::StrCat(ahead, " jobs go first"));
    } else {
      Add("queue", v1::PlanCheck::RESULT_OK, "it would start at once");
    }
    return absl::OkStatus();
  }

  void CheckStorage() {
    if (const absl::Status status = TryStorage(options_.runs_folder); !status.ok()) {
      return Add("storage", v1::PlanCheck::RESULT_FAILED, status.message());
    }
    const StorageFacts facts = LookAtStorage(options_.runs_folder);
    // Parameters and two moments in fp32 a checkpoint, and the exports.
    const double kept = std::max(1, spec_.checkpoint().keep()) + spec_.checkpoint().keep_best() + 1.0;
    const double wanted = Count("parameters") * 12 * kept + Count("parameters") * 8;
    const std::string text = absl::StrCat(BytesText(static_cast<double>(facts.free_bytes)), " free of ",
                                          BytesText(static_cast<double>(facts.total_bytes)), " in ",
                                          options_.runs_folder, "; about ", BytesText(wanted), " wanted");
    Add("storage",
        static_cast<double>(facts.free_bytes) < wanted ? v1::PlanCheck::RESULT_FAILED : v1::PlanCheck::RESULT_OK, text);
  }

  void CheckRewards() {
    if (spec_.kind() != v1::JOB_KIND_RL || spec_.rl().objective() == v1::OBJECTIVE_NLL_ONLY) {
      return Add("reward", v1::PlanCheck::RESULT_SKIPPED, "the job asks for no scores");
    }
    if (options_.reward_address.empty()) {
      return Add("reward", v1::PlanCheck::RESULT_SKIPPED,
                 "the coordinator does not know the reward server; start it with --reward HOST:PORT");
    }
    RewardQuestion question;
    question.address = options_.reward_address;
    question.credentials = options_.credentials;
    question.ranker = spec_.rl().reward().ranker();
    question.catalog_version = catalog_;
    const absl::StatusOr<std::string> said = CheckReward(question);
    Add("reward", said.ok() ? v1::PlanCheck::RESULT_OK : v1::PlanCheck::RESULT_FAILED,
        said.ok() ? absl::string_view(*said) : said.status().message());
  }

  absl::Status Estimate() {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<JobRecord> listed, coordinator_->store()->List(kLookedAt));
    std::vector<PastJob> past;
    for (const JobRecord& job : listed) {
      if (job.state != JobState::kSucceeded || job.kind != spec_.kind()) continue;
      const absl::StatusOr<JobRecord> whole = coordinator_->store()->Get(job.id);
      PastJob one{job.id, {}, absl::ToDoubleSeconds(job.ended - job.started), job.step};
      if (whole.ok() && one.spec.ParseFromString(whole->spec)) past.push_back(std::move(one));
    }
    double steps = Count("steps") + Count("steps_at_most");
    if (spec_.kind() == v1::JOB_KIND_EVALUATE) steps = Count("users");
    const TimeEstimate estimate = EstimateTime(spec_, steps, past);
    response_.set_estimate_s(estimate.seconds);
    response_.set_estimate_from(estimate.from);
    response_.set_estimate_how(estimate.how);
    return absl::OkStatus();
  }

  const v1::PlanRequest& request_;
  const AdmissionOptions& options_;
  Coordinator* const coordinator_;
  const DataStore* const data_;
  v1::PlanResponse response_;
  v1::JobSpec spec_;
  nlohmann::ordered_json plan_;
  std::string catalog_;
};

}  // namespace

absl::Status ResolvePushedData(const DataStore* data, v1::JobSpec* spec) {
  if (spec->has_data()) SLUICE_RETURN_IF_ERROR(ResolveOne(data, "data", spec->mutable_data()));
  if (spec->prepare().has_events()) {
    SLUICE_RETURN_IF_ERROR(ResolveOne(data, "prepare.events", spec->mutable_prepare()->mutable_events()));
  }
  if (spec->model().has_path()) {
    SLUICE_RETURN_IF_ERROR(ResolveOne(data, "model.path", spec->mutable_model()->mutable_path()));
  }
  return absl::OkStatus();
}

TimeEstimate EstimateTime(const v1::JobSpec& spec, double steps, const std::vector<PastJob>& past) {
  for (const PastJob& job : past) {
    if (!(job.seconds > 0) || !SameWork(spec, job.spec)) continue;
    TimeEstimate estimate;
    estimate.from = job.id;
    const bool by_steps = steps > 0 && job.steps > 0;
    estimate.seconds = by_steps ? job.seconds / static_cast<double>(job.steps) * steps : job.seconds;
    estimate.how = absl::StrCat(job.id, " did the same work", by_steps ? absl::StrCat(" on ", job.steps, " steps") : "",
                                " in ", HumanDuration(absl::Seconds(job.seconds)));
    return estimate;
  }
  return {};
}

absl::StatusOr<v1::PlanResponse> PlanAdmission(const v1::PlanRequest& request, const AdmissionOptions& options,
                                               Coordinator* coordinator, const DataStore* data) {
  return Admission(request, options, coordinator, data).Run();
}

}  // namespace sluice::learner

// Making jobs: submit, fork, evaluate; and judging specs before.
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/spec_file.h"
#include "client/cli/spec_schema.h"
#include "common/job_plan/job_plan.h"
#include "common/progress/progress.h"
#include "common/status/exit_code.h"

namespace sluice::client {
namespace {

std::string RandomId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

std::string ValidText(const std::string& path, const LocalSpec& spec, size_t overrides) {
  const int given = CountKeys(spec.resolved.given);
  const int all = CountKeys(spec.resolved.effective);
  return absl::StrCat(path, ": valid; ", given, " keys given",
                      overrides == 0 ? "" : absl::StrCat(", ", overrides, " by --set"), ", ", all - given,
                      " defaults; digest ", SpecDigest(spec.resolved.effective).substr(0, 12));
}

// Each mistake as an element, for programs.
nlohmann::ordered_json Mistakes(const absl::Status& status) {
  nlohmann::ordered_json lines = nlohmann::ordered_json::array();
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) lines.push_back(std::string(line));
  return lines;
}

}  // namespace

int Commands::Validate(const std::string& spec_path, const std::vector<std::string>& overrides) {
  const absl::StatusOr<LocalSpec> spec = LoadSpec(spec_path, overrides);
  if (!spec.ok()) {
    if (console().format == OutputFormat::kJson || console().format == OutputFormat::kJsonl ||
        console().format == OutputFormat::kYaml) {
      printer_.One({{"valid", false}, {"mistakes", Mistakes(spec.status())}}, "valid", "");
    }
    return Fail(spec.status());
  }
  if (console().for_people()) Talk(ValidText(spec_path, *spec, overrides.size()));
  // Where every value that counts comes from.
  nlohmann::ordered_json values = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> rows = {{"KEY", "VALUE", "FROM"}};
  for (const auto& [path, value] : FlatSpec(spec->resolved.effective)) {
    const auto place = spec->resolved.places.find(path);
    const std::string from = place == spec->resolved.places.end() ? "default" : place->second.ToString();
    values.push_back({{"path", path}, {"value", value}, {"from", from}});
    rows.push_back({path, value, from});
  }
  printer_.One({{"valid", true},
                {"spec_digest", SpecDigest(spec->resolved.effective)},
                {"keys_given", CountKeys(spec->resolved.given)},
                {"keys", CountKeys(spec->resolved.effective)},
                {"values", values}},
               "spec_digest", console().format == OutputFormat::kWide ? Table(rows) : "");
  return 0;
}

int Commands::Submit(const SubmitFlags& flags) {
  const absl::StatusOr<LocalSpec> spec = LoadSpec(flags.spec_path, flags.overrides);
  if (!spec.ok()) return Fail(spec.status());
  Talk(ValidText(flags.spec_path, *spec, flags.overrides.size()));
  if (flags.dry_run == "server") return DryRunOnServer(spec->resolved.given, flags.threads);
  if (!flags.dry_run.empty()) {
    const std::string yaml = SpecToYaml(spec->resolved.effective);
    nlohmann::ordered_json plan = PlanJob(spec->resolved.effective, flags.ranks, flags.threads);
    const std::string text = yaml + PlanText(plan);
    const std::string digest = SpecDigest(spec->resolved.effective);
    printer_.One({{"spec_digest", digest}, {"spec_yaml", yaml}, {"plan", std::move(plan)}}, "spec_digest", text);
    Talk("dry run: nothing was submitted; above are the spec with its defaults, and its plan");
    return 0;
  }
  v1::SubmitRequest request;
  request.set_request_id(flags.request_id.empty() ? RandomId() : flags.request_id);
  *request.mutable_spec() = spec->resolved.given;
  request.set_spec_yaml(spec->text);
  const absl::StatusOr<v1::SubmitResponse> submitted = client_->Submit(request);
  if (!submitted.ok()) return Fail(submitted.status());
  return Submitted(submitted->job_id(), submitted->existed(), flags.watch);
}

int Commands::Submitted(const std::string& job_id, bool existed, bool watch) {
  printer_.One({{"job_id", job_id}, {"existed", existed}}, "job_id", job_id + "\n");
  Talk(existed ? "this request was submitted before; it is the same job" : absl::StrCat("submitted ", job_id));
  // The id is the data of this command; its story is talk.
  if (watch) return WatchResolved(job_id, 0, console().err, console().err_terminal);
  Talk(absl::StrCat("  follow   sluicectl watch ", job_id, "\n  details  sluicectl describe ", job_id,
                    "\n  logs     sluicectl logs ", job_id, " -f\n  stop     sluicectl cancel ", job_id,
                    "   (saves a checkpoint first)"));
  return 0;
}

int Commands::DryRunOnServer(const v1::JobSpec& given, int threads) {
  v1::PlanRequest request;
  *request.mutable_spec() = given;
  request.set_threads(threads);
  const absl::StatusOr<v1::PlanResponse> plan = client_->Plan(request);
  if (!plan.ok()) return Fail(plan.status());
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> rows;
  bool failed = false;
  for (const v1::PlanCheck& check : plan->checks()) {
    const std::string result = CheckText(check.result());
    checks.push_back({{"name", check.name()}, {"result", result}, {"message", check.message()}});
    rows.push_back({console().color ? ColoredState(result) : result, check.name(), check.message()});
    failed = failed || check.result() == v1::PlanCheck::RESULT_FAILED;
  }
  nlohmann::ordered_json document = {{"admitted", !failed},
                                     {"checks", checks},
                                     {"spec_digest", plan->spec_digest()},
                                     {"spec_yaml", plan->effective_yaml()}};
  std::string text = Table(rows);
  const nlohmann::ordered_json counted = nlohmann::ordered_json::parse(plan->plan_json(), nullptr, false);
  if (counted.is_object() && counted.contains("ranks")) {
    document["plan"] = counted;
    text += PlanText(counted);
  }
  if (plan->estimate_s() > 0) {
    document["estimate"] = {
        {"seconds", plan->estimate_s()}, {"from", plan->estimate_from()}, {"how", plan->estimate_how()}};
    absl::StrAppend(&text, "# About ", HumanDuration(absl::Seconds(plan->estimate_s())), ": ", plan->estimate_how(),
                    "\n");
  } else if (!failed) {
    text += "# Time not known: no similar job has succeeded here yet\n";
  }
  printer_.One(document, "spec_digest", text);
  Talk(failed ? "dry run: nothing was submitted, and the job would fail" : "dry run: nothing was submitted");
  return failed ? static_cast<int>(ExitCode::kUsage) : 0;
}

int Commands::Fork(const ForkFlags& flags) {
  return WithJob(flags.job, [&](const std::string& id) {
    v1::ForkRequest request;
    request.set_request_id(flags.request_id.empty() ? RandomId() : flags.request_id);
    request.set_job_id(id);
    request.mutable_overrides()->Add(flags.overrides.begin(), flags.overrides.end());
    request.set_checkpoint(flags.checkpoint);
    const absl::StatusOr<v1::ForkResponse> forked = client_->Fork(request);
    if (!forked.ok()) return Fail(forked.status());
    Talk(absl::StrCat("begins with the model of ", id, " at ", forked->checkpoint(), ", from step 0"));
    return Submitted(forked->job_id(), forked->existed(), flags.watch);
  });
}

int Commands::Evaluate(const std::string& job, const SubmitFlags& flags) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::DescribeResponse> described = client_->Describe(id);
    if (!described.ok()) return Fail(described.status());
    const bool exported = described->results().contains("export");
    if (!exported && described->last_checkpoint().empty()) {
      return Fail(absl::FailedPreconditionError(
          absl::StrCat(id, " has neither an export nor a checkpoint yet: there is no model to evaluate")));
    }
    v1::JobSpec spec;
    spec.set_kind(v1::JOB_KIND_EVALUATE);
    spec.set_name(absl::StrCat(described->summary().name(), "-evaluate"));
    spec.set_seed(described->spec().seed());
    spec.set_data(described->spec().data());
    spec.mutable_model()->set_path(exported ? described->run_folder() : described->last_checkpoint());
    const std::string yaml = SpecToYaml(spec);
    const absl::StatusOr<ResolvedSpec> resolved =
        ResolveSpec(yaml, absl::StrCat("evaluation of ", id), flags.overrides);
    if (!resolved.ok()) return Fail(resolved.status());
    v1::SubmitRequest request;
    request.set_request_id(flags.request_id.empty() ? RandomId() : flags.request_id);
    *request.mutable_spec() = resolved->given;
    request.set_spec_yaml(yaml);
    const absl::StatusOr<v1::SubmitResponse> submitted = client_->Submit(request);
    if (!submitted.ok()) return Fail(submitted.status());
    return Submitted(submitted->job_id(), submitted->existed(), flags.watch);
  });
}

}  // namespace sluice::client

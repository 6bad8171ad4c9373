#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/evaluate/outcome_file.h"
#include "learner/evaluate/strata.h"
#include "learner/run/evaluate_policy.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/prompt_order.h"
#include "learner/run/results.h"
#include "learner/run/step_control.h"

namespace sluice::learner {
namespace {

// An actor that has not answered by then is slower than this rank is likely to be.
constexpr double kLeaseSeconds = 300;

// Lets this rank's actors decode too.
absl::StatusOr<EvalActors> OpenToActors(const RunContext& context, const std::shared_ptr<const Dataset>& dataset,
                                        const Policy& policy) {
  RolloutJob job;
  job.job_id = context.job_id;
  job.epoch = context.collective->epoch();
  job.seed = context.options.seed;
  job.model_config_json = policy.config().ToJson();
  job.dataset = dataset;
  job.options.objective = ObjectiveKind::kNllOnly;  // nothing is scored: an actor without a reward server will do
  job.options.lease_deadline_s = kLeaseSeconds;
  job.groups_per_step = 1;  // nothing is rolled out
  SLUICE_ASSIGN_OR_RETURN(GroupSource* const source, context.rollouts->StartJob(job));
  EvalActors actors;
  SnapshotEncoder encoder;
  SLUICE_ASSIGN_OR_RETURN(actors.policy_version, PublishPolicy(context, policy, 0, source, &encoder));
  actors.source = context.rollouts->evaluation();
  return actors;
}

const char* ParityName(UserParity parity) {
  switch (parity) {
    case UserParity::kEven:
      return "even";
    case UserParity::kOdd:
      return "odd";
    case UserParity::kAll:
      break;
  }
  return "all";
}

std::string TableRow(const std::string& name, const std::map<std::string, double>& metrics, bool with_truth) {
  const auto value = [&metrics](const char* key) {
    const auto found = metrics.find(key);
    return found == metrics.end() ? std::string("-") : absl::StrFormat("%.4f", found->second);
  };
  std::string row =
      absl::StrFormat("%-22s %7s %7s %7s %7s %7s %7s %13s", name, value("hr@1"), value("hr@5"), value("hr@10"),
                      value("hr@20"), value("hr@50"), value("ndcg@10"), value("hallucination"));
  if (with_truth) absl::StrAppend(&row, absl::StrFormat(" %8s %10s", value("mass@10"), value("utility@10")));
  return row;
}

}  // namespace

absl::Status RunEvaluate(const RunContext& context) {
  const EvaluateOptions& options = context.options.evaluate;
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(context.options.data));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, MakePolicy(context, *dataset));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RunFolder> folder, RunFolder::Open(context.run_folder, context.now));
  const std::string split = options.test_split ? "test" : "validation";
  const std::vector<Example> examples =
      ChooseExamples(OfParity(dataset->Examples(options.test_split ? SplitLabel::kTest : SplitLabel::kValidation),
                              options.user_parity),
                     options.users, DeriveSeed(context.options.seed, {kValidationSeed}));
  if (examples.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the data set '", dataset->folder(), "' has no ", split, " targets",
                                                   options.user_parity == UserParity::kAll ? "" : " of that parity"));
  }

  EvaluationSettings settings;
  settings.beams = options.beams;
  settings.unconstrained_beams = options.unconstrained_beams;
  settings.exclude_history = options.exclude_history;
  settings.head_share = options.head_share;
  settings.now = context.now;
  const absl::Cleanup close = [&context] {
    if (context.rollouts != nullptr) context.rollouts->EndJob();
  };
  if (context.rollouts != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(settings.actors, OpenToActors(context, dataset, *policy));
  }

  context.monitor->SetPhase("evaluation");
  StepControl control(context, absl::ZeroDuration());
  EvaluationProgress last;
  const auto look = [&](const EvaluationProgress& progress) -> absl::Status {
    last = progress;
    if (progress.done == progress.total) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(const StepDecision decision, control.Agree());
    if (decision.stop == StopRequest::kCancel) return absl::CancelledError("cancelled on request");
    // Nothing to resume from: an evaluation that is preempted starts again.
    if (decision.stop == StopRequest::kPreempt) return PreemptedError("preempted; run again");
    if (decision.time_is_up) {
      return absl::DeadlineExceededError(absl::StrCat("time_limit_s = ", context.options.time_limit_s, " passed after ",
                                                      progress.done, " of ", progress.total,
                                                      " users; raise it or set evaluate.users"));
    }
    if (context.is_first()) context.monitor->ReportMetrics(progress.done, progress.total, {});
    return absl::OkStatus();
  };
  std::vector<PromptOutcome> mine;
  SLUICE_ASSIGN_OR_RETURN(const RankingMetrics total,
                          EvaluatePolicy(*policy, *dataset, examples, settings, *context.collective, &mine, look));
  const ExampleLists shown = ListsToShow(*dataset, 0, mine);
  SLUICE_ASSIGN_OR_RETURN(std::vector<PromptOutcome> outcomes,
                          GatherOutcomes(*context.collective, std::move(mine), examples.size()));
  if (!context.is_first()) return absl::OkStatus();

  OutcomeTable table;
  table.setting = {.data = DataDigest(*dataset),
                   .split = split,
                   .levels = dataset->trie().levels(),
                   .beams = options.beams,
                   .unconstrained_beams = options.unconstrained_beams,
                   .exclude_history = options.exclude_history};
  table.rows = OutcomeRows(*dataset, examples, std::move(outcomes), options.exclude_history);
  AddTruthColumns(&table);
  SLUICE_RETURN_IF_ERROR(WriteOutcomes(folder->outcomes(), table));
  RecordExamples(context, *folder, shown);

  RunResults results;
  results.kind = "evaluate";
  results.texts["name"] = context.options.name;
  results.numbers["run"]["seconds"] = absl::ToDoubleSeconds(control.spent());
  results.numbers["run"]["decoded_by_actors"] = static_cast<double>(last.by_actors);
  results.numbers["metrics"] = total.ToMap();
  for (auto& [stratum, values] : Stratify(table)) results.numbers[stratum] = std::move(values);
  results.texts["data"] = dataset->folder();
  results.texts["data_name"] = dataset->name();
  results.texts["split"] = split;
  results.texts["user_parity"] = ParityName(options.user_parity);
  results.texts["model"] = context.options.model.path;
  SLUICE_RETURN_IF_ERROR(RewindMetrics(context, folder.get(), std::nullopt).status());
  SLUICE_RETURN_IF_ERROR(RecordMetrics(context, folder.get(), examples.size(), examples.size(),
                                       absl::ToDoubleSeconds(control.spent()), total.ToMap()));
  const bool with_truth = dataset->truth() != nullptr && dataset->truth()->exact_metrics();
  if (dataset->truth() != nullptr && !with_truth) {
    context.monitor->ReportLog(absl::StrCat("mass@10 and utility@10 are not measured: exact numbers over ",
                                            dataset->num_items(), " items of ", dataset->truth()->dim(),
                                            " dimensions would take longer than decoding; the limit is ",
                                            MarketTruth::kMaxExactProducts, " products"));
  }
  context.monitor->ReportLog(absl::StrFormat("%-22s %7s %7s %7s %7s %7s %7s %13s%s", dataset->name(), "HR@1", "HR@5",
                                             "HR@10", "HR@20", "HR@50", "NDCG@10", "hallucination",
                                             with_truth ? "  mass@10 utility@10" : ""));
  if (options.baseline) {
    const RankingMetrics rule =
        EvaluateCooccurrenceRule(*dataset, examples, options.head_share, nullptr, options.exclude_history);
    results.numbers["baseline"] = rule.ToMap();
    context.monitor->ReportLog(TableRow("co-occurrence rule", rule.ToMap(), with_truth));
    if (with_truth) {
      // What a list can reach at all: for the users, and for the log.
      const auto bound = [&](double popularity_weight) {
        return EvaluateTruth(*dataset, examples, options.head_share, popularity_weight, options.exclude_history)
            .ToMap();
      };
      results.numbers["by_utility"] = bound(0);
      results.numbers["by_exposed_utility"] = bound(1);
      context.monitor->ReportLog(TableRow("true utility", results.numbers["by_utility"], true));
      context.monitor->ReportLog(TableRow("utility + log exposure", results.numbers["by_exposed_utility"], true));
    }
  }
  context.monitor->ReportLog(TableRow("policy", total.ToMap(), with_truth));
  return WriteOutcome(context, *folder, std::move(results));
}

}  // namespace sluice::learner

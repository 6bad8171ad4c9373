#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/run/evaluate_policy.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/prompt_order.h"
#include "learner/run/results.h"
#include "learner/run/step_control.h"

namespace sluice::learner {
namespace {

// Users between two looks at stop requests: all ranks look at the same places.
constexpr size_t kExamplesPerRound = 512;

std::string TableRow(const std::string& name, const std::map<std::string, double>& metrics) {
  const auto value = [&metrics](const char* key) {
    const auto found = metrics.find(key);
    return found == metrics.end() ? std::string("-") : absl::StrFormat("%.4f", found->second);
  };
  return absl::StrFormat("%-22s %7s %7s %7s %7s %7s %7s %13s", name, value("hr@1"), value("hr@5"), value("hr@10"),
                         value("hr@20"), value("hr@50"), value("ndcg@10"), value("hallucination"));
}

}  // namespace

absl::Status RunEvaluate(const RunContext& context) {
  const EvaluateOptions& options = context.options.evaluate;
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(context.options.data));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, MakePolicy(context, *dataset));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RunFolder> folder, RunFolder::Open(context.run_folder));
  const std::vector<Example> examples =
      ChooseExamples(dataset->Examples(options.test_split ? SplitLabel::kTest : SplitLabel::kValidation), options.users,
                     DeriveSeed(context.options.seed, {kValidationSeed}));
  if (examples.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the data set '", dataset->folder(), "' has no ",
                                                   options.test_split ? "test" : "validation", " targets"));
  }

  context.monitor->SetPhase("evaluation");
  EvaluationSettings settings;
  settings.beams = options.beams;
  settings.unconstrained_beams = options.unconstrained_beams;
  settings.exclude_history = options.exclude_history;
  StepControl control(context, absl::ZeroDuration());
  RankingMetrics total(dataset->trie().num_leaves(), options.beams);
  std::vector<double> sums = total.ToSums();
  for (size_t first = 0; first < examples.size(); first += kExamplesPerRound) {
    SLUICE_ASSIGN_OR_RETURN(const StepDecision decision, control.Agree());
    if (decision.stop == StopRequest::kCancel) return absl::CancelledError("cancelled on request");
    // Nothing to resume from: an evaluation that is preempted starts again.
    if (decision.stop == StopRequest::kPreempt) return PreemptedError("preempted; run again");
    if (decision.time_is_up) {
      return absl::DeadlineExceededError(absl::StrCat("time_limit_s = ", context.options.time_limit_s, " passed after ",
                                                      first, " of ", examples.size(),
                                                      " users; raise it or set evaluate.users"));
    }
    const size_t count = std::min(kExamplesPerRound, examples.size() - first);
    SLUICE_ASSIGN_OR_RETURN(
        const RankingMetrics round,
        EvaluatePolicy(*policy, *dataset, absl::MakeSpan(examples).subspan(first, count), settings, *context.collective,
                       nullptr, [](int64_t, int64_t) { return absl::OkStatus(); }));
    const std::vector<double> more = round.ToSums();
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
    if (context.is_first()) context.monitor->ReportMetrics(first + count, examples.size(), {});
  }
  SLUICE_RETURN_IF_ERROR(total.SetSums(sums));
  if (!context.is_first()) return absl::OkStatus();

  RunResults results;
  results.kind = "evaluate";
  results.texts["name"] = context.options.name;
  results.numbers["run"]["seconds"] = absl::ToDoubleSeconds(control.spent());
  results.numbers["metrics"] = total.ToMap();
  results.texts["data"] = dataset->folder();
  results.texts["data_name"] = dataset->name();
  results.texts["split"] = options.test_split ? "test" : "validation";
  results.texts["model"] = context.options.model.path;
  SLUICE_RETURN_IF_ERROR(RewindMetrics(context, folder.get(), std::nullopt).status());
  SLUICE_RETURN_IF_ERROR(RecordMetrics(context, folder.get(), examples.size(), examples.size(),
                                       absl::ToDoubleSeconds(control.spent()), total.ToMap()));
  context.monitor->ReportLog(absl::StrFormat("%-22s %7s %7s %7s %7s %7s %7s %13s", dataset->name(), "HR@1", "HR@5",
                                             "HR@10", "HR@20", "HR@50", "NDCG@10", "hallucination"));
  if (options.baseline) {
    const RankingMetrics rule = EvaluateCooccurrenceRule(*dataset, examples, nullptr);
    results.numbers["baseline"] = rule.ToMap();
    context.monitor->ReportLog(TableRow("co-occurrence rule", rule.ToMap()));
  }
  context.monitor->ReportLog(TableRow("policy", total.ToMap()));
  SLUICE_RETURN_IF_ERROR(WriteResults(folder->results(), results));
  context.monitor->ReportResult("results", folder->results());
  return absl::OkStatus();
}

}  // namespace sluice::learner

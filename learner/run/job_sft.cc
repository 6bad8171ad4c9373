#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/results.h"
#include "learner/run/step_control.h"
#include "learner/train/adamw.h"
#include "learner/train/sft_plan.h"
#include "learner/train/sft_step.h"

namespace sluice::learner {
namespace {

// Steps between two lines of metrics.
constexpr uint64_t kMetricsEvery = 10;
constexpr char kSelectionMetric[] = "validation/hr@10";

// One sft job on one rank.
class SftJob {
 public:
  explicit SftJob(const RunContext& context)
      : context_(context), options_(context.options.sft), control_(context, absl::ZeroDuration()) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  // Trains one pass, or what is left of it. Sets ended_ when the job is to end.
  absl::Status TrainPass(int pass);
  absl::Status ValidateNow();
  absl::Status Finish();
  // Progress in passes, as a share of the job.
  double PassShare(int pass, size_t step, size_t steps) const {
    return (pass + static_cast<double>(step) / static_cast<double>(steps)) / options_.passes;
  }

  const RunContext& context_;
  const SftOptions& options_;
  StepControl control_;
  std::shared_ptr<const Dataset> dataset_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<AdamW> optimizer_;
  std::vector<Example> validation_;
  uint64_t step_ = 0;
  uint64_t total_steps_ = 0;  // an estimate: augmentation changes a pass's length a little
  bool ended_ = false;
  std::string ending_;

  std::map<std::string, double> latest_;  // of the last validation
  double best_ = -1;
  uint64_t best_step_ = 0;
  int without_gain_ = 0;
  at::Tensor best_parameters_;
  std::map<std::string, double> best_metrics_;
};

absl::Status SftJob::Prepare() {
  SLUICE_ASSIGN_OR_RETURN(dataset_, Dataset::Load(context_.options.data));
  SLUICE_ASSIGN_OR_RETURN(policy_, MakePolicy(context_, *dataset_));
  SLUICE_ASSIGN_OR_RETURN(folder_, RunFolder::Open(context_.run_folder));
  optimizer_ =
      std::make_unique<AdamW>(policy_->parameters(), policy_->gradients(), policy_->decay_mask(), options_.optimizer);
  validation_ = ValidationExamples(context_, *dataset_, options_.validation.users);
  if (validation_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the data set '", dataset_->folder(),
                                                   "' has no validation targets; prepare it with another split"));
  }
  return absl::OkStatus();
}

absl::Status SftJob::TrainPass(int pass) {
  const SftPlanner planner(*dataset_, options_, DeriveSeed(context_.options.seed, {kBatchSeed}));
  const std::vector<SftStepPlan> plans = planner.PlanPass(pass);
  if (plans.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no user of '", dataset_->folder(), "' has two training events; nothing can be trained"));
  }
  if (total_steps_ == 0) total_steps_ = plans.size() * static_cast<uint64_t>(options_.passes);
  context_.monitor->SetPhase("training");
  for (size_t i = 0; i < plans.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(const StepDecision decision, control_.Agree());
    if (decision.stop == StopRequest::kCancel) return absl::CancelledError("cancelled on request");
    if (decision.stop == StopRequest::kPreempt) return PreemptedError("preempted; run again to resume");
    if (decision.time_is_up) {
      ended_ = true;
      ending_ = absl::StrFormat("the time limit of %.0f s ended training in pass %d of %d",
                                context_.options.time_limit_s, pass + 1, options_.passes);
      return absl::OkStatus();
    }
    const double progress = std::max(PassShare(pass, i, plans.size()), decision.time_share);
    const double rate = ScheduledLearningRate(options_.optimizer, progress);
    const uint64_t dropout_seed = DeriveSeed(context_.options.seed, {kDropoutSeed, step_});
    SLUICE_ASSIGN_OR_RETURN(const SftStepResult result,
                            SftStep(*policy_, dataset_->trie(), *optimizer_, *context_.collective, plans[i], rate,
                                    options_.dropout, dropout_seed));
    ++step_;
    if (step_ % kMetricsEvery == 0) {
      SLUICE_RETURN_IF_ERROR(RecordMetrics(context_, folder_.get(), step_, total_steps_,
                                           absl::ToDoubleSeconds(control_.spent()),
                                           {{"loss/nll", result.loss},
                                            {"gradient_norm", result.gradient_norm},
                                            {"learning_rate", rate},
                                            {"pass", pass + static_cast<double>(i + 1) / plans.size()}}));
    }
  }
  return absl::OkStatus();
}

absl::Status SftJob::ValidateNow() {
  SLUICE_ASSIGN_OR_RETURN(latest_, Validate(context_, *policy_, *dataset_, validation_, options_.validation));
  SLUICE_RETURN_IF_ERROR(
      RecordMetrics(context_, folder_.get(), step_, total_steps_, absl::ToDoubleSeconds(control_.spent()), latest_));
  const double value = latest_[kSelectionMetric];
  if (context_.is_first()) {
    context_.monitor->ReportLog(absl::StrFormat("step %d: validation HR@10 %.4f, NDCG@10 %.4f, hallucination %.4f",
                                                step_, value, latest_["validation/ndcg@10"],
                                                latest_["validation/hallucination"]));
  }
  if (value <= best_) {
    ++without_gain_;
    return absl::OkStatus();
  }
  best_ = value;
  best_step_ = step_;
  without_gain_ = 0;
  best_metrics_ = latest_;
  if (!best_parameters_.defined()) best_parameters_ = policy_->parameters().detach().clone();
  best_parameters_.copy_(policy_->parameters().detach());
  return absl::OkStatus();
}

absl::Status SftJob::Finish() {
  if (!context_.is_first()) return absl::OkStatus();
  if (!ending_.empty()) context_.monitor->ReportLog(ending_);
  SLUICE_RETURN_IF_ERROR(ExportPolicy(*policy_, *folder_, "final"));
  policy_->parameters().detach().copy_(best_parameters_);
  SLUICE_RETURN_IF_ERROR(ExportPolicy(*policy_, *folder_, "best"));
  RunResults results;
  results.kind = "sft";
  results.numbers["best"] = best_metrics_;
  results.numbers["best"]["step"] = static_cast<double>(best_step_);
  results.numbers["final"] = latest_;
  results.numbers["final"]["step"] = static_cast<double>(step_);
  results.numbers["run"]["seconds"] = absl::ToDoubleSeconds(control_.spent());
  results.texts["data"] = dataset_->folder();
  results.texts["export"] = folder_->export_folder("best");
  results.texts["ending"] = ending_;
  SLUICE_RETURN_IF_ERROR(WriteResults(folder_->results(), results));
  context_.monitor->ReportResult("export", folder_->export_folder("best"));
  context_.monitor->ReportResult("results", folder_->results());
  return absl::OkStatus();
}

absl::Status SftJob::Run() {
  SLUICE_RETURN_IF_ERROR(Prepare());
  for (int pass = 0; pass < options_.passes && !ended_; ++pass) {
    SLUICE_RETURN_IF_ERROR(TrainPass(pass));
    const bool last = ended_ || pass + 1 == options_.passes;
    const bool due = options_.validation.every > 0 && (pass + 1) % options_.validation.every == 0;
    if (!last && !due) continue;
    SLUICE_RETURN_IF_ERROR(ValidateNow());
    if (options_.validation.patience > 0 && without_gain_ >= options_.validation.patience) {
      ended_ = true;
      ending_ = absl::StrFormat("stopped early: %d validations without a better HR@10", without_gain_);
    }
  }
  return Finish();
}

}  // namespace

absl::Status RunSft(const RunContext& context) { return SftJob(context).Run(); }

}  // namespace sluice::learner

#include <torch/types.h>

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
#include "learner/run/job_checkpoint.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/results.h"
#include "learner/run/step_control.h"
#include "learner/run/validation.h"
#include "learner/train/adamw.h"
#include "learner/train/sft_plan.h"
#include "learner/train/sft_step.h"
#include "learner/train/step_lanes.h"

namespace sluice::learner {
namespace {

// Steps between two lines of metrics.
constexpr uint64_t kMetricsEvery = 10;

// One sft job on one rank.
class SftJob {
 public:
  explicit SftJob(const RunContext& context) : context_(context), options_(context.options.sft) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  // Trains one pass, or what is left of it. Sets ended_ when the job is to end.
  absl::Status TrainPass(int pass);
  absl::Status ValidateNow() { return validation_->Run(*policy_, step_, total_steps_, seconds(), {}); }
  struct Place {
    int pass = 0;
    size_t step = 0;  // of the pass
  };
  // Of a job that goes on at `next`.
  absl::Status SaveCheckpoint(Place next, JobCheckpoints::Writing writing);
  bool SaveIsDue() const {
    const int every = context_.options.checkpoint.every;
    return every > 0 && step_ % static_cast<uint64_t>(every) == 0;
  }
  // Too many validations without a better policy: also true of a job that is resumed after the last of them.
  bool StopsEarly() const {
    return options_.validation.patience > 0 && validation_->best().without_gain() >= options_.validation.patience;
  }
  absl::Status Finish();
  // Progress in passes, as a share of the job.
  double PassShare(int pass, size_t step, size_t steps) const {
    return (pass + static_cast<double>(step) / static_cast<double>(steps)) / options_.passes;
  }

  double seconds() const { return absl::ToDoubleSeconds(control_->spent()); }

  const RunContext& context_;
  const SftOptions& options_;
  std::unique_ptr<StepControl> control_;
  std::shared_ptr<const Dataset> dataset_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<StepLanes> lanes_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<JobCheckpoints> checkpoints_;
  std::unique_ptr<Validation> validation_;
  uint64_t step_ = 0;
  uint64_t total_steps_ = 0;  // an estimate: augmentation changes a pass's length a little
  Place first_;               // where a resumed job goes on
  Place next_;                // where it would go on after what is done
  bool ended_ = false;
  std::string ending_;
};

absl::Status SftJob::Prepare() {
  SLUICE_ASSIGN_OR_RETURN(dataset_, Dataset::Load(context_.options.data));
  SLUICE_ASSIGN_OR_RETURN(policy_, MakePolicy(context_, *dataset_));
  if (options_.item_loss_weight > 0 && policy_->config().encoder != PromptEncoderKind::kMerged) {
    return absl::InvalidArgumentError(
        "sft.item_loss_weight compares item vectors, and the model's encoder, codes, has none; set it to 0 or train a "
        "model with model.encoder: merged");
  }
  SLUICE_ASSIGN_OR_RETURN(folder_, RunFolder::Open(context_.run_folder, context_.now));
  optimizer_ =
      std::make_unique<AdamW>(policy_->parameters(), policy_->gradients(), policy_->decay_mask(), options_.optimizer);
  validation_ = std::make_unique<Validation>(context_, *dataset_, options_.validation, *folder_);
  if (validation_->empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the data set '", dataset_->folder(),
                                                   "' has no validation targets; prepare it with another split"));
  }
  checkpoints_ = std::make_unique<JobCheckpoints>(context_, *folder_, DataDigest(*dataset_));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointState> state,
                          checkpoints_->Resume(policy_.get(), optimizer_.get()));
  SLUICE_ASSIGN_OR_RETURN(lanes_, StepLanes::Create(policy_.get(), nullptr, LanesFor(*policy_, at::get_num_threads())));
  control_ = std::make_unique<StepControl>(context_, state ? absl::Seconds(state->seconds) : absl::ZeroDuration());
  SLUICE_ASSIGN_OR_RETURN(
      auto latest, RewindMetrics(context_, folder_.get(), state ? std::optional<uint64_t>(state->step) : std::nullopt));
  validation_->SetLatest(std::move(latest));
  if (!state) return absl::OkStatus();
  step_ = state->step;
  first_ = {static_cast<int>(state->numbers.at("pass")), static_cast<size_t>(state->numbers.at("step_of_pass"))};
  validation_->Restore(state->numbers);
  if (context_.is_first()) {
    context_.monitor->ReportLog(absl::StrCat("resumed from the checkpoint of step ", step_));
  }
  return absl::OkStatus();
}

absl::Status SftJob::SaveCheckpoint(Place next, JobCheckpoints::Writing writing) {
  // A checkpoint's steps are in the metrics, whatever happens to the machine.
  if (context_.is_first()) SLUICE_RETURN_IF_ERROR(folder_->SyncMetrics());
  CheckpointState state;
  state.step = step_;
  state.seconds = seconds();
  state.numbers["pass"] = next.pass;
  state.numbers["step_of_pass"] = static_cast<double>(next.step);
  validation_->Save(&state.numbers);
  state.score = validation_->ScoreAt(step_);
  return checkpoints_->Save(std::move(state), *policy_, *optimizer_, {}, writing);
}

absl::Status SftJob::TrainPass(int pass) {
  const SftPlanner planner(*dataset_, options_, DeriveSeed(context_.options.seed, {kBatchSeed}));
  const std::vector<SftStepPlan> plans = planner.PlanPass(pass);
  if (plans.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no user of '", dataset_->folder(), "' has two training events; nothing can be trained"));
  }
  const size_t first = pass == first_.pass ? first_.step : 0;
  total_steps_ = step_ + (plans.size() - first) + plans.size() * static_cast<uint64_t>(options_.passes - pass - 1);
  context_.monitor->SetPhase("training");
  for (size_t i = first; i < plans.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(const StepDecision decision, control_->Agree());
    if (decision.stop != StopRequest::kNone) {
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint({pass, i}, JobCheckpoints::Writing::kNow));
      if (decision.stop == StopRequest::kCancel) {
        return absl::CancelledError(absl::StrCat("cancelled on request after step ", step_));
      }
      return PreemptedError(absl::StrCat("preempted after the checkpoint of step ", step_, "; run again to resume"));
    }
    if (decision.time_is_up) {
      ended_ = true;
      next_ = {pass, i};
      ending_ = absl::StrFormat("the time limit of %.0f s ended training in pass %d of %d",
                                context_.options.time_limit_s, pass + 1, options_.passes);
      return absl::OkStatus();
    }
    const double progress = control_->Progress(PassShare(pass, i, plans.size()), decision);
    const double rate = ScheduledLearningRate(options_.optimizer, progress, PassShare(0, 1, plans.size()));
    const uint64_t dropout_seed = DeriveSeed(context_.options.seed, {kDropoutSeed, step_});
    SLUICE_ASSIGN_OR_RETURN(const SftStepResult result,
                            SftStep(*lanes_, dataset_->trie(), *optimizer_, *context_.collective, plans[i],
                                    {.learning_rate = rate,
                                     .dropout = options_.dropout,
                                     .dropout_seed = dropout_seed,
                                     .item_loss_weight = options_.item_loss_weight}));
    ++step_;
    if (step_ % kMetricsEvery == 0) {
      std::map<std::string, double> numbers = {{"loss/nll", result.loss},
                                               {"gradient_norm", result.gradient_norm},
                                               {"learning_rate", rate},
                                               {"pass", pass + static_cast<double>(i + 1) / plans.size()}};
      if (options_.item_loss_weight > 0) numbers["loss/items"] = result.item_loss;
      SLUICE_RETURN_IF_ERROR(RecordMetrics(context_, folder_.get(), step_, total_steps_, seconds(), numbers));
    }
    // The one at a pass's end waits for its validation, or a resume would repeat that.
    if (SaveIsDue() && i + 1 < plans.size()) {
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint({pass, i + 1}, JobCheckpoints::Writing::kBehind));
    }
  }
  return absl::OkStatus();
}

absl::Status SftJob::Finish() {
  // So that the command of a job that is done repeats nothing.
  SLUICE_RETURN_IF_ERROR(SaveCheckpoint(next_, JobCheckpoints::Writing::kNow));
  if (!context_.is_first()) return absl::OkStatus();
  if (!ending_.empty()) context_.monitor->ReportLog(ending_);
  SLUICE_RETURN_IF_ERROR(ExportPolicy(context_, *policy_, *folder_, "final"));
  RunResults results;
  results.kind = "sft";
  results.texts["name"] = context_.options.name;
  results.numbers["best"] = validation_->best().metrics();
  results.numbers["final"] = validation_->latest();
  results.numbers["final"]["step"] = static_cast<double>(step_);
  results.numbers["run"]["seconds"] = seconds();
  results.texts["data"] = dataset_->folder();
  results.texts["export"] = folder_->export_folder("best");
  results.texts["ending"] = ending_;
  return WriteOutcome(context_, *folder_, results);
}

absl::Status SftJob::Run() {
  SLUICE_RETURN_IF_ERROR(Prepare());
  next_ = first_;
  for (int pass = first_.pass; pass < options_.passes && !ended_ && !StopsEarly(); ++pass) {
    SLUICE_RETURN_IF_ERROR(TrainPass(pass));
    if (!ended_) next_ = {pass + 1, 0};
    const bool last = ended_ || pass + 1 == options_.passes;
    const bool due = options_.validation.every > 0 && (pass + 1) % options_.validation.every == 0;
    if (last || due) SLUICE_RETURN_IF_ERROR(ValidateNow());
    if (SaveIsDue() && !last) SLUICE_RETURN_IF_ERROR(SaveCheckpoint(next_, JobCheckpoints::Writing::kBehind));
  }
  if (ending_.empty() && StopsEarly()) {
    ending_ =
        absl::StrFormat("stopped early: %d validations without a better HR@10", validation_->best().without_gain());
  }
  return Finish();
}

}  // namespace

absl::Status RunSft(const RunContext& context) { return SftJob(context).Run(); }

}  // namespace sluice::learner

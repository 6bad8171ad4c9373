#include "learner/run/metered_monitor.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"
#include "learner/objective/gate.h"

namespace sluice::learner {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();
constexpr char kLoss[] = "loss/nll";  // every training step has it, and nothing else
constexpr char kValidationPrefix[] = "validation/";

struct ValueSeries {
  const char* key;
  const char* name;
  const char* help;
  MetricLabels labels;
};

std::vector<ValueSeries> StepValues() {
  std::vector<ValueSeries> all = {
      {kLoss, "sluice_nll_loss_nats", "NLL term of the last step, per token; NaN: no step yet.", {}},
      {"loss/grpo", "sluice_policy_gradient_loss", "Policy-gradient term of the last step; NaN: not measured.", {}},
      {"gradient_norm", "sluice_gradient_norm", "Norm of the last step's gradient before clipping.", {}},
      {"learning_rate", "sluice_learning_rate", "Learning rate of the last step.", {}},
      {"gate/open_rate", "sluice_gate_open_ratio", "Share of the last step's groups that trained by reward.", {}},
      {"reward/mean",
       "sluice_reward_mean",
       "Mean reward of the last step's completions; NaN: no group had scores.",
       {}},
      {"reward/target_mean", "sluice_reward_target_mean", "Mean reward of the logged items; NaN: no scores.", {}},
      {"group/zero_advantage_share",
       "sluice_zero_advantage_groups_ratio",
       "Share of the last step's scored groups whose completions all got the same reward.",
       {}},
      {"group/diversity", "sluice_group_diversity_ratio", "Distinct completions over completions, mean of groups.", {}},
      {"staleness/mean", "sluice_staleness_mean_versions", "Mean staleness of the last step's groups.", {}},
      {"staleness/max", "sluice_staleness_max_versions", "Largest staleness of the last step's groups.", {}},
      {"kl/mean", "sluice_kl_mean_nats", "Mean KL to the reference per token; NaN: the job has no reference.", {}},
      {"mismatch/max",
       "sluice_log_prob_mismatch_max_nats",
       "Largest difference of a log-probability between actor and learner at the same weights.",
       {}},
  };
  for (int reason = 0; reason < kNumGateReasons; ++reason) {
    const std::string name(GateReasonName(static_cast<GateReason>(reason)));
    all.push_back({nullptr,
                   "sluice_gate_reason_ratio",
                   "Share of the last step's groups by the gate's reason.",
                   {{"reason", name}}});
  }
  return all;
}

std::vector<ValueSeries> ValidationValues() {
  return {
      {"validation/hr@10", "sluice_validation_hit_ratio", "Hit rate of the last validation at rank k.", {{"k", "10"}}},
      {"validation/ndcg@10", "sluice_validation_ndcg_ratio", "NDCG of the last validation at rank k.", {{"k", "10"}}},
      {"validation/hallucination",
       "sluice_validation_hallucination_ratio",
       "Share of the last validation's free beams that are no item of the catalog.",
       {}},
  };
}

}  // namespace

absl::string_view OutcomeName(const absl::Status& status) {
  switch (ExitCodeFor(status)) {
    case ExitCode::kDone:
      return "done";
    case ExitCode::kPreempted:
      return "preempted";
    case ExitCode::kCancelled:
      return "cancelled";
    case ExitCode::kHeld:
      return "held";
    case ExitCode::kTransient:
      return "broken";
    case ExitCode::kNoSpace:
      return "no_space";
    default:
      return "failed";
  }
}

JobSeries::JobSeries(Metrics* metrics, NowFunction wall) : wall_(std::move(wall)) {
  running_ = metrics->AddGauge("sluice_job_running", "1 while this process is the first rank of a job that runs.");
  step_ =
      metrics->AddGauge("sluice_job_step", "Steps of the present or last job that are done; users, if it evaluates.");
  total_steps_ = metrics->AddGauge("sluice_job_total_steps", "Steps, or users, that the present or last job is to do.");
  started_ = metrics->AddGauge("sluice_job_start_timestamp_seconds",
                               "When the present or last job began or went on here; NaN: there was none.");
  progressed_ =
      metrics->AddGauge("sluice_job_last_progress_timestamp_seconds",
                        "When the job last did a step, a part of an evaluation, a checkpoint or a new phase.");
  checkpointed_ = metrics->AddGauge("sluice_checkpoint_last_success_timestamp_seconds",
                                    "When this process last wrote a whole checkpoint; NaN: never.");
  steps_ =
      metrics->AddCounter("sluice_steps_total", "Training steps done, those of a ranker in a prepare job included.");
  degraded_steps_ =
      metrics->AddCounter("sluice_degraded_steps_total",
                          "Training steps of which more groups than rl.operational_share trained on logged "
                          "truth alone for operational reasons.");
  checkpoints_ = metrics->AddCounter("sluice_checkpoints_total", "Checkpoints written.");
  const std::vector<double> buckets = {.01, .03, .1, .3, 1, 3, 10, 30, 60, 120, 300, 600};
  wait_ = metrics->AddHistogram("sluice_step_duration_seconds", "Time of a step by part: wait for groups, train.",
                                buckets, {{"part", "wait"}});
  train_ = metrics->AddHistogram("sluice_step_duration_seconds", "Time of a step by part: wait for groups, train.",
                                 buckets, {{"part", "train"}});
  const auto add = [metrics](const std::vector<ValueSeries>& all, std::vector<Value>* values) {
    for (const ValueSeries& one : all) {
      const std::string key = one.key != nullptr ? one.key : absl::StrCat("gate/", one.labels.at("reason"));
      values->push_back({key, metrics->AddGauge(one.name, one.help, one.labels)});
      values->back().gauge->Set(kNotMeasured);
    }
  };
  add(StepValues(), &of_steps_);
  add(ValidationValues(), &of_validations_);
  for (const char* outcome : {"done", "preempted", "cancelled", "held", "broken", "no_space", "failed"}) {
    ended_[outcome] = metrics->AddCounter("sluice_jobs_ended_total", "Jobs that ended on their first rank, by outcome.",
                                          {{"outcome", outcome}});
  }
  for (Gauge* gauge : {started_, progressed_, checkpointed_}) gauge->Set(kNotMeasured);
}

double JobSeries::Now() const { return absl::ToUnixMillis(wall_()) / 1000.0; }

void JobSeries::Start() {
  for (const std::vector<Value>* values : {&of_steps_, &of_validations_}) {
    for (const Value& value : *values) value.gauge->Set(kNotMeasured);
  }
  step_->Set(0);
  total_steps_->Set(0);
  started_->Set(Now());
  Progress();
  running_->Set(1);
}

void JobSeries::Progress() { progressed_->Set(Now()); }

void JobSeries::Step(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) {
  step_->Set(static_cast<double>(step));
  total_steps_->Set(static_cast<double>(total_steps));
  Progress();
  const auto value_of = [&values](const std::string& key) {
    const auto found = values.find(key);
    return found != values.end() ? found->second : kNotMeasured;
  };
  if (values.count(kLoss) > 0) {
    steps_->Increment();
    if (value_of("degraded") == 1) degraded_steps_->Increment();
    for (const Value& value : of_steps_) value.gauge->Set(value_of(value.key));
    if (const auto wait = values.find("seconds/wait"); wait != values.end()) wait_->Observe(wait->second);
    if (const auto train = values.find("seconds/train"); train != values.end()) train_->Observe(train->second);
  }
  const auto first = values.lower_bound(kValidationPrefix);
  if (first == values.end() || !absl::StartsWith(first->first, kValidationPrefix)) return;
  for (const Value& value : of_validations_) value.gauge->Set(value_of(value.key));
}

void JobSeries::Checkpoint() {
  checkpoints_->Increment();
  checkpointed_->Set(Now());
  Progress();
}

void JobSeries::End(const absl::Status& status) {
  running_->Set(0);
  ended_.find(OutcomeName(status))->second->Increment();
}

MeteredMonitor::MeteredMonitor(JobMonitor* next, JobSeries* series) : next_(next), series_(series) { series_->Start(); }

void MeteredMonitor::SetPhase(const std::string& phase) {
  {
    MutexLock lock(&mutex_);
    if (phase != phase_) series_->Progress();
    phase_ = phase;
  }
  next_->SetPhase(phase);
}

void MeteredMonitor::ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) {
  series_->Step(step, total_steps, values);
  next_->ReportMetrics(step, total_steps, values);
}

void MeteredMonitor::ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                                      const LedgerBalance& ledger) {
  series_->Checkpoint();
  next_->ReportCheckpoint(folder, step, policy_version, ledger);
}

}  // namespace sluice::learner

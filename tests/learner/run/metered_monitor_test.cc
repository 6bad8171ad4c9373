#include "learner/run/metered_monitor.h"

#include <string>
#include <vector>

#include "common/status/exit_code.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Useful for: seeing what is passed on.
class ListeningMonitor : public JobMonitor {
 public:
  void SetPhase(const std::string& phase) override { heard.push_back("phase " + phase); }
  void ReportMetrics(uint64_t step, uint64_t, const std::map<std::string, double>&) override {
    heard.push_back("step " + std::to_string(step));
  }
  void ReportLog(const std::string& text) override { heard.push_back("log " + text); }
  void ReportResult(const std::string& key, const std::string& value) override { heard.push_back(key + value); }
  void ReportCheckpoint(const std::string& folder, uint64_t, uint64_t, const LedgerBalance&) override {
    heard.push_back("checkpoint " + folder);
  }
  StopRequest stop() const override { return StopRequest::kPreempt; }

  std::vector<std::string> heard;
};

class MeteredMonitorTest : public ::testing::Test {
 protected:
  absl::Time now_ = absl::FromUnixSeconds(1000);
  Metrics metrics_;
  JobSeries series_{&metrics_, [this] { return now_; }};
  ListeningMonitor next_;
};

TEST_F(MeteredMonitorTest, EverythingIsPassedOn) {
  MeteredMonitor monitor(&next_, &series_);
  monitor.SetPhase("training");
  monitor.ReportMetrics(1, 10, {});
  monitor.ReportLog("hello");
  monitor.ReportResult("a", "b");
  monitor.ReportCheckpoint("folder", 1, 1, {});
  EXPECT_THAT(next_.heard, ElementsAre("phase training", "step 1", "log hello", "ab", "checkpoint folder"));
  EXPECT_EQ(monitor.stop(), StopRequest::kPreempt);
}

TEST_F(MeteredMonitorTest, StepsWithoutRewardsAreCountedApart) {
  MeteredMonitor monitor(&next_, &series_);
  monitor.ReportMetrics(1, 10, {{"loss/nll", 3.5}, {"degraded", 0}});
  monitor.ReportMetrics(2, 10, {{"loss/nll", 3.5}, {"degraded", 1}});
  monitor.ReportMetrics(3, 10, {{"loss/nll", 3.5}});  // sft knows no such thing
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_degraded_steps_total 1\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_steps_total 3\n"));
}

TEST_F(MeteredMonitorTest, WhatWasNotMeasuredIsNaNAndNever0) {
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_reward_mean Nan\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_checkpoint_last_success_timestamp_seconds Nan\n"));
  MeteredMonitor monitor(&next_, &series_);
  monitor.ReportMetrics(1, 10, {{"loss/nll", 3.5}, {"reward/mean", 0.25}, {"gate/stale", 0.5}});
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_nll_loss_nats 3.5\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_reward_mean 0.25\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_gate_reason_ratio{reason=\"stale\"} 0.5\n"));
  monitor.ReportMetrics(2, 10, {{"loss/nll", 3.25}});  // the ranker was away
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_nll_loss_nats 3.25\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_reward_mean Nan\n"));
}

TEST_F(MeteredMonitorTest, AValidationKeepsTheValuesOfStepsAndCountsNone) {
  MeteredMonitor monitor(&next_, &series_);
  monitor.ReportMetrics(4, 10, {{"loss/nll", 3.5}, {"seconds/wait", 2}, {"seconds/train", 0.5}});
  monitor.ReportMetrics(4, 10, {{"validation/hr@10", 0.125}});
  const std::string page = metrics_.Text();
  EXPECT_THAT(page, HasSubstr("\nsluice_nll_loss_nats 3.5\n"));
  EXPECT_THAT(page, HasSubstr("sluice_validation_hit_ratio{k=\"10\"} 0.125\n"));
  EXPECT_THAT(page, HasSubstr("\nsluice_steps_total 1\n"));
  EXPECT_THAT(page, HasSubstr("\nsluice_job_total_steps 10\n"));
  EXPECT_THAT(page, HasSubstr("sluice_step_duration_seconds_sum{part=\"wait\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("sluice_step_duration_seconds_sum{part=\"train\"} 0.5\n"));
}

TEST_F(MeteredMonitorTest, APhaseThatGoesOnIsNoProgress) {
  MeteredMonitor monitor(&next_, &series_);
  monitor.SetPhase("waiting for groups");
  now_ += absl::Seconds(500);
  monitor.SetPhase("waiting for groups");
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_last_progress_timestamp_seconds 1000\n"));
  monitor.SetPhase("training");
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_last_progress_timestamp_seconds 1500\n"));
  now_ += absl::Seconds(5);
  monitor.ReportCheckpoint("folder", 1, 1, {});
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_checkpoint_last_success_timestamp_seconds 1505\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_last_progress_timestamp_seconds 1505\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_start_timestamp_seconds 1000\n"));
}

TEST_F(MeteredMonitorTest, TheNextJobStartsWithoutTheValuesOfTheLast) {
  {
    MeteredMonitor monitor(&next_, &series_);
    monitor.ReportMetrics(4, 10, {{"loss/nll", 3.5}});
    EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_running 1\n"));
    monitor.End(absl::OkStatus());
    EXPECT_THAT(metrics_.Text(), HasSubstr("\nsluice_job_running 0\n"));
  }
  MeteredMonitor monitor(&next_, &series_);
  const std::string page = metrics_.Text();
  EXPECT_THAT(page, HasSubstr("\nsluice_nll_loss_nats Nan\n"));
  EXPECT_THAT(page, HasSubstr("\nsluice_job_step 0\n"));
  EXPECT_THAT(page, HasSubstr("\nsluice_steps_total 1\n"));
  EXPECT_THAT(page, HasSubstr("sluice_jobs_ended_total{outcome=\"done\"} 1\n"));
}

TEST_F(MeteredMonitorTest, EveryEndHasItsOutcome) {
  EXPECT_EQ(OutcomeName(absl::OkStatus()), "done");
  EXPECT_EQ(OutcomeName(PreemptedError("x")), "preempted");
  EXPECT_EQ(OutcomeName(absl::CancelledError("x")), "cancelled");
  EXPECT_EQ(OutcomeName(HeldError("x")), "held");
  EXPECT_EQ(OutcomeName(absl::UnavailableError("x")), "broken");
  EXPECT_EQ(OutcomeName(NoSpaceError("x")), "no_space");
  EXPECT_EQ(OutcomeName(absl::InternalError("x")), "failed");
  for (const absl::Status& status : {absl::DataLossError("x"), NoSpaceError("x"), absl::InternalError("x")}) {
    series_.End(status);
  }
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_jobs_ended_total{outcome=\"failed\"} 2\n"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_jobs_ended_total{outcome=\"no_space\"} 1\n"));
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("outcome=\"done\"} 1")));
}

}  // namespace
}  // namespace sluice::learner

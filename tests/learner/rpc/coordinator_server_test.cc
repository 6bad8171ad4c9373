#include "learner/rpc/coordinator_server.h"

#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/exit_code.h"
#include "common/sync/thread.h"
#include "tests/learner/rpc/coordinator_fixture.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

class CoordinatorServerTest : public CoordinatorFixture {};

TEST_F(CoordinatorServerTest, ASubmittedJobIsDescribedWithItsEffectiveSpec) {
  const auto submitted = Submit("r1", "kind: sft\nname: tiny\ndata: d\nsft: {passes: 2}\n");
  ASSERT_TRUE(submitted.ok()) << submitted.status();
  EXPECT_FALSE(submitted->existed());
  const auto described = Describe(submitted->job_id());
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->summary().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(described->summary().name(), "tiny");
  EXPECT_EQ(described->spec().sft().passes(), 2);
  EXPECT_EQ(described->spec().sft().targets_per_step(), 650);  // a default, filled by the server
  EXPECT_EQ(described->run_folder(), JoinPath(options_.store.runs_folder, submitted->job_id()));
  EXPECT_EQ(described->spec_digest().size(), 64u);
}

TEST_F(CoordinatorServerTest, SubmittingAgainIsTheSameJob) {
  const std::string first = SubmitJob("r1");
  const auto again = Submit("r1", "kind: sft\nname: n\ndata: d\n");
  EXPECT_EQ(again->job_id(), first);
  EXPECT_TRUE(again->existed());
  EXPECT_NE(SubmitJob("r2"), first);
}

TEST_F(CoordinatorServerTest, ABadSpecIsRefusedWithEveryMistake) {
  v1::SubmitRequest request;
  request.set_request_id("r1");
  request.mutable_spec()->set_kind(v1::JOB_KIND_RL);
  request.mutable_spec()->mutable_rl()->set_group_size(0);
  const absl::Status status = Submit(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rl.group_size: want 2 to 1024, got 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("data: required"));
}

TEST_F(CoordinatorServerTest, ValidationTellsEveryMistakeWithItsPlaceAndSubmitsNothing) {
  v1::ValidateRequest request;
  request.set_file_name("job.yaml");
  request.set_spec_yaml("kind: sft\nsft:\n  pases: 2\n");
  request.add_overrides("sft.batch_size=0");
  const v1::ValidateResponse answer = Validate(request).value();
  EXPECT_FALSE(answer.has_given());
  const std::string all = absl::StrJoin(answer.errors(), "\n");
  EXPECT_THAT(all, HasSubstr("job.yaml:3:3: sft.pases: "));  // with a suggestion
  EXPECT_THAT(all, HasSubstr("passes"));
  EXPECT_THAT(all, HasSubstr("data: required"));
  EXPECT_GE(answer.errors_size(), 3) << all;
  v1::ListResponse jobs;
  grpc::ClientContext context;
  EXPECT_TRUE(jobs_->List(&context, {}, &jobs).ok());
  EXPECT_EQ(jobs.jobs_size(), 0);
}

TEST_F(CoordinatorServerTest, AValidSpecComesBackAsWhatSubmitTakes) {
  v1::ValidateRequest request;
  request.set_spec_yaml("kind: sft\ndata: d\nname: a\n");
  request.add_overrides("name=b");
  const v1::ValidateResponse answer = Validate(request).value();
  EXPECT_EQ(answer.errors_size(), 0);
  EXPECT_EQ(answer.given().name(), "b");
  EXPECT_FALSE(answer.given().has_sft());  // defaults are not given
  EXPECT_THAT(answer.effective_yaml(), HasSubstr("passes:"));
  v1::SubmitRequest submit;
  submit.set_request_id("r1");
  *submit.mutable_spec() = answer.given();
  const std::string id = Submit(submit).value().job_id();
  EXPECT_EQ(Describe(id).value().spec_digest(), answer.spec_digest());
}

TEST_F(CoordinatorServerTest, ValidationIsBounded) {
  v1::ValidateRequest request;
  request.set_file_name(std::string(4097, 'f'));
  EXPECT_EQ(Validate(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.set_file_name("f");
  for (int i = 0; i <= 1000; ++i) request.add_overrides("seed=1");
  EXPECT_EQ(Validate(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.clear_overrides();
  for (int i = 0; i < 1500; ++i) absl::StrAppend(request.mutable_spec_yaml(), "unknown", i, ": 1\n");
  const v1::ValidateResponse answer = Validate(request).value();
  ASSERT_EQ(answer.errors_size(), 1001);
  EXPECT_THAT(answer.errors(1000), HasSubstr("more mistakes"));
}

TEST_F(CoordinatorServerTest, ARequestNeedsAnId) {
  v1::SubmitRequest request;
  request.mutable_spec()->set_kind(v1::JOB_KIND_SFT);
  EXPECT_EQ(Submit(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.set_request_id(std::string(129, 'x'));
  EXPECT_EQ(Submit(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoordinatorServerTest, ListIsNewestFirstAndBounded) {
  SubmitJob("r1");
  const std::string newest = SubmitJob("r2");
  v1::ListRequest request;
  v1::ListResponse response;
  request.set_limit(1);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(jobs_->List(&context, request, &response).ok());
  }
  ASSERT_EQ(response.jobs_size(), 1);
  EXPECT_EQ(response.jobs(0).job_id(), newest);
  request.set_limit(1001);
  grpc::ClientContext context;
  EXPECT_EQ(jobs_->List(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(CoordinatorServerTest, AnUnknownJobIsNotFoundEverywhere) {
  std::vector<v1::JobEvent> events;
  EXPECT_EQ(Describe("nope").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Cancel("nope").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Watch("nope", 0, &events).code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorServerTest, WatchTellsTheWholeStoryAndEnds) {
  const std::string id = SubmitJob();
  std::vector<v1::JobEvent> events;
  absl::Status watched = absl::UnknownError("not run");
  Thread watcher = StartThread("watcher", [&] { watched = Watch(id, 0, &events); });

  const auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  ASSERT_NE(view.job, nullptr);
  {
    JobReporter reporter(member.get(), id, view.epoch);
    reporter.ReportMetrics(1, 10, {{"loss", 2.5}});
    reporter.ReportLog("info", "first step");
    ASSERT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
  }
  ASSERT_TRUE(member->Finish(id, view.epoch, absl::OkStatus()).ok());
  watcher.Join();

  ASSERT_TRUE(watched.ok()) << watched;
  ASSERT_EQ(events.size(), 5u);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence(), i + 1);
  EXPECT_EQ(events[0].state().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(events[1].state().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(events[2].metrics().values().at("loss"), 2.5);
  EXPECT_EQ(events[3].log().text(), "first step");
  EXPECT_EQ(events[4].state().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(CoordinatorServerTest, WatchResumesAfterASequence) {
  const std::string id = SubmitJob();
  ASSERT_TRUE(Cancel(id).ok());
  std::vector<v1::JobEvent> events;
  ASSERT_TRUE(Watch(id, 1, &events).ok());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].sequence(), 2u);
  EXPECT_EQ(events[0].state().state(), v1::JOB_STATE_CANCELLED);
  events.clear();
  EXPECT_TRUE(Watch(id, 99, &events).ok());
  EXPECT_TRUE(events.empty());
}

TEST_F(CoordinatorServerTest, WatchUntilNowEndsThoughTheJobGoesOn) {
  const std::string id = SubmitJob();
  v1::WatchRequest request;
  request.set_job_id(id);
  request.set_until_now(true);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(60));
  const auto reader = jobs_->Watch(&context, request);
  v1::JobEvent event;
  EXPECT_TRUE(reader->Read(&event));
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(CoordinatorServerTest, ALongStoryArrivesWithoutGaps) {
  const std::string id = SubmitJob();
  JobReport report;
  report.report_id = "r";
  for (int i = 0; i < 3000; ++i) report.logs.push_back({"info", absl::StrCat("line ", i)});
  ASSERT_TRUE(server_->coordinator()->Report(id, report).ok());
  ASSERT_TRUE(Cancel(id).ok());
  std::vector<v1::JobEvent> events;
  ASSERT_TRUE(Watch(id, 0, &events).ok());
  ASSERT_EQ(events.size(), 3002u);
  for (size_t i = 0; i < events.size(); ++i) ASSERT_EQ(events[i].sequence(), i + 1);
}

TEST_F(CoordinatorServerTest, ManyWatchersSeeTheSameStory) {
  const std::string id = SubmitJob();
  std::vector<std::vector<v1::JobEvent>> stories(8);
  std::vector<Thread> watchers;
  for (auto& story : stories) {
    watchers.push_back(StartThread("watcher", [this, id, &story] { EXPECT_TRUE(Watch(id, 0, &story).ok()); }));
  }
  for (int i = 0; i < 50; ++i) {
    JobReport report;
    report.report_id = absl::StrCat(i);
    report.logs = {{"info", absl::StrCat(i)}};
    ASSERT_TRUE(server_->coordinator()->Report(id, report).ok());
  }
  ASSERT_TRUE(Cancel(id).ok());
  watchers.clear();
  for (const auto& story : stories) EXPECT_EQ(story.size(), 52u);
}

TEST_F(CoordinatorServerTest, StoppingEndsStreamsWithUnavailable) {
  const std::string id = SubmitJob();
  v1::WatchRequest request;
  request.set_job_id(id);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(60));
  const auto reader = jobs_->Watch(&context, request);
  v1::JobEvent event;
  ASSERT_TRUE(reader->Read(&event));
  server_.reset();
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(CoordinatorServerTest, AClientThatGoesAwayLeavesNothingBehind) {
  const std::string id = SubmitJob();
  for (int i = 0; i < 20; ++i) {
    v1::WatchRequest request;
    request.set_job_id(id);
    grpc::ClientContext context;
    const auto reader = jobs_->Watch(&context, request);
    v1::JobEvent event;
    ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    reader->Finish();
  }
  EXPECT_TRUE(Cancel(id).ok());
}

TEST_F(CoordinatorServerTest, AnAddressInUseIsReported) {
  CoordinatorServerOptions options = options_;
  options.store_path = JoinPath(folder_, "other.db");
  EXPECT_EQ(CoordinatorServer::Start(options).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorServerTest, DrainingWaitsForTheRunningJob) {
  const std::string id = SubmitJob();
  const auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  ASSERT_NE(view.job, nullptr);
  EXPECT_EQ(server_->Drain(absl::ZeroDuration()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(WaitFor(member.get(), [](const RankView& v) { return v.drain; }).drain);
  ASSERT_TRUE(member->Finish(id, view.epoch, PreemptedError("stopped after a checkpoint")).ok());
  EXPECT_TRUE(server_->Drain(absl::Seconds(60)).ok());
  EXPECT_EQ(Describe(id)->summary().state(), v1::JOB_STATE_QUEUED);
}

}  // namespace
}  // namespace sluice::learner

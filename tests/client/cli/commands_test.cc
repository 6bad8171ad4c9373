#include "client/cli/commands.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/job_client.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/status/exit_code.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "tests/learner/rpc/coordinator_fixture.h"

namespace sluice::client {
namespace {

using learner::JobReport;
using learner::MemberClient;
using learner::RankView;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kSpec[] = "kind: sft\nname: tiny\ndata: d\nsft:\n  passes: 2\n";

class CommandsTest : public learner::CoordinatorFixture {
 protected:
  // A stream whose content can be read back.
  struct Captured {
    char* text = nullptr;
    size_t size = 0;
    std::FILE* file = open_memstream(&text, &size);
    ~Captured() {
      std::fclose(file);
      std::free(text);
    }
    std::string Take() {
      std::fflush(file);
      const std::string all(text, size);
      std::rewind(file);
      size = 0;
      return all.substr(0, all.find('\0'));
    }
  };

  void SetUp() override {
    learner::CoordinatorFixture::SetUp();
    spec_path_ = JoinPath(folder_, "job.yaml");
    ASSERT_TRUE(WriteFileAtomically(spec_path_, kSpec).ok());
    Connect(server_->address());
  }
  void TearDown() override {
    commands_.reset();
    client_.reset();
    learner::CoordinatorFixture::TearDown();
  }

  void Connect(const std::string& address, OutputFormat format = OutputFormat::kTable,
               absl::Duration timeout = absl::Seconds(20)) {
    JobClientOptions options;
    options.server = address;
    options.timeout = timeout;
    client_ = std::make_unique<JobClient>(MakeChannel(address), options);
    out_ = std::make_unique<Captured>();
    err_ = std::make_unique<Captured>();
    Console console;
    console.out = out_->file;
    console.err = err_->file;
    console.format = format;
    commands_ = std::make_unique<Commands>(client_.get(), console, &stop_);
  }

  std::string SubmitTiny() {
    SubmitFlags flags;
    flags.spec_path = spec_path_;
    EXPECT_EQ(commands_->Submit(flags), 0);
    err_->Take();
    std::string id = out_->Take();
    EXPECT_EQ(id.back(), '\n');
    id.pop_back();
    return id;
  }

  // Runs the next job of the coordinator to `outcome`, as a rank would.
  void RunJobs(int jobs, const absl::Status& outcome) {
    auto member = MakeMember("m");
    for (int i = 0; i < jobs; ++i) {
      const RankView view = WaitForJob(member.get());
      learner::JobReporter reporter(member.get(), view.job->id, view.epoch);
      for (int step = 1; step <= 3; ++step) reporter.ReportMetrics(step, 3, {{"loss", 1.0 / step}});
      reporter.ReportLog("warning", "look here");
      ASSERT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
      ASSERT_TRUE(member->Finish(view.job->id, view.epoch, outcome).ok());
    }
  }

  std::atomic<bool> stop_{false};
  std::string spec_path_;
  std::unique_ptr<JobClient> client_;
  std::unique_ptr<Captured> out_;
  std::unique_ptr<Captured> err_;
  std::unique_ptr<Commands> commands_;
};

TEST_F(CommandsTest, SubmitPrintsTheIdAloneOnStandardOutput) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  EXPECT_EQ(commands_->Submit(flags), 0);
  const std::string id = out_->Take();
  EXPECT_THAT(id, StartsWith("tiny-"));
  EXPECT_EQ(std::count(id.begin(), id.end(), '\n'), 1);
  const std::string talk = err_->Take();
  EXPECT_THAT(talk, HasSubstr("4 keys given"));
  EXPECT_THAT(talk, HasSubstr("follow   sluicectl watch tiny-"));
}

TEST_F(CommandsTest, TheSameRequestIdIsTheSameJob) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.request_id = "mine";
  EXPECT_EQ(commands_->Submit(flags), 0);
  const std::string first = out_->Take();
  EXPECT_EQ(commands_->Submit(flags), 0);
  EXPECT_EQ(out_->Take(), first);
  EXPECT_THAT(err_->Take(), HasSubstr("submitted before"));
}

TEST_F(CommandsTest, ADryRunPrintsTheEffectiveSpecAndSubmitsNothing) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.overrides = {"sft.passes=5"};
  flags.dry_run = "client";
  EXPECT_EQ(commands_->Submit(flags), 0);
  const std::string text = out_->Take();
  EXPECT_THAT(text, HasSubstr("  passes: 5\n"));
  EXPECT_THAT(text, HasSubstr("  targets_per_step: 650\n"));
  EXPECT_TRUE(ResolveSpec(text, "printed").ok());
  EXPECT_THAT(text, HasSubstr("\n# Plan on 1 learner rank of 1 thread:\n"));
  EXPECT_THAT(text, HasSubstr("# Not known: sizes of the data set"));
  EXPECT_TRUE(client_->List(10)->jobs().empty());
}

TEST_F(CommandsTest, ADryRunInJsonIsOneDocument) {
  Connect(server_->address(), OutputFormat::kJson);
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.dry_run = "client";
  flags.ranks = 2;
  EXPECT_EQ(commands_->Submit(flags), 0);
  const nlohmann::json all = nlohmann::json::parse(out_->Take());
  EXPECT_EQ(all.at("plan").at("ranks"), 2);
  EXPECT_TRUE(ResolveSpec(all.at("spec_yaml").get<std::string>(), "printed").ok());
}

TEST_F(CommandsTest, OverridesAreKeptWithTheSpec) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.overrides = {"sft.passes=5"};
  EXPECT_EQ(commands_->Submit(flags), 0);
  std::string id = out_->Take();
  id.pop_back();
  EXPECT_EQ(server_->coordinator()->store()->Get(id)->spec_yaml, std::string(kSpec) + "# --set sft.passes=5\n");
  EXPECT_EQ(client_->Describe(id)->spec().sft().passes(), 5);
}

TEST_F(CommandsTest, AMistakeInTheSpecHasItsPlaceAndExitCodeTwo) {
  ASSERT_TRUE(WriteFileAtomically(spec_path_, "kind: sft\ndata: d\nsft:\n  pases: 2\n").ok());
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  EXPECT_EQ(commands_->Submit(flags), 2);
  EXPECT_THAT(err_->Take(), HasSubstr(":4:3: sft.pases: unknown key; did you mean passes?"));
  EXPECT_EQ(commands_->Validate(spec_path_, {}), 2);
  flags.spec_path = "missing.yaml";
  EXPECT_EQ(commands_->Submit(flags), 2);
}

TEST_F(CommandsTest, AWideValidationSaysWhereEveryValueComesFrom) {
  Connect(server_->address(), OutputFormat::kWide);
  EXPECT_EQ(commands_->Validate(spec_path_, {"sft.passes=7"}), 0);
  const std::string text = out_->Take();
  EXPECT_THAT(text, ::testing::ContainsRegex("sft.passes +7 +--set sft.passes=7\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("name +tiny +.*job.yaml:2:"));
  EXPECT_THAT(text, ::testing::ContainsRegex("sft.targets_per_step +650 +default\n"));
}

TEST_F(CommandsTest, WatchTellsTheStoryAndEndsWithTheOutcome) {
  const std::string id = SubmitTiny();
  RunJobs(1, absl::DataLossError("bad file"));
  EXPECT_EQ(commands_->Watch(id, 0), 3);
  const std::string story = out_->Take();
  EXPECT_THAT(story, HasSubstr("queued: submitted"));
  EXPECT_THAT(story, HasSubstr("warning: look here"));
  EXPECT_THAT(story, HasSubstr("step 100 % 3/3 steps"));
  EXPECT_THAT(story, HasSubstr("failed: bad file"));
}

TEST_F(CommandsTest, SubmitWithWatchEndsWithTheOutcome) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.watch = true;
  int code = -1;
  Thread watcher = StartThread("watcher", [&] { code = commands_->Submit(flags); });
  RunJobs(1, absl::CancelledError("on request"));
  watcher.Join();
  EXPECT_EQ(code, 12);
  // Once the story stood on standard output too, and `id=$(sluicectl submit --watch)` held all of it.
  const std::string id = out_->Take();
  EXPECT_EQ(std::count(id.begin(), id.end(), '\n'), 1);
  EXPECT_THAT(err_->Take(), HasSubstr("cancelled: on request"));
}

TEST_F(CommandsTest, WaitIsSilentAndEndsWithTheOutcome) {
  const std::string id = SubmitTiny();
  RunJobs(1, absl::OkStatus());
  EXPECT_EQ(commands_->Wait(id, absl::InfiniteDuration()), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("succeeded: done"));
}

TEST_F(CommandsTest, WaitGivesUpInTime) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Wait(id, absl::Milliseconds(60)), 11);
  EXPECT_THAT(err_->Take(), HasSubstr("has not ended in time; it goes on"));
}

TEST_F(CommandsTest, AWatchOutlivesTheCoordinator) {
  const std::string id = SubmitTiny();
  int code = -1;
  Thread watcher = StartThread("watcher", [&] { code = commands_->Watch(id, 0); });
  auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  server_.reset();
  StartServer();
  {
    learner::JobReporter reporter(member.get(), id, view.epoch);
    reporter.ReportLog("info", "after the restart");
    ASSERT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
  }
  ASSERT_TRUE(member->Finish(id, view.epoch, absl::OkStatus()).ok());
  watcher.Join();
  EXPECT_EQ(code, 0);
  const std::string story = out_->Take();
  EXPECT_THAT(story, HasSubstr("after the restart"));
  EXPECT_EQ(story.find("queued"), story.rfind("queued"));  // nothing is told twice
}

TEST_F(CommandsTest, DetachingSaysHowToComeBack) {
  const std::string id = SubmitTiny();
  int code = -1;
  Thread watcher = StartThread("watcher", [&] { code = commands_->Watch(id, 0); });
  stop_ = true;
  watcher.Join();
  EXPECT_EQ(code, kDetached);
  EXPECT_THAT(err_->Take(), HasSubstr("sluicectl watch " + id + " --after "));
  EXPECT_EQ(client_->Describe(id)->summary().state(), v1::JOB_STATE_QUEUED);
}

TEST_F(CommandsTest, WatchingBehindTheEndStillTellsTheOutcome) {
  const std::string id = SubmitTiny();
  RunJobs(1, absl::InternalError("boom"));
  EXPECT_EQ(commands_->Watch(id, 1000), 1);
  EXPECT_THAT(err_->Take(), HasSubstr("has ended: failed, boom"));
}

TEST_F(CommandsTest, IdsMayBeShortened) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(client_->ResolveId(id).value(), id);
  EXPECT_EQ(client_->ResolveId("ti").value(), id);
  EXPECT_EQ(client_->ResolveId(id.substr(5, 4)).value(), id);  // the part after the dash
  EXPECT_EQ(client_->ResolveId("zz").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->ResolveId("").status().code(), absl::StatusCode::kNotFound);
  SubmitTiny();
  const absl::Status ambiguous = client_->ResolveId("tiny").status();
  EXPECT_EQ(ambiguous.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ambiguous.message()), HasSubstr(id));
}

TEST_F(CommandsTest, AnUnknownJobIsAUsageError) {
  EXPECT_EQ(commands_->Describe("nope"), 2);
  EXPECT_EQ(commands_->Cancel("nope"), 2);
  EXPECT_EQ(commands_->Watch("nope", 0), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("there is no job 'nope'; 'sluicectl list' shows them"));
}

TEST_F(CommandsTest, CancellingEndsAQueuedJob) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Cancel(id), 0);
  EXPECT_EQ(commands_->Wait(id, absl::InfiniteDuration()), 12);
}

TEST_F(CommandsTest, NoCoordinatorIsSaidPlainlyWithExitCodeEleven) {
  const std::string address = server_->address();
  server_.reset();
  Connect(address);
  EXPECT_EQ(commands_->List(10, ""), 11);
  EXPECT_EQ(err_->Take(), absl::StrCat("sluicectl: no coordinator answers at ", address,
                                       "; start one with 'sluice-learner coordinator', or name another with --server "
                                       "or SLUICE_SERVER\n"));
  EXPECT_EQ(out_->Take(), "");
}

// Such a coordinator was once called absent.
TEST_F(CommandsTest, ACoordinatorThatGivesNoAnswerInTimeIsCalledBusy) {
  struct Silent final : v1::JobService::Service {
    grpc::Status List(grpc::ServerContext*, const v1::ListRequest*, v1::ListResponse*) override {
      answer.WaitFor(absl::Seconds(60));
      return grpc::Status::OK;
    }
    Notification answer;
  } silent;
  const auto server = RpcServer::Start("127.0.0.1:0", {&silent}).value();
  Connect(server->address(), OutputFormat::kTable, absl::Milliseconds(300));
  EXPECT_EQ(commands_->List(10, ""), 11);
  const std::string said = err_->Take();
  EXPECT_THAT(said, HasSubstr("gave no answer within 300ms; it is there, and busy or stuck"));
  EXPECT_THAT(said, Not(HasSubstr("no coordinator")));
  silent.answer.Notify();
}

TEST_F(CommandsTest, AnOlderCoordinatorIsToldFromNone) {
  struct Older final : v1::JobService::Service {
    grpc::Status List(grpc::ServerContext*, const v1::ListRequest*, v1::ListResponse* response) override {
      response->add_jobs()->set_job_id("a-1");
      return grpc::Status::OK;
    }
  } older;
  const auto server = RpcServer::Start("127.0.0.1:0", {&older}).value();
  Connect(server->address());
  EXPECT_EQ(commands_->Pause("a-1"), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("is older than this sluicectl"));
  EXPECT_EQ(commands_->ListData(), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("cannot take data; bring it to the same release"));
}

TEST_F(CommandsTest, ListsAreTablesOrJson) {
  EXPECT_EQ(commands_->List(10, ""), 0);
  EXPECT_EQ(out_->Take(), "");
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->List(10, ""), 0);
  EXPECT_THAT(out_->Take(), HasSubstr(id));
  Connect(server_->address(), OutputFormat::kJson);
  EXPECT_EQ(commands_->List(10, ""), 0);
  EXPECT_EQ(nlohmann::json::parse(out_->Take())["jobs"][0]["job_id"], id);
  Connect(server_->address(), OutputFormat::kJsonl);
  EXPECT_EQ(commands_->List(10, ""), 0);
  EXPECT_EQ(nlohmann::json::parse(out_->Take())["state"], "queued");
}

TEST_F(CommandsTest, EveryFormOfAListHoldsTheSame) {
  const std::string id = SubmitTiny();
  const auto list = [&](OutputFormat format) {
    Connect(server_->address(), format);
    EXPECT_EQ(commands_->List(10, "queued"), 0);
    return out_->Take();
  };
  EXPECT_EQ(list(OutputFormat::kName), id + "\n");
  EXPECT_EQ(nlohmann::json::parse(list(OutputFormat::kJson)).at("schema_version"), kSchemaVersion);
  EXPECT_EQ(nlohmann::json::parse(list(OutputFormat::kJsonl)).at("schema_version"), kSchemaVersion);
  EXPECT_THAT(list(OutputFormat::kYaml), StartsWith("schema_version: 1\njobs:\n  -\n    job_id: " + id + "\n"));
  EXPECT_THAT(list(OutputFormat::kWide), HasSubstr("NAME"));
  Connect(server_->address(), OutputFormat::kName);
  EXPECT_EQ(commands_->List(10, "running"), 0);
  EXPECT_EQ(out_->Take(), "");
}

TEST_F(CommandsTest, APausedJobWaitsUntilItIsResumed) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Pause(id), 0);
  EXPECT_THAT(err_->Take(), HasSubstr("sluicectl resume " + id));
  EXPECT_EQ(client_->Describe(id)->summary().state(), v1::JOB_STATE_PAUSED);
  server_.reset();
  StartServer();
  Connect(server_->address());
  EXPECT_EQ(client_->Describe(id)->summary().state(), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(commands_->Resume(id), 0);
  auto member = MakeMember("m");
  EXPECT_EQ(WaitForJob(member.get()).job->id, id);
}

TEST_F(CommandsTest, APauseStopsARunningJobAndWaitGoesOnPastIt) {
  const std::string id = SubmitTiny();
  auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  EXPECT_EQ(commands_->Pause(id), 0);
  EXPECT_TRUE(WaitFor(member.get(), [](const RankView& now) { return now.pause_requested; }).pause_requested);
  ASSERT_TRUE(member->Finish(id, view.epoch, PreemptedError("stopped after a checkpoint")).ok());
  EXPECT_EQ(client_->Describe(id)->summary().state(), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(commands_->Wait(id, absl::Milliseconds(60)), 11);
  EXPECT_THAT(err_->Take(), HasSubstr("is paused; it goes on after: sluicectl resume"));
}

TEST_F(CommandsTest, AKilledJobHasEndedWhenTheCommandReturns) {
  const std::string id = SubmitTiny();
  auto member = MakeMember("m");
  WaitForJob(member.get());
  EXPECT_EQ(commands_->Kill(id), 0);
  EXPECT_THAT(err_->Take(), HasSubstr("killed; what it did since its start is lost"));
  EXPECT_EQ(client_->Describe(id)->summary().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(WaitFor(member.get(), [](const RankView& now) { return now.job == nullptr; }).job, nullptr);
}

TEST_F(CommandsTest, OnlyAnEndedJobIsDeletedAndItsFilesOnRequest) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Delete(id, false), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("only a job that has ended can be deleted"));
  EXPECT_EQ(commands_->Kill(id), 0);
  const std::string folder = client_->Describe(id)->run_folder();
  ASSERT_TRUE(MakeDirectories(folder).ok());
  EXPECT_EQ(commands_->Delete(id, true), 0);
  EXPECT_FALSE(PathExists(folder));
  EXPECT_EQ(commands_->Describe(id), 2);
}

TEST_F(CommandsTest, FilesThatAnotherJobReadsAreNotDeleted) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Kill(id), 0);
  const std::string folder = client_->Describe(id)->run_folder();
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.overrides = {"model.path=" + folder};
  EXPECT_EQ(commands_->Submit(flags), 0);
  err_->Take();
  EXPECT_EQ(commands_->Delete(id, true), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("is queued and reads '" + folder));
}

TEST_F(CommandsTest, AForkBeginsWithTheCheckpointAndItsChangesAreChecked) {
  const std::string id = SubmitTiny();
  ForkFlags fork;
  fork.job = id;
  EXPECT_EQ(commands_->Fork(fork), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("has no checkpoint yet"));
  const std::string checkpoint = JoinPath(client_->Describe(id)->run_folder(), "checkpoints/step-00000003");
  ASSERT_TRUE(MakeDirectories(JoinPath(checkpoint, "model")).ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(checkpoint, "model/config.json"), "{}").ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(checkpoint, "manifest.json"), "{}").ok());
  JobReport report;
  report.report_id = "r";
  report.last_checkpoint = checkpoint;
  ASSERT_TRUE(server_->coordinator()->Report(id, report).ok());

  fork.overrides = {"sft.pases=1"};
  EXPECT_EQ(commands_->Fork(fork), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("did you mean passes?"));
  fork.overrides = {"model.layers=2"};
  EXPECT_EQ(commands_->Fork(fork), 2);
  fork.overrides = {"sft.passes=7", "data=other"};
  fork.request_id = "once";
  EXPECT_EQ(commands_->Fork(fork), 0);
  std::string forked = out_->Take();
  forked.pop_back();
  const v1::DescribeResponse described = client_->Describe(forked).value();
  EXPECT_EQ(described.forked_from(), id);
  EXPECT_EQ(described.spec().sft().passes(), 7);
  EXPECT_EQ(described.spec().data(), "other");
  EXPECT_EQ(described.spec().model().path(), described.fork_checkpoint());
  ASSERT_TRUE(RemoveAll(checkpoint).ok());  // the parent prunes it
  EXPECT_TRUE(PathExists(JoinPath(described.fork_checkpoint(), "model/config.json")));
  EXPECT_EQ(commands_->Fork(fork), 0);  // its answer got lost
  EXPECT_EQ(out_->Take(), forked + "\n");
  EXPECT_EQ(commands_->Kill(forked), 0);
  EXPECT_EQ(commands_->Delete(forked, true), 0);
  EXPECT_FALSE(PathExists(described.fork_checkpoint()));
}

TEST_F(CommandsTest, ADryRunOnTheServerChecksEverythingAndCreatesNothing) {
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  flags.dry_run = "server";
  EXPECT_EQ(commands_->Submit(flags), 2);  // there is no data set "d"
  const std::string text = out_->Take();
  EXPECT_THAT(text, HasSubstr("failed   data"));
  EXPECT_THAT(text, HasSubstr("warning  group"));
  EXPECT_THAT(text, HasSubstr("ok       storage"));
  EXPECT_THAT(text, HasSubstr("skipped  reward"));
  EXPECT_TRUE(client_->List(10)->jobs().empty());
  Connect(server_->address(), OutputFormat::kJson);
  EXPECT_EQ(commands_->Submit(flags), 2);
  const auto json = nlohmann::json::parse(out_->Take());
  EXPECT_EQ(json.at("admitted"), false);
  EXPECT_EQ(json.at("plan").at("ranks"), 1);
}

TEST_F(CommandsTest, MetricsAreTheLatestOrASeries) {
  const std::string id = SubmitTiny();
  RunJobs(1, absl::OkStatus());
  MetricsFlags flags;
  flags.job = id;
  EXPECT_EQ(commands_->Metrics(flags), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("loss    3     0.3333"));
  flags.names = {"loss"};
  EXPECT_EQ(commands_->Metrics(flags), 0);
  EXPECT_EQ(out_->Take(), "STEP  loss\n1     1\n2     0.5\n3     0.3333\n");
  flags.last = true;
  EXPECT_EQ(commands_->Metrics(flags), 0);
  EXPECT_EQ(out_->Take(), "STEP  loss\n3     0.3333\n");
  flags.names = {"lss"};
  EXPECT_EQ(commands_->Metrics(flags), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("has no metric 'lss' so far"));
  Connect(server_->address(), OutputFormat::kJsonl);
  flags = {};
  flags.job = id;
  flags.follow = true;
  EXPECT_EQ(commands_->Metrics(flags), 0);
  const std::string lines = out_->Take();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 3);
}

TEST_F(CommandsTest, LinesAreChosenByWhereTheyComeFromAndWhatTheySay) {
  const std::string id = SubmitTiny();
  JobReport report;
  report.report_id = "r";
  report.logs = {{"info", "begins", "learner", 0},
                 {"error", "broke", "learner", 1, learner::LineCause::kOwn},
                 {"info", "goes on", "learner", 1},
                 {"warning", "no scores", "actor", 1, learner::LineCause::kNone, "actor-7", absl::FromUnixSeconds(0)}};
  ASSERT_TRUE(server_->coordinator()->Report(id, report).ok());
  const auto lines = [&](const LogFlags& flags) {
    EXPECT_EQ(commands_->Logs(id, flags), 0);
    return out_->Take();
  };
  LogFlags rank;
  rank.rank = 1;
  const std::string of_rank = lines(rank);
  EXPECT_THAT(of_rank, HasSubstr("rank 1: error: broke\n"));
  EXPECT_THAT(of_rank, Not(HasSubstr("begins")));
  LogFlags level;
  level.level = "warning";
  EXPECT_EQ(absl::StrSplit(lines(level), '\n').begin()->substr(9), "rank 1: error: broke");
  LogFlags tail;
  tail.tail = 1;
  EXPECT_THAT(lines(tail), HasSubstr("no scores"));
  tail.tail = 0;
  EXPECT_EQ(lines(tail), "");
  LogFlags grep;
  grep.grep = "^b(eg|x)";
  EXPECT_THAT(lines(grep), HasSubstr("begins"));
  LogFlags role;
  role.role = "actor";
  EXPECT_EQ(lines(role).substr(9), "actor actor-7: warning: no scores\n");
  role.rank = 0;  // of the rank that it works for
  EXPECT_EQ(lines(role), "");
  role.rank = std::nullopt;
  EXPECT_THAT(of_rank, HasSubstr("actor actor-7"));
  role.role = "coordinator";
  EXPECT_THAT(lines(role), HasSubstr("queued: submitted"));
  LogFlags since;
  since.since = absl::Hours(-1);  // later than all
  EXPECT_EQ(lines(since), "");
  grep.grep = "(";
  EXPECT_EQ(commands_->Logs(id, grep), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("'(' is no regular expression"));
  // The first cause is the rank's that broke.
  EXPECT_EQ(commands_->Describe(id), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("first cause      broke"));
}

TEST_F(CommandsTest, FilesAreFetchedWholeAndGoOnWhereTheyStopped) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Artifacts(id), 2);  // no run folder yet
  const std::string run = client_->Describe(id)->run_folder();
  ASSERT_TRUE(MakeDirectories(JoinPath(run, "export/best")).ok());
  const std::string large(3 << 20, 'x');
  ASSERT_TRUE(WriteFileAtomically(JoinPath(run, "export/best/model.safetensors"), large).ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(run, "export/best/config.json"), "{}").ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(run, "report.html"), "<html>").ok());
  EXPECT_EQ(commands_->Artifacts(id), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("3145728"));
  const std::string to = JoinPath(folder_, "fetched");
  EXPECT_EQ(commands_->Download(id, {"export/"}, to), 0);
  EXPECT_EQ(ReadFile(JoinPath(to, "export/best/model.safetensors")).value(), large);
  EXPECT_FALSE(PathExists(JoinPath(to, "report.html")));
  EXPECT_EQ(commands_->Download(id, {"nothing"}, to), 2);

  // A first half from an earlier try, of the same file.
  v1::ReadArtifactRequest request;
  request.set_job_id(id);
  request.set_path("export/best/model.safetensors");
  const v1::ReadArtifactResponse half = client_->ReadArtifact(request).value();
  const std::string target = JoinPath(folder_, "half/export/best/model.safetensors");
  ASSERT_TRUE(MakeDirectories(JoinPath(folder_, "half/export/best")).ok());
  ASSERT_TRUE(WriteFileAtomically(target + ".part", half.data()).ok());
  ASSERT_TRUE(WriteFileAtomically(target + ".part.identity", half.identity()).ok());
  EXPECT_EQ(commands_->Download(id, {"export/"}, JoinPath(folder_, "half")), 0);
  EXPECT_EQ(ReadFile(target).value(), large);
  EXPECT_FALSE(PathExists(target + ".part"));

  EXPECT_EQ(commands_->Export(id, "best", JoinPath(folder_, "model")), 0);
  EXPECT_EQ(ReadFile(JoinPath(folder_, "model/config.json")).value(), "{}");
  EXPECT_EQ(commands_->Export(id, "best", JoinPath(folder_, "model")), 2);
  EXPECT_EQ(commands_->Export(id, "final", JoinPath(folder_, "other")), 4);
  EXPECT_EQ(commands_->Report(id, JoinPath(folder_, "r.html")), 0);
  EXPECT_EQ(ReadFile(JoinPath(folder_, "r.html")).value(), "<html>");
}

TEST_F(CommandsTest, PushedDataAreNamedByTheirDigestInSpecs) {
  EXPECT_EQ(commands_->ListData(), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("start it with --data-root"));
  server_.reset();
  options_.data_root = JoinPath(folder_, "data-root");
  options_.data_quota_bytes = 4 << 20;
  StartServer();
  Connect(server_->address(), OutputFormat::kName);
  const std::string events = JoinPath(folder_, "events.csv");
  ASSERT_TRUE(WriteFileAtomically(events, std::string(2 << 20, 'e')).ok());
  EXPECT_EQ(commands_->PushData(events, ""), 0);
  std::string digest = out_->Take();
  digest.pop_back();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(commands_->PushData(events, ""), 0);
  EXPECT_THAT(err_->Take(), HasSubstr("these files were pushed before"));
  EXPECT_EQ(commands_->ListData(), 0);

  ASSERT_TRUE(WriteFileAtomically(
                  spec_path_, "kind: prepare\nprepare: {events: \"digest:" + digest.substr(0, 10) + "/events.csv\"}\n")
                  .ok());
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  out_->Take();
  EXPECT_EQ(commands_->Submit(flags), 0);
  std::string id = out_->Take();
  id.pop_back();
  const std::string path = client_->Describe(id)->spec().prepare().events();
  EXPECT_EQ(path, JoinPath(JoinPath(options_.data_root, digest), "events.csv"));
  EXPECT_TRUE(PathExists(path));
  EXPECT_EQ(commands_->RemoveData(digest), 4);
  EXPECT_THAT(err_->Take(), HasSubstr("is queued and reads"));
  EXPECT_EQ(commands_->Kill(id), 0);

  flags.overrides = {"prepare.events=digest:0000000000/x"};
  EXPECT_EQ(commands_->Submit(flags), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("no pushed data have the digest"));
  ASSERT_TRUE(WriteFileAtomically(events, std::string(3 << 20, 'f')).ok());
  EXPECT_EQ(commands_->PushData(events, ""), 14);
  EXPECT_THAT(err_->Take(), HasSubstr("the quota of"));
  EXPECT_EQ(commands_->RemoveData(digest.substr(0, 12)), 0);
  EXPECT_EQ(commands_->PushData(events, ""), 0);
}

// A data service that tells every other caller to come again. Useful for: the limit of calls, which a test should not
// need 400 calls to meet.
class BusyDataService final : public v1::DataService::Service {
 public:
  grpc::Status List(grpc::ServerContext* context, const v1::ListDataRequest*, v1::ListDataResponse*) override {
    if (calls_++ % 2 == 1) return grpc::Status::OK;
    if (hints_) context->AddTrailingMetadata("retry_after_ms", "1");
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls; try again in 1 ms"};
  }

  std::atomic<int> calls_{0};
  std::atomic<bool> hints_{true};
};

// A push of many small files once ended with "no space" when it was faster than 200 calls a second.
TEST_F(CommandsTest, WhoCallsTooOftenComesAgainAndAFullQuotaIsSaidAtOnce) {
  BusyDataService busy;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&busy);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  Connect(absl::StrCat("127.0.0.1:", port));
  EXPECT_EQ(commands_->ListData(), 0);
  EXPECT_EQ(busy.calls_, 2);
  busy.hints_ = false;
  EXPECT_NE(commands_->ListData(), 0);
  EXPECT_EQ(busy.calls_, 3);
}

// Answers no call before it is cancelled.
class DyingDataService final : public v1::DataService::Service {
 public:
  grpc::Status List(grpc::ServerContext* context, const v1::ListDataRequest*, v1::ListDataResponse*) override {
    arrived_.Notify();
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return grpc::Status::CANCELLED;
  }

  Notification arrived_;
};

TEST_F(CommandsTest, ACallThatARestartCutsOffGoesOnAfterItAndOneToNobodyEndsAtOnce) {
  DyingDataService dying;
  std::unique_ptr<RpcServer> server = RpcServer::Start("127.0.0.1:0", {&dying}).value();
  const std::string address = server->address();
  Notification refused;
  JobClientOptions options;
  options.server = address;
  options.timeout = absl::Seconds(60);
  options.explain = [&refused](const absl::Status& status) {
    if (absl::StrContains(status.message(), "refused")) refused.Notify();
    return status;
  };
  JobClient client(MakeChannel(address), options);
  absl::Status status;
  Thread caller = StartThread("caller", [&] { status = client.ListData().status(); });
  dying.arrived_.Wait();
  server = nullptr;
  refused.Wait();
  BusyDataService next;
  next.calls_ = 1;  // which it answers
  server = RpcServer::Start(address, {&next}).value();
  caller.Join();
  EXPECT_TRUE(status.ok()) << status;
  server = nullptr;
  JobClient late(MakeChannel(address), options);
  EXPECT_THAT(late.ListData().status().message(), HasSubstr("no coordinator answers"));
}

TEST_F(CommandsTest, TheDoctorFindsWhatIsThereAndGivesAFixForWhatIsNot) {
  EXPECT_EQ(commands_->Doctor(), 0);
  const std::string text = out_->Take();
  for (const char* name : {"dns", "tcp", "api", "clock", "versions", "storage", "room", "shm"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
  EXPECT_THAT(text, HasSubstr("fix: start 1 x 'sluice-learner rank"));  // there is no group
  const std::string address = server_->address();
  server_.reset();
  EXPECT_EQ(commands_->Doctor(), 11);
  EXPECT_THAT(out_->Take(), HasSubstr("failed  tcp"));
}

TEST_F(CommandsTest, TheScreenShowsJobsAndRanksOnceWhereNobodyLooks) {
  const std::string id = SubmitTiny();
  auto member = MakeMember("m");
  WaitForJob(member.get());
  EXPECT_EQ(commands_->Top(), 0);
  const std::string text = out_->Take();
  EXPECT_THAT(text, HasSubstr("1 running, 0 queued, 0 paused"));
  EXPECT_THAT(text, HasSubstr("m:7090"));
  EXPECT_THAT(text, HasSubstr(id));
}

TEST_F(CommandsTest, SpecsAreComparedKeyByKey) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Diff(spec_path_, id), 0);
  const std::string other = JoinPath(folder_, "other.yaml");
  ASSERT_TRUE(WriteFileAtomically(other, "kind: sft\nname: tiny\ndata: e\ntime_limit_s: 5\nsft: {passes: 2}\n").ok());
  EXPECT_EQ(commands_->Diff(spec_path_, other), 1);
  EXPECT_EQ(out_->Take(),
            "KEY           A  B  ON RESUME\ndata          d  e  needs a fork\ntime_limit_s  0  5  may change\n");
}

TEST_F(CommandsTest, AFirstSpecIsValidOnceItsPlacesAreFilledIn) {
  for (const char* kind : {"prepare", "sft", "rl", "evaluate"}) {
    EXPECT_EQ(commands_->InitConfig(kind), 0);
    const std::string text = out_->Take();
    EXPECT_TRUE(ResolveSpec(text, kind).ok()) << ResolveSpec(text, kind).status();
  }
  EXPECT_EQ(commands_->InitConfig("nothing"), 2);
}

TEST_F(CommandsTest, QuietSaysNothingButDataAndErrors) {
  Console console;
  console.out = out_->file;
  console.err = err_->file;
  console.quiet = true;
  Commands quiet(client_.get(), console, &stop_);
  SubmitFlags flags;
  flags.spec_path = spec_path_;
  EXPECT_EQ(quiet.Submit(flags), 0);
  EXPECT_EQ(err_->Take(), "");
  EXPECT_NE(out_->Take(), "");
  EXPECT_EQ(quiet.Describe("nope"), 2);
  EXPECT_NE(err_->Take(), "");
}

TEST_F(CommandsTest, TraceTellsOfGroupsOfRlJobsAlone) {
  EXPECT_EQ(commands_->Trace({SubmitTiny(), {0}, {}}), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("is not of an rl job, and others have no groups"));
  ASSERT_TRUE(
      WriteFileAtomically(spec_path_, "kind: rl\nname: tiny-rl\ndata: d\nrl: {steps: 2, groups_per_step: 16}\n").ok());
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Trace({id.substr(0, id.size() - 2), {31, 4}, {}}), 0);
  EXPECT_EQ(out_->Take(),
            "group 31: not issued: it is of step 1, and the job is queued, at step 0 of 2\n"
            "\ngroup 4: not issued: it is of step 0, and the job is queued, at step 0 of 2\n");
  EXPECT_EQ(commands_->Trace({id, {32}, {}}), 2);
  EXPECT_THAT(err_->Take(),
              HasSubstr("no group of this job has the ordinal 32: its 2 steps of 16 groups have 0 to 31"));
  EXPECT_EQ(commands_->Trace({id, {0}, {JoinPath(folder_, "nowhere")}}), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("there is no journal at"));
  Connect(server_->address(), OutputFormat::kJson);
  EXPECT_EQ(commands_->Trace({id, {7}, {}}), 0);
  const auto json = nlohmann::json::parse(out_->Take());
  EXPECT_EQ(json["schema_version"], kSchemaVersion);
  EXPECT_EQ(json["groups"][0]["ordinal"], 7);
  EXPECT_EQ(json["groups"][0]["state"], "not_issued");
}

TEST_F(CommandsTest, DescribeIsTextOrJson) {
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->Describe(id), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("state            queued\n"));
  Connect(server_->address(), OutputFormat::kJson);
  EXPECT_EQ(commands_->Describe(id), 0);
  const auto json = nlohmann::json::parse(out_->Take());
  EXPECT_EQ(json["name"], "tiny");
  EXPECT_THAT(json["spec_yaml"].get<std::string>(), HasSubstr("passes: 2"));
}

TEST_F(CommandsTest, WatchAsJsonIsOneEventALine) {
  const std::string id = SubmitTiny();
  RunJobs(1, absl::OkStatus());
  Connect(server_->address(), OutputFormat::kJsonl);
  EXPECT_EQ(commands_->Watch(id, 0), 0);
  uint64_t sequence = 0;
  const std::string text = out_->Take();
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    EXPECT_EQ(nlohmann::json::parse(std::string(line))["sequence"], ++sequence);
  }
  EXPECT_EQ(sequence, 7u);  // queued, running, three points, a line, succeeded
}

TEST_F(CommandsTest, LogsEndWithWhatThereIs) {
  const std::string id = SubmitTiny();
  JobReport report;
  report.report_id = "r";
  report.logs = {{"info", "a line"}};
  ASSERT_TRUE(server_->coordinator()->Report(id, report).ok());
  EXPECT_EQ(commands_->Logs(id, {}), 0);  // the job is still queued
  EXPECT_THAT(out_->Take(), HasSubstr("a line\n"));
}

TEST_F(CommandsTest, ExplainShowsKeysAndSuggests) {
  EXPECT_EQ(commands_->Explain("rl.gate.tau", false), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("rl.gate.tau  [default 0.3]\n    Head fraction"));
  EXPECT_EQ(commands_->Explain("rl.gate", false), 0);
  EXPECT_THAT(out_->Take(), HasSubstr("rl.gate.rho"));
  EXPECT_EQ(commands_->Explain("rl.gate.tua", false), 2);
  EXPECT_THAT(err_->Take(), HasSubstr("did you mean rl.gate.tau?"));
}

}  // namespace
}  // namespace sluice::client

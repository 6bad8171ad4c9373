#include "client/cli/commands.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "client/cli/job_client.h"
#include "tests/learner/rpc/coordinator_fixture.h"

namespace sluice::client {
namespace {

using learner::JobReport;
using learner::MemberClient;
using learner::RankView;
using ::testing::HasSubstr;
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

  void Connect(const std::string& address, OutputFormat format = OutputFormat::kTable) {
    JobClientOptions options;
    options.server = address;
    options.timeout = absl::Seconds(20);
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
  flags.dry_run = true;
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
  flags.dry_run = true;
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
  EXPECT_EQ(commands_->List(10), 11);
  EXPECT_EQ(err_->Take(), absl::StrCat("sluicectl: no coordinator answers at ", address,
                                       "; start one with 'sluice-learner coordinator', or name another with --server "
                                       "or SLUICE_SERVER\n"));
  EXPECT_EQ(out_->Take(), "");
}

TEST_F(CommandsTest, ListsAreTablesOrJson) {
  EXPECT_EQ(commands_->List(10), 0);
  EXPECT_EQ(out_->Take(), "");
  const std::string id = SubmitTiny();
  EXPECT_EQ(commands_->List(10), 0);
  EXPECT_THAT(out_->Take(), HasSubstr(id));
  Connect(server_->address(), OutputFormat::kJson);
  EXPECT_EQ(commands_->List(10), 0);
  EXPECT_EQ(nlohmann::json::parse(out_->Take())["jobs"][0]["job_id"], id);
  Connect(server_->address(), OutputFormat::kJsonl);
  EXPECT_EQ(commands_->List(10), 0);
  EXPECT_EQ(nlohmann::json::parse(out_->Take())["state"], "queued");
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
  EXPECT_EQ(commands_->Logs(id, false), 0);  // the job is still queued
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

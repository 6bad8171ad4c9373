#include "client/cli/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "client/cli/console.h"
#include "common/file/file.h"

namespace sluice::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::JobSummary Summary() {
  v1::JobSummary summary;
  summary.set_job_id("beauty-3f9c2a");
  summary.set_name("beauty");
  summary.set_kind(v1::JOB_KIND_RL);
  summary.set_state(v1::JOB_STATE_RUNNING);
  summary.mutable_submitted()->set_seconds(1700000000);
  summary.mutable_started()->set_seconds(1700000010);
  summary.set_step(40);
  summary.set_total_steps(200);
  summary.set_message("training");
  return summary;
}

TEST(FormatTest, ColumnsLineUp) {
  EXPECT_EQ(Table({{"ID", "STATE", "X"}, {"a-long-id", "ok", ""}}), "ID         STATE  X\na-long-id  ok     \n");
}

TEST(FormatTest, ColoursTakeNoRoom) {
  EXPECT_EQ(Table({{"STATE", "X"}, {ColoredState("failed"), "y"}}), "STATE   X\n\033[31mfailed\033[0m  y\n");
}

TEST(FormatTest, YamlReadsBackToWhatItWas) {
  EXPECT_EQ(YamlText({{"a", "plain"},
                      {"b", "yes"},
                      {"c", "1"},
                      {"d", nullptr},
                      {"e", {1, "x: y"}},
                      {"f", nlohmann::ordered_json::object()}}),
            "a: plain\nb: \"yes\"\nc: \"1\"\nd: null\ne:\n  - 1\n  - \"x: y\"\nf: {}\n");
}

TEST(FormatTest, AJobIsOneLineOfTheTable) {
  v1::ListResponse jobs;
  *jobs.add_jobs() = Summary();
  const std::string table = JobTable(jobs, absl::FromUnixSeconds(1700000075));
  EXPECT_THAT(table, HasSubstr("beauty-3f9c2a  rl    running  40/200"));
  EXPECT_THAT(table, HasSubstr("1 min 05 s  training\n"));
}

TEST(FormatTest, JsonHasStableNamesAndNullForWhatIsNotThere) {
  const auto json = SummaryJson(Summary());
  EXPECT_EQ(json["job_id"], "beauty-3f9c2a");
  EXPECT_EQ(json["kind"], "rl");
  EXPECT_EQ(json["submitted"], "2023-11-14T22:13:20.000Z");
  EXPECT_TRUE(json["ended"].is_null());
  EXPECT_TRUE(json["exit_code"].is_null());  // not ended: 0 would read as success
  v1::JobSummary ended = Summary();
  ended.set_state(v1::JOB_STATE_FAILED);
  ended.set_exit_code(3);
  EXPECT_EQ(SummaryJson(ended)["exit_code"], 3);
}

TEST(FormatTest, EventsAreOneObjectEach) {
  v1::JobEvent event;
  event.set_sequence(7);
  event.mutable_time()->set_seconds(1700000000);
  event.mutable_metrics()->set_step(3);
  (*event.mutable_metrics()->mutable_values())["loss"] = 1.25;
  (*event.mutable_metrics()->mutable_values())["bad"] = std::nan("");
  EXPECT_EQ(EventJson(event).dump(), R"({"sequence":7,"time":"2023-11-14T22:13:20.000Z","step":3,"total_steps":0,)"
                                     R"("metrics":{"bad":null,"loss":1.25}})");
  EXPECT_EQ(MetricsText(event.metrics()), "bad nan, loss 1.25");
}

// A line of progress once carried all thirty metrics of a step.
TEST(FormatTest, ALineOfProgressShowsTheHeadlinesAlone) {
  v1::MetricsPoint point;
  (*point.mutable_values())["gate/open_rate"] = 0.25;
  (*point.mutable_values())["gate/stale"] = 0;
  (*point.mutable_values())["loss/nll"] = 1.5;
  EXPECT_EQ(MetricsText(point), "loss/nll 1.5, gate/open_rate 0.25");
}

TEST(FormatTest, DescribeShowsTheBalanceAndTheSpec) {
  v1::DescribeResponse job;
  *job.mutable_summary() = Summary();
  job.mutable_ledger()->set_issued(64);
  job.mutable_ledger()->set_trained(60);
  job.mutable_ledger()->set_open(4);
  (*job.mutable_metrics())["loss"] = 0.5;
  (*job.mutable_results())["export"] = "export/best";
  job.mutable_spec()->set_kind(v1::JOB_KIND_RL);
  job.mutable_spec()->mutable_rl()->set_steps(200);
  const std::string text = DescribeText(job, absl::FromUnixSeconds(1700000075));
  EXPECT_THAT(text, HasSubstr("64 issued = 60 trained + 0 dropped + 0 failed + 0 cancelled + 4 open\n"));
  EXPECT_THAT(text, HasSubstr("effective spec\n  kind: rl\n  rl:\n    steps: 200\n"));
  EXPECT_THAT(text, HasSubstr("last checkpoint  none\n"));
  EXPECT_THAT(text, Not(HasSubstr("exit code")));
  EXPECT_THAT(text, Not(HasSubstr("owner")));
  EXPECT_TRUE(DescribeJson(job)["owner"].is_null());
  job.set_owner("ada");
  EXPECT_THAT(DescribeText(job, absl::FromUnixSeconds(1700000075)), HasSubstr("\nowner            ada\n"));
  EXPECT_EQ(DescribeJson(job)["owner"], "ada");
}

TEST(FormatTest, TheReferencePageNamesEveryKey) {
  const std::vector<SpecKey> keys = ExplainSpec();
  const std::string page = ExplainMarkdown(keys);
  const std::string lines = ExplainText(keys);
  for (const SpecKey& key : keys) {
    EXPECT_THAT(lines, HasSubstr(key.path));
    EXPECT_THAT(page, HasSubstr(key.is_section ? "\n## " + key.path + "\n" : "| `" + key.path + "` |"));
  }
  EXPECT_THAT(page, HasSubstr("| `rl.gate.tau` | number, 0 to 1 | 0.3 |"));
  EXPECT_THAT(lines, HasSubstr("kind  [required]"));
}

TEST(FormatTest, TheReferencePageInDocsIsUpToDate) {
  const auto page = ReadFile(std::string(SLUICE_SOURCE_DIR) + "/docs/job_spec.md");
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(*page, ExplainMarkdown(ExplainSpec()))
      << "spec.proto has changed: build/bin/sluicectl config explain --markdown > docs/job_spec.md";
}

}  // namespace
}  // namespace sluice::client

#include "client/cli/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "client/cli/completion.h"
#include "client/cli/spec_schema.h"
#include "common/file/file.h"

namespace sluice::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AppTest : public testing::Test {
 protected:
  Handover Find(std::vector<const char*> words) {
    words.insert(words.begin(), "sluicectl");
    return FindHandover(*app_, static_cast<int>(words.size()), words.data());
  }

  Flags flags_;
  const std::unique_ptr<CLI::App> app_ = MakeApp(&flags_);
};

// Options before these words once made "inspect" an unknown argument.
TEST_F(AppTest, OptionsMayStandBeforeTheWordsThatStartAnotherProgram) {
  EXPECT_EQ(Find({"inspect", "model", "DIR"}).word, 1);
  EXPECT_EQ(Find({"-o", "json", "inspect", "model"}).word, 3);
  EXPECT_EQ(Find({"--server", "inspect", "replay", "RUN"}).word, 3);  // the server's name is no command
  EXPECT_EQ(Find({"--server=h:1", "--quiet", "advise", "RUN"}).word, 3);
  EXPECT_EQ(Find({"--quiet", "inspect"}).program, "sluice-inspect");
  EXPECT_TRUE(Find({"replay"}).keeps_word);
  EXPECT_EQ(Find({"logs", "inspect"}).word, -1);
  EXPECT_EQ(Find({"--server", "inspect"}).word, -1);
  EXPECT_EQ(Find({}).word, -1);
}

TEST_F(AppTest, ADryRunIsTheClientsUnlessItSaysServer) {
  app_->parse("submit job.yaml --dry-run");
  EXPECT_EQ(flags_.submit.dry_run, "client");
  EXPECT_EQ(flags_.submit.spec_path, "job.yaml");
  app_->parse("submit --dry-run=server job.yaml");
  EXPECT_EQ(flags_.submit.dry_run, "server");
  EXPECT_THROW(app_->parse("submit job.yaml --dry-run=moon"), CLI::ParseError);
}

TEST_F(AppTest, ATimeoutOfWaitIsNotThatOfACall) {
  app_->parse("--timeout 7 wait job --timeout 60");
  EXPECT_EQ(flags_.timeout_s, 7);
  EXPECT_EQ(flags_.wait_timeout_s, 60);
}

TEST_F(AppTest, TraceTakesGroupsAndJournalsInAnyOrder) {
  app_->parse("trace job 7 --journal a 4711 --journal b");
  EXPECT_EQ(flags_.trace.job, "job");
  EXPECT_THAT(flags_.trace.ordinals, ElementsAre(7, 4711));
  EXPECT_THAT(flags_.trace.journals, ElementsAre("a", "b"));
  EXPECT_THROW(app_->parse("trace job"), CLI::ParseError);
  EXPECT_THROW(app_->parse("trace job -1"), CLI::ParseError);
  EXPECT_THROW(app_->parse("trace job seven"), CLI::ParseError);
  // A journal's name may begin with a dash.
  EXPECT_THAT(FolderTraceArguments({"runs/r", {7, 8}, {"-j", "k"}}, true),
              ElementsAre("trace", "runs/r", "7", "8", "--journal=-j", "--journal=k", "-o", "json"));
}

TEST_F(AppTest, SinceTakesUnits) {
  app_->parse("logs job --since 10m");
  EXPECT_EQ(flags_.since_s, 600);
  app_->parse("logs job --since 30");
  EXPECT_EQ(flags_.since_s, 30);
}

// Every option of every command must be known to the shells and the pages, since all come from one description.
TEST_F(AppTest, CompletionsAndPagesNameEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = CompletionScript(*app_, shell);
    for (const char* word : {"submit", "pause", "artifacts", "download", "data", "push", "doctor"}) {
      EXPECT_THAT(script, HasSubstr(word)) << shell;
    }
  }
  EXPECT_THAT(CompletionScript(*app_, "bash"), HasSubstr("'artifacts download') words='"));
  const std::string man = ManPage(*app_);
  EXPECT_THAT(man, HasSubstr(".SS sluicectl submit FILE\n"));
  EXPECT_THAT(man, HasSubstr(".B \\-\\-request\\-id VALUE\n"));
}

TEST_F(AppTest, TheReferencePageInDocsIsUpToDate) {
  const auto page = ReadFile(std::string(SLUICE_SOURCE_DIR) + "/docs/reference/sluicectl.md");
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(*page, ReferencePage(*app_))
      << "the command line has changed: build/bin/sluicectl man --markdown > docs/reference/sluicectl.md";
}

TEST(SpecSchemaTest, TheSchemaHasTypesRangesAndDefaults) {
  const nlohmann::ordered_json schema = SpecJsonSchema();
  EXPECT_EQ(schema["required"], nlohmann::ordered_json::array({"kind"}));
  const auto& rl = schema["properties"]["rl"];
  EXPECT_EQ(rl["additionalProperties"], false);
  const auto& tau = rl["properties"]["gate"]["properties"]["tau"];
  EXPECT_EQ(tau["type"], "number");
  EXPECT_EQ(tau["minimum"], 0);
  EXPECT_EQ(tau["maximum"], 1);
  EXPECT_EQ(tau["default"], 0.3);
  EXPECT_EQ(schema["properties"]["kind"]["enum"], nlohmann::ordered_json::array({"prepare", "sft", "rl", "evaluate"}));
}

}  // namespace
}  // namespace sluice::client

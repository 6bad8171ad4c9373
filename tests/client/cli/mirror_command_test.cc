#include "client/cli/mirror_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "client/cli/app.h"
#include "tests/testing/temporary_folder.h"

namespace sluice::client {
namespace {

using ::testing::ElementsAre;
using ::testing::ExitedWithCode;

// Runs in a process of its own what replaces its process.
class MirrorCommandTest : public testing::Test {
 protected:
  MirrorCommandTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
  // An interpreter that says whether it has the package, and then ends with 7 after it told what it was given.
  std::string Interpreter(int has_package) {
    folder_.Write("python", absl::StrCat("#!/bin/sh\nif [ \"$2\" = -c ]; then echo noise >&2; exit ", has_package,
                                         "; fi\nfor word; do echo \"<$word>\" >&2; done\nexit 7\n"));
    chmod((folder_ / "python").c_str(), S_IRWXU);
    return folder_ / "python";
  }

  const TemporaryFolder folder_;
};

TEST_F(MirrorCommandTest, TheInterpreterGetsEveryArgumentAsItIs) {
  const std::string python = Interpreter(0);
  EXPECT_EXIT(
      {
        setenv("SLUICE_PYTHON", python.c_str(), 1);
        std::exit(MirrorCommand({"--job=rl-1", "--name=two words"}));
      },
      ExitedWithCode(7), "^<-P>\n<-m>\n<sluice.mirror>\n<--job=rl-1>\n<--name=two words>\n$");
}

TEST_F(MirrorCommandTest, WhatIsMissingIsSaidInOneSentence) {
  const std::string python = Interpreter(1);
  EXPECT_EXIT(
      {
        setenv("SLUICE_PYTHON", python.c_str(), 1);
        std::exit(MirrorCommand({}));
      },
      ExitedWithCode(2),
      "^sluicectl: mirror is done by the Python package sluice, and '.*python' is older than 3.11, or has no package "
      "sluice of this release: install it with .*; or name another interpreter in SLUICE_PYTHON\n$");
  EXPECT_EXIT(
      {
        setenv("SLUICE_PYTHON", "/nowhere/python", 1);
        std::exit(MirrorCommand({}));
      },
      ExitedWithCode(2),
      "^sluicectl: .*'/nowhere/python' cannot be run \\(No such file or directory\\): install .*\n$");
}

TEST_F(MirrorCommandTest, FlagsAreHandedOnInOneWordEachAndWhatWasNotSaidIsNot) {
  EXPECT_THAT(MirrorArguments({"-odd", "wandb"}, {}, false), ElementsAre("--job=-odd", "--to=wandb"));
  MirrorFlags flags;
  flags.job = "rl";
  flags.to = "mlflow";
  flags.uri = "http://h:5000";
  flags.experiment = "my own";
  flags.follow = true;
  flags.every_s = 0.5;
  flags.patience_s = 600;
  EXPECT_THAT(MirrorArguments(flags, {"--server=h:1"}, true),
              ElementsAre("--job=rl", "--to=mlflow", "--uri=http://h:5000", "--experiment=my own", "--follow",
                          "--every=0.5", "--patience=600", "--server=h:1", "--output=json"));
}

// The package finds contexts and certificates by the same rules, from the same flags and variables.
TEST_F(MirrorCommandTest, TheCommandLineHandsTheConnectionOn) {
  const std::string python = Interpreter(0);
  EXPECT_EXIT(
      {
        setenv("SLUICE_PYTHON", python.c_str(), 1);
        setenv("SLUICE_TOKEN_FILE", "/my token", 1);
        Flags flags;
        const std::unique_ptr<CLI::App> app = MakeApp(&flags);
        app->parse("--server h:1 mirror rl --to tensorboard --folder tb --timeout 9 -o json --tls-ca ca.pem");
        const std::atomic<bool> stop{false};
        std::exit(Dispatch(*app, flags, stop));
      },
      ExitedWithCode(7),
      "<--job=rl>\n<--to=tensorboard>\n<--folder=tb>\n<--server=h:1>\n<--timeout=9>\n<--tls-ca=ca.pem>\n"
      "<--token-file=/my token>\n<--output=json>\n$");
}

TEST_F(MirrorCommandTest, AnotherTrackerOrFormIsRefused) {
  Flags flags;
  const std::unique_ptr<CLI::App> app = MakeApp(&flags);
  EXPECT_THROW(app->parse("mirror rl --to comet"), CLI::ParseError);
  EXPECT_THROW(app->parse("mirror rl"), CLI::ParseError);
  EXPECT_THROW(app->parse("mirror rl --to wandb --every 0"), CLI::ParseError);
  app->parse("mirror rl --to wandb --folder w -o yaml");
  const std::atomic<bool> stop{false};
  EXPECT_EQ(Dispatch(*app, flags, stop), 2);
}

}  // namespace
}  // namespace sluice::client

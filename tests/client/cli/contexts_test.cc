#include "client/cli/contexts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/testing/temporary_folder.h"

namespace sluice::client {
namespace {

using ::testing::HasSubstr;

class ContextsTest : public testing::Test {
 protected:
  ContextsTest() : path_(folder_ / "config/contexts.yaml"), printer_(Quiet()) {}
  static Console Quiet() {
    Console console;
    console.quiet = true;
    return console;
  }
  std::string Server(const std::string& name) {
    const absl::StatusOr<Context> context = ChooseContext(ReadContexts(path_).value(), name);
    return context.ok() ? context->server : std::string(context.status().message());
  }

  const TemporaryFolder folder_;
  const std::string path_;
  const Printer printer_;
};

TEST_F(ContextsTest, WithoutAFileThereIsNoContext) { EXPECT_EQ(Server(""), ""); }

TEST_F(ContextsTest, TheFirstContextIsTheCurrentOneUntilAnotherIsUsed) {
  EXPECT_EQ(SetContext(printer_, path_, "lab", {{"server", "lab:7070"}}), 0);
  EXPECT_EQ(SetContext(printer_, path_, "prod", {{"server", "prod:7070"}}), 0);
  EXPECT_EQ(Server(""), "lab:7070");
  EXPECT_EQ(Server("prod"), "prod:7070");
  EXPECT_EQ(UseContext(printer_, path_, "prod"), 0);
  EXPECT_EQ(Server(""), "prod:7070");
  EXPECT_EQ(UseContext(printer_, path_, "moon"), 2);
  EXPECT_THAT(Server("moon"), HasSubstr("there is no context 'moon'; there are lab, prod"));
  EXPECT_EQ(RemoveContext(printer_, path_, "prod"), 0);
  EXPECT_EQ(Server(""), "");
}

TEST_F(ContextsTest, TheFileIsItsOwnersAlone) {
  ASSERT_EQ(SetContext(printer_, path_, "lab", {{"server", "lab:7070"}}), 0);
  struct stat facts = {};
  ASSERT_EQ(stat(path_.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
}

TEST_F(ContextsTest, EveryMistakeHasItsPlace) {
  folder_.Write("config/contexts.yaml", "curent: lab\ncontexts:\n  lab:\n    sever: lab:7070\n");
  const absl::Status status = ReadContexts(path_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("contexts.yaml:1:1: curent"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("contexts.yaml:4:5: lab.sever: unknown field"));
  EXPECT_EQ(ListContexts(printer_, path_), 2);
}

TEST_F(ContextsTest, BadNamesAndAddressesAreRefused) {
  EXPECT_EQ(SetContext(printer_, path_, "a/b", {}), 2);
  EXPECT_EQ(SetContext(printer_, path_, "lab", {{"server", "lab"}}), 2);
  EXPECT_FALSE(PathExists(path_));
}

}  // namespace
}  // namespace sluice::client

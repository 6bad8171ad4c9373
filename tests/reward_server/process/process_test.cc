// The binary itself: what a user sees of starting, serving and stopping it.
#include "tests/testing/process.h"

#include <grpcpp/client_context.h>
#include <signal.h>

#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sluice/v1/reward.grpc.pb.h"
#include "tests/testing/tiny_contents.h"

namespace sluice::reward {
namespace {

using ::testing::HasSubstr;

class ProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = JoinPath(::testing::TempDir(), "reward_process_" + name);
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    const absl::Status written = Dataset::Write(data(), TinyContents());
    ASSERT_TRUE(written.ok()) << written;
  }
  void TearDown() override { RemoveAll(folder_).IgnoreError(); }

  std::string data() const { return JoinPath(folder_, "data"); }
  std::string folder_;
};

TEST_F(ProcessTest, ServesScoresAndStopsCleanlyOnSigterm) {
  Process process("sluice-reward", {"--data", data(), "--address", "127.0.0.1:0", "--log-format", "json"});
  const std::string line = process.ReadLineWith("serving");
  const std::string key = "\"address\":\"";
  ASSERT_NE(line.find(key), std::string::npos) << process.said();
  const size_t begin = line.find(key) + key.size();
  const std::string address = line.substr(begin, line.find('"', begin) - begin);
  const auto stub = v1::RewardService::NewStub(MakeChannel(address));
  grpc::ClientContext describe_context, score_context;
  SetDeadline(&describe_context, absl::Seconds(30));
  SetDeadline(&score_context, absl::Seconds(30));
  v1::DescribeRankersResponse described;
  const grpc::Status status = stub->Describe(&describe_context, {}, &described);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(described.rankers_size(), 1);
  EXPECT_EQ(described.rankers(0).name(), "cooccurrence");

  v1::ScoreRequest request;
  request.set_ranker("cooccurrence");
  request.set_catalog_version(described.catalog_version());
  v1::GroupToScore* group = request.add_groups();
  group->set_user(-1);
  group->add_history(0);
  group->set_target(1);
  group->add_candidates()->add_items(2);
  v1::ScoreResponse response;
  ASSERT_TRUE(stub->Score(&score_context, request, &response).ok());
  ASSERT_EQ(response.groups(0).status(), v1::GROUP_SCORE_STATUS_OK);
  EXPECT_GT(response.groups(0).heads(0).target(), response.groups(0).heads(0).scores(0));  // 0 was followed by 1

  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0) << process.said();
}

TEST_F(ProcessTest, PortInUseIsAPlainErrorWithARemedy) {
  const auto other = RpcServer::Start("127.0.0.1:0", {}).value();
  Process process("sluice-reward", {"--data", data(), "--address", other->address()});
  EXPECT_EQ(process.Wait(), 11);
  EXPECT_THAT(process.said(), HasSubstr("cannot listen at " + other->address()));
}

TEST_F(ProcessTest, MissingDataAndBadFlagsHaveTheirExitCodes) {
  Process missing("sluice-reward", {"--data", JoinPath(folder_, "nothing")});
  EXPECT_EQ(missing.Wait(), 3);
  EXPECT_THAT(missing.said(), HasSubstr("nothing"));
  EXPECT_EQ(Process("sluice-reward", {}).Wait(), 2);
  Process bad_flag("sluice-reward", {"--data", data(), "--max-queue", "0"});
  EXPECT_EQ(bad_flag.Wait(), 2);
  EXPECT_THAT(bad_flag.said(), HasSubstr("max_queued_groups"));
}

}  // namespace
}  // namespace sluice::reward

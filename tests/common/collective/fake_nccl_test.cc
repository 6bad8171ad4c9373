// The fake sees what it says it sees: each of NCCL's rules broken once.
#include "tests/testing/fake_nccl/fake_nccl.h"

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FakeNcclTest : public ::testing::Test {
 protected:
  std::vector<NcclComm*> Form(int ranks, NcclConfig config = {}) {
    NcclUniqueId id = {};
    EXPECT_EQ(api_.get_unique_id(&id), NcclResult::kSuccess);
    std::vector<NcclComm*> comms(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(api_.comm_init_rank_config(&comms[rank], ranks, id, rank, &config), NcclResult::kInProgress);
    }
    return comms;
  }
  NcclResult State(NcclComm* comm) {
    NcclResult state = NcclResult::kInternalError;
    EXPECT_EQ(api_.comm_get_async_error(comm, &state), NcclResult::kSuccess);
    return state;
  }
  NcclResult Sum(NcclComm* comm, float* value, size_t count = 1) {
    return api_.all_reduce(value, value, count, NcclDataType::kFloat32, NcclRedOp::kSum, comm, stream_->handle());
  }

  FakeNccl nccl_;
  const NcclApi api_ = nccl_.api();
  const std::unique_ptr<DeviceStream> stream_ = nccl_.NewStream();
};

TEST_F(FakeNcclTest, ACallIsDoneWhenTheLastRankCame) {
  const std::vector<NcclComm*> comms = Form(2);
  float values[] = {1, 2};
  ASSERT_EQ(Sum(comms[0], &values[0]), NcclResult::kSuccess);
  EXPECT_FALSE(stream_->Done());
  ASSERT_EQ(Sum(comms[1], &values[1]), NcclResult::kSuccess);
  EXPECT_TRUE(stream_->Done());
  EXPECT_THAT(values, ElementsAre(3, 3));
  EXPECT_THAT(nccl_.breaches(), IsEmpty());
}

TEST_F(FakeNcclTest, APeerThatIsGoneIsARemoteErrorOnceItIsWaitedFor) {
  const std::vector<NcclComm*> comms = Form(2);
  EXPECT_EQ(api_.comm_abort(comms[1]), NcclResult::kInProgress);
  EXPECT_EQ(State(comms[0]), NcclResult::kSuccess);
  float value = 1;
  ASSERT_EQ(Sum(comms[0], &value), NcclResult::kSuccess);
  EXPECT_EQ(State(comms[0]), NcclResult::kRemoteError);
}

TEST_F(FakeNcclTest, CommunicatorsThatAreNotFreedAreCounted) {
  const std::vector<NcclComm*> comms = Form(2);
  EXPECT_EQ(nccl_.live_communicators(), 2);
  api_.comm_abort(comms[0]);
  api_.comm_finalize(comms[1]);
  EXPECT_EQ(nccl_.live_communicators(), 1);
  api_.comm_destroy(comms[1]);
  EXPECT_EQ(nccl_.live_communicators(), 0);
  EXPECT_THAT(nccl_.breaches(), IsEmpty());
}

TEST_F(FakeNcclTest, UseAfterAnAbortIsABreach) {
  const std::vector<NcclComm*> comms = Form(1);
  api_.comm_abort(comms[0]);
  api_.comm_abort(comms[0]);
  float value = 1;
  Sum(comms[0], &value);
  EXPECT_THAT(nccl_.breaches(), ElementsAre(HasSubstr("CommAbort of a communicator that is gone"),
                                            HasSubstr("AllReduce of a communicator that is gone")));
}

TEST_F(FakeNcclTest, FreeingBeforeTheEndIsABreach) {
  api_.comm_destroy(Form(1)[0]);
  EXPECT_THAT(nccl_.breaches(), ElementsAre(HasSubstr("destroyed before it was finalized")));
}

TEST_F(FakeNcclTest, RanksThatCallDifferentThingsAreABreachAndHang) {
  const std::vector<NcclComm*> comms = Form(2);
  float values[] = {1, 2};
  Sum(comms[0], values, 2);
  Sum(comms[1], values, 1);
  EXPECT_THAT(nccl_.breaches(), ElementsAre(HasSubstr("rank 1 makes another call number 0 than its peers")));
  EXPECT_FALSE(stream_->Done());
}

TEST_F(FakeNcclTest, ABlockingCommunicatorIsABreach) {
  NcclConfig config;
  config.blocking = 1;
  Form(1, config);
  EXPECT_THAT(nccl_.breaches(), ElementsAre(HasSubstr("blocking = 0")));
}

TEST_F(FakeNcclTest, AGroupCallThatWasNotOpenedIsABreach) {
  api_.group_start();
  api_.group_end();
  EXPECT_THAT(nccl_.breaches(), IsEmpty());
  api_.group_end();
  EXPECT_THAT(nccl_.breaches(), ElementsAre(HasSubstr("ncclGroupEnd without ncclGroupStart")));
  api_.group_start();
}

}  // namespace
}  // namespace sluice

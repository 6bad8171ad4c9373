#include "reward_server/ranker_torch/load_rankers.h"

#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/market/market.h"
#include "common/ranker/sequential_ranker.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_contents.h"

namespace sluice::reward {
namespace {

class LoadRankersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = JoinPath(::testing::TempDir(),
                       std::string("rankers_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
    const absl::Status written = Dataset::Write(folder_, TinyContents());
    ASSERT_TRUE(written.ok()) << written;
  }
  void TearDown() override { RemoveAll(folder_).IgnoreError(); }

  void SaveSequential(int64_t num_items) {
    SequentialRankerConfig config;
    config.num_items = num_items;
    config.hidden_size = 8;
    model_ = SequentialRanker::Create(config, 4).value();
    ASSERT_TRUE(model_->Save(JoinPath(folder_, kSequentialRankerFolder)).ok());
  }
  absl::StatusOr<RankerSet> Load() { return LoadRankers(Dataset::Load(folder_).value()); }

  std::string folder_;
  std::unique_ptr<SequentialRanker> model_;
};

TEST_F(LoadRankersTest, WithoutASequentialRankerThereIsCooccurrenceAlone) {
  const auto rankers = Load();
  ASSERT_TRUE(rankers.ok()) << rankers.status();
  ASSERT_EQ(rankers->all().size(), 1u);
  EXPECT_EQ(rankers->all()[0]->name(), "cooccurrence");
  EXPECT_EQ(rankers->Find("blend").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LoadRankersTest, BlendIsTheSumOfCooccurrenceAndSequentialLogit) {
  SaveSequential(4);
  const auto rankers = Load();
  ASSERT_TRUE(rankers.ok()) << rankers.status();
  const ItemQuery query = {.user = -1, .history = {0}, .items = {1, 3}};
  const ItemScores blend = *(*rankers->Find("blend"))->Score({query})[0];
  const ItemScores rule = *(*rankers->Find("cooccurrence"))->Score({query})[0];
  const std::vector<std::vector<int32_t>> history = {{0}}, items = {{1, 3}};
  const std::vector<float> logits = model_->Score(history, items).value()[0];
  for (int i = 0; i < 2; ++i) {
    EXPECT_FLOAT_EQ(blend[0][i], rule[0][i] + logits[i]);
    EXPECT_FLOAT_EQ(blend[2][i], logits[i]);
  }
  EXPECT_EQ((*rankers->Find("sequential"))->version(), model_->Digest());
}

TEST_F(LoadRankersTest, TheRankerWithoutInjectedBiasStandsBesideTheOtherOne) {
  SaveSequential(4);
  SequentialRankerConfig config;
  config.num_items = 4;
  config.hidden_size = 8;
  const auto unbiased = SequentialRanker::Create(config, 5).value();
  ASSERT_TRUE(unbiased->Save(JoinPath(folder_, kUnbiasedRankerFolder)).ok());
  const auto rankers = Load();
  ASSERT_TRUE(rankers.ok()) << rankers.status();
  EXPECT_EQ((*rankers->Find("unbiased"))->version(), unbiased->Digest());
  EXPECT_EQ((*rankers->Find("sequential"))->version(), model_->Digest());
}

TEST_F(LoadRankersTest, AMarketHasTheRankersOfItsTruth) {
  ASSERT_TRUE(RemoveAll(folder_).ok());
  MarketOptions options;
  options.slate = 5;
  options.sft_users = 5;
  options.rl_users = 0;
  options.heldout_users = 1;
  const auto contents = GenerateMarket(options, 1, "m", 10, [] { return absl::OkStatus(); });
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_TRUE(Dataset::Write(folder_, *contents).ok());
  const auto rankers = Load();
  ASSERT_TRUE(rankers.ok()) << rankers.status();
  ASSERT_EQ(rankers->all().size(), 2u);
  EXPECT_EQ(rankers->all()[1]->name(), "truth");
  const ItemQuery query = {.user = 3, .history = {0}, .items = {1, 2000}};
  const ItemScores scores = *(*rankers->Find("truth:pop:1"))->Score({query})[0];
  EXPECT_FLOAT_EQ(scores[0][1], contents->truth->StandardLogPopularity(2000));
}

TEST_F(LoadRankersTest, RankerOfAnotherCatalogIsRefused) {
  SaveSequential(5);
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(LoadRankersTest, DamagedRankerIsRefusedNotSkipped) {
  SaveSequential(4);
  ASSERT_TRUE(
      WriteFileAtomically(JoinPath(JoinPath(folder_, kSequentialRankerFolder), "config.json"), absl::string_view("{}"))
          .ok());
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::reward

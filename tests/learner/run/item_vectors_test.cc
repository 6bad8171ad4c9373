#include "learner/run/item_vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/catalog/npy.h"
#include "common/file/file.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Four items of which 1 and 3 share a semantic ID.
Dataset::Contents Contents() {
  Dataset::Contents contents;
  contents.name = "four";
  contents.item_names = {"a", "b", "c", "d"};
  contents.user_names = {"u"};
  contents.first_event = {0, 4};
  contents.event_item = {0, 1, 2, 3};
  contents.event_split = {SplitLabel::kTrain, SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest};
  contents.item_codes = {0, 0, 1, 1, 0, 1, 1, 1};
  contents.levels = 2;
  contents.codes = 2;
  return contents;
}

class ItemVectorsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = JoinPath(testing::TempDir(), "item_vectors_XXXXXX");
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { ASSERT_TRUE(RemoveAll(folder_).ok()); }

  std::unique_ptr<Policy> PolicyOf(const Dataset& dataset) {
    PolicyConfig config;
    config.vocab_size = dataset.vocabulary().size();
    config.hidden_size = 8;
    config.intermediate_size = 8;
    config.num_layers = 1;
    config.num_heads = config.num_kv_heads = 1;
    config.head_dim = 8;
    return Policy::Create(config, dataset.shared_trie(), 1).value();
  }

  std::string folder_;
};

TEST_F(ItemVectorsTest, AFileHasOneRowAnItemAndALeafTheirMean) {
  const auto dataset = Dataset::FromContents(Contents()).value();
  const std::string path = JoinPath(folder_, "v.npy");
  ASSERT_TRUE(WriteNpy<float>(path, {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}).ok());
  const LeafVectors vectors = ReadItemVectors(path, *dataset, *PolicyOf(*dataset)).value();
  EXPECT_EQ(vectors.width, 2);
  EXPECT_THAT(vectors.Of(dataset->trie().LeafOfItem(0)), ElementsAre(1, 2));
  EXPECT_THAT(vectors.Of(dataset->trie().LeafOfItem(2)), ElementsAre(5, 6));
  EXPECT_THAT(vectors.Of(dataset->trie().LeafOfItem(1)), ElementsAre(5, 6));  // of (3, 4) and (7, 8)

  ASSERT_TRUE(WriteNpy<float>(path, {2, 2}, {1, 2, 3, 4}).ok());
  const absl::Status few = ReadItemVectors(path, *dataset, *PolicyOf(*dataset)).status();
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(few.message()), HasSubstr("has 2 rows, want one for each of the data set's 4 items"));
  EXPECT_EQ(ReadItemVectors(JoinPath(folder_, "none.npy"), *dataset, *PolicyOf(*dataset)).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ItemVectorsTest, DataMeansTheFileOfTheDataSet) {
  const std::string bare = JoinPath(folder_, "bare"), full = JoinPath(folder_, "full");
  ASSERT_TRUE(Dataset::Write(bare, Contents()).ok());
  const auto without = Dataset::Load(bare).value();
  const absl::Status none = ReadItemVectors("data", *without, *PolicyOf(*without)).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr("has no item_vectors.npy"));

  const auto writer = DatasetWriter::Create(full).value();
  ASSERT_TRUE(WriteNpy<float>(JoinPath(writer->staging(), kItemVectorsFile), {4, 1}, {1, 2, 3, 4}).ok());
  ASSERT_TRUE(writer->Finish(Contents()).ok());
  const auto with = Dataset::Load(full).value();
  EXPECT_THAT(ReadItemVectors("data", *with, *PolicyOf(*with))->Of(with->trie().LeafOfItem(2)), ElementsAre(3));
}

TEST_F(ItemVectorsTest, PolicyMeansItsEmbeddings) {
  const auto dataset = Dataset::FromContents(Contents()).value();
  const auto policy = PolicyOf(*dataset);
  const LeafVectors vectors = ReadItemVectors("policy", *dataset, *policy).value();
  const at::Tensor want = policy->LeafEmbeddings(dataset->trie()).value();
  ASSERT_EQ(vectors.width, 8);
  for (int32_t leaf = 0; leaf < dataset->trie().num_leaves(); ++leaf) {
    for (int64_t e = 0; e < 8; ++e) EXPECT_EQ(vectors.Of(leaf)[e], want.const_data_ptr<float>()[leaf * 8 + e]);
  }
}

}  // namespace
}  // namespace sluice::learner

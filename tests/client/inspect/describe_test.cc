#include "client/inspect/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/model/policy.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string FreshFolder(const std::string& name) {
  const std::string folder = testing::TempDir() + "/describe_test_" + name;
  EXPECT_TRUE(RemoveAll(folder).ok());
  return folder;
}

// Two users, four items on three semantic IDs.
std::string WriteDataset() {
  Dataset::Contents contents;
  contents.name = "tiny";
  contents.notes = {"equal timestamps keep line order"};
  contents.item_names = {"a", "b", "c", "d"};
  contents.user_names = {"u", "v"};
  contents.first_event = {0, 3, 6};
  contents.event_item = {0, 1, 2, 3, 2, 1};
  contents.event_split = {SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest,
                          SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest};
  contents.item_codes = {0, 1, 1, 0, 1, 1, 0, 1};
  contents.levels = 2;
  contents.codes = 2;
  const std::string folder = FreshFolder("dataset");
  const absl::Status status = Dataset::Write(folder, contents);
  EXPECT_TRUE(status.ok()) << status;
  return folder;
}

TEST(DescribeTest, ADataSetIsCountedAndItsCatalogToo) {
  const absl::StatusOr<ordered_json> document = DescribeDataset(WriteDataset());
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(document->at("name"), "tiny");
  EXPECT_EQ(document->at("users"), 2);
  EXPECT_EQ(document->at("items"), 4);
  EXPECT_EQ(document->at("events"), 6);
  EXPECT_EQ(document->at("examples").at("test"), 2);
  EXPECT_EQ(document->at("catalog").at("semantic_ids"), 3);
  EXPECT_EQ(document->at("catalog").at("colliding_items"), 2);
  EXPECT_EQ(document->at("catalog").at("most_items_on_one_semantic_id"), 2);
  EXPECT_EQ(document->at("notes")[0], "equal timestamps keep line order");
}

TEST(DescribeTest, ADamagedDataSetIsAnErrorAndNotADescription) {
  const std::string folder = WriteDataset();
  const std::vector<std::string> files = *ListDirectory(folder);
  for (const std::string& file : files) {
    if (file == "manifest.json") continue;
    const std::string path = JoinPath(folder, file);
    const std::string bytes = *ReadFile(path);
    ASSERT_TRUE(WriteFileAtomically(path, bytes + " ").ok());
    EXPECT_EQ(DescribeDataset(folder).status().code(), absl::StatusCode::kDataLoss) << file;
    ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  }
  EXPECT_EQ(DescribeDataset(folder + "_gone").status().code(), absl::StatusCode::kNotFound);
}

TEST(DescribeTest, ATrieIsDescribedFromADataSetOrAFileOfItems) {
  const absl::StatusOr<ordered_json> of_dataset = DescribeTrie(WriteDataset());
  ASSERT_TRUE(of_dataset.ok()) << of_dataset.status();
  const std::string path = testing::TempDir() + "/describe_test_items.json";
  ASSERT_TRUE(WriteFileAtomically(path, "[[3, 6], [4, 5], [4, 6], [3, 6]]").ok());  // the same items as tokens
  const absl::StatusOr<ordered_json> of_file = DescribeTrie(path);
  ASSERT_TRUE(of_file.ok()) << of_file.status();
  EXPECT_EQ(of_file->at("catalog_version"), of_dataset->at("catalog_version"));
  EXPECT_EQ(of_file->at("nodes"), 6);  // the root, 3, 4, and three leaves
  EXPECT_EQ(of_file->at("edges"), 5);
  EXPECT_THAT(of_file->at("largest_fanout_by_level"), ElementsAre(2, 2));
}

TEST(DescribeTest, AModelIsItsConfigurationAndItsTensors) {
  PolicyConfig config;
  config.vocab_size = 11;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  const std::unique_ptr<Policy> policy = *Policy::Create(config, nullptr, 1);
  const std::string folder = FreshFolder("model");
  ASSERT_TRUE(MakeDirectories(folder).ok());
  ASSERT_TRUE(policy->Save(folder).ok());
  const absl::StatusOr<ordered_json> document = DescribeModel(folder);
  ASSERT_TRUE(document.ok()) << document.status();
  // 11 x 8 embedding; 8 x 8 twice and 4 x 8 twice in attention, its two norms of 4; 3 x 8 x 12; three norms of 8.
  EXPECT_EQ(document->at("parameters"), 88 + 192 + 8 + 288 + 24);
  EXPECT_EQ(document->at("parameters_by_type").at("F32"), 600);
  EXPECT_EQ(document->at("config").at("hidden_size"), 8);
  bool found = false;
  for (const ordered_json& tensor : document->at("tensors")) {
    if (tensor.at("name") != "model.embed_tokens.weight") continue;
    found = true;
    EXPECT_EQ(tensor.at("shape"), "[11, 8]");
  }
  EXPECT_TRUE(found);

  ASSERT_TRUE(RemoveAll(JoinPath(folder, "model.safetensors")).ok());
  EXPECT_FALSE(DescribeModel(folder).ok());
}

class CheckpointTest : public testing::Test {
 protected:
  // As a training job leaves it, with a manifest made by hand.
  void SetUp() override {
    folder_ = FreshFolder("checkpoints");
    checkpoint_ = folder_ + "/step-00000120";
    ASSERT_TRUE(MakeDirectories(checkpoint_ + "/model").ok());
    PolicyConfig config;
    config.vocab_size = 11;
    config.hidden_size = 8;
    config.intermediate_size = 8;
    config.num_layers = 1;
    config.num_heads = 1;
    config.num_kv_heads = 1;
    config.head_dim = 8;
    const std::unique_ptr<Policy> policy = *Policy::Create(config, nullptr, 1);
    ASSERT_TRUE(policy->Save(checkpoint_ + "/model").ok());
    const ordered_json state = {{"step", 120},
                                {"policy_version", 7},
                                {"seconds", 2.5},
                                {"numbers", {{"best", 0.06}}},
                                {"spec_yaml", "kind: rl\nseed: 1\n"},
                                {"spec_digest", "s"},
                                {"data_digest", "d"},
                                {"ledgers", 0}};
    ASSERT_TRUE(WriteFileAtomically(checkpoint_ + "/state.json", state.dump()).ok());
    for (const std::string name : {"state.json", "model/config.json", "model/model.safetensors"}) {
      manifest_["files"][name] = {{"sha256", *FileSha256(checkpoint_ + "/" + name)}, {"bytes", 1}};
    }
    WriteManifest();
  }
  void WriteManifest() { ASSERT_TRUE(WriteFileAtomically(checkpoint_ + "/manifest.json", manifest_.dump()).ok()); }

  std::string folder_;
  std::string checkpoint_;
  ordered_json manifest_ = {{"format", 1}, {"step", 120}};
};

TEST_F(CheckpointTest, ItsStateModelAndSpecAreShown) {
  const absl::StatusOr<ordered_json> document = DescribeCheckpoint(checkpoint_);
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(document->at("step"), 120);
  EXPECT_EQ(document->at("policy_version"), 7);
  EXPECT_EQ(document->at("files").size(), 3);
  EXPECT_EQ(document->at("model").at("config").at("hidden_size"), 8);
  EXPECT_THAT(RenderText(*document), HasSubstr("spec\n  kind: rl\n  seed: 1\n"));
}

TEST_F(CheckpointTest, DamageIsNamed) {
  ASSERT_TRUE(WriteFileAtomically(checkpoint_ + "/model/config.json", "{}").ok());
  const absl::Status damaged = DescribeCheckpoint(checkpoint_).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("model/config.json"));
  ASSERT_TRUE(RemoveAll(checkpoint_ + "/model/config.json").ok());
  EXPECT_EQ(DescribeCheckpoint(checkpoint_).status().code(), absl::StatusCode::kDataLoss);
  manifest_["files"] = {{"../state.json", {{"sha256", ""}}}};
  WriteManifest();
  EXPECT_THAT(std::string(DescribeCheckpoint(checkpoint_).status().message()), HasSubstr("not inside"));
}

TEST_F(CheckpointTest, AFolderOfCheckpointsSaysWhichOnesItHolds) {
  const absl::Status status = DescribeCheckpoint(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step-00000120"));
}

TEST(DescribeTest, TextAlignsFieldsAndTables) {
  const ordered_json document = {{"name", "tiny"},
                                 {"items", 4},
                                 {"catalog", {{"levels", 2}}},
                                 {"tensors", {{{"name", "a"}, {"type", "F32"}}, {{"name", "bcd"}, {"type", "BF16"}}}},
                                 {"fanout", {2, 3}}};
  EXPECT_EQ(RenderText(document),
            "name    tiny\n"
            "items   4\n"
            "catalog\n"
            "  levels  2\n"
            "tensors\n"
            "  a    F32\n"
            "  bcd  BF16\n"
            "fanout  [2,3]\n");
}

}  // namespace
}  // namespace sluice

#include "reward_server/ranker_torch/exported_model.h"

#include <torch/script.h>
#include <torch/version.h>

#include <memory>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"
#include "tests/testing/mapping_text.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExportedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = JoinPath(::testing::TempDir(),
                       std::string("exported_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
  }
  void TearDown() override { RemoveAll(folder_).IgnoreError(); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }

  // A TorchScript file whose forward has this body.
  void Save(const std::string& body, const std::string& extra = "") {
    torch::jit::Module module("ranker");
    module.register_parameter("weight", at::full({1}, 10.0f), /*is_buffer=*/false);
    module.define("def forward(self, user: Tensor, history: Tensor, item: Tensor):\n  " + body + "\n");
    torch::jit::ExtraFilesMap files;
    if (!extra.empty()) files["sluice.json"] = extra;
    module.save(Path("r.pt"), files);
  }
  absl::Status Load(const std::string& model = "torchscript: {file: r.pt}", const std::string& outputs = "score: {}") {
    std::string text = MappingWith("open_inference: {address: '127.0.0.1:8001', model: ranker}", model);
    text.replace(text.find("score: {}"), 9, outputs);
    const auto mapping = ParseRankerMapping(text, "m.yaml", folder_);
    EXPECT_TRUE(mapping.ok()) << mapping.status();
    QueryEncoder encoder = QueryEncoder::Create(*mapping, TinyDataset()).value();
    auto loaded = LoadExportedModel(encoder);
    if (!loaded.ok()) return loaded.status();
    ranker_ = std::make_unique<MappedRanker>(std::move(encoder), *std::move(loaded), [] { return absl::UnixEpoch(); });
    return absl::OkStatus();
  }
  absl::StatusOr<ItemScores> Score() const {
    const std::vector<ItemQuery> queries = {{.user = 0, .history = {1, 2}, .items = {0, 3}}};
    return ranker_->Score(queries)[0];
  }

  std::string folder_;
  std::unique_ptr<MappedRanker> ranker_;
};

TEST_F(ExportedModelTest, TorchScriptScoresWithAnyNumberOfPairsAndItems) {
  Save("return self.weight * item + history[:, 0]");
  ASSERT_TRUE(Load().ok());
  EXPECT_TRUE(ranker_->Check().ok());
  const auto scores = Score();
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_THAT((*scores)[0], ElementsAre(1, 31));
}

TEST_F(ExportedModelTest, OutputsAreFoundByPositionOrByKey) {
  Save("return (item, 2.0 * item.double())");
  ASSERT_TRUE(Load("torchscript: {file: r.pt}", "score: {}\n  twice: {}").ok());
  EXPECT_THAT((*Score())[1], ElementsAre(0, 6));
  Save("return {\"a\": item.half(), \"b\": torch.stack([item, item + 1], 1)}");
  ASSERT_TRUE(Load("torchscript: {file: r.pt}", "score: {output: b, column: 1}\n  a: {output: a}").ok());
  EXPECT_THAT((*Score())[0], ElementsAre(1, 4));
  EXPECT_THAT((*Score())[1], ElementsAre(0, 3));
}

TEST_F(ExportedModelTest, WhatIsNoScoreOfEveryPairIsRefused) {
  Save("return item[1:]");
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(std::string(Score().status().message()), HasSubstr("has shape [1], want [2]"));
  Save("return 1.0");
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(std::string(Score().status().message()), HasSubstr("want a tensor, a tuple of them, or a dict"));
  Save("return item.expand(100000000, 2)");
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(std::string(Score().status().message()), HasSubstr("has 200000000 elements"));
  Save("return self.weight * item + torch.zeros(7)");  // throws with two items
  ASSERT_TRUE(Load().ok());
  EXPECT_EQ(Score().status().code(), absl::StatusCode::kInternal);
}

TEST_F(ExportedModelTest, AFileOfAnotherTorchIsRefusedWithTheRemedy) {
  Save("return item", R"({"sluice_torch": "2.0.0+cpu"})");
  const absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was exported by torch 2.0.0+cpu, this server has "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("python -m sluice.export_ranker"));
  Save("return item", "{\"sluice_torch\": \"" TORCH_VERSION "+other\"}");
  EXPECT_TRUE(Load().ok());
}

TEST_F(ExportedModelTest, MissingAndDamagedFilesAreSaidAndNeverServed) {
  EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
  Save("return item");
  const std::string whole = ReadFile(Path("r.pt")).value();
  for (const size_t size : {size_t{0}, size_t{100}, whole.size() / 2, whole.size() - 10}) {
    ASSERT_TRUE(WriteFileAtomically(Path("r.pt"), whole.substr(0, size)).ok());
    ASSERT_TRUE(WriteFileAtomically(Path("r.pt2"), whole.substr(0, size)).ok());
    EXPECT_EQ(Load().code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_EQ(Load("aot_inductor: {file: r.pt2}").code(), absl::StatusCode::kDataLoss) << size;
  }
  // TorchScript is no package of AOTInductor.
  ASSERT_TRUE(WriteFileAtomically(Path("r.pt2"), whole).ok());
  EXPECT_FALSE(Load("aot_inductor: {file: r.pt2}").ok());
}

TEST_F(ExportedModelTest, AFileOfAnotherDigestIsRefusedBeforeItIsLoaded) {
  Save("return item");
  const std::string digest = FileSha256(Path("r.pt")).value();
  const std::string model = "torchscript: {file: r.pt, sha256: " + digest + "}";
  ASSERT_TRUE(Load(model).ok());
  std::string bytes = ReadFile(Path("r.pt")).value();
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(Path("r.pt"), bytes).ok());
  const absl::Status status = Load(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("m.yaml wants " + digest));
}

TEST_F(ExportedModelTest, TheVersionIsTheFiles) {
  Save("return item");
  ASSERT_TRUE(Load().ok());
  const std::string version = ranker_->version();
  Save("return item + 1");
  ASSERT_TRUE(Load().ok());
  EXPECT_NE(ranker_->version(), version);
}

}  // namespace
}  // namespace sluice::reward

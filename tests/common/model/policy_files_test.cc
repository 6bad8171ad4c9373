// Folders written and read back, and every way a folder can be wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/safetensors/safetensors.h"
#include "tests/common/model/model_testing.h"
#include "tests/testing/placement.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kCodes = 5;

class PolicyFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = JoinPath(::testing::TempDir(), "policy_files_XXXXXX");
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { ASSERT_TRUE(RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }

  // Reads the model file, lets `change` have its tensors, and writes it again.
  struct Held {
    TensorDtype dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  template <typename Change>
  void Rewrite(const std::string& name, const Change& change) {
    std::map<std::string, Held> tensors;
    {
      const auto file = SafetensorsFile::Open(Path(name)).value();
      for (const auto& [tensor, info] : file->tensors()) {
        tensors[tensor] = {info.dtype, info.shape, file->Read(tensor).value()};
      }
    }
    change(&tensors);
    std::vector<TensorToWrite> written;
    for (const auto& [tensor, held] : tensors) {
      written.push_back({tensor, held.dtype, held.shape, held.bytes.data(), static_cast<int64_t>(held.bytes.size())});
    }
    ASSERT_TRUE(WriteSafetensors(Path(name), written).ok());
  }

  absl::Status LoadStatus() { return Policy::Load(folder_, nullptr).status(); }

  std::shared_ptr<const Trie> trie_ = RandomTrie(40, kCodes, 7);
  std::string folder_;
};

TEST_F(PolicyFilesTest, APolicyComesBackBitByBit) {
  PolicyConfig biased = SmallConfig(PolicyArchitecture::kLlama, kCodes);
  biased.attention_bias = true;
  biased.tie_embeddings = false;
  for (const PolicyConfig& config : {SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_),
                                     SmallConfig(PolicyArchitecture::kQwen2, kCodes), biased}) {
    const auto policy = RandomPolicy(config, trie_, 3, at::kFloat);
    ASSERT_TRUE(policy->Save(folder_).ok());
    const auto loaded = Policy::Load(folder_, trie_).value();
    EXPECT_EQ(loaded->layout_digest(), policy->layout_digest());
    EXPECT_TRUE(loaded->parameters().equal(policy->parameters().to(at::kCPU)));
    EXPECT_EQ(loaded->config().ToJson(), config.ToJson());
    ASSERT_TRUE(RemoveAll(Path("sluice_encoder.safetensors")).ok());
  }
}

TEST_F(PolicyFilesTest, FilesHoldHuggingFacesTensors) {
  PolicyConfig config = SmallConfig(PolicyArchitecture::kQwen3, kCodes);
  config.num_layers = 1;
  ASSERT_TRUE(RandomPolicy(config, nullptr, 3, at::kFloat)->Save(folder_).ok());
  std::map<std::string, std::vector<int64_t>> shapes;
  const auto file = SafetensorsFile::Open(Path("model.safetensors")).value();
  for (const auto& [name, info] : file->tensors()) shapes[name] = info.shape;
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(shapes, (std::map<std::string, std::vector<int64_t>>{{"model.embed_tokens.weight", {23, 16}},
                                                                 {layer + "input_layernorm.weight", {16}},
                                                                 {layer + "self_attn.q_proj.weight", {24, 16}},
                                                                 {layer + "self_attn.k_proj.weight", {12, 16}},
                                                                 {layer + "self_attn.v_proj.weight", {12, 16}},
                                                                 {layer + "self_attn.q_norm.weight", {6}},
                                                                 {layer + "self_attn.k_norm.weight", {6}},
                                                                 {layer + "self_attn.o_proj.weight", {16, 24}},
                                                                 {layer + "post_attention_layernorm.weight", {16}},
                                                                 {layer + "mlp.gate_proj.weight", {20, 16}},
                                                                 {layer + "mlp.up_proj.weight", {20, 16}},
                                                                 {layer + "mlp.down_proj.weight", {16, 20}},
                                                                 {"model.norm.weight", {16}}}));
}

TEST_F(PolicyFilesTest, AMergedPolicyLoadsWithoutItsCatalog) {
  const auto policy = RandomPolicy(SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, 3, at::kFloat);
  ASSERT_TRUE(policy->Save(folder_).ok());
  const auto loaded = Policy::Load(folder_, nullptr).value();
  PlaceForTest(loaded.get());
  const std::vector<PromptInput> prompts = {{1, MergedItemEntry(4), MergedItemEntry(9)}};
  EXPECT_TRUE(loaded->Prefill(prompts, 0)->hidden.equal(policy->Prefill(prompts, 0)->hidden));
  EXPECT_EQ(loaded->config().catalog_version, trie_->version());
}

TEST_F(PolicyFilesTest, AMergedPolicyRefusesAnotherCatalog) {
  const auto policy = RandomPolicy(SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, 3, at::kFloat);
  ASSERT_TRUE(policy->Save(folder_).ok());
  const absl::Status status = Policy::Load(folder_, RandomTrie(40, kCodes, 8)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
}

TEST_F(PolicyFilesTest, AMergedPolicyTakesACatalogThatHasGrown) {
  const std::vector<int32_t> old_tokens = {3, 8, 13, 3, 9, 13, 5, 8, 14};                      // items 0, 1, 2
  const std::vector<int32_t> new_tokens = {3, 8, 12, 3, 8, 13, 3, 9, 13, 4, 8, 13, 5, 8, 14};  // new: items 0 and 3
  const auto small = std::make_shared<const Trie>(Trie::Build(3, old_tokens).value());
  const auto large = std::make_shared<const Trie>(Trie::Build(3, new_tokens).value());
  const auto policy = RandomPolicy(SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *small), small, 3, at::kFloat);
  ASSERT_TRUE(policy->Save(folder_).ok());
  const auto grown = Policy::Load(folder_, large).value();
  PlaceForTest(grown.get());
  EXPECT_EQ(grown->new_leaves(), 2);
  EXPECT_EQ(grown->config().num_leaves, 5);
  EXPECT_EQ(grown->config().catalog_version, large->version());
  // Prompts of known items give what they gave; a new item is the sum of its codes.
  const auto hidden = [](Policy& of, std::vector<int32_t> leaves) {
    PromptInput prompt = {1};
    for (const int32_t leaf : leaves) prompt.push_back(MergedItemEntry(leaf));
    return of.Prefill(std::vector<PromptInput>{prompt}, 0)->hidden;
  };
  EXPECT_TRUE(hidden(*grown, {1, 2, 4}).equal(hidden(*policy, {0, 1, 2})));
  const at::Tensor vectors = grown->LeafEmbeddings(*large).value();
  EXPECT_TRUE(vectors[1].equal(policy->LeafEmbeddings(*small).value()[0]));
  at::Tensor codes = at::zeros({16});
  const auto saved = SafetensorsFile::Open(Path("model.safetensors")).value();
  const std::string bytes = saved->Read("model.embed_tokens.weight").value();
  const auto* table = reinterpret_cast<const float*>(bytes.data());
  for (const int token : {3, 8, 12}) {
    codes += at::from_blob(const_cast<float*>(table + token * 16), {16});
  }
  EXPECT_TRUE(at::allclose(vectors[0], codes, 0, 1e-6));

  // Saved, it is a policy of the larger catalog; the smaller one lacks what it knows.
  ASSERT_TRUE(grown->Save(folder_).ok());
  EXPECT_EQ(Policy::Load(folder_, large).value()->new_leaves(), 0);
  const absl::Status status = Policy::Load(folder_, small).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(status.message(), HasSubstr("not all in the catalog"));
}

TEST_F(PolicyFilesTest, HalfPrecisionFilesAreWidened) {
  const auto policy = RandomPolicy(SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr, 3, at::kFloat);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    ASSERT_TRUE(policy->Save(folder_).ok());
    Rewrite("model.safetensors", [&](std::map<std::string, Held>* tensors) {
      for (auto& [name, held] : *tensors) {
        const at::Tensor values = at::from_blob(held.bytes.data(), held.shape, at::kFloat).to(type);
        held.dtype = type == at::kHalf ? TensorDtype::kF16 : TensorDtype::kBF16;
        held.bytes.assign(static_cast<const char*>(values.data_ptr()), values.nbytes());
      }
    });
    const auto loaded = Policy::Load(folder_, nullptr).value();
    EXPECT_TRUE(loaded->parameters().equal(policy->parameters().to(at::kCPU, type).to(at::kFloat)));
  }
}

TEST_F(PolicyFilesTest, WrongTensorsAreNamed) {
  const auto policy = RandomPolicy(SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr, 3, at::kFloat);
  auto load_after = [&](auto change) {
    EXPECT_TRUE(policy->Save(folder_).ok());
    Rewrite("model.safetensors", change);
    const absl::Status status = LoadStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    return std::string(status.message());
  };
  using Tensors = std::map<std::string, Held>;
  EXPECT_THAT(load_after([](Tensors* t) { t->erase("model.layers.1.mlp.up_proj.weight"); }),
              HasSubstr("tensor model.layers.1.mlp.up_proj.weight [20, 16] is missing"));
  EXPECT_THAT(load_after([](Tensors* t) { (*t)["model.layers.2.mlp.up_proj.weight"] = t->begin()->second; }),
              HasSubstr("tensor model.layers.2.mlp.up_proj.weight belongs to no parameter of a 2-layer policy"));
  EXPECT_THAT(load_after([](Tensors* t) {
                (*t)["model.norm.weight"].shape = {4, 4};
              }),
              HasSubstr("want tensor model.norm.weight [16], got [4, 4]"));
  EXPECT_TRUE(policy->Save(folder_).ok());
  Rewrite("model.safetensors", [](Tensors* t) { (*t)["lm_head.weight"] = (*t)["model.embed_tokens.weight"]; });
  EXPECT_TRUE(LoadStatus().ok()) << "a tied model may carry its head";
  Rewrite("model.safetensors", [](Tensors* t) { (*t)["model.norm.weight"].dtype = TensorDtype::kI32; });
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(PolicyFilesTest, ATruncatedFileIsDataLossAndAMissingOneNotFound) {
  const auto policy = RandomPolicy(SmallConfig(PolicyArchitecture::kQwen3, kCodes), nullptr, 3, at::kFloat);
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(policy->Save(folder_).ok());
  const std::string bytes = ReadFile(Path("model.safetensors")).value();
  ASSERT_TRUE(WriteFileAtomically(Path("model.safetensors"), bytes.substr(0, bytes.size() - 1)).ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(RemoveAll(Path("model.safetensors")).ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(policy->Save(Path("nowhere")).code(), absl::StatusCode::kNotFound);
}

TEST_F(PolicyFilesTest, LeavesOutOfOrderAreDataLoss) {
  const auto policy = RandomPolicy(SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, 3, at::kFloat);
  ASSERT_TRUE(policy->Save(folder_).ok());
  Rewrite("sluice_encoder.safetensors", [](std::map<std::string, Held>* tensors) {
    std::string& bytes = (*tensors)["leaf_tokens"].bytes;
    bytes = bytes.substr(16) + bytes.substr(0, 16);  // the first leaf last
  });
  const absl::Status status = LoadStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("leaf_tokens"));
}

}  // namespace
}  // namespace sluice::testing

#include "common/model_config/policy_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// As transformers 4.57 wrote it, cut down.
Json Version4Llama() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96, "mlp_bias": false,
    "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 32, "rope_type": "llama3"},
    "rope_theta": 500000.0, "max_position_embeddings": 131072, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "vocab_size": 100})");
}

// As transformers 5 writes it.
Json Version5Qwen3() {
  return Json::parse(R"({
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false, "bos_token_id": null,
    "dtype": "float32", "head_dim": 32, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
    "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 512, "max_window_layers": 28,
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "sliding_window": null,
    "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 100})");
}

PolicyConfig Read(const Json& json) { return PolicyConfig::FromJson(json.dump()).value(); }

TEST(PolicyConfigTest, ReadsWhatTransformers4Wrote) {
  const PolicyConfig config = Read(Version4Llama());
  EXPECT_EQ(config.architecture, PolicyArchitecture::kLlama);
  EXPECT_EQ(config.head_dim, 8);  // hidden / heads
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.rope_scaling.factor, 8);
  EXPECT_EQ(config.rope_scaling.original_max_position_embeddings, 32);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_FALSE(config.tie_embeddings);
  EXPECT_EQ(config.begin_token, 1);
}

TEST(PolicyConfigTest, ReadsWhatTransformers5Writes) {
  const PolicyConfig config = Read(Version5Qwen3());
  EXPECT_EQ(config.architecture, PolicyArchitecture::kQwen3);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.rope_theta, 1e6);
  EXPECT_EQ(config.rope_scaling.factor, 1);
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.begin_token, -1);
}

TEST(PolicyConfigTest, WhatIsWrittenReadsBackEqual) {
  PolicyConfig config = Read(Version4Llama());
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = 12;
  config.catalog_version = "abc";
  config.begin_reversed_token = 2;
  const PolicyConfig again = PolicyConfig::FromJson(config.ToJson()).value();
  EXPECT_EQ(again.ToJson(), config.ToJson());
  EXPECT_EQ(again.rope_scaling.factor, 8);
  EXPECT_EQ(again.num_leaves, 12);
  EXPECT_EQ(again.begin_reversed_token, 2);
}

TEST(PolicyConfigTest, ALanguageModelsPromptsAreReadAndWrittenBack) {
  Json json = Version5Qwen3();
  json["sluice"] = {{"encoder", "codes"},          {"begin_token", -1},      {"begin_reversed_token", 82},
                    {"first_token", 80},           {"sid_levels", 3},        {"sid_codes", 5},
                    {"prefix_tokens", {7, 0, 99}}, {"separator_tokens", {4}}};
  const PolicyConfig config = Read(json);
  EXPECT_EQ(config.first_token, 80);
  EXPECT_EQ(config.sid_levels, 3);
  EXPECT_EQ(config.sid_codes, 5);
  EXPECT_EQ(config.prefix_tokens, (std::vector<int32_t>{7, 0, 99}));
  EXPECT_EQ(config.separator_tokens, (std::vector<int32_t>{4}));
  EXPECT_EQ(PolicyConfig::FromJson(config.ToJson()).value().ToJson(), config.ToJson());
  for (const auto& [key, value] : {std::pair<const char*, Json>{"prefix_tokens", {100}},
                                   {"prefix_tokens", {-1}},
                                   {"prefix_tokens", {"a"}},
                                   {"separator_tokens", 3},
                                   {"separator_tokens", std::vector<int>(5000, 1)},
                                   {"first_token", 100},
                                   {"first_token", -1},
                                   {"sid_levels", -2}}) {
    Json wrong = json;
    wrong["sluice"][key] = value;
    EXPECT_THAT(PolicyConfig::FromJson(wrong.dump()).status().message(), HasSubstr(std::string("sluice.") + key))
        << value;
  }
}

TEST(PolicyConfigTest, DefaultsAreThoseOfTransformers) {
  Json json = Version5Qwen3();
  json.erase("head_dim");
  json.erase("tie_word_embeddings");
  json.erase("rope_parameters");
  const PolicyConfig config = Read(json);
  EXPECT_EQ(config.head_dim, 128);  // Qwen3's, not hidden / heads
  EXPECT_FALSE(config.tie_embeddings);
  EXPECT_EQ(config.rope_theta, 10000);
}

TEST(PolicyConfigTest, WhatWouldBeComputedWrongIsUnimplemented) {
  auto refuse = [](Json json, const std::string& what) {
    const absl::Status status = PolicyConfig::FromJson(json.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  auto with = [](Json json, const Json& patch) {
    json.merge_patch(patch);
    return json;
  };
  refuse(with(Version5Qwen3(), {{"model_type", "gemma"}}), "model_type 'gemma'");
  refuse(with(Version5Qwen3(), {{"architectures", {"Qwen3ForSequenceClassification"}}}), "Qwen3ForSequence");
  refuse(with(Version5Qwen3(), {{"use_sliding_window", true}, {"sliding_window", 16}}), "sliding window");
  refuse(with(Version5Qwen3(), {{"layer_types", {"sliding_attention"}}}), "layer type \"sliding_attention\"");
  refuse(with(Version5Qwen3(), {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 2}}}}), "rope type 'yarn'");
  refuse(with(Version4Llama(), {{"rope_scaling", {{"rope_type", "dynamic"}}}}), "rope type 'dynamic'");
  refuse(with(Version4Llama(), {{"mlp_bias", true}}), "mlp_bias");
  refuse(with(Version4Llama(), {{"hidden_act", "gelu"}}), "hidden_act 'gelu'");
  refuse(with(Version4Llama(), {{"partial_rotary_factor", .5}}), "partial_rotary_factor");
  refuse(with(Version4Llama(), {{"quantization_config", {{"bits", 4}}}}), "quantized");
  refuse(with(Version4Llama(), {{"sluice", {{"encoder", "graph"}}}}), "sluice.encoder 'graph'");
}

TEST(PolicyConfigTest, ContradictionsAreInvalidByName) {
  auto refuse = [](const Json& patch, const std::string& what) {
    Json json = Version5Qwen3();
    json.merge_patch(patch);
    const absl::Status status = PolicyConfig::FromJson(json.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  refuse({{"hidden_size", 0}}, "hidden_size is 0");
  refuse({{"hidden_size", "64"}}, "hidden_size must be an integer");
  refuse({{"vocab_size", nullptr}}, "vocab_size is missing");
  refuse({{"num_key_value_heads", 3}}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3");
  refuse({{"head_dim", 7}}, "head_dim is 7, want an even number");
  refuse({{"rms_norm_eps", 0}}, "rms_norm_eps");
  refuse({{"num_hidden_layers", 2000}}, "num_hidden_layers is 2000");
  refuse({{"hidden_size", 16777216}, {"num_hidden_layers", 1000}}, "parameters, want at most");
  refuse({{"sluice", {{"encoder", "merged"}}}}, "sluice.num_leaves is 0");
  refuse({{"sluice", {{"item_embedding", true}}}}, "sluice.item_embedding needs");
  refuse({{"sluice", {{"begin_token", 100}}}}, "sluice.begin_token is 100, outside the vocabulary of 100");
}

TEST(PolicyConfigTest, GarbageIsDataLoss) {
  EXPECT_EQ(PolicyConfig::FromJson("{").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(PolicyConfig::FromJson("[1]").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice

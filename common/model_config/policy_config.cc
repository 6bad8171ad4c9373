#include "common/model_config/policy_config.h"

#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Larger sizes are taken for damage: they would overflow products before any memory is asked for.
constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxParameters = int64_t{1} << 38;
// Of a prompt's prefix or separator.
constexpr size_t kMaxPromptTokens = 4096;

struct ArchitectureNames {
  PolicyArchitecture architecture;
  absl::string_view model_type;
  absl::string_view class_name;
};
constexpr ArchitectureNames kArchitectures[] = {
    {PolicyArchitecture::kLlama, "llama", "LlamaForCausalLM"},
    {PolicyArchitecture::kQwen2, "qwen2", "Qwen2ForCausalLM"},
    {PolicyArchitecture::kQwen3, "qwen3", "Qwen3ForCausalLM"},
};

const ArchitectureNames& NamesOf(PolicyArchitecture architecture) {
  for (const ArchitectureNames& names : kArchitectures) {
    if (names.architecture == architecture) return names;
  }
  return kArchitectures[0];
}

absl::Status Wrong(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", field, " ", what));
}
absl::Status Unsupported(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat("config.json: ", what, " is not supported"));
}

// Null counts as absent, as in transformers.
const Json* Find(const Json& object, absl::string_view key) {
  const auto it = object.find(std::string(key.data(), key.size()));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::Status ReadInteger(const Json& object, absl::string_view key, int64_t* value) {
  const Json* found = Find(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_number_integer()) return Wrong(key, "must be an integer");
  *value = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status RequireInteger(const Json& object, absl::string_view key, int64_t* value) {
  if (Find(object, key) == nullptr) return Wrong(key, "is missing");
  return ReadInteger(object, key, value);
}

absl::Status ReadNumber(const Json& object, absl::string_view key, double* value) {
  const Json* found = Find(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_number()) return Wrong(key, "must be a number");
  *value = found->get<double>();
  return absl::OkStatus();
}

absl::Status ReadBool(const Json& object, absl::string_view key, bool* value) {
  const Json* found = Find(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_boolean()) return Wrong(key, "must be true or false");
  *value = found->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadString(const Json& object, absl::string_view key, std::string* value) {
  const Json* found = Find(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_string()) return Wrong(key, "must be a string");
  *value = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadArchitecture(const Json& json, PolicyConfig* config) {
  std::string model_type, class_name;
  SLUICE_RETURN_IF_ERROR(ReadString(json, "model_type", &model_type));
  const Json* classes = Find(json, "architectures");
  if (classes != nullptr && classes->is_array() && classes->size() == 1 && (*classes)[0].is_string()) {
    class_name = (*classes)[0].get<std::string>();
  }
  for (const ArchitectureNames& names : kArchitectures) {
    if (model_type == names.model_type || (model_type.empty() && class_name == names.class_name)) {
      // A value head or classifier shares the model type and not the weights.
      if (!class_name.empty() && class_name != names.class_name) {
        return Unsupported(absl::StrCat("architecture ", class_name));
      }
      config->architecture = names.architecture;
      return absl::OkStatus();
    }
  }
  return Unsupported(absl::StrCat("model_type '", model_type, "' (llama, qwen2 and qwen3 are)"));
}

// transformers 4: rope_theta and rope_scaling; 5: both in rope_parameters.
absl::Status ReadRope(const Json& json, PolicyConfig* config) {
  const Json* parameters = Find(json, "rope_parameters");
  const Json* scaling = parameters != nullptr ? parameters : Find(json, "rope_scaling");
  SLUICE_RETURN_IF_ERROR(ReadNumber(json, "rope_theta", &config->rope_theta));
  double partial = 1;
  SLUICE_RETURN_IF_ERROR(ReadNumber(json, "partial_rotary_factor", &partial));
  if (scaling != nullptr) {
    if (!scaling->is_object()) return Wrong("rope_parameters", "must be an object");
    SLUICE_RETURN_IF_ERROR(ReadNumber(*scaling, "rope_theta", &config->rope_theta));
    SLUICE_RETURN_IF_ERROR(ReadNumber(*scaling, "partial_rotary_factor", &partial));
    std::string type;
    SLUICE_RETURN_IF_ERROR(ReadString(*scaling, "type", &type));
    SLUICE_RETURN_IF_ERROR(ReadString(*scaling, "rope_type", &type));
    for (const auto& [key, value] : scaling->items()) {
      if (value.is_object()) return Unsupported(absl::StrCat("rope_parameters of its own for ", key));
    }
    if (type.empty() && scaling->contains("factor")) return Wrong("rope_scaling", "has a factor but no rope_type");
    if (type == "llama3") {
      RopeScaling& rope = config->rope_scaling;
      for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
        if (Find(*scaling, key) == nullptr) return Wrong(absl::StrCat("rope_parameters.", key), "is missing");
      }
      SLUICE_RETURN_IF_ERROR(ReadNumber(*scaling, "factor", &rope.factor));
      SLUICE_RETURN_IF_ERROR(ReadNumber(*scaling, "low_freq_factor", &rope.low_freq_factor));
      SLUICE_RETURN_IF_ERROR(ReadNumber(*scaling, "high_freq_factor", &rope.high_freq_factor));
      SLUICE_RETURN_IF_ERROR(
          ReadInteger(*scaling, "original_max_position_embeddings", &rope.original_max_position_embeddings));
    } else if (!type.empty() && type != "default") {
      return Unsupported(absl::StrCat("rope type '", type, "' (default and llama3 are)"));
    }
  }
  if (partial != 1) return Unsupported("partial_rotary_factor other than 1");
  return absl::OkStatus();
}

absl::Status RefuseUnknownFeatures(const Json& json) {
  bool use_sliding_window = false, mlp_bias = false;
  SLUICE_RETURN_IF_ERROR(ReadBool(json, "use_sliding_window", &use_sliding_window));
  if (use_sliding_window && Find(json, "sliding_window") != nullptr) return Unsupported("a sliding window");
  if (const Json* types = Find(json, "layer_types")) {
    for (const Json& type : *types) {
      if (type != "full_attention") return Unsupported(absl::StrCat("layer type ", type.dump()));
    }
  }
  SLUICE_RETURN_IF_ERROR(ReadBool(json, "mlp_bias", &mlp_bias));
  if (mlp_bias) return Unsupported("mlp_bias");
  std::string activation = "silu";
  SLUICE_RETURN_IF_ERROR(ReadString(json, "hidden_act", &activation));
  if (activation != "silu" && activation != "swish") return Unsupported(absl::StrCat("hidden_act '", activation, "'"));
  if (Find(json, "quantization_config") != nullptr) return Unsupported("a quantized model");
  return absl::OkStatus();
}

absl::Status ReadSizes(const Json& json, PolicyConfig* config) {
  SLUICE_RETURN_IF_ERROR(RequireInteger(json, "vocab_size", &config->vocab_size));
  SLUICE_RETURN_IF_ERROR(RequireInteger(json, "hidden_size", &config->hidden_size));
  SLUICE_RETURN_IF_ERROR(RequireInteger(json, "intermediate_size", &config->intermediate_size));
  SLUICE_RETURN_IF_ERROR(RequireInteger(json, "num_hidden_layers", &config->num_layers));
  SLUICE_RETURN_IF_ERROR(RequireInteger(json, "num_attention_heads", &config->num_heads));
  config->num_kv_heads = config->num_heads;
  SLUICE_RETURN_IF_ERROR(ReadInteger(json, "num_key_value_heads", &config->num_kv_heads));
  // Qwen3's head_dim does not follow from the width, and transformers' default for it is 128.
  config->head_dim = config->architecture == PolicyArchitecture::kQwen3
                         ? 128
                         : (config->num_heads > 0 ? config->hidden_size / config->num_heads : 0);
  if (Find(json, "head_dim") == nullptr && config->num_heads > 0 && config->hidden_size % config->num_heads != 0) {
    return Wrong("hidden_size", absl::StrCat(config->hidden_size, " is not a multiple of num_attention_heads ",
                                             config->num_heads, ", and head_dim is missing"));
  }
  SLUICE_RETURN_IF_ERROR(ReadInteger(json, "head_dim", &config->head_dim));
  config->max_positions = config->architecture == PolicyArchitecture::kLlama ? 2048 : 32768;
  return ReadInteger(json, "max_position_embeddings", &config->max_positions);
}

absl::Status ReadBeginToken(const Json& json, PolicyConfig* config) {
  const Json* found = Find(json, "bos_token_id");
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_number_integer()) return Wrong("bos_token_id", "must be an integer");
  const int64_t token = found->get<int64_t>();
  if (token < -1 || token >= config->vocab_size) {
    // Qwen configurations name ids of the tokenizer that a cut-down vocabulary lacks; such a model has no begin token.
    return absl::OkStatus();
  }
  config->begin_token = static_cast<int32_t>(token);
  return absl::OkStatus();
}

// A list of token ids; Validate compares them with the vocabulary.
absl::Status ReadTokens(const Json& section, const char* key, std::vector<int32_t>* tokens) {
  const Json* found = Find(section, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_array() || found->size() > kMaxPromptTokens) {
    return Wrong(absl::StrCat("sluice.", key), absl::StrCat("must be a list of at most ", kMaxPromptTokens, " tokens"));
  }
  for (const Json& token : *found) {
    if (!token.is_number_unsigned() || token.get<uint64_t>() >= static_cast<uint64_t>(kMaxSize)) {
      return Wrong(absl::StrCat("sluice.", key), "must hold token ids");
    }
    tokens->push_back(static_cast<int32_t>(token.get<uint64_t>()));
  }
  return absl::OkStatus();
}

absl::Status ReadEncoder(const Json& json, PolicyConfig* config) {
  const Json* section = Find(json, "sluice");
  if (section == nullptr) return ReadBeginToken(json, config);
  if (!section->is_object()) return Wrong("sluice", "must be an object");
  std::string encoder = "codes";
  SLUICE_RETURN_IF_ERROR(ReadString(*section, "encoder", &encoder));
  if (encoder == "merged") {
    config->encoder = PromptEncoderKind::kMerged;
  } else if (encoder != "codes") {
    return Unsupported(absl::StrCat("sluice.encoder '", encoder, "' (codes and merged are)"));
  }
  SLUICE_RETURN_IF_ERROR(ReadBool(*section, "item_embedding", &config->item_embedding));
  SLUICE_RETURN_IF_ERROR(ReadInteger(*section, "num_leaves", &config->num_leaves));
  SLUICE_RETURN_IF_ERROR(ReadString(*section, "catalog_version", &config->catalog_version));
  SLUICE_RETURN_IF_ERROR(ReadInteger(*section, "value_hidden", &config->value_hidden));
  for (const auto& [key, token] : {std::pair<const char*, int32_t*>{"begin_token", &config->begin_token},
                                   {"begin_reversed_token", &config->begin_reversed_token}}) {
    int64_t value = -1;
    SLUICE_RETURN_IF_ERROR(ReadInteger(*section, key, &value));
    if (value < -1 || value >= kMaxSize) return Wrong(absl::StrCat("sluice.", key), "is not a token id");
    *token = static_cast<int32_t>(value);
  }
  for (const auto& [key, number] : {std::pair<const char*, int32_t*>{"first_token", &config->first_token},
                                    {"sid_levels", &config->sid_levels},
                                    {"sid_codes", &config->sid_codes}}) {
    int64_t value = 0;
    SLUICE_RETURN_IF_ERROR(ReadInteger(*section, key, &value));
    if (value < 0 || value >= kMaxSize) return Wrong(absl::StrCat("sluice.", key), "is too large, or below 0");
    *number = static_cast<int32_t>(value);
  }
  SLUICE_RETURN_IF_ERROR(ReadTokens(*section, "prefix_tokens", &config->prefix_tokens));
  return ReadTokens(*section, "separator_tokens", &config->separator_tokens);
}

}  // namespace

absl::Status PolicyConfig::Validate() const {
  for (const auto& [name, value] : {std::pair<const char*, int64_t>{"vocab_size", vocab_size},
                                    {"hidden_size", hidden_size},
                                    {"intermediate_size", intermediate_size},
                                    {"num_hidden_layers", num_layers},
                                    {"num_attention_heads", num_heads},
                                    {"num_key_value_heads", num_kv_heads},
                                    {"head_dim", head_dim},
                                    {"max_position_embeddings", max_positions}}) {
    if (value < 1 || value > kMaxSize) {
      return Wrong(name, absl::StrCat("is ", value, ", want 1 to ", kMaxSize));
    }
  }
  if (value_hidden < 0 || value_hidden > kMaxSize) {
    return Wrong("sluice.value_hidden", absl::StrCat("is ", value_hidden, ", want 0 to ", kMaxSize));
  }
  if (num_layers > kMaxLayers)
    return Wrong("num_hidden_layers", absl::StrCat("is ", num_layers, ", want at most ", kMaxLayers));
  if (num_heads % num_kv_heads != 0) {
    return Wrong("num_attention_heads",
                 absl::StrCat(num_heads, " is not a multiple of num_key_value_heads ", num_kv_heads));
  }
  if (head_dim % 2 != 0 || head_dim > kMaxHeadDim) {
    return Wrong("head_dim", absl::StrCat("is ", head_dim, ", want an even number of at most ", kMaxHeadDim));
  }
  if (num_heads > kMaxSize / head_dim) {
    return Wrong("num_attention_heads", absl::StrCat(num_heads, " of ", head_dim, " values each are too many"));
  }
  const double width = static_cast<double>(hidden_size);
  const double parameters =
      width * (2.0 * vocab_size + num_leaves + static_cast<double>(value_hidden)) +
      static_cast<double>(num_layers) * width * (4.0 * num_heads * head_dim + 3.0 * intermediate_size);
  if (parameters > static_cast<double>(kMaxParameters)) {
    return Wrong("hidden_size", absl::StrCat("and the other sizes make about ", parameters,
                                             " parameters, want at most ", kMaxParameters));
  }
  if (!(rms_norm_eps > 0 && rms_norm_eps < 1))
    return Wrong("rms_norm_eps", absl::StrCat("is ", rms_norm_eps, ", want (0, 1)"));
  if (!(rope_theta > 1 && std::isfinite(rope_theta)))
    return Wrong("rope_theta", absl::StrCat("is ", rope_theta, ", want more than 1"));
  if (!(initializer_range >= 0 && initializer_range <= 10)) {
    return Wrong("initializer_range", absl::StrCat("is ", initializer_range, ", want [0, 10]"));
  }
  const RopeScaling& rope = rope_scaling;
  if (!(rope.factor >= 1 && std::isfinite(rope.factor)))
    return Wrong("rope_parameters.factor", absl::StrCat("is ", rope.factor, ", want at least 1"));
  if (rope.factor != 1 && !(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor &&
                            rope.original_max_position_embeddings > 0)) {
    return Wrong("rope_parameters",
                 "want 0 < low_freq_factor < high_freq_factor and "
                 "original_max_position_embeddings > 0");
  }
  if (attention_bias && architecture == PolicyArchitecture::kQwen2) {
    return Wrong("attention_bias", "is set, but Qwen2 has its biases on q, k and v always");
  }
  for (const auto& [name, token] :
       {std::pair<const char*, int32_t>{"begin_token", begin_token}, {"begin_reversed_token", begin_reversed_token}}) {
    if (token < -1 || token >= vocab_size) {
      return Wrong(absl::StrCat("sluice.", name),
                   absl::StrCat("is ", token, ", outside the vocabulary of ", vocab_size));
    }
  }
  for (const auto& [name, tokens] :
       {std::pair<const char*, const std::vector<int32_t>*>{"prefix_tokens", &prefix_tokens},
        {"separator_tokens", &separator_tokens}}) {
    for (const int32_t token : *tokens) {
      if (token < 0 || token >= vocab_size) {
        return Wrong(absl::StrCat("sluice.", name),
                     absl::StrCat("hold ", token, ", outside the vocabulary of ", vocab_size));
      }
    }
  }
  if (first_token < 0 || first_token >= vocab_size) {
    return Wrong("sluice.first_token", absl::StrCat("is ", first_token, ", outside the vocabulary of ", vocab_size));
  }
  if (encoder == PromptEncoderKind::kMerged) {
    if (num_leaves < 1 || num_leaves > (int64_t{1} << 31) - 2) {
      return Wrong("sluice.num_leaves", absl::StrCat("is ", num_leaves, ", want the trie's number of leaves"));
    }
  } else if (item_embedding) {
    return Wrong("sluice.item_embedding", "needs sluice.encoder: merged");
  }
  return absl::OkStatus();
}

absl::StatusOr<PolicyConfig> PolicyConfig::FromJson(const std::string& json_text) {
  const Json json = Json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return absl::DataLossError("config.json: is not a JSON object");
  PolicyConfig config;
  config.tie_embeddings = false;  // transformers' default
  SLUICE_RETURN_IF_ERROR(ReadArchitecture(json, &config));
  SLUICE_RETURN_IF_ERROR(RefuseUnknownFeatures(json));
  SLUICE_RETURN_IF_ERROR(ReadSizes(json, &config));
  SLUICE_RETURN_IF_ERROR(ReadRope(json, &config));
  SLUICE_RETURN_IF_ERROR(ReadNumber(json, "rms_norm_eps", &config.rms_norm_eps));
  SLUICE_RETURN_IF_ERROR(ReadNumber(json, "initializer_range", &config.initializer_range));
  SLUICE_RETURN_IF_ERROR(ReadBool(json, "tie_word_embeddings", &config.tie_embeddings));
  if (config.architecture != PolicyArchitecture::kQwen2) {
    SLUICE_RETURN_IF_ERROR(ReadBool(json, "attention_bias", &config.attention_bias));
  }
  SLUICE_RETURN_IF_ERROR(ReadEncoder(json, &config));
  SLUICE_RETURN_IF_ERROR(config.Validate());
  return config;
}

std::string PolicyConfig::ToJson() const {
  const ArchitectureNames& names = NamesOf(architecture);
  auto text = [](absl::string_view view) { return std::string(view.data(), view.size()); };
  Json rope = {{"rope_type", "default"}};
  if (rope_scaling.factor != 1) {
    rope = {{"rope_type", "llama3"},
            {"factor", rope_scaling.factor},
            {"low_freq_factor", rope_scaling.low_freq_factor},
            {"high_freq_factor", rope_scaling.high_freq_factor},
            {"original_max_position_embeddings", rope_scaling.original_max_position_embeddings}};
  }
  nlohmann::ordered_json json = {
      {"architectures", {text(names.class_name)}},
      {"model_type", text(names.model_type)},
      {"vocab_size", vocab_size},
      {"hidden_size", hidden_size},
      {"intermediate_size", intermediate_size},
      {"num_hidden_layers", num_layers},
      {"num_attention_heads", num_heads},
      {"num_key_value_heads", num_kv_heads},
      {"head_dim", head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", max_positions},
      {"rms_norm_eps", rms_norm_eps},
      {"tie_word_embeddings", tie_embeddings},
      {"initializer_range", initializer_range},
      {"attention_dropout", 0.0},
      {"use_cache", true},
  };
  if (architecture != PolicyArchitecture::kQwen2) json["attention_bias"] = attention_bias;
  if (architecture != PolicyArchitecture::kLlama) json["use_sliding_window"] = false;
  // transformers 4 reads the first two, 5 the third.
  json["rope_theta"] = rope_theta;
  if (rope_scaling.factor != 1) json["rope_scaling"] = rope;
  rope["rope_theta"] = rope_theta;
  json["rope_parameters"] = rope;
  json["torch_dtype"] = "float32";
  json["dtype"] = "float32";
  if (begin_token >= 0) {
    json["bos_token_id"] = begin_token;
  } else {
    json["bos_token_id"] = nullptr;
  }
  // No token ends a semantic ID, and the classes' own defaults may lie outside the vocabulary.
  json["eos_token_id"] = nullptr;
  json["pad_token_id"] = nullptr;
  nlohmann::ordered_json section = {{"encoder", encoder == PromptEncoderKind::kMerged ? "merged" : "codes"},
                                    {"begin_token", begin_token},
                                    {"begin_reversed_token", begin_reversed_token}};
  if (encoder == PromptEncoderKind::kMerged) {
    section["item_embedding"] = item_embedding;
    section["num_leaves"] = num_leaves;
  }
  if (first_token > 0) section["first_token"] = first_token;
  if (sid_levels > 0) section["sid_levels"] = sid_levels;
  if (sid_codes > 0) section["sid_codes"] = sid_codes;
  if (!prefix_tokens.empty()) section["prefix_tokens"] = prefix_tokens;
  if (!separator_tokens.empty()) section["separator_tokens"] = separator_tokens;
  if (value_hidden > 0) section["value_hidden"] = value_hidden;
  if (!catalog_version.empty()) section["catalog_version"] = catalog_version;
  json["sluice"] = section;
  return json.dump(2) + "\n";
}

}  // namespace sluice

// What a policy is: Hugging Face's config.json of a Llama, Qwen2 or Qwen3 decoder, plus Sluice's encoder section.
#ifndef SLUICE_COMMON_MODEL_CONFIG_POLICY_CONFIG_H_
#define SLUICE_COMMON_MODEL_CONFIG_POLICY_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

enum class PolicyArchitecture { kLlama, kQwen2, kQwen3 };

enum class PromptEncoderKind {
  kCodes,   // one position a code: the plain token sequence
  kMerged,  // one position an item: sum of its code embeddings, plus an item embedding if there is one
};

// Llama 3's frequency scaling of rotary positions. factor 1: none.
struct RopeScaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_position_embeddings = 8192;
};

struct PolicyConfig {
  PolicyArchitecture architecture = PolicyArchitecture::kQwen3;
  int64_t vocab_size = 0;
  int64_t hidden_size = 128;
  int64_t intermediate_size = 352;
  int64_t num_layers = 4;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 4;
  int64_t head_dim = 32;
  int64_t max_positions = 4096;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tie_embeddings = true;
  bool attention_bias = false;  // Llama with biases on q, k, v, o; Qwen2 always has them on q, k, v
  double initializer_range = 0.02;

  // Sluice's part: key "sluice" of config.json; absent for a foreign model (codes, begin token from bos_token_id).
  PromptEncoderKind encoder = PromptEncoderKind::kCodes;
  bool item_embedding = false;  // kMerged: a learned vector a trie leaf
  int64_t num_leaves = 0;       // kMerged: rows of the item embedding
  std::string catalog_version;  // that it was trained on: for kMerged, the trie that leaves are numbered by
  int32_t begin_token = -1;     // -1: prompts start without one
  int32_t begin_reversed_token = -1;
  // Of a language model that semantic IDs were added to (sluice.text): where they begin in its vocabulary, and what
  // they stand among in a prompt: prefix, item, separator, item, separator.
  int32_t first_token = 0;                  // SidVocabulary::first
  int sid_levels = 0, sid_codes = 0;        // that the model has tokens for; 0: not known
  std::vector<int32_t> prefix_tokens = {};  // after the begin token, if there is one
  std::vector<int32_t> separator_tokens = {};
  int64_t value_hidden = 0;  // width of the value head's hidden layer; 0: the policy has none

  // Entries of a prompt before its first item, and those of an item with what follows it, for items of `levels` tokens.
  int32_t EntriesBeforeItems() const { return (begin_token >= 0 ? 1 : 0) + static_cast<int32_t>(prefix_tokens.size()); }
  int32_t EntriesOfItem(int levels) const {
    return (encoder == PromptEncoderKind::kMerged ? 1 : levels) + static_cast<int32_t>(separator_tokens.size());
  }

  // Fields that contradict each other, by name. Called by everything that makes a policy.
  absl::Status Validate() const;

  // Reads config.json, of transformers 4 (rope_theta, torch_dtype) or 5 (rope_parameters, dtype).
  // Unimplemented for an unknown architecture or feature (sliding window in use, other rope types): never
  // silently ignored.
  static absl::StatusOr<PolicyConfig> FromJson(const std::string& json);
  // What `transformers` 4 and 5 load; key "sluice" beside.
  std::string ToJson() const;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_CONFIG_POLICY_CONFIG_H_

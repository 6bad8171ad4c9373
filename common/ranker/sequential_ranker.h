// The sequential ranker: a causal self-attention model over item ids that scores what a user takes next.
//
// Source: Kang and McAuley 2018, "Self-Attentive Sequential Recommendation" (SASRec, arXiv 1808.09781). Departures:
// pre-norm blocks with a GELU feed-forward of 4 D, and training by the full softmax over items instead of sampled
// negatives, which is what makes it a strong ranker (see sequential_training.h). Items have one embedding, used as
// input and as output weights; positions are learned and counted from the end, so that the newest item is always at
// the same one.
//
// Letters: B histories, P positions (max_positions), D width, H heads, I items. Computes in float32 on the CPU.
// Immutable but for training; Score and ScoreAll are thread-safe.
#ifndef SLUICE_COMMON_RANKER_SEQUENTIAL_RANKER_H_
#define SLUICE_COMMON_RANKER_SEQUENTIAL_RANKER_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

struct SequentialRankerConfig {
  int64_t num_items = 0;
  int64_t hidden_size = 64;
  int64_t num_layers = 2;
  int64_t num_heads = 2;       // divides hidden_size
  int64_t max_positions = 20;  // older history is not looked at

  // InvalidArgument naming the field.
  absl::Status Validate() const;
};

class SequentialRanker {
 public:
  // Random weights: normal(0, 0.02) for matrices and embeddings, 1 for norms, 0 for biases. The same for a seed.
  static absl::StatusOr<std::unique_ptr<SequentialRanker>> Create(const SequentialRankerConfig& config, uint64_t seed);

  // Reads a folder with config.json and model.safetensors. NotFound: no folder or file; DataLoss: a file that is
  // damaged, or tensors that are missing, surplus, of another shape or not finite, by name.
  static absl::StatusOr<std::unique_ptr<SequentialRanker>> Load(const std::string& folder);
  // Writes such a folder, made if it does not exist. Each file is replaced atomically, the weights first.
  absl::Status Save(const std::string& folder) const;

  const SequentialRankerConfig& config() const { return config_; }

  // SHA-256 over the configuration and every weight: the ranker's version.
  std::string Digest() const;

  // logits[b][i]: the score of items[b][i] after histories[b] (item ids, oldest first). Softmax over all items gives
  // the model's probability, so logits of one history are comparable, those of two are not.
  // InvalidArgument: different lengths of the lists, an empty history, an item outside [0, I).
  absl::StatusOr<std::vector<std::vector<float>>> Score(absl::Span<const std::vector<int32_t>> histories,
                                                        absl::Span<const std::vector<int32_t>> items) const;

  // Logits of all items, [B, I] float32, no gradient. InvalidArgument as above.
  absl::StatusOr<at::Tensor> ScoreAll(absl::Span<const std::vector<int32_t>> histories) const;

  // For training. Hidden states after the final norm of every input position, [sum of lengths, D], sequence by
  // sequence; at most P items each, all inside the catalog, none empty. Logits are hidden x item_embedding^T.
  // dropout in [0, 1) on the embeddings and on each block's two outputs, drawn from `generator`.
  at::Tensor Forward(absl::Span<const std::vector<int32_t>> sequences, double dropout,
                     const std::optional<at::Generator>& generator) const;
  at::Tensor item_embedding() const { return item_embedding_; }  // [I, D]
  // Every weight by name, in a fixed order. Tensors are shared, not copied.
  std::vector<std::pair<std::string, at::Tensor>> Weights() const;

 private:
  struct Block {
    at::Tensor norm1_weight, norm1_bias;          // [D]
    at::Tensor attention_weight, attention_bias;  // [3 D, D], [3 D]: query, key, value
    at::Tensor output_weight, output_bias;        // [D, D], [D]
    at::Tensor norm2_weight, norm2_bias;          // [D]
    at::Tensor expand_weight, expand_bias;        // [4 D, D], [4 D]
    at::Tensor contract_weight, contract_bias;    // [D, 4 D], [D]
  };
  explicit SequentialRanker(const SequentialRankerConfig& config);
  absl::Status CheckHistories(absl::Span<const std::vector<int32_t>> histories) const;
  // [B, D]: the hidden state of each history's newest item.
  at::Tensor LastHidden(absl::Span<const std::vector<int32_t>> histories) const;

  SequentialRankerConfig config_;
  at::Tensor item_embedding_;      // [I, D]
  at::Tensor position_embedding_;  // [P, D]; row P - 1 is the newest
  std::vector<Block> blocks_;
  at::Tensor final_norm_weight_, final_norm_bias_;  // [D]
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RANKER_SEQUENTIAL_RANKER_H_

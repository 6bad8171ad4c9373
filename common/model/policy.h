// The policy: a decoder transformer over semantic IDs, for training (shared-prefix pass) and decoding (KV cache).
//
// Parameters live in one flat arena, gradients in another, so that an optimizer step, an all-reduce, a snapshot
// and a publication are each one call over one buffer. Tensors here are at::Tensor; plain torch inside, Status at
// each entry point. Not thread-safe: one thread computes with a policy at a time.
//
// Letters: B prompts, W rows a prompt, N = B*W, P prompt positions, T completion tokens, D width, V vocabulary.
#ifndef SLUICE_COMMON_MODEL_POLICY_H_
#define SLUICE_COMMON_MODEL_POLICY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/model/tree_batch.h"
#include "common/model_config/policy_config.h"
#include "common/tensor/device.h"

namespace sluice {

// The KV cache of one batch of prompts and the rows that continue them. Made by Prefill, advanced by Step.
struct DecodeState;
struct GrownRow;
class TrieTables;

// Rows that went through the layers for decoding since the policy was made: what decoding costs, as a count.
struct PolicyWork {
  int64_t prefilled = 0;  // positions of prompts
  int64_t appended = 0;   // new tokens of all rows
};

// Rows that ForwardTree returns.
enum class TreeRows {
  kAll,
  // Those that predict a branch's tokens (all, if there is no branch): the last layer is computed for them alone,
  // beyond keys and values.
  kPredictions,
};

// What ForwardTree returns.
struct TreeOutput {
  at::Tensor hidden;  // [rows, D], after the final norm, trunks first (prompt by prompt), then branches
  // Row of trunk position p of prompt b: trunk_first_row[b] + p. Empty under TreeRows::kPredictions.
  std::vector<int64_t> trunk_first_row;
  int64_t computed_rows = 0;  // that went through the layers
  // For branch i, the T rows whose hidden states predict its T tokens: the anchor's, then its own.
  // Concatenated over branches; branch i starts at prediction_first[i]. [sum T]
  std::vector<int64_t> prediction_rows;
  std::vector<int64_t> prediction_first;
};

class Policy {
 public:
  // Random weights: normal(0, initializer_range) for matrices and embeddings, 1 for norms, 0 for biases; the same
  // for a seed whatever the thread count. `trie` is needed by the merged encoder (tokens of a leaf) and may be
  // null otherwise; its version must be config.catalog_version if that is set. dtype: float32 or float64.
  static absl::StatusOr<std::unique_ptr<Policy>> Create(const PolicyConfig& config, std::shared_ptr<const Trie> trie,
                                                        uint64_t seed, at::ScalarType dtype = at::kFloat);
  // For processes that never train, such as actors: weights of zero, to be filled in, and neither gradients nor decay
  // mask, a third of the memory. ForwardTree needs grad mode off.
  static absl::StatusOr<std::unique_ptr<Policy>> CreateForDecoding(const PolicyConfig& config,
                                                                   std::shared_ptr<const Trie> trie);
  // Reads a Hugging Face folder: config.json, model.safetensors or a sharded index, sluice_encoder.safetensors for
  // a merged policy, and sluice_value.safetensors for one with a value head. fp32, bf16 and fp16 files; computed in
  // `dtype`. Without a trie a merged policy takes the leaves that its folder lists: one "item" a leaf, numbered as the
  // leaves are. A trie with all of its leaves and more is of a catalog that has grown: the new leaves' item embeddings
  // are zero, so that their items are the sum of their codes until training gives them more.
  // NotFound, DataLoss (truncated, wrong shape, missing or surplus tensor, by name), Unimplemented;
  // FailedPrecondition: `trie` is of another catalog.
  static absl::StatusOr<std::unique_ptr<Policy>> Load(const std::string& folder, std::shared_ptr<const Trie> trie,
                                                      at::ScalarType dtype = at::kFloat);
  // Writes such a folder; the folder must exist. Tensors are stored as float32, each file atomically, config.json
  // last. A merged policy's sluice_encoder.safetensors holds `item_embedding.weight` [leaves, D] (if there is one)
  // and `leaf_tokens` [leaves, L] int32: client/python/sluice/encoder.py makes inputs_embeds of it.
  // sluice_value.safetensors holds the value head's four tensors, `value_head.up.weight` [W, D] and so on.
  absl::Status Save(const std::string& folder) const { return Save(folder, parameters_); }
  // The same of other values in this policy's shape: an arena as parameters() is, on any device.
  absl::Status Save(const std::string& folder, const at::Tensor& parameters) const;

  // Another policy over the same parameters, with gradients of its own if this one has any: passes of the two may run
  // on two threads at once, as long as nobody writes the parameters. Neither may be placed anew after.
  absl::StatusOr<std::unique_ptr<Policy>> MakeTwin() const;

  ~Policy();

  // A policy with these weights and a value head of that hidden width, drawn from the seed as Create draws it; on the
  // processor. InvalidArgument: it has one already, or a width that PolicyConfig::Validate refuses.
  absl::StatusOr<std::unique_ptr<Policy>> WithValueHead(int64_t width, uint64_t seed) const;

  // Moves the arenas to a device, and chooses how passes are computed from now on. OpenDevice must have been called.
  // Before anybody takes an arena: tensors handed out earlier stay behind. Internal or ResourceExhausted if the device
  // refuses; the policy is of no more use then.
  absl::Status Place(const Placement& placement);
  const Placement& placement() const;

  const PolicyConfig& config() const { return config_; }
  // Leaves of the catalog that the folder, which this policy was loaded from, did not know.
  int64_t new_leaves() const { return new_leaves_; }
  std::shared_ptr<const Trie> trie() const { return trie_; }

  // The input of a history (item ids, oldest first) under this policy's encoder: the begin token and the prefix, then
  // one entry an item (merged) or L tokens an item (codes), each followed by the separator. `reversed` takes
  // begin_reversed_token instead of begin_token; the items are encoded in the order given either way, so the caller
  // reverses them. InvalidArgument: empty history, item outside the catalog. FailedPrecondition: no trie, no such begin
  // token.
  absl::StatusOr<PromptInput> EncodePrompt(absl::Span<const int32_t> history, bool reversed = false) const;

  // --- Training -----------------------------------------------------------------------------------------------
  // Records the autograd graph if grad mode is on. dropout in [0, 1): on embeddings and on each block's two
  // outputs, drawn from torch's generator seeded with `dropout_seed`; 0: none.
  // InvalidArgument: empty batch, anchor outside its prompt, token outside the vocabulary, leaf outside the trie,
  // longer than max_positions.
  absl::StatusOr<TreeOutput> ForwardTree(const TreeBatch& batch, double dropout = 0, uint64_t dropout_seed = 0,
                                         TreeRows rows = TreeRows::kAll);

  // [rows, D] -> [rows, V]. Differentiable.
  at::Tensor Logits(const at::Tensor& hidden) const;

  // [rows, D] -> [rows]: what the value head makes of the hidden states of prefixes' last tokens,
  // V = down silu(up h + b) + c. Causal, as the hidden states are. Differentiable. The policy must have a value head.
  at::Tensor Values(const at::Tensor& hidden) const;
  bool has_value_head() const { return config_.value_hidden > 0; }

  // What the policy embeds each leaf's item with: the sum of its tokens' embeddings, plus the item embedding if there
  // is one. [leaves, D] on the processor, without gradient. InvalidArgument: a trie of other leaves or tokens than the
  // policy has embeddings for.
  absl::StatusOr<at::Tensor> LeafEmbeddings(const Trie& trie) const;
  // The same of a merged policy's own trie, where the parameters are. [leaves, D], differentiable.
  at::Tensor ItemVectors() const;

  // Flat arenas, float32 (or the dtype of Create), never re-allocated. Gradients accumulate; zero them with
  // gradients().zero_(). Gradients and decay mask are undefined after CreateForDecoding.
  at::Tensor parameters() const { return parameters_; }
  at::Tensor gradients() const { return gradients_; }
  // 1 where weight decay applies (matrices), 0 for norms and biases; the same length as the arena.
  at::Tensor decay_mask() const { return decay_mask_; }
  // SHA-256 of names, shapes and offsets: two policies with equal layouts can exchange arenas.
  const std::string& layout_digest() const { return layout_digest_; }

  // --- Decoding (call under c10::InferenceMode) --------------------------------------------------------------
  // One pass over all prompts, ragged. Returns the hidden state of each prompt's last position, [B, D].
  struct Prefilled {
    std::shared_ptr<DecodeState> state;
    at::Tensor hidden;  // [B, D]
  };
  absl::StatusOr<Prefilled> Prefill(absl::Span<const PromptInput> prompts, int max_new_tokens);

  // Appends one token to each of N rows: the first rows_of_prompt[0] belong to prompt 0, the next to prompt 1, and so
  // on; none is fine. parents[n]: the row of the previous step that row n continues (nothing is copied for it); ignored
  // on the first step after Prefill. All N rows advance together; their numbers may change from step to step. Returns
  // the hidden states, [N, D]. After an error other than InvalidArgument the state is of no more use.
  absl::StatusOr<at::Tensor> Step(DecodeState* state, absl::Span<const int32_t> tokens,
                                  absl::Span<const int32_t> parents, absl::Span<const int32_t> rows_of_prompt);
  // The same with as many rows for every prompt, at least one.
  absl::StatusOr<at::Tensor> Step(DecodeState* state, absl::Span<const int32_t> tokens,
                                  absl::Span<const int32_t> parents, int rows_per_prompt);
  // The same where tokens and parents, [N] int64, lie on the device already, for policies that take the path of
  // devices. They are not checked, as that would wait for the device.
  absl::StatusOr<at::Tensor> StepOnDevice(DecodeState* state, const at::Tensor& tokens, const at::Tensor& parents,
                                          int rows_per_prompt);
  // The trie on this policy's device; the same object until another catalog's is asked for. Keeps nothing of `trie`.
  std::shared_ptr<const TrieTables> TablesOf(const Trie& trie);

  // Appends one token to rows of a growing tree: row n continues parents[n], an index into all rows that Grow has
  // appended to this state so far, in their order, or -1 for its prompt. Unlike Step's, rows of one call may lie at
  // different depths, and any row may be continued at any time. Returns the hidden states, [N, D]. A row deeper than
  // the state's max_new_tokens: InvalidArgument. Not for a state that Step has advanced: FailedPrecondition.
  absl::StatusOr<at::Tensor> Grow(DecodeState* state, absl::Span<const int32_t> tokens,
                                  absl::Span<const int64_t> parents, absl::Span<const int32_t> rows_of_prompt);

  const PolicyWork& work() const { return work_; }

 private:
  struct Internals;
  // Step on a device: pads every prompt to the same number of rows.
  absl::StatusOr<at::Tensor> StepRagged(DecodeState* state, absl::Span<const int32_t> tokens,
                                        absl::Span<const int32_t> parents, absl::Span<const int32_t> rows_of_prompt);
  absl::StatusOr<at::Tensor> GrowOnDevice(DecodeState* state, absl::Span<const int32_t> tokens,
                                          absl::Span<const int32_t> rows_of_prompt, std::vector<GrownRow> grown);
  Policy();
  // Checks the trie against the configuration and lays out zeroed arenas.
  static absl::StatusOr<std::unique_ptr<Policy>> Allocate(const PolicyConfig& config, std::shared_ptr<const Trie> trie,
                                                          at::ScalarType dtype, bool trainable = true);

  PolicyConfig config_;
  std::shared_ptr<const Trie> trie_;
  at::Tensor parameters_;
  at::Tensor gradients_;
  at::Tensor decay_mask_;
  std::string layout_digest_;
  int64_t new_leaves_ = 0;
  std::unique_ptr<Internals> internals_;
  PolicyWork work_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_POLICY_H_

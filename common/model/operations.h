// The decoder's operations besides matrix products, on packed rows: differentiable wrappers of the kernels.
//
// float32 or float64, contiguous, on the CPU. Each is one node of the autograd graph with a hand-written backward
// pass. Work is split over torch's threads; results do not depend on their number.
#ifndef SLUICE_COMMON_MODEL_OPERATIONS_H_
#define SLUICE_COMMON_MODEL_OPERATIONS_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <vector>

#include "common/catalog/trie.h"
#include "common/model/kernels/kernels.h"
#include "common/model/tree_layout.h"

namespace sluice {

// A layout together with the arrays that the kernels read. Immutable once made; graphs keep it alive.
struct TreePlan : public torch::CustomClassHolder {
  // `trie` is read where the layout has merged items; `item_vectors`: their leaves have vectors of their own.
  TreePlan(TreeLayout layout, const Trie* trie, bool item_vectors);

  TreeLayout layout;
  std::vector<QueryRow> queries;
  std::vector<AttentionGroup> groups;  // [prompts]
  int64_t longest_trunk = 0;
  int64_t longest_branch = 0;

  EmbeddingRows embedding_rows() const;

  // Makes needed_rows and its queries: what the last layer computes when nothing but predictions is asked for. Fills
  // them up with other rows to RoundedRows if `rounded` (or to all rows). Called once, before the plan is shared.
  void FindNeededRows(bool rounded);
  std::vector<int64_t> needed_rows;  // ascending
  std::vector<QueryRow> needed_queries;
  std::vector<AttentionGroup> needed_groups;  // [prompts]

 private:
  std::vector<int64_t> row_numbers_;  // 0, 1, 2, ...: the own rows of a branch are a run of these
  std::vector<int64_t> embedding_first_;
  std::vector<int32_t> embedding_tokens_;
  std::vector<int32_t> embedding_leaves_;
};

// cosine and sine of every position, [positions, head_dim / 2] each.
struct RotaryTable {
  at::Tensor cosine;
  at::Tensor sine;
};

// What an attention layer needs besides its input. Norm weights are undefined where heads are not normed.
struct AttentionParts {
  HeadShape shape;
  double eps = 0;
  at::Tensor query_norm, key_norm;  // [head_dim]
  RotaryTable rotary;
};

// [rows, D]: the sum of each row's token embeddings, and its item's vector. The gradient goes straight into the
// tables' .grad, which must be defined: it touches only the rows that were used, where a dense gradient of the
// whole item table would be made and added otherwise.
at::Tensor EmbedRows(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& token_table,
                     const at::Tensor& item_table);

// x [rows, in] times weight [out, in] transposed, plus bias [out] and residual [rows, out] where they are defined.
//
// Single precision goes to oneDNN: the BLAS inside LibTorch has AVX2 code alone for AMD processors, and oneDNN's
// AVX-512 is 2.3 times as fast on the layers of a small decoder (245 against 105 GFLOP/s on one Zen 5 core).
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual);

// The same without a graph, for decoding.
at::Tensor LinearWithoutGraph(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              const at::Tensor& residual);

// log(sum(exp(x))) of each row of [rows, V], [rows], in one pass over memory. No gradient. Not finite where a row
// holds anything that is not.
at::Tensor LogSumExpRows(const at::Tensor& x);

// x / rms(x) * weight over the last of two dimensions.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Fused q, k, v of all rows [rows, (H + 2 Hkv) hd] -> attention over each row's trunk and branch, [rows, H hd].
// `needed_only`: computes the plan's needed rows; the others are left undefined, and their gradient is taken for 0.
at::Tensor AttendTree(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& fused, const AttentionParts& parts,
                      bool needed_only = false);

// [rows, D] -> the plan's needed rows, [needed, D].
at::Tensor SelectNeeded(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& x);

// [rows, 2 I] -> [rows, I]: silu of the first half times the second.
at::Tensor GatedSilu(const at::Tensor& gate_up);

// x with each value zeroed with probability `dropout` and the others scaled by 1 / (1 - dropout).
at::Tensor Dropout(const at::Tensor& x, double dropout, at::Generator generator);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_OPERATIONS_H_

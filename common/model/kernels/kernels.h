// The loops of the decoder that are not matrix products, for processors: embedding, norms, rotary positions,
// attention over trees, gated activation. Forward and backward, float and double, on packed rows.
//
// Why own loops: on packed rows a branch sees its trunk and itself alone. Masked dense attention would compute all
// pairs of a prompt's rows (4 times as many on 20 branches of 4 tokens), and chains of element-wise tensor calls
// read and write each activation many times over. Every function works on a range, so that the caller splits the
// work over threads; results do not depend on how it is split, except that norm weights' gradients are sums of the
// ranges' parts.
//
// Compiled for several instruction sets; Kernels<T>() picks the widest that the processor has. All thread-safe.
#ifndef SLUICE_COMMON_MODEL_KERNELS_KERNELS_H_
#define SLUICE_COMMON_MODEL_KERNELS_KERNELS_H_

#include <cstdint>

namespace sluice {

// Input rows of the embedding: row r sums the embeddings of tokens[first[r] .. first[r + 1]), and adds the item
// vector leaves[r] if that is >= 0.
struct EmbeddingRows {
  const int64_t* first = nullptr;  // [rows + 1]
  const int32_t* tokens = nullptr;
  const int32_t* leaves = nullptr;  // [rows]; null: no item embedding
};

// Heads of one attention layer. Fused projections hold [q heads | k heads | v heads], head_dim values each.
struct HeadShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t query_width() const { return heads * head_dim; }
  int64_t key_width() const { return kv_heads * head_dim; }
  int64_t fused_width() const { return (heads + 2 * kv_heads) * head_dim; }
};

// A matrix of `stride` values from row to row.
template <typename T>
struct Strided {
  T* data = nullptr;
  int64_t stride = 0;
  T* row(int64_t index) const { return data + index * stride; }
};

// A query row: it attends to the first `shared_visible` shared keys of its group, and to own rows of its own.
struct QueryRow {
  int64_t row = 0;  // index into queries, outputs and log_sums
  int64_t shared_visible = 0;
  const int64_t* own_rows = nullptr;  // [own_visible], indices into own keys and values
  int64_t own_visible = 0;
};

// One prompt's keys and the rows that look at them.
struct AttentionGroup {
  int64_t shared_first = 0;  // index into shared keys and values
  int64_t shared_count = 0;
  const QueryRow* queries = nullptr;
  int64_t query_count = 0;
};

template <typename T>
struct AttentionInput {
  HeadShape shape;
  T scale = 1;                   // on scores: 1 / sqrt(head_dim)
  Strided<const T> queries;      // [rows, heads * head_dim]
  Strided<const T> shared_keys;  // [rows, kv_heads * head_dim]
  Strided<const T> shared_values;
  Strided<const T> own_keys;
  Strided<const T> own_values;
};

template <typename T>
struct KernelTable {
  const char* name;

  // out[r] for r in [begin, end), D values each.
  void (*embed)(const EmbeddingRows& rows, int64_t begin, int64_t end, int64_t width, const T* token_table,
                const T* item_table, T* out);
  // Adds the gradient of all rows to the tables, for columns [begin, end) of D: columns so that threads never meet.
  void (*embed_backward)(const EmbeddingRows& rows, int64_t row_count, int64_t begin, int64_t end, int64_t width,
                         const T* grad_out, T* token_grad, T* item_grad);

  // y = x / rms(x) * weight over rows [begin, end); rms_inverse[r] is kept for the backward pass if not null.
  // Source: Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4, with eps inside the root as in Llama.
  void (*rms_norm)(int64_t begin, int64_t end, int64_t width, T eps, const T* x, const T* weight, T* y, T* rms_inverse);
  // Writes grad_x and adds to weight_grad [D].
  void (*rms_norm_backward)(int64_t begin, int64_t end, int64_t width, const T* x, const T* weight,
                            const T* rms_inverse, const T* grad_y, T* grad_x, T* weight_grad);

  // Splits a fused projection and turns q and k by their positions: half-split rotary embedding (Su et al. 2021,
  // arXiv 2104.09864, in the layout of Hugging Face), after a norm over each head if the weights are not null
  // (Qwen3). cosine, sine: [positions, head_dim / 2]. values may have data == null: v is then not copied.
  void (*rotate)(int64_t begin, int64_t end, const HeadShape& shape, const T* fused, const int32_t* position,
                 const T* cosine, const T* sine, T eps, const T* query_norm, const T* key_norm, Strided<T> queries,
                 Strided<T> keys, Strided<T> values);
  // Writes the q and k parts of grad_fused; its v part is left alone. Adds to the norms' gradients.
  void (*rotate_backward)(int64_t begin, int64_t end, const HeadShape& shape, const T* fused, const int32_t* position,
                          const T* cosine, const T* sine, T eps, const T* query_norm, const T* key_norm,
                          Strided<const T> grad_queries, Strided<const T> grad_keys, T* grad_fused, T* query_norm_grad,
                          T* key_norm_grad);

  // softmax(q k / sqrt(head_dim)) v of each query of one group over its visible shared and own keys.
  // out [rows, heads * head_dim]; log_sums [rows, heads]: log of the softmax's denominator, null if not wanted.
  // scratch: attention_scratch() values.
  void (*attend)(const AttentionInput<T>& input, const AttentionGroup& group, Strided<T> out, T* log_sums, T* scratch);
  // Adds to grad_keys and grad_values of shared and own rows (the same matrices, as in training own rows and
  // shared rows lie in one), writes grad_queries.
  void (*attend_backward)(const AttentionInput<T>& input, const AttentionGroup& group, Strided<const T> out,
                          const T* log_sums, Strided<const T> grad_out, Strided<T> grad_queries, Strided<T> grad_keys,
                          Strided<T> grad_values, T* scratch);

  // out[r] = silu(gate) * up, of fused rows [gate | up] of 2 I values.
  void (*gated_silu)(int64_t begin, int64_t end, int64_t width, const T* gate_up, T* out);
  void (*gated_silu_backward)(int64_t begin, int64_t end, int64_t width, const T* gate_up, const T* grad_out,
                              T* grad_gate_up);

  // out[r] = log(sum(exp(x[r]))) over rows of `width` >= 1 values. Not finite if one of them is not.
  void (*log_sum_exp)(int64_t begin, int64_t end, int64_t width, const T* x, T* out);
  // The same over the listed columns, columns[first[r] .. first[r + 1]): minus infinity over none.
  void (*log_sum_exp_of)(int64_t begin, int64_t end, int64_t width, const T* x, const int64_t* first,
                         const int32_t* columns, T* out);
  // Their gradients, given that of out: writes grad_x of all columns, or adds to the listed ones.
  void (*log_sum_exp_backward)(int64_t begin, int64_t end, int64_t width, const T* x, const T* out, const T* grad_out,
                               T* grad_x);
  void (*log_sum_exp_of_backward)(int64_t begin, int64_t end, int64_t width, const T* x, const int64_t* first,
                                  const int32_t* columns, const T* out, const T* grad_out, T* grad_x);

  // values[i] = exp((x[index[i]] - highest) * scale) for i < count, count >= 1, scale > 0, with `highest` the largest
  // of the x[index[i]]. Returns the values' sum. What is not finite stays so, in the sum too.
  double (*gather_exp)(const T* x, const int32_t* index, int64_t count, T scale, T* values, T* highest);
};

// The fastest table for this processor; T is float or double.
template <typename T>
const KernelTable<T>& Kernels();

// Every table that this processor can run, widest first, for tests that compare them. Returns their number, at
// most 3.
template <typename T>
int AvailableKernels(const KernelTable<T>** tables);

// Values of scratch that attend and attend_backward need for a group with so many shared keys, whose queries see
// at most `own_visible` own rows.
int64_t AttentionScratch(const HeadShape& shape, int64_t shared_count, int64_t own_visible);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_KERNELS_KERNELS_H_

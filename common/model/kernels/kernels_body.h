// The loops themselves, included once for each instruction set with SLUICE_KERNELS_NAMESPACE set.
//
// Everything has internal linkage and nothing of the standard library is called: an inline function compiled here
// for AVX-512 and picked by the linker for the whole program would fault on a smaller processor.
//
// No include guard: each instruction set includes it anew.
#include <cstdint>
#include <type_traits>

#include "common/model/kernels/kernels.h"

namespace sluice {
namespace SLUICE_KERNELS_NAMESPACE {
namespace {

#define SLUICE_INLINE inline __attribute__((always_inline))

// 64 bytes: one AVX-512 register, two of AVX2, four of SSE2. The unaligned twin is for memory.
template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(64)));
  typedef float Memory __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(64)));
  typedef double Memory __attribute__((vector_size(64), aligned(8), may_alias));
};
template <typename T>
using Vector = typename Lanes<T>::Vector;
template <typename T>
constexpr int64_t kLanes = 64 / sizeof(T);
// Rows of a register block: 4 rows by 2 vectors keep 8 sums in flight, enough to hide an FMA's latency.
constexpr int64_t kBlock = 4;

template <typename T>
SLUICE_INLINE Vector<T> Load(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Memory*>(p);
}
template <typename T>
SLUICE_INLINE void Store(T* p, Vector<T> v) {
  *reinterpret_cast<typename Lanes<T>::Memory*>(p) = v;
}
template <typename T>
SLUICE_INLINE T Sum(Vector<T> v) {
  T parts[kLanes<T>];
  Store<T>(parts, v);
  for (int64_t width = kLanes<T> / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}
template <typename T>
SLUICE_INLINE T Dot(const T* a, const T* b, int64_t n) {
  Vector<T> sum0{}, sum1{};
  int64_t i = 0;
  for (; i + 2 * kLanes<T> <= n; i += 2 * kLanes<T>) {
    sum0 += Load(a + i) * Load(b + i);
    sum1 += Load(a + i + kLanes<T>) * Load(b + i + kLanes<T>);
  }
  for (; i + kLanes<T> <= n; i += kLanes<T>) sum0 += Load(a + i) * Load(b + i);
  T sum = Sum<T>(sum0 + sum1);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
template <typename T>
SLUICE_INLINE T Largest(const T* x, int64_t n) {
  T largest = x[0];
  int64_t i = 0;
  if (n >= kLanes<T>) {
    Vector<T> lanes = Load(x);
    for (i = kLanes<T>; i + kLanes<T> <= n; i += kLanes<T>) {
      const Vector<T> v = Load(x + i);
      lanes = v > lanes ? v : lanes;
    }
    T parts[kLanes<T>];
    Store<T>(parts, lanes);
    for (int64_t j = 0; j < kLanes<T>; ++j) largest = parts[j] > largest ? parts[j] : largest;
  }
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}
template <typename T>
SLUICE_INLINE T Total(const T* x, int64_t n) {
  Vector<T> lanes{};
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) lanes += Load(x + i);
  T sum = Sum<T>(lanes);
  for (; i < n; ++i) sum += x[i];
  return sum;
}
template <typename T>
SLUICE_INLINE void AddScaled(T scale, const T* __restrict x, T* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += scale * x[i];
}
template <typename T>
SLUICE_INLINE T SquareRoot(T x) {
  if constexpr (std::is_same_v<T, float>) {
    return __builtin_sqrtf(x);
  } else {
    return __builtin_sqrt(x);
  }
}

// exp to within 2 units in the last place, without a call, so that loops over it become vector code. Clamped:
// below -87 the result is about 1e-38. NaN stays NaN, and infinities become NaN. The clamp takes NaN for -87, which can
// be converted to an integer.
// Source: Cephes expf (Moshier), Cody-Waite reduction and a degree-5 polynomial.
SLUICE_INLINE float Exp(float x) {
  const float above = x > -87.0f ? x : -87.0f;
  const float c = above < 88.0f ? above : 88.0f;
  const float t = c * 1.44269504088896341f;
  const int32_t n = static_cast<int32_t>(t + (t < 0 ? -0.5f : 0.5f));
  const float nf = static_cast<float>(n);
  const float r = (c - nf * 0.693359375f) + nf * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    int32_t bits;
    float value;
  } power;
  power.bits = (n + 127) << 23;
  return p * power.value + (x - x);  // x - x: 0, or NaN
}
// Doubles serve the tests' exactness and need no speed.
SLUICE_INLINE double Exp(double x) { return __builtin_exp(x); }

template <typename T>
SLUICE_INLINE T Log(T x) {
  return static_cast<T>(__builtin_log(static_cast<double>(x)));
}

template <typename T>
SLUICE_INLINE void Clear(T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = 0;
}

// --- Embedding ------------------------------------------------------------------------------------------------

template <typename T>
void Embed(const EmbeddingRows& rows, int64_t begin, int64_t end, int64_t width, const T* token_table,
           const T* item_table, T* out) {
  for (int64_t r = begin; r < end; ++r) {
    T* y = out + r * width;
    if (rows.leaves != nullptr && rows.leaves[r] >= 0) {
      const T* item = item_table + rows.leaves[r] * width;
      for (int64_t d = 0; d < width; ++d) y[d] = item[d];
    } else {
      for (int64_t d = 0; d < width; ++d) y[d] = 0;
    }
    for (int64_t i = rows.first[r]; i < rows.first[r + 1]; ++i) {
      AddScaled<T>(1, token_table + rows.tokens[i] * width, y, width);
    }
  }
}

template <typename T>
void EmbedBackward(const EmbeddingRows& rows, int64_t row_count, int64_t begin, int64_t end, int64_t width,
                   const T* grad_out, T* token_grad, T* item_grad) {
  for (int64_t r = 0; r < row_count; ++r) {
    const T* dy = grad_out + r * width + begin;
    if (rows.leaves != nullptr && rows.leaves[r] >= 0) {
      AddScaled<T>(1, dy, item_grad + rows.leaves[r] * width + begin, end - begin);
    }
    for (int64_t i = rows.first[r]; i < rows.first[r + 1]; ++i) {
      AddScaled<T>(1, dy, token_grad + rows.tokens[i] * width + begin, end - begin);
    }
  }
}

// --- Norm -----------------------------------------------------------------------------------------------------

template <typename T>
SLUICE_INLINE T RmsInverse(const T* x, int64_t width, T eps) {
  return T(1) / SquareRoot<T>(Dot<T>(x, x, width) / static_cast<T>(width) + eps);
}

// With n = x * s, s = 1 / rms, y = w n:  dx = s (w dy - n mean(w dy n)),  dw += dy n.
template <typename T>
SLUICE_INLINE void NormBackwardRow(const T* __restrict x, const T* __restrict weight, T inverse, const T* __restrict dy,
                                   T* __restrict dx, T* __restrict dw, int64_t width) {
  for (int64_t d = 0; d < width; ++d) {
    dx[d] = weight[d] * dy[d];
    dw[d] += dy[d] * x[d] * inverse;
  }
  const T mean = Dot<T>(dx, x, width) * inverse / static_cast<T>(width);
  for (int64_t d = 0; d < width; ++d) dx[d] = inverse * (dx[d] - x[d] * inverse * mean);
}

template <typename T>
void RmsNorm(int64_t begin, int64_t end, int64_t width, T eps, const T* x, const T* weight, T* y, T* rms_inverse) {
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict xr = x + r * width;
    T* __restrict yr = y + r * width;
    const T inverse = RmsInverse<T>(xr, width, eps);
    for (int64_t d = 0; d < width; ++d) yr[d] = xr[d] * inverse * weight[d];
    if (rms_inverse != nullptr) rms_inverse[r] = inverse;
  }
}

template <typename T>
void RmsNormBackward(int64_t begin, int64_t end, int64_t width, const T* x, const T* weight, const T* rms_inverse,
                     const T* grad_y, T* grad_x, T* weight_grad) {
  for (int64_t r = begin; r < end; ++r) {
    NormBackwardRow<T>(x + r * width, weight, rms_inverse[r], grad_y + r * width, grad_x + r * width, weight_grad,
                       width);
  }
}

// --- Rotary positions -----------------------------------------------------------------------------------------

template <typename T>
SLUICE_INLINE void RotateHead(const T* __restrict x, const T* __restrict norm, T inverse, const T* __restrict cosine,
                              const T* __restrict sine, int64_t half, T* __restrict y) {
  if (norm != nullptr) {
    for (int64_t i = 0; i < half; ++i) {
      const T a = x[i] * inverse * norm[i];
      const T b = x[i + half] * inverse * norm[i + half];
      y[i] = a * cosine[i] - b * sine[i];
      y[i + half] = b * cosine[i] + a * sine[i];
    }
  } else {
    for (int64_t i = 0; i < half; ++i) {
      const T a = x[i], b = x[i + half];
      y[i] = a * cosine[i] - b * sine[i];
      y[i + half] = b * cosine[i] + a * sine[i];
    }
  }
}

template <typename T>
void Rotate(int64_t begin, int64_t end, const HeadShape& shape, const T* fused, const int32_t* position,
            const T* cosine, const T* sine, T eps, const T* query_norm, const T* key_norm, Strided<T> queries,
            Strided<T> keys, Strided<T> values) {
  const int64_t head_dim = shape.head_dim, half = head_dim / 2;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = fused + r * shape.fused_width();
    const T* c = cosine + position[r] * half;
    const T* s = sine + position[r] * half;
    for (int64_t h = 0; h < shape.heads + shape.kv_heads; ++h, x += head_dim) {
      const bool is_query = h < shape.heads;
      const T* norm = is_query ? query_norm : key_norm;
      T* y = is_query ? queries.row(r) + h * head_dim : keys.row(r) + (h - shape.heads) * head_dim;
      RotateHead<T>(x, norm, norm != nullptr ? RmsInverse<T>(x, head_dim, eps) : T(1), c, s, half, y);
    }
    if (values.data != nullptr) {
      T* __restrict v = values.row(r);
      for (int64_t i = 0; i < shape.key_width(); ++i) v[i] = x[i];
    }
  }
}

template <typename T>
void RotateBackward(int64_t begin, int64_t end, const HeadShape& shape, const T* fused, const int32_t* position,
                    const T* cosine, const T* sine, T eps, const T* query_norm, const T* key_norm,
                    Strided<const T> grad_queries, Strided<const T> grad_keys, T* grad_fused, T* query_norm_grad,
                    T* key_norm_grad) {
  constexpr int64_t kMaxHeadDim = 512;  // PolicyConfig::Validate allows no more
  const int64_t head_dim = shape.head_dim, half = head_dim / 2;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = fused + r * shape.fused_width();
    T* dx = grad_fused + r * shape.fused_width();
    const T* __restrict c = cosine + position[r] * half;
    const T* __restrict s = sine + position[r] * half;
    for (int64_t h = 0; h < shape.heads + shape.kv_heads; ++h, x += head_dim, dx += head_dim) {
      const bool is_query = h < shape.heads;
      const T* norm = is_query ? query_norm : key_norm;
      const T* __restrict dy =
          is_query ? grad_queries.row(r) + h * head_dim : grad_keys.row(r) + (h - shape.heads) * head_dim;
      T turned_back[kMaxHeadDim];
      T* __restrict back = norm != nullptr ? turned_back : dx;
      for (int64_t i = 0; i < half; ++i) {
        back[i] = dy[i] * c[i] + dy[i + half] * s[i];
        back[i + half] = dy[i + half] * c[i] - dy[i] * s[i];
      }
      if (norm != nullptr) {
        NormBackwardRow<T>(x, norm, RmsInverse<T>(x, head_dim, eps), turned_back, dx,
                           is_query ? query_norm_grad : key_norm_grad, head_dim);
      }
    }
  }
}

// --- Attention ------------------------------------------------------------------------------------------------
//
// Per group and key/value head, the shared keys and values are packed once, padded with zeros to whole register
// blocks; queries then pass in blocks of kBlock (row, head) pairs that share every load of a key or value.

template <typename T>
SLUICE_INLINE int64_t PadKeys(int64_t count) {
  return (count + 2 * kLanes<T> - 1) / (2 * kLanes<T>)*(2 * kLanes<T>);
}
template <typename T>
SLUICE_INLINE int64_t PadDims(int64_t head_dim) {
  return PadKeys<T>(head_dim);
}

// scores[b][j] = queries[b] . column j of transposed, for j in [0, count rounded up).
template <typename T>
SLUICE_INLINE void BlockScores(const T* const* queries, const T* transposed, int64_t key_stride, int64_t head_dim,
                               int64_t count, T* scores, int64_t score_stride) {
  for (int64_t j = 0; j < count; j += 2 * kLanes<T>) {
    Vector<T> sums[kBlock][2] = {};
    const T* column = transposed + j;
    for (int64_t d = 0; d < head_dim; ++d, column += key_stride) {
      const Vector<T> k0 = Load(column), k1 = Load(column + kLanes<T>);
#pragma GCC unroll 4
      for (int64_t b = 0; b < kBlock; ++b) {
        const T q = queries[b][d];
        sums[b][0] += q * k0;
        sums[b][1] += q * k1;
      }
    }
#pragma GCC unroll 4
    for (int64_t b = 0; b < kBlock; ++b) {
      Store<T>(scores + b * score_stride + j, sums[b][0]);
      Store<T>(scores + b * score_stride + j + kLanes<T>, sums[b][1]);
    }
  }
}

// out[b] = sum over j < count of weights[b][j] * rows[j]; rows are padded to pad_dims.
template <typename T>
SLUICE_INLINE void BlockSums(const T* weights, int64_t weight_stride, const T* rows, int64_t pad_dims, int64_t count,
                             T* out) {
  for (int64_t d = 0; d < pad_dims; d += 2 * kLanes<T>) {
    Vector<T> sums[kBlock][2] = {};
    const T* row = rows + d;
    for (int64_t j = 0; j < count; ++j, row += pad_dims) {
      const Vector<T> v0 = Load(row), v1 = Load(row + kLanes<T>);
#pragma GCC unroll 4
      for (int64_t b = 0; b < kBlock; ++b) {
        const T w = weights[b * weight_stride + j];
        sums[b][0] += w * v0;
        sums[b][1] += w * v1;
      }
    }
#pragma GCC unroll 4
    for (int64_t b = 0; b < kBlock; ++b) {
      Store<T>(out + b * pad_dims + d, sums[b][0]);
      Store<T>(out + b * pad_dims + d + kLanes<T>, sums[b][1]);
    }
  }
}

// rows[j] += sum over b of weights[b][j] * values[b].
template <typename T>
SLUICE_INLINE void BlockOuter(const T* weights, int64_t weight_stride, const T* values, int64_t pad_dims, int64_t count,
                              T* rows) {
  for (int64_t d = 0; d < pad_dims; d += 2 * kLanes<T>) {
    Vector<T> x[kBlock][2];
#pragma GCC unroll 4
    for (int64_t b = 0; b < kBlock; ++b) {
      x[b][0] = Load(values + b * pad_dims + d);
      x[b][1] = Load(values + b * pad_dims + d + kLanes<T>);
    }
    T* row = rows + d;
    for (int64_t j = 0; j < count; ++j, row += pad_dims) {
      Vector<T> y0 = Load(row), y1 = Load(row + kLanes<T>);
#pragma GCC unroll 4
      for (int64_t b = 0; b < kBlock; ++b) {
        const T w = weights[b * weight_stride + j];
        y0 += w * x[b][0];
        y1 += w * x[b][1];
      }
      Store<T>(row, y0);
      Store<T>(row + kLanes<T>, y1);
    }
  }
}

// Where the parts of the scratch lie; sized for the backward pass.
template <typename T>
struct Scratch {
  Scratch(const HeadShape& shape, int64_t shared_count, int64_t own_visible, T* memory)
      : pad_dims(PadDims<T>(shape.head_dim)), pad_keys(PadKeys<T>(shared_count)), score_stride(pad_keys + own_visible) {
    T* next = memory;
    auto take = [&next](int64_t count) {
      T* part = next;
      next += count;
      return part;
    };
    keys = take(pad_keys * pad_dims);
    values = take(pad_keys * pad_dims);
    keys_transposed = take(pad_keys * pad_dims);
    values_transposed = take(pad_keys * pad_dims);
    key_grads = take(pad_keys * pad_dims);
    value_grads = take(pad_keys * pad_dims);
    queries = take(kBlock * pad_dims);
    outs = take(kBlock * pad_dims);
    out_grads = take(kBlock * pad_dims);
    query_grads = take(kBlock * pad_dims);
    scores = take(kBlock * score_stride);
    score_grads = take(kBlock * score_stride);
    total = next - memory;
  }
  int64_t pad_dims, pad_keys, score_stride, total;
  T *keys, *values, *keys_transposed, *values_transposed, *key_grads, *value_grads;
  T *queries, *outs, *out_grads, *query_grads, *scores, *score_grads;
};

// packed [pad_keys, pad_dims] and its transpose; either may be null.
template <typename T>
SLUICE_INLINE void PackShared(Strided<const T> rows, int64_t first, int64_t count, int64_t offset, int64_t head_dim,
                              int64_t pad_keys, int64_t pad_dims, T* packed, T* transposed) {
  if (packed != nullptr) Clear(packed, pad_keys * pad_dims);
  if (transposed != nullptr) Clear(transposed, pad_keys * pad_dims);
  for (int64_t j = 0; j < count; ++j) {
    const T* __restrict x = rows.row(first + j) + offset;
    if (packed != nullptr) {
      T* __restrict y = packed + j * pad_dims;
      for (int64_t d = 0; d < head_dim; ++d) y[d] = x[d];
    }
    if (transposed != nullptr) {
      for (int64_t d = 0; d < head_dim; ++d) transposed[d * pad_keys + j] = x[d];
    }
  }
}

// A block of up to kBlock (row, head) pairs; lanes past `count` repeat the first with nothing visible.
struct Block {
  const QueryRow* query[kBlock];
  int64_t head[kBlock];
  int64_t count;
  int64_t shared_visible;  // the most of any lane
};

SLUICE_INLINE Block TakeBlock(const AttentionGroup& group, int64_t repeat, int64_t kv_head, int64_t first) {
  Block block;
  const int64_t total = group.query_count * repeat;
  block.count = total - first < kBlock ? total - first : kBlock;
  block.shared_visible = 0;
  for (int64_t b = 0; b < kBlock; ++b) {
    const int64_t pair = first + (b < block.count ? b : 0);
    block.query[b] = group.queries + pair / repeat;
    block.head[b] = kv_head * repeat + pair % repeat;
    if (block.query[b]->shared_visible > block.shared_visible) block.shared_visible = block.query[b]->shared_visible;
  }
  return block;
}

template <typename T>
SLUICE_INLINE void LoadBlock(const Block& block, Strided<const T> rows, int64_t head_dim, int64_t pad_dims, T* out) {
  for (int64_t b = 0; b < kBlock; ++b) {
    const T* __restrict x = rows.row(block.query[b]->row) + block.head[b] * head_dim;
    T* __restrict y = out + b * pad_dims;
    for (int64_t d = 0; d < head_dim; ++d) y[d] = x[d];
    for (int64_t d = head_dim; d < pad_dims; ++d) y[d] = 0;
  }
}

// Raw scores of a block: shared keys at [0, shared_visible), own keys from pad_keys on.
template <typename T>
SLUICE_INLINE void AllScores(const Block& block, const T* queries, const T* transposed, const Scratch<T>& scratch,
                             Strided<const T> own_rows, int64_t own_offset, int64_t head_dim, T* scores) {
  const T* rows[kBlock];
  for (int64_t b = 0; b < kBlock; ++b) rows[b] = queries + b * scratch.pad_dims;
  BlockScores<T>(rows, transposed, scratch.pad_keys, head_dim, block.shared_visible, scores, scratch.score_stride);
  for (int64_t b = 0; b < block.count; ++b) {
    const QueryRow& query = *block.query[b];
    T* own = scores + b * scratch.score_stride + scratch.pad_keys;
    for (int64_t j = 0; j < query.own_visible; ++j) {
      own[j] = Dot<T>(rows[b], own_rows.row(query.own_rows[j]) + own_offset, head_dim);
    }
  }
}

template <typename T>
void Attend(const AttentionInput<T>& input, const AttentionGroup& group, Strided<T> out, T* log_sums, T* memory) {
  const HeadShape& shape = input.shape;
  const int64_t head_dim = shape.head_dim, repeat = shape.heads / shape.kv_heads;
  int64_t own_visible = 0;
  for (int64_t i = 0; i < group.query_count; ++i) {
    if (group.queries[i].own_visible > own_visible) own_visible = group.queries[i].own_visible;
  }
  const Scratch<T> scratch(shape, group.shared_count, own_visible, memory);
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    const int64_t offset = g * head_dim;
    PackShared<T>(input.shared_keys, group.shared_first, group.shared_count, offset, head_dim, scratch.pad_keys,
                  scratch.pad_dims, nullptr, scratch.keys_transposed);
    PackShared<T>(input.shared_values, group.shared_first, group.shared_count, offset, head_dim, scratch.pad_keys,
                  scratch.pad_dims, scratch.values, nullptr);
    for (int64_t first = 0; first < group.query_count * repeat; first += kBlock) {
      const Block block = TakeBlock(group, repeat, g, first);
      LoadBlock<T>(block, input.queries, head_dim, scratch.pad_dims, scratch.queries);
      AllScores<T>(block, scratch.queries, scratch.keys_transposed, scratch, input.own_keys, offset, head_dim,
                   scratch.scores);
      T inverse_sum[kBlock];
      for (int64_t b = 0; b < kBlock; ++b) {
        T* __restrict shared = scratch.scores + b * scratch.score_stride;
        if (b >= block.count) {
          Clear(shared, block.shared_visible);
          continue;
        }
        const QueryRow& query = *block.query[b];
        T* __restrict own = shared + scratch.pad_keys;
        T highest = query.shared_visible > 0 ? Largest<T>(shared, query.shared_visible) : own[0];
        for (int64_t j = 0; j < query.own_visible; ++j) highest = own[j] > highest ? own[j] : highest;
        for (int64_t j = 0; j < query.shared_visible; ++j) shared[j] = Exp((shared[j] - highest) * input.scale);
        for (int64_t j = query.shared_visible; j < block.shared_visible; ++j) shared[j] = 0;
        for (int64_t j = 0; j < query.own_visible; ++j) own[j] = Exp((own[j] - highest) * input.scale);
        T sum = Total<T>(shared, query.shared_visible);
        for (int64_t j = 0; j < query.own_visible; ++j) sum += own[j];
        inverse_sum[b] = T(1) / sum;
        if (log_sums != nullptr) {
          log_sums[query.row * shape.heads + block.head[b]] = highest * input.scale + Log<T>(sum);
        }
      }
      BlockSums<T>(scratch.scores, scratch.score_stride, scratch.values, scratch.pad_dims, block.shared_visible,
                   scratch.outs);
      for (int64_t b = 0; b < block.count; ++b) {
        const QueryRow& query = *block.query[b];
        T* sum = scratch.outs + b * scratch.pad_dims;
        const T* own = scratch.scores + b * scratch.score_stride + scratch.pad_keys;
        for (int64_t j = 0; j < query.own_visible; ++j) {
          AddScaled<T>(own[j], input.own_values.row(query.own_rows[j]) + offset, sum, head_dim);
        }
        T* __restrict y = out.row(query.row) + block.head[b] * head_dim;
        for (int64_t d = 0; d < head_dim; ++d) y[d] = sum[d] * inverse_sum[b];
      }
    }
  }
}

// With P = softmax(S), S = scale q k: dV += P^T dO; dP = dO V^T; dS = P (dP - sum(dO O)) scale; dQ = dS K;
// dK += dS^T Q. P is computed again from the kept log-sums. Source: Dao et al. 2022, arXiv 2205.14135, B.4.
template <typename T>
void AttendBackward(const AttentionInput<T>& input, const AttentionGroup& group, Strided<const T> out,
                    const T* log_sums, Strided<const T> grad_out, Strided<T> grad_queries, Strided<T> grad_keys,
                    Strided<T> grad_values, T* memory) {
  const HeadShape& shape = input.shape;
  const int64_t head_dim = shape.head_dim, repeat = shape.heads / shape.kv_heads;
  int64_t own_visible = 0;
  for (int64_t i = 0; i < group.query_count; ++i) {
    if (group.queries[i].own_visible > own_visible) own_visible = group.queries[i].own_visible;
  }
  const Scratch<T> scratch(shape, group.shared_count, own_visible, memory);
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    const int64_t offset = g * head_dim;
    PackShared<T>(input.shared_keys, group.shared_first, group.shared_count, offset, head_dim, scratch.pad_keys,
                  scratch.pad_dims, scratch.keys, scratch.keys_transposed);
    PackShared<T>(input.shared_values, group.shared_first, group.shared_count, offset, head_dim, scratch.pad_keys,
                  scratch.pad_dims, nullptr, scratch.values_transposed);
    Clear(scratch.key_grads, scratch.pad_keys * scratch.pad_dims);
    Clear(scratch.value_grads, scratch.pad_keys * scratch.pad_dims);
    for (int64_t first = 0; first < group.query_count * repeat; first += kBlock) {
      const Block block = TakeBlock(group, repeat, g, first);
      LoadBlock<T>(block, input.queries, head_dim, scratch.pad_dims, scratch.queries);
      LoadBlock<T>(block, grad_out, head_dim, scratch.pad_dims, scratch.out_grads);
      AllScores<T>(block, scratch.queries, scratch.keys_transposed, scratch, input.own_keys, offset, head_dim,
                   scratch.scores);
      AllScores<T>(block, scratch.out_grads, scratch.values_transposed, scratch, input.own_values, offset, head_dim,
                   scratch.score_grads);
      for (int64_t b = 0; b < kBlock; ++b) {
        T* __restrict shared = scratch.scores + b * scratch.score_stride;
        T* __restrict shared_grad = scratch.score_grads + b * scratch.score_stride;
        if (b >= block.count) {
          Clear(shared, block.shared_visible);
          Clear(shared_grad, block.shared_visible);
          continue;
        }
        const QueryRow& query = *block.query[b];
        const T log_sum = log_sums[query.row * shape.heads + block.head[b]];
        const T total =
            Dot<T>(scratch.out_grads + b * scratch.pad_dims, out.row(query.row) + block.head[b] * head_dim, head_dim);
        for (int64_t j = 0; j < query.shared_visible; ++j) {
          const T p = Exp(shared[j] * input.scale - log_sum);
          shared[j] = p;
          shared_grad[j] = p * (shared_grad[j] - total) * input.scale;
        }
        for (int64_t j = query.shared_visible; j < block.shared_visible; ++j) shared[j] = shared_grad[j] = 0;
        T* own = shared + scratch.pad_keys;
        T* own_grad = shared_grad + scratch.pad_keys;
        for (int64_t j = 0; j < query.own_visible; ++j) {
          const T p = Exp(own[j] * input.scale - log_sum);
          own[j] = p;
          own_grad[j] = p * (own_grad[j] - total) * input.scale;
        }
      }
      BlockSums<T>(scratch.score_grads, scratch.score_stride, scratch.keys, scratch.pad_dims, block.shared_visible,
                   scratch.query_grads);
      BlockOuter<T>(scratch.score_grads, scratch.score_stride, scratch.queries, scratch.pad_dims, block.shared_visible,
                    scratch.key_grads);
      BlockOuter<T>(scratch.scores, scratch.score_stride, scratch.out_grads, scratch.pad_dims, block.shared_visible,
                    scratch.value_grads);
      for (int64_t b = 0; b < block.count; ++b) {
        const QueryRow& query = *block.query[b];
        T* dq = scratch.query_grads + b * scratch.pad_dims;
        const T* p = scratch.scores + b * scratch.score_stride + scratch.pad_keys;
        const T* ds = scratch.score_grads + b * scratch.score_stride + scratch.pad_keys;
        for (int64_t j = 0; j < query.own_visible; ++j) {
          const int64_t row = query.own_rows[j];
          AddScaled<T>(ds[j], input.own_keys.row(row) + offset, dq, head_dim);
          AddScaled<T>(ds[j], scratch.queries + b * scratch.pad_dims, grad_keys.row(row) + offset, head_dim);
          AddScaled<T>(p[j], scratch.out_grads + b * scratch.pad_dims, grad_values.row(row) + offset, head_dim);
        }
        T* __restrict y = grad_queries.row(query.row) + block.head[b] * head_dim;
        for (int64_t d = 0; d < head_dim; ++d) y[d] = dq[d];
      }
    }
    for (int64_t j = 0; j < group.shared_count; ++j) {
      const int64_t row = group.shared_first + j;
      AddScaled<T>(1, scratch.key_grads + j * scratch.pad_dims, grad_keys.row(row) + offset, head_dim);
      AddScaled<T>(1, scratch.value_grads + j * scratch.pad_dims, grad_values.row(row) + offset, head_dim);
    }
  }
}

// --- Gated activation -----------------------------------------------------------------------------------------

template <typename T>
void GatedSilu(int64_t begin, int64_t end, int64_t width, const T* gate_up, T* out) {
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict gate = gate_up + 2 * r * width;
    const T* __restrict up = gate + width;
    T* __restrict y = out + r * width;
    for (int64_t i = 0; i < width; ++i) y[i] = gate[i] / (T(1) + Exp(-gate[i])) * up[i];
  }
}

// With s = sigmoid(gate): d gate = dy up s (1 + gate (1 - s)), d up = dy gate s.
template <typename T>
void GatedSiluBackward(int64_t begin, int64_t end, int64_t width, const T* gate_up, const T* grad_out,
                       T* grad_gate_up) {
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict gate = gate_up + 2 * r * width;
    const T* __restrict up = gate + width;
    const T* __restrict dy = grad_out + r * width;
    T* __restrict dgate = grad_gate_up + 2 * r * width;
    T* __restrict dup = dgate + width;
    for (int64_t i = 0; i < width; ++i) {
      const T s = T(1) / (T(1) + Exp(-gate[i]));
      dgate[i] = dy[i] * up[i] * s * (T(1) + gate[i] * (T(1) - s));
      dup[i] = dy[i] * gate[i] * s;
    }
  }
}

// --- Normaliser of logits --------------------------------------------------------------------------------------

template <typename T>
void LogSumExp(int64_t begin, int64_t end, int64_t width, const T* x, T* out) {
  constexpr int64_t kChunk = 256;  // exponentials at a time: they stay in registers and the nearest cache
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict row = x + r * width;
    const T highest = Largest<T>(row, width);
    T sum = 0;
    for (int64_t first = 0; first < width; first += kChunk) {
      const int64_t count = width - first < kChunk ? width - first : kChunk;
      T parts[kChunk];
      for (int64_t i = 0; i < count; ++i) parts[i] = Exp(row[first + i] - highest);
      sum += Total<T>(parts, count);
    }
    out[r] = highest + Log<T>(sum);
  }
}

template <typename T>
void LogSumExpOf(int64_t begin, int64_t end, int64_t width, const T* x, const int64_t* first, const int32_t* columns,
                 T* out) {
  constexpr int64_t kChunk = 64;
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict row = x + r * width;
    const int32_t* __restrict listed = columns + first[r];
    const int64_t count = first[r + 1] - first[r];
    if (count == 0) {
      out[r] = -static_cast<T>(__builtin_inf());
      continue;
    }
    T highest = row[listed[0]];
    for (int64_t i = 1; i < count; ++i) highest = row[listed[i]] > highest ? row[listed[i]] : highest;
    T sum = 0;
    for (int64_t i = 0; i < count; i += kChunk) {
      const int64_t part = count - i < kChunk ? count - i : kChunk;
      T parts[kChunk];
      for (int64_t k = 0; k < part; ++k) parts[k] = Exp(row[listed[i + k]] - highest);
      sum += Total<T>(parts, part);
    }
    out[r] = highest + Log<T>(sum);
  }
}

template <typename T>
void LogSumExpBackward(int64_t begin, int64_t end, int64_t width, const T* x, const T* out, const T* grad_out,
                       T* grad_x) {
  for (int64_t r = begin; r < end; ++r) {
    const T* __restrict row = x + r * width;
    T* __restrict grad = grad_x + r * width;
    const T scale = grad_out[r], log_sum = out[r];
    if (scale == 0) {
      Clear(grad, width);
      continue;
    }
    for (int64_t c = 0; c < width; ++c) grad[c] = scale * Exp(row[c] - log_sum);
  }
}

template <typename T>
void LogSumExpOfBackward(int64_t begin, int64_t end, int64_t width, const T* x, const int64_t* first,
                         const int32_t* columns, const T* out, const T* grad_out, T* grad_x) {
  for (int64_t r = begin; r < end; ++r) {
    if (grad_out[r] == 0) continue;
    const T* row = x + r * width;
    T* grad = grad_x + r * width;
    for (int64_t i = first[r]; i < first[r + 1]; ++i) grad[columns[i]] += grad_out[r] * Exp(row[columns[i]] - out[r]);
  }
}

template <typename T>
double GatherExp(const T* x, const int32_t* index, int64_t count, T scale, T* values, T* highest) {
  for (int64_t i = 0; i < count; ++i) values[i] = x[index[i]];
  const T largest = Largest<T>(values, count);
  constexpr int64_t kChunk = 256;  // short sums in T, their sum in double
  double sum = 0;
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t size = count - first < kChunk ? count - first : kChunk;
    T* __restrict part = values + first;
    for (int64_t i = 0; i < size; ++i) part[i] = Exp((part[i] - largest) * scale);
    sum += static_cast<double>(Total<T>(part, size));
  }
  *highest = largest;
  return sum;
}

template <typename T>
constexpr KernelTable<T> MakeTable(const char* name) {
  return {name,
          &Embed<T>,
          &EmbedBackward<T>,
          &RmsNorm<T>,
          &RmsNormBackward<T>,
          &Rotate<T>,
          &RotateBackward<T>,
          &Attend<T>,
          &AttendBackward<T>,
          &GatedSilu<T>,
          &GatedSiluBackward<T>,
          &LogSumExp<T>,
          &LogSumExpOf<T>,
          &LogSumExpBackward<T>,
          &LogSumExpOfBackward<T>,
          &GatherExp<T>};
}

}  // namespace

extern const KernelTable<float> kFloatTable;
extern const KernelTable<double> kDoubleTable;
const KernelTable<float> kFloatTable = MakeTable<float>(SLUICE_KERNELS_NAME);
const KernelTable<double> kDoubleTable = MakeTable<double>(SLUICE_KERNELS_NAME);

}  // namespace SLUICE_KERNELS_NAMESPACE
}  // namespace sluice

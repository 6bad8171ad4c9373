// Logits of rows of hidden states on the host, and the checks of what is decoded: shared by the decoders of this
// folder.
#ifndef SLUICE_COMMON_DECODE_LOGITS_BLOCK_H_
#define SLUICE_COMMON_DECODE_LOGITS_BLOCK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/decode/decode.h"
#include "common/decode/step/step.h"
#include "common/model/policy.h"

namespace sluice {

// Logits are made in blocks of at most this many numbers (64 MB in fp32): they stay near the cache, and a wide
// vocabulary cannot exhaust memory.
inline constexpr int64_t kLogitsPerBlock = int64_t{1} << 24;

// Scalar is the type that the policy computes in, float or double.
template <typename Scalar>
struct Block {
  at::Tensor logits;       // [rows, V]
  at::Tensor normalizers;  // [rows]

  RowLogits<Scalar> From(int64_t row, const int32_t* slots = nullptr) const {
    const int64_t vocabulary = logits.size(1);
    return {logits.const_data_ptr<Scalar>() + row * vocabulary, normalizers.const_data_ptr<Scalar>() + row, vocabulary,
            slots};
  }
};

// Logits of `hidden` [rows, D] and their normalisers. DataLoss unless all of the latter are finite.
template <typename Scalar>
absl::StatusOr<Block<Scalar>> LogitsOf(const Policy& policy, const at::Tensor& hidden);

// InvalidArgument: excluded leaves that are not ascending and distinct, or a target leaf outside the trie.
absl::Status CheckPrompt(const Trie& trie, const DecodePrompt& prompt, size_t index);

// The legal children of every row must have a logit. Checked where they are read, as a large trie takes long to walk.
absl::Status CheckVocabulary(const Trie& trie, absl::Span<const DecodeRow> rows, int64_t vocabulary);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_LOGITS_BLOCK_H_

// Log-probabilities of chosen tokens from logits, over the whole vocabulary and over listed tokens alone.
#ifndef SLUICE_COMMON_MODEL_TOKEN_LOG_PROBS_H_
#define SLUICE_COMMON_MODEL_TOKEN_LOG_PROBS_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/trie_tables.h"

namespace sluice {

// Which tokens of which rows of logits [R, V] are asked for; several may share a row. Immutable once used.
struct TokenChoice : public torch::CustomClassHolder {
  std::vector<int64_t> rows;    // [E], each in [0, R)
  std::vector<int32_t> tokens;  // [E], each in [0, V)
  // The legal tokens of row r: legal[legal_first[r] .. legal_first[r + 1]), each at most once, and every token that is
  // asked of the row among them. Empty (both): only the whole vocabulary is asked for.
  std::vector<int64_t> legal_first;  // [R + 1]
  std::vector<int32_t> legal;
};

struct TokenLogProbs {
  at::Tensor full;      // [E] log p(token), p over the vocabulary
  at::Tensor in_legal;  // [E] the same over the row's legal tokens; undefined if none are listed
};

// Differentiable, twice not. Of the vocabulary-wide matrices only the logits are kept, and one is made for their
// gradient; log_softmax would make two more. On processors float32 and float64 go through own loops; other devices take
// TokenLogProbsByTensors.
TokenLogProbs ChosenLogProbs(const at::Tensor& logits, const c10::intrusive_ptr<TokenChoice>& choice);

// The same as a chain of tensor operations, on any device. No host read.
TokenLogProbs TokenLogProbsByTensors(const at::Tensor& logits, const TokenChoice& choice);

// The same where the legal tokens of row r are the children of trie node node_of_row[r], found on the device; kNone for
// a row that no token is asked of. `widest`: the largest number of children among them. No host read.
TokenLogProbs TokenLogProbsUnderNodes(const at::Tensor& logits, absl::Span<const int64_t> rows,
                                      absl::Span<const int32_t> tokens, absl::Span<const int64_t> node_of_row,
                                      int64_t widest, const TrieTables& tables);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_TOKEN_LOG_PROBS_H_

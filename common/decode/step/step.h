// One level of decoding for one prompt, on plain arrays: which rows continue with which token. Everything here is a
// pure function; the tensors around it live in common/decode/decode.cc.
//
// A prompt's rows at a level are DecodeRows. Row i has logits over the V tokens of the vocabulary; expanding the
// rows gives the rows of the next level. Level 0 is the one row DecodeRow{} at the trie's root. Ties are broken by
// lower tokens, first token first, so that a result is a function of the logits alone.
//
// Scalar is float or double: whatever the policy computes in. Scores are summed in double either way.
#ifndef SLUICE_COMMON_DECODE_STEP_STEP_H_
#define SLUICE_COMMON_DECODE_STEP_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/types/group.h"

namespace sluice {

struct DecodeRow {
  int32_t node = Trie::kRoot;  // where the row's tokens lead in the trie; kNone: nowhere
  int32_t parent = 0;          // index among the rows of the level above
  int32_t token = 0;           // appended to the parent's tokens
  int32_t order = 0;           // place among its level's rows when those are sorted by their tokens
  double score = 0;            // what beams are ordered by: the sum of log-probabilities in one space
  float log_prob_full = 0;     // of `token` alone, over the whole vocabulary
  float log_prob_trie = 0;     // over the legal children of the parent; 0 where the row is off the trie
};

// The logits of the rows of one prompt, and the log of the sum of their exponentials. Rows with equal tokens share
// them: row i has line slots[i], or line i where there are no slots.
template <typename Scalar>
struct RowLogits {
  const Scalar* logits = nullptr;           // [lines, V]
  const Scalar* log_normalizers = nullptr;  // [lines]
  int64_t vocabulary = 0;                   // V
  const int32_t* slots = nullptr;           // [rows]

  const Scalar* row(int64_t i) const { return logits + (slots == nullptr ? i : slots[i]) * vocabulary; }
  double log_normalizer(int64_t i) const {
    return static_cast<double>(log_normalizers[slots == nullptr ? i : slots[i]]);
  }
};

// The consecutive leaves under a node: [first, last).
struct LeafRange {
  int32_t first = 0;
  int32_t last = 0;
};
LeafRange LeavesUnder(const Trie& trie, int32_t node);

// Whether a leaf under `node` is not among `excluded` (ascending). Without this test at every level, rows would be
// spent on prefixes that can only end in excluded leaves.
bool HasAllowedLeaf(const Trie& trie, int32_t node, absl::Span<const int32_t> excluded);

// Log of the sum of exp(logits[token]) over `tokens`, which are at least one; exponentials in Scalar.
template <typename Scalar>
double LogSumExp(const Scalar* logits, absl::Span<const int32_t> tokens);

// The `width` best continuations of `rows` under the trie, descending by score; fewer if there are fewer. Leaves in
// `excluded` (ascending, distinct), and what only leads to them, do not count as continuations, but as legal
// children: the log-probabilities do not depend on `excluded`. All tokens of the trie must be below V.
template <typename Scalar>
std::vector<DecodeRow> ExpandBeams(const Trie& trie, absl::Span<const DecodeRow> rows, const RowLogits<Scalar>& logits,
                                   absl::Span<const int32_t> excluded, int width, LogProbSpace space);

// The `width` best continuations over the whole vocabulary, by full log-probability.
template <typename Scalar>
std::vector<DecodeRow> ExpandUnconstrained(const Trie& trie, absl::Span<const DecodeRow> rows,
                                           const RowLogits<Scalar>& logits, int width);

// Row `parent` continued with a child of its node, drawn with probability proportional to exp(logit / temperature)
// over the children with an allowed leaf. `uniform` in [0, 1) decides. The row must have such a child.
template <typename Scalar>
DecodeRow DrawChild(const Trie& trie, absl::Span<const DecodeRow> rows, int32_t parent, const RowLogits<Scalar>& logits,
                    absl::Span<const int32_t> excluded, double temperature, double uniform);

// Row `parent` continued with `token`, legal or not. 0 <= token < V.
template <typename Scalar>
DecodeRow ForceToken(const Trie& trie, absl::Span<const DecodeRow> rows, int32_t parent,
                     const RowLogits<Scalar>& logits, int32_t token);

// The children of a node that have an allowed leaf, ascending by token, with their log-probabilities.
struct AllowedChildren {
  std::vector<int32_t> tokens;
  std::vector<double> log_probs;      // renormalised over these children
  std::vector<float> log_probs_full;  // as of DecodeRow: over the whole vocabulary,
  std::vector<float> log_probs_trie;  // over all legal children
};
// Of row i's node, which is not a leaf.
template <typename Scalar>
AllowedChildren ViewChildren(const Trie& trie, int32_t node, const RowLogits<Scalar>& logits, int64_t i,
                             absl::Span<const int32_t> excluded);

// The completion that ends in levels.back()[row]; levels[l] holds the rows of level l + 1. Its leaf is -1 and its
// trie log-probabilities are empty if it is not in the catalog.
Completion TraceCompletion(const Trie& trie, absl::Span<const std::vector<DecodeRow>> levels, int32_t row);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_STEP_STEP_H_

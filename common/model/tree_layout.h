// Where each row of a training pass lies and what it sees: plain numbers, no tensors.
//
// Rows are packed, without padding: first every prompt's trunk, prompt by prompt, then every branch's own rows in
// the order of the batch. A row sees two runs of rows: the first `trunk_visible` rows of its trunk, and the
// `own_visible` rows of its branch up to and including itself (0 for trunk rows).
//
//   prompt 0: begin a b        rows 0 1 2          positions 0 1 2
//   prompt 1: begin c          rows 3 4            positions 0 1
//   branch on prompt 0, anchor 1, tokens x y z     rows 5 6 (carry x, y), positions 2 3; sees rows 0 1 and its own
//
// A branch of T tokens has T - 1 rows, since its last token is never an input; its T predictions are read from the
// anchor's row and then its own.
#ifndef SLUICE_COMMON_MODEL_TREE_LAYOUT_H_
#define SLUICE_COMMON_MODEL_TREE_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/tree_batch.h"

namespace sluice {

// The kernels' view of one layout (common/model/kernels): everything a row needs, prompt by prompt.
struct TreeLayout {
  int64_t rows = 0;
  int64_t prompts() const { return static_cast<int64_t>(trunk_length.size()); }

  // Of each prompt.
  std::vector<int64_t> trunk_first;   // [B] row of its first position
  std::vector<int64_t> trunk_length;  // [B]
  // Branches of prompt b: branch_of_prompt[first_branch[b] .. first_branch[b + 1]), in batch order.
  std::vector<int64_t> first_branch;      // [B + 1]
  std::vector<int64_t> branch_of_prompt;  // [branches]

  // Of each branch.
  std::vector<int64_t> branch_first;   // row of its first own row (meaningless if it has none)
  std::vector<int64_t> branch_rows;    // T - 1
  std::vector<int64_t> branch_anchor;  // position in the trunk

  // Of each row.
  std::vector<int32_t> position;  // of the rotary embedding
  std::vector<int32_t> entry;     // token (>= 0) or merged item (< 0), as in PromptInput

  // As in TreeOutput.
  std::vector<int64_t> prediction_rows;
  std::vector<int64_t> prediction_first;

  // Rows attended to, summed over rows: the work of one head.
  int64_t visible_pairs = 0;
};

struct TreeLimits {
  int64_t vocab_size = 0;
  int64_t num_leaves = 0;  // 0: no merged items
  int64_t max_positions = 0;
  int64_t max_rows = int64_t{1} << 24;
};

// InvalidArgument, by prompt and branch: no prompt, an empty prompt or branch, a branch on a prompt that is not
// there, an anchor outside its prompt, a token or leaf out of range, more positions than `max_positions`.
// ResourceExhausted: more rows than max_rows.
absl::StatusOr<TreeLayout> MakeTreeLayout(absl::Span<const PromptInput> prompts, absl::Span<const Branch> branches,
                                          const TreeLimits& limits);

// The next row count that matrix products are made for: few distinct ones, at most 1/32 above `rows`. LibTorch's
// fast products keep a compiled kernel for every row count that they have seen, and every batch of packed rows has
// another one: without rounding a training process grew by about 1 MB a step.
int64_t RoundedRows(int64_t rows);

// The prompts, and as many one-row prompts of token 0 as bring the rows of the pass to RoundedRows. Nothing hangs on
// them and nobody sees them. None are added to a batch that MakeTreeLayout will refuse.
std::vector<PromptInput> WithFillers(absl::Span<const PromptInput> prompts, absl::Span<const Branch> branches);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_TREE_LAYOUT_H_

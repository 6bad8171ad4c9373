// The layout of one training pass: prompts (trunks) with completions (branches) hanging on any of their positions.
//
// SFT hangs each next-item target on its prefix; RL hangs the target and G completions on the end. The trunk is
// computed once: P + sum(T - 1) rows instead of G (P + T). Exact, not an approximation: a branch row sees the trunk
// up to its anchor and its own earlier rows, at the positions that follow the anchor.
#ifndef SLUICE_COMMON_MODEL_TREE_BATCH_H_
#define SLUICE_COMMON_MODEL_TREE_BATCH_H_

#include <cstdint>
#include <vector>

namespace sluice {

// A prompt as model input. Entry >= 0: a token id. Entry < 0: the merged vector of trie leaf -1 - entry.
using PromptInput = std::vector<int32_t>;
inline int32_t MergedItemEntry(int32_t leaf) { return -1 - leaf; }

// T tokens predicted after trunk position `anchor`: token 0 from the anchor's hidden state, token t > 0 from the
// row that carries token t - 1. The last token is never an input, so a branch adds T - 1 rows.
struct Branch {
  int32_t prompt = 0;  // index into TreeBatch::prompts
  int32_t anchor = 0;  // index into that prompt; 0 <= anchor < P
  std::vector<int32_t> tokens;
};

struct TreeBatch {
  std::vector<PromptInput> prompts;
  std::vector<Branch> branches;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_TREE_BATCH_H_

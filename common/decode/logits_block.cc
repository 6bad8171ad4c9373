#include "common/decode/logits_block.h"

#include <torch/types.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/model/operations.h"

namespace sluice {

template <typename Scalar>
absl::StatusOr<Block<Scalar>> LogitsOf(const Policy& policy, const at::Tensor& hidden) {
  Block<Scalar> block;
  // Scores are read off on the host: on a device this is where a block's logits come back.
  block.logits = policy.Logits(hidden).to(at::kCPU).contiguous();
  block.normalizers = LogSumExpRows(block.logits);
  const Scalar* normalizers = block.normalizers.template const_data_ptr<Scalar>();
  for (int64_t row = 0; row < hidden.size(0); ++row) {
    if (!std::isfinite(normalizers[row])) {
      return absl::DataLossError("the policy's logits are not finite: its weights are damaged or have diverged");
    }
  }
  return block;
}
template absl::StatusOr<Block<float>> LogitsOf<float>(const Policy&, const at::Tensor&);
template absl::StatusOr<Block<double>> LogitsOf<double>(const Policy&, const at::Tensor&);

absl::Status CheckPrompt(const Trie& trie, const DecodePrompt& prompt, size_t index) {
  const std::vector<int32_t>& excluded = prompt.excluded_leaves;
  for (size_t i = 0; i < excluded.size(); ++i) {
    if (excluded[i] < 0 || excluded[i] >= trie.num_leaves() || (i > 0 && excluded[i] <= excluded[i - 1])) {
      return absl::InvalidArgumentError(absl::StrCat("prompt ", index,
                                                     ": want excluded leaves ascending, distinct and in [0, ",
                                                     trie.num_leaves(), "), got ", excluded[i], " at ", i));
    }
  }
  if (prompt.target_leaf < -1 || prompt.target_leaf >= trie.num_leaves()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt ", index, ": want a target leaf below ", trie.num_leaves(), ", got ", prompt.target_leaf));
  }
  return absl::OkStatus();
}

absl::Status CheckVocabulary(const Trie& trie, absl::Span<const DecodeRow> rows, int64_t vocabulary) {
  for (const DecodeRow& row : rows) {
    if (row.node == Trie::kNone || trie.IsLeaf(row.node)) continue;
    const int32_t largest = trie.ChildrenOf(row.node).tokens.back();
    if (largest >= vocabulary) {
      return absl::InvalidArgumentError(absl::StrCat("the catalog has token ", largest,
                                                     ", but the policy's vocabulary holds ", vocabulary,
                                                     " tokens: they do not belong together"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice

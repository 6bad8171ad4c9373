#include "learner/run/item_vectors.h"

#include <torch/types.h>

#include "absl/strings/str_cat.h"
#include "common/catalog/npy.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {

absl::StatusOr<LeafVectors> ReadItemVectors(const std::string& which, const Dataset& dataset, const Policy& start) {
  const Trie& trie = dataset.trie();
  LeafVectors vectors;
  if (which == "policy") {
    SLUICE_ASSIGN_OR_RETURN(const at::Tensor embeddings, start.LeafEmbeddings(trie));
    const at::Tensor values = embeddings.to(torch::kFloat).contiguous();
    vectors.width = values.size(1);
    vectors.values.assign(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
    return vectors;
  }
  const bool of_data = which == "data";
  const std::string path = of_data ? JoinPath(dataset.folder(), kItemVectorsFile) : which;
  absl::StatusOr<Matrix> items = ReadNpyMatrix(path);
  if (of_data && absl::IsNotFound(items.status())) {
    return absl::NotFoundError(absl::StrCat(
        "rl.item_vectors: the data set '", dataset.folder(), "' has no ", kItemVectorsFile,
        ": its semantic IDs came from an index file, or an older release prepared it; give an .npy file, or policy"));
  }
  if (!items.ok()) return Annotate(items.status(), "rl.item_vectors");
  if (items->rows != dataset.num_items()) {
    return absl::InvalidArgumentError(absl::StrCat("rl.item_vectors: '", path, "' has ", items->rows,
                                                   " rows, want one for each of the data set's ", dataset.num_items(),
                                                   " items, in its numbering"));
  }
  vectors.width = items->columns;
  vectors.values.assign(static_cast<size_t>(trie.num_leaves() * items->columns), 0);
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
    const absl::Span<const int32_t> of_leaf = trie.ItemsOfLeaf(leaf);
    float* const mean = vectors.values.data() + leaf * items->columns;
    for (const int32_t item : of_leaf) {
      const float* const row = items->values.data() + item * items->columns;
      for (int64_t e = 0; e < items->columns; ++e) mean[e] += row[e] / static_cast<float>(of_leaf.size());
    }
  }
  return vectors;
}

}  // namespace sluice::learner

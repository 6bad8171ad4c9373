#include "common/model/trie_tables.h"

#include <torch/types.h>

#include <algorithm>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/device.h"

namespace sluice {

TrieTables::TrieTables(const Trie& trie, const at::Device& device) : version_(trie.version()) {
  const int64_t nodes = trie.num_nodes();
  std::vector<int32_t> first_edge, edge_token, first_leaf(static_cast<size_t>(nodes)),
      last_leaf(static_cast<size_t>(nodes));
  first_edge.reserve(static_cast<size_t>(nodes) + 1);
  edge_token.reserve(static_cast<size_t>(trie.num_edges()));
  for (int32_t node = 0; node < nodes; ++node) {
    first_edge.push_back(static_cast<int32_t>(edge_token.size()));
    const absl::Span<const int32_t> tokens = trie.ChildrenOf(node).tokens;
    edge_token.insert(edge_token.end(), tokens.begin(), tokens.end());
  }
  first_edge.push_back(static_cast<int32_t>(edge_token.size()));
  // Children have higher numbers than their parents.
  for (int32_t node = static_cast<int32_t>(nodes) - 1; node >= 0; --node) {
    const size_t n = static_cast<size_t>(node);
    if (trie.IsLeaf(node)) {
      first_leaf[n] = trie.LeafOfNode(node);
      last_leaf[n] = first_leaf[n] + 1;
    } else {
      const Trie::Children children = trie.ChildrenOf(node);
      first_leaf[n] = first_leaf[static_cast<size_t>(children.first_node)];
      last_leaf[n] = last_leaf[static_cast<size_t>(children.first_node) + children.tokens.size() - 1];
    }
  }
  largest_token_ = *std::max_element(edge_token.begin(), edge_token.end());
  last_edge_ = static_cast<int64_t>(edge_token.size()) - 1;
  first_edge_ = Upload(first_edge, device);
  edge_token_ = Upload(edge_token, device);
  first_leaf_ = Upload(first_leaf, device);
  last_leaf_ = Upload(last_leaf, device);
}

ChildTable TrieTables::ChildrenOf(const at::Tensor& nodes, int64_t width) const {
  const at::Tensor flat = nodes.reshape({-1}).clamp_min(0);
  const at::Tensor begin = first_edge_.index_select(0, flat).to(at::kLong).unsqueeze(1);
  const at::Tensor end = first_edge_.index_select(0, flat + 1).to(at::kLong).unsqueeze(1);
  const at::Tensor edges = begin + at::arange(width, nodes.options());
  const at::Tensor valid = edges.lt(end).logical_and(nodes.reshape({-1, 1}).ge(0));
  const at::Tensor in_table = edges.clamp_max(last_edge_);
  std::vector<int64_t> shape = nodes.sizes().vec();
  shape.push_back(width);
  return {edge_token_.index_select(0, in_table.reshape({-1})).to(at::kLong).view(shape), (in_table + 1).view(shape),
          valid.view(shape)};
}

at::Tensor TrieTables::HasAllowedLeaf(const at::Tensor& nodes, const at::Tensor& excluded) const {
  const at::Tensor flat = nodes.reshape({-1}).clamp_min(0);
  const auto leaves = [&](const at::Tensor& table) {
    return table.index_select(0, flat).to(at::kLong).view({nodes.size(0), -1});
  };
  const at::Tensor first = leaves(first_leaf_), last = leaves(last_leaf_);
  // How many excluded leaves are below a bound.
  const auto below = [&](const at::Tensor& bounds) { return at::searchsorted(excluded, bounds); };
  return (below(last) - below(first)).lt(last - first).view(nodes.sizes());
}

}  // namespace sluice

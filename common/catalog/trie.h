// The catalog's semantic IDs as a prefix tree over tokens, in CSR form.
//
// Nodes are numbered breadth first, children of a node by ascending token, the root is 0. So every edge e leads
// to node e + 1, the children of a node are consecutive nodes, and a row pointer and a token a node is all that
// is stored. All semantic IDs have the same number of levels L; leaves are the nodes of depth L, numbered from 0
// in the order of their tokens. Several items may share a leaf (a collision).
//
// Source of the layout: STATIC, arXiv 2602.22647 (CSR trie, dense first levels).
// Immutable after Build; thread-safe.
#ifndef SLUICE_COMMON_CATALOG_TRIE_H_
#define SLUICE_COMMON_CATALOG_TRIE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

class Trie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  // tokens: [items, levels] row-major, row i is item i's semantic ID.
  // InvalidArgument: no item, levels outside [1, 8], a negative token, a token >= 2^24, or more than 2^31 - 2
  // nodes; the message names the first offending item.
  static absl::StatusOr<Trie> Build(int levels, absl::Span<const int32_t> tokens);

  struct Children {
    absl::Span<const int32_t> tokens;  // ascending
    int32_t first_node = 0;            // child of tokens[i] is node first_node + i
  };
  // The legal continuations of `node`; empty for leaves.
  Children ChildrenOf(int32_t node) const;

  // The child of `node` by `token`, or kNone. O(1) from the root and, where the table is small enough, from its
  // children; O(log fan-out) below.
  int32_t Child(int32_t node, int32_t token) const;

  // Leaf of a complete semantic ID, or kNone if it is not in the catalog.
  int32_t FindLeaf(absl::Span<const int32_t> tokens) const;

  int32_t LeafOfNode(int32_t node) const { return node - first_leaf_node_; }
  int32_t NodeOfLeaf(int32_t leaf) const { return first_leaf_node_ + leaf; }
  bool IsLeaf(int32_t node) const { return node >= first_leaf_node_; }

  // The L tokens of a leaf.
  absl::Span<const int32_t> TokensOfLeaf(int32_t leaf) const;
  // Items on a leaf, ascending; at least one.
  absl::Span<const int32_t> ItemsOfLeaf(int32_t leaf) const;
  int32_t LeafOfItem(int32_t item) const { return leaf_of_item_[item]; }

  int levels() const { return levels_; }
  int64_t num_items() const { return static_cast<int64_t>(leaf_of_item_.size()); }
  int64_t num_leaves() const { return num_leaves_; }
  int64_t num_nodes() const { return static_cast<int64_t>(first_edge_.size()) - 1; }
  int64_t num_edges() const { return static_cast<int64_t>(edge_token_.size()); }
  // Largest number of children at depth `level` (0: of the root).
  int32_t max_fanout(int level) const { return max_fanout_[level]; }
  // Items that share their leaf with another one.
  int64_t num_colliding_items() const;
  int64_t memory_bytes() const;

  // SHA-256, in hexadecimal, of "levels <L>\n" and the hexadecimal SHA-256 of every item's tokens (int32
  // little-endian, in item order): the catalog version.
  const std::string& version() const { return version_; }

 private:
  // A table of the children of consecutive nodes, nodes x width, indexed by token - first_token.
  struct Dense {
    int32_t first_node = 0;
    int32_t first_token = 0;
    int32_t width = 0;  // 0: there is none
    std::vector<int32_t> child;
  };

  Trie() = default;
  // Fills the table of depth `depth` unless it would exceed `max_entries`.
  void BuildDense(int depth, int64_t max_entries);

  int levels_ = 0;
  int32_t first_leaf_node_ = 0;
  int64_t num_leaves_ = 0;
  std::vector<int32_t> depth_first_node_;  // [L + 2]: the nodes of depth d start here
  std::vector<int32_t> first_edge_;        // [nodes + 1]
  std::vector<int32_t> edge_token_;        // [edges]
  Dense dense_[2];                         // of the root, of its children
  std::vector<int32_t> leaf_tokens_;       // [leaves, L]
  std::vector<int32_t> leaf_first_item_;   // [leaves + 1]
  std::vector<int32_t> leaf_items_;        // [items]
  std::vector<int32_t> leaf_of_item_;      // [items]
  std::vector<int32_t> max_fanout_;        // [L]
  std::string version_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_TRIE_H_

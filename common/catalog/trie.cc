#include "common/catalog/trie.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kMaxLevels = 8;
constexpr int32_t kMaxToken = (1 << 24) - 1;
constexpr int64_t kMaxNodes = (int64_t{1} << 31) - 2;
constexpr int kDigitBits = 12;
// Dense tables may take this much whatever the catalog's size: 256 x 256 codes, as usual.
constexpr int64_t kFreeDenseEntries = 65536;

absl::Status CheckTokens(int levels, absl::Span<const int32_t> tokens) {
  if (levels < 1 || levels > kMaxLevels) {
    return absl::InvalidArgumentError(absl::StrCat("want 1 to ", kMaxLevels, " levels, got ", levels));
  }
  if (tokens.empty() || tokens.size() % levels != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("want tokens [items, ", levels, "] with at least one item, got ", tokens.size(), " tokens"));
  }
  if (tokens.size() / levels > static_cast<size_t>(kMaxNodes)) {
    return absl::InvalidArgumentError(absl::StrCat("want at most ", kMaxNodes, " items, got ", tokens.size() / levels));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] > kMaxToken) {
      return absl::InvalidArgumentError(absl::StrCat("item ", i / levels, ", level ", i % levels, ": token ", tokens[i],
                                                     " is outside [0, ", kMaxToken, "]"));
    }
  }
  return absl::OkStatus();
}

// Items in the order of their token tuples, equal ones by number: a least-significant-digit radix sort, whose
// digits are only as wide as the level's tokens need. Linear in items x levels.
std::vector<int32_t> SortedItems(int levels, absl::Span<const int32_t> tokens) {
  const size_t items = tokens.size() / levels;
  std::vector<int32_t> order(items);
  std::iota(order.begin(), order.end(), 0);
  std::vector<int32_t> next(items);
  std::vector<int64_t> start;
  for (int level = levels - 1; level >= 0; --level) {
    int32_t low = tokens[level];
    int32_t high = low;
    for (size_t i = level; i < tokens.size(); i += levels) {
      low = std::min(low, tokens[i]);
      high = std::max(high, tokens[i]);
    }
    const int bits = std::bit_width(static_cast<uint32_t>(high - low));
    for (int shift = 0; shift < bits; shift += kDigitBits) {
      const int32_t mask = (1 << std::min(kDigitBits, bits - shift)) - 1;
      const auto digit = [&](int32_t item) {
        return ((tokens[static_cast<size_t>(item) * levels + level] - low) >> shift) & mask;
      };
      start.assign(static_cast<size_t>(mask) + 2, 0);
      for (const int32_t item : order) ++start[digit(item) + 1];
      std::partial_sum(start.begin(), start.end(), start.begin());
      for (const int32_t item : order) next[start[digit(item)]++] = item;
      order.swap(next);
    }
  }
  return order;
}

}  // namespace

absl::StatusOr<Trie> Trie::Build(int levels, absl::Span<const int32_t> tokens) {
  SLUICE_RETURN_IF_ERROR(CheckTokens(levels, tokens));
  const int64_t items = static_cast<int64_t>(tokens.size()) / levels;
  Trie trie;
  trie.levels_ = levels;
  trie.leaf_items_ = SortedItems(levels, tokens);
  const auto token = [&](int64_t rank, int level) {
    return tokens[static_cast<size_t>(trie.leaf_items_[rank]) * levels + level];
  };

  // shared[r]: leading tokens that the r-th item in order has in common with the one before it. The item opens
  // a node at every depth beyond those.
  std::vector<uint8_t> shared(items, 0);
  std::vector<int64_t> depth_nodes(levels + 1, 0);
  depth_nodes[0] = 1;
  for (int64_t rank = 0; rank < items; ++rank) {
    int common = 0;
    if (rank > 0) {
      while (common < levels && token(rank, common) == token(rank - 1, common)) ++common;
    }
    shared[rank] = static_cast<uint8_t>(common);
    for (int depth = common + 1; depth <= levels; ++depth) ++depth_nodes[depth];
  }
  const int64_t nodes = std::accumulate(depth_nodes.begin(), depth_nodes.end(), int64_t{0});
  if (nodes > kMaxNodes) {
    return absl::InvalidArgumentError(absl::StrCat("the semantic IDs make ", nodes, " trie nodes, more than the ",
                                                   kMaxNodes, " that can be numbered; item ", items - 1,
                                                   " is the last"));
  }
  trie.num_leaves_ = depth_nodes[levels];
  trie.first_leaf_node_ = static_cast<int32_t>(nodes - trie.num_leaves_);
  trie.depth_first_node_.assign(levels + 2, 0);
  for (int depth = 0; depth <= levels; ++depth) {
    trie.depth_first_node_[depth + 1] = trie.depth_first_node_[depth] + static_cast<int32_t>(depth_nodes[depth]);
  }

  // One pass: at each depth the next node, and its parent's first edge when the parent is new too.
  trie.edge_token_.resize(nodes - 1);
  trie.first_edge_.assign(nodes + 1, static_cast<int32_t>(nodes - 1));  // leaves: no edge
  trie.leaf_tokens_.resize(trie.num_leaves_ * levels);
  trie.leaf_first_item_.resize(trie.num_leaves_ + 1);
  trie.leaf_of_item_.resize(items);
  trie.first_edge_[kRoot] = 0;
  std::vector<int32_t> next_node(trie.depth_first_node_.begin(), trie.depth_first_node_.end() - 1);
  int32_t leaf = -1;
  for (int64_t rank = 0; rank < items; ++rank) {
    for (int depth = shared[rank] + 1; depth <= levels; ++depth) {
      const int32_t node = next_node[depth]++;
      trie.edge_token_[node - 1] = token(rank, depth - 1);
      if (depth < levels) trie.first_edge_[node] = next_node[depth + 1] - 1;
    }
    if (shared[rank] < levels) {
      ++leaf;
      for (int level = 0; level < levels; ++level) {
        trie.leaf_tokens_[static_cast<size_t>(leaf) * levels + level] = token(rank, level);
      }
      trie.leaf_first_item_[leaf] = static_cast<int32_t>(rank);
    }
    trie.leaf_of_item_[trie.leaf_items_[rank]] = leaf;
  }
  trie.leaf_first_item_[trie.num_leaves_] = static_cast<int32_t>(items);

  trie.max_fanout_.assign(levels, 0);
  for (int depth = 0; depth < levels; ++depth) {
    for (int32_t node = trie.depth_first_node_[depth]; node < trie.depth_first_node_[depth + 1]; ++node) {
      trie.max_fanout_[depth] = std::max(trie.max_fanout_[depth], trie.first_edge_[node + 1] - trie.first_edge_[node]);
    }
  }
  const int64_t max_entries = std::max(kFreeDenseEntries, 4 * items);
  trie.BuildDense(0, max_entries);
  if (levels > 1) trie.BuildDense(1, max_entries);

  const std::string digest =
      Sha256(absl::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)));
  trie.version_ = Sha256(absl::StrCat("levels ", levels, "\n", digest));
  return trie;
}

void Trie::BuildDense(int depth, int64_t max_entries) {
  const int32_t first = depth_first_node_[depth];
  const int32_t end = depth_first_node_[depth + 1];
  const auto [low, high] =
      std::minmax_element(edge_token_.begin() + first_edge_[first], edge_token_.begin() + first_edge_[end]);
  const int64_t width = int64_t{*high} - *low + 1;
  if (width * (end - first) > max_entries) return;
  Dense& dense = dense_[depth];
  dense.first_node = first;
  dense.first_token = *low;
  dense.width = static_cast<int32_t>(width);
  dense.child.assign(width * (end - first), kNone);
  for (int32_t node = first; node < end; ++node) {
    for (int32_t edge = first_edge_[node]; edge < first_edge_[node + 1]; ++edge) {
      dense.child[(node - first) * width + edge_token_[edge] - *low] = edge + 1;
    }
  }
}

Trie::Children Trie::ChildrenOf(int32_t node) const {
  const int32_t begin = first_edge_[node];
  const int32_t count = first_edge_[node + 1] - begin;
  return {absl::MakeConstSpan(edge_token_.data() + begin, count), begin + 1};
}

int32_t Trie::Child(int32_t node, int32_t token) const {
  const int depth = node == kRoot ? 0 : (levels_ > 1 && node < depth_first_node_[2] ? 1 : 2);
  if (depth < 2 && dense_[depth].width > 0) {
    const Dense& dense = dense_[depth];
    const int64_t column = int64_t{token} - dense.first_token;
    if (column < 0 || column >= dense.width) return kNone;
    return dense.child[static_cast<int64_t>(node - dense.first_node) * dense.width + column];
  }
  const Children children = ChildrenOf(node);
  const auto found = std::lower_bound(children.tokens.begin(), children.tokens.end(), token);
  if (found == children.tokens.end() || *found != token) return kNone;
  return children.first_node + static_cast<int32_t>(found - children.tokens.begin());
}

int32_t Trie::FindLeaf(absl::Span<const int32_t> tokens) const {
  if (static_cast<int>(tokens.size()) != levels_) return kNone;
  int32_t node = kRoot;
  for (const int32_t token : tokens) {
    node = Child(node, token);
    if (node == kNone) return kNone;
  }
  return LeafOfNode(node);
}

absl::Span<const int32_t> Trie::TokensOfLeaf(int32_t leaf) const {
  return absl::MakeConstSpan(leaf_tokens_.data() + static_cast<size_t>(leaf) * levels_, levels_);
}

absl::Span<const int32_t> Trie::ItemsOfLeaf(int32_t leaf) const {
  const int32_t begin = leaf_first_item_[leaf];
  return absl::MakeConstSpan(leaf_items_.data() + begin, leaf_first_item_[leaf + 1] - begin);
}

int64_t Trie::num_colliding_items() const {
  int64_t colliding = 0;
  for (int64_t leaf = 0; leaf < num_leaves_; ++leaf) {
    const int32_t count = leaf_first_item_[leaf + 1] - leaf_first_item_[leaf];
    if (count > 1) colliding += count;
  }
  return colliding;
}

int64_t Trie::memory_bytes() const {
  const size_t integers = depth_first_node_.size() + first_edge_.size() + edge_token_.size() + dense_[0].child.size() +
                          dense_[1].child.size() + leaf_tokens_.size() + leaf_first_item_.size() + leaf_items_.size() +
                          leaf_of_item_.size() + max_fanout_.size();
  return static_cast<int64_t>(integers * sizeof(int32_t) + version_.size() + sizeof(Trie));
}

}  // namespace sluice

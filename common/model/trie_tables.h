// A trie as tensors on a device, so that legal children are found there and the host is not asked.
//
// The layout is the trie's own CSR (common/catalog/trie.h): edge e leads to node e + 1, so that a row pointer and a
// token a node say everything. Beside it each node's range of leaves, to know what excluded leaves leave of it.
#ifndef SLUICE_COMMON_MODEL_TRIE_TABLES_H_
#define SLUICE_COMMON_MODEL_TRIE_TABLES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "common/catalog/trie.h"

namespace sluice {

// The children of some nodes, each list padded to one width F. What lies in padding is the token and the number of some
// node, to be ignored.
struct ChildTable {
  at::Tensor tokens;  // [..., F] int64, ascending where valid
  at::Tensor nodes;   // [..., F] int64
  at::Tensor valid;   // [..., F] bool
};

// Immutable. 16 bytes a node on the device.
class TrieTables {
 public:
  TrieTables(const Trie& trie, const at::Device& device);

  // nodes: int64 of any shape on the device; kNone has no children. `width` >= the largest number of children among
  // them, or those beyond it are left out. No host read.
  ChildTable ChildrenOf(const at::Tensor& nodes, int64_t width) const;

  // Whether a leaf under each node is not among its prompt's excluded ones. nodes: [B, ...] int64; excluded: [B, E]
  // int64 ascending, padded with num_leaves. [B, ...] bool. No host read.
  at::Tensor HasAllowedLeaf(const at::Tensor& nodes, const at::Tensor& excluded) const;

  const std::string& version() const { return version_; }
  int32_t largest_token() const { return largest_token_; }

 private:
  const std::string version_;
  int32_t largest_token_ = 0;
  int64_t last_edge_ = 0;
  at::Tensor first_edge_;  // [nodes + 1] int32
  at::Tensor edge_token_;  // [edges] int32
  at::Tensor first_leaf_;  // [nodes] int32
  at::Tensor last_leaf_;   // [nodes] int32, exclusive
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_TRIE_TABLES_H_

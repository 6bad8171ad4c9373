// Value-guided search of a prefix tree under a budget of forward tokens: which semantic IDs are worth a place in a
// group, by a value function and the policy's uncertainty, instead of by probability alone.
//
// Source: V-STAR, arXiv 2602.10699, its VED (eq. 10-14). The released code keeps the best children of EVERY frontier
// node, which spends the budget before the search begins, lets selection end at leaves alone, so that nothing can be
// added, and values a child by its parent's forward pass, so that siblings tie. Here the start is a beam, selection
// stops at inner nodes (UCT with progressive widening), and every node has a look of its own.
//
// No tensor here: a policy with a value head implements PrefixTree. Pure but for the tree; thread-compatible.
#ifndef SLUICE_COMMON_VALUE_SEARCH_VALUE_SEARCH_H_
#define SLUICE_COMMON_VALUE_SEARCH_VALUE_SEARCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

using Prefix = std::vector<int32_t>;  // tokens from the first level on; [] is the root

// What one forward token tells of a prefix.
struct PrefixView {
  double value = 0;               // V(s), finite, read at the prefix's last token
  std::vector<int32_t> tokens;    // legal next ones, ascending; none at a complete semantic ID
  std::vector<double> log_probs;  // of each, renormalised over the legal ones
};

class PrefixTree {
 public:
  virtual ~PrefixTree() = default;
  virtual int levels() const = 0;  // L
  // Views of prefixes of one length, in their order. Each costs one forward token; the root's is the prompt's and is
  // free. The search asks for no prefix twice.
  virtual absl::StatusOr<std::vector<PrefixView>> Look(absl::Span<const Prefix> prefixes) = 0;
};

struct ValueSearchOptions {
  int initial_width = 8;        // B0 of the beam that starts the tree
  int results = 16;             // G
  int budget = 32;              // forward tokens in all, prompt not counted; a width-W beam without values: (L - 1) W
  double entropy_weight = 0.1;  // lambda
  double exploration = 1;       // beta of the upper confidence bound
  double widening = 1;          // a node visited N times has at most ceil(widening N^widening_power) children
  double widening_power = 0.5;
  uint64_t seed = 0;  // of the children that are drawn

  // InvalidArgument: a number out of its range, or a budget that the initial beam, L B0 tokens, may exceed.
  absl::Status Validate(int levels) const;
  bool operator==(const ValueSearchOptions&) const = default;
};

struct SearchNode {
  Prefix prefix;
  double value = 0;     // V
  double entropy = 0;   // H of the next token over the legal ones, nats; 0 at a complete semantic ID
  double priority = 0;  // V + lambda H
  double log_prob = 0;  // of the prefix, renormalised over the legal children
  int visits = 0;       // N
};

struct ValueSearchResult {
  std::vector<SearchNode> nodes;  // all but the root, in the order in which they were added
  // Indices into nodes: complete semantic IDs of highest priority, then log-probability, then lower tokens; at most G,
  // fewer if the tree came to hold fewer.
  std::vector<int> best;
  int forward_tokens = 0;  // at most the budget
  int root_visits = 0;
};

// The search one look at a time, so that the searches of many prompts share forward passes.
//
// 1. Beam search of initial_width by log-probability; every node N = 1, N(root) = 1 + its children.
// 2. From the root: at a node with legal children that are not in the tree, add one if the widening bound allows it and
//    its priority is at least the mean of its depth (eq. 14); or if no child leads on. Else go to the child of highest
//    U(s) = priority + beta sqrt(ln(N(root) + 1) / (N(s) + 1)) (eq. 13) that is not exhausted.
// 3. The child is drawn from the policy over the legal ones that are not in the tree. N += 1 on its path.
// Until the budget is spent or the tree is whole.
class ValueSearcher {
 public:
  struct Wanted {
    int parent = -1;  // index into the result's nodes; -1: the root, or the root itself is wanted
    Prefix prefix;
  };

  // `options` must be valid for trees of `levels`.
  ValueSearcher(int levels, const ValueSearchOptions& options);
  ValueSearcher(ValueSearcher&&) noexcept;
  ~ValueSearcher();

  // Prefixes of one length to look at next: the root first, then the nodes that are added, in their order in the
  // result. Empty: the search is over.
  const std::vector<Wanted>& wanted() const;
  // The views of what was wanted, in its order. DataLoss: another number of views, one that is not finite, or one
  // whose lengths differ.
  absl::Status Take(std::vector<PrefixView> views);
  // Once the search is over.
  ValueSearchResult Finish();

 private:
  class Search;
  std::unique_ptr<Search> search_;
};

// A whole search. Errors of Look and of Validate; DataLoss as Take.
absl::StatusOr<ValueSearchResult> ValueSearch(PrefixTree& tree, const ValueSearchOptions& options);

}  // namespace sluice

#endif  // SLUICE_COMMON_VALUE_SEARCH_VALUE_SEARCH_H_

#include "common/decode/step/step.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "common/model/kernels/kernels.h"

namespace sluice {
namespace {

// The order of rows with a common level above: by score, equal ones by their tokens.
struct RowOrder {
  absl::Span<const DecodeRow> above;

  bool TokensLess(const DecodeRow& a, const DecodeRow& b) const {
    const int32_t order_a = above[a.parent].order;
    const int32_t order_b = above[b.parent].order;
    return order_a != order_b ? order_a < order_b : a.token < b.token;
  }
  // Whether `a` is the better one.
  bool operator()(const DecodeRow& a, const DecodeRow& b) const {
    return a.score != b.score ? a.score > b.score : TokensLess(a, b);
  }
};

// Keeps the `width` best of the rows offered to it. The heap's front is the worst one kept, so that most offers cost
// one comparison.
class TopRows {
 public:
  TopRows(absl::Span<const DecodeRow> above, int width) : better_{above}, width_(static_cast<size_t>(width)) {}

  bool MayEnter(double score) const { return kept_.size() < width_ || score >= kept_.front().score; }

  void Offer(const DecodeRow& row) {
    if (kept_.size() == width_) {
      if (!better_(row, kept_.front())) return;
      std::pop_heap(kept_.begin(), kept_.end(), better_);
      kept_.back() = row;
    } else {
      kept_.push_back(row);
    }
    std::push_heap(kept_.begin(), kept_.end(), better_);
  }

  // Best first, `order` filled in.
  std::vector<DecodeRow> Take() {
    std::sort(kept_.begin(), kept_.end(), better_);
    std::vector<int32_t> by_tokens(kept_.size());
    std::iota(by_tokens.begin(), by_tokens.end(), 0);
    std::sort(by_tokens.begin(), by_tokens.end(),
              [this](int32_t a, int32_t b) { return better_.TokensLess(kept_[a], kept_[b]); });
    for (size_t i = 0; i < by_tokens.size(); ++i) kept_[by_tokens[i]].order = static_cast<int32_t>(i);
    return std::move(kept_);
  }

 private:
  const RowOrder better_;
  const size_t width_;
  std::vector<DecodeRow> kept_;
};

// exp((logit - highest) / temperature) of some tokens, gathered at once. No memory is asked for up to 256 of them.
template <typename Scalar>
class GatheredExps {
 public:
  GatheredExps(const Scalar* logits, absl::Span<const int32_t> tokens, double temperature)
      : count_(tokens.size()), many_(count_ > kFew ? std::make_unique_for_overwrite<Scalar[]>(count_) : nullptr) {
    sum_ = Kernels<Scalar>().gather_exp(logits, tokens.data(), static_cast<int64_t>(count_),
                                        static_cast<Scalar>(1 / temperature), values(), &highest_);
  }

  absl::Span<const Scalar> exps() const { return {count_ > kFew ? many_.get() : few_, count_}; }
  double sum() const { return sum_; }
  double highest() const { return static_cast<double>(highest_); }
  // At temperature 1.
  double LogSum() const { return std::isfinite(highest_) ? highest() + std::log(sum_) : highest(); }

 private:
  static constexpr size_t kFew = 256;
  Scalar* values() { return count_ > kFew ? many_.get() : few_; }

  const size_t count_;
  const std::unique_ptr<Scalar[]> many_;
  Scalar few_[kFew];
  Scalar highest_;
  double sum_;
};

// The first of `weights` with which their running sum exceeds `share` of their sum.
template <typename Scalar>
size_t IndexOfShare(absl::Span<const Scalar> weights, double share) {
  double sum = 0;
  for (const Scalar weight : weights) sum += static_cast<double>(weight);
  const double bound = share * sum;
  double running = 0;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    running += static_cast<double>(weights[i]);
    last = i;
    if (running > bound) break;
  }
  return last;  // rounding may leave the bound past the end: then the last that can be drawn at all
}

absl::Span<const int32_t> ExcludedUnder(const Trie& trie, int32_t node, absl::Span<const int32_t> excluded) {
  if (excluded.empty()) return excluded;
  const LeafRange leaves = LeavesUnder(trie, node);
  const auto* first = std::lower_bound(excluded.begin(), excluded.end(), leaves.first);
  const auto* last = std::lower_bound(first, excluded.end(), leaves.last);
  return {first, static_cast<size_t>(last - first)};
}

}  // namespace

LeafRange LeavesUnder(const Trie& trie, int32_t node) {
  // Leaves are numbered in the order of their tokens, so those under a node lie between the ones that its first and
  // its last children lead to.
  int32_t first = node;
  int32_t last = node;
  while (!trie.IsLeaf(first)) {
    first = trie.ChildrenOf(first).first_node;
    const Trie::Children children = trie.ChildrenOf(last);
    last = children.first_node + static_cast<int32_t>(children.tokens.size()) - 1;
  }
  return {trie.LeafOfNode(first), trie.LeafOfNode(last) + 1};
}

bool HasAllowedLeaf(const Trie& trie, int32_t node, absl::Span<const int32_t> excluded) {
  const LeafRange leaves = LeavesUnder(trie, node);
  return ExcludedUnder(trie, node, excluded).size() < static_cast<size_t>(leaves.last - leaves.first);
}

template <typename Scalar>
double LogSumExp(const Scalar* logits, absl::Span<const int32_t> tokens) {
  return GatheredExps<Scalar>(logits, tokens, 1).LogSum();
}

template <typename Scalar>
std::vector<DecodeRow> ExpandBeams(const Trie& trie, absl::Span<const DecodeRow> rows, const RowLogits<Scalar>& logits,
                                   absl::Span<const int32_t> excluded, int width, LogProbSpace space) {
  TopRows top(rows, width);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Scalar* row_logits = logits.row(static_cast<int64_t>(i));
    const Trie::Children children = trie.ChildrenOf(rows[i].node);
    const double full = logits.log_normalizer(static_cast<int64_t>(i));
    const GatheredExps<Scalar> exps(row_logits, children.tokens, 1);
    const double legal = exps.LogSum();
    const double base = rows[i].score - (space == LogProbSpace::kFull ? full : legal);
    // Rows come with the best first: the children of late ones are mostly out of reach together.
    if (!top.MayEnter(base + exps.highest())) continue;
    const absl::Span<const int32_t> excluded_below = ExcludedUnder(trie, rows[i].node, excluded);
    for (size_t c = 0; c < children.tokens.size(); ++c) {
      const int32_t token = children.tokens[c];
      const double logit = static_cast<double>(row_logits[token]);
      if (!top.MayEnter(base + logit)) continue;
      const int32_t node = children.first_node + static_cast<int32_t>(c);
      if (!excluded_below.empty() && !HasAllowedLeaf(trie, node, excluded_below)) continue;
      top.Offer({node, static_cast<int32_t>(i), token, 0, base + logit, static_cast<float>(logit - full),
                 static_cast<float>(logit - legal)});
    }
  }
  return top.Take();
}

template <typename Scalar>
std::vector<DecodeRow> ExpandUnconstrained(const Trie& trie, absl::Span<const DecodeRow> rows,
                                           const RowLogits<Scalar>& logits, int width) {
  TopRows top(rows, width);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Scalar* row_logits = logits.row(static_cast<int64_t>(i));
    const double full = logits.log_normalizer(static_cast<int64_t>(i));
    const double base = rows[i].score - full;
    for (int64_t token = 0; token < logits.vocabulary; ++token) {
      const double logit = static_cast<double>(row_logits[token]);
      if (!top.MayEnter(base + logit)) continue;
      top.Offer({Trie::kNone, static_cast<int32_t>(i), static_cast<int32_t>(token), 0, base + logit,
                 static_cast<float>(logit - full), 0});
    }
  }
  std::vector<DecodeRow> expanded = top.Take();
  // Only what was kept is looked up in the trie.
  for (DecodeRow& row : expanded) {
    const DecodeRow traced = ForceToken(trie, rows, row.parent, logits, row.token);
    row.node = traced.node;
    row.log_prob_trie = traced.log_prob_trie;
  }
  return expanded;
}

template <typename Scalar>
DecodeRow DrawChild(const Trie& trie, absl::Span<const DecodeRow> rows, int32_t parent, const RowLogits<Scalar>& logits,
                    absl::Span<const int32_t> excluded, double temperature, double uniform) {
  const Scalar* row_logits = logits.row(parent);
  const int32_t node = rows[parent].node;
  const Trie::Children children = trie.ChildrenOf(node);
  const absl::Span<const int32_t> excluded_below = ExcludedUnder(trie, node, excluded);

  const double full = logits.log_normalizer(parent);
  const GatheredExps<Scalar> legal(row_logits, children.tokens, 1);
  auto drawn = [&](size_t child) {
    const int32_t token = children.tokens[child];
    const double logit = static_cast<double>(row_logits[token]);
    return DecodeRow{children.first_node + static_cast<int32_t>(child),
                     parent,
                     token,
                     0,
                     rows[parent].score + (logit - full),
                     static_cast<float>(logit - full),
                     static_cast<float>(logit - legal.LogSum())};
  };
  if (excluded_below.empty()) {
    if (temperature == 1) return drawn(IndexOfShare(legal.exps(), uniform));
    return drawn(IndexOfShare(GatheredExps<Scalar>(row_logits, children.tokens, temperature).exps(), uniform));
  }
  std::vector<int32_t> allowed, tokens;
  for (size_t c = 0; c < children.tokens.size(); ++c) {
    if (!HasAllowedLeaf(trie, children.first_node + static_cast<int32_t>(c), excluded_below)) continue;
    allowed.push_back(static_cast<int32_t>(c));
    tokens.push_back(children.tokens[c]);
  }
  const GatheredExps<Scalar> exps(row_logits, tokens, temperature);
  return drawn(static_cast<size_t>(allowed[IndexOfShare(exps.exps(), uniform)]));
}

template <typename Scalar>
DecodeRow ForceToken(const Trie& trie, absl::Span<const DecodeRow> rows, int32_t parent,
                     const RowLogits<Scalar>& logits, int32_t token) {
  const Scalar* row_logits = logits.row(parent);
  const double logit = static_cast<double>(row_logits[token]);
  const double full = logit - logits.log_normalizer(parent);
  DecodeRow row;
  row.parent = parent;
  row.token = token;
  row.score = rows[parent].score + full;
  row.log_prob_full = static_cast<float>(full);
  const int32_t node = rows[parent].node;
  row.node = node == Trie::kNone ? Trie::kNone : trie.Child(node, token);
  if (row.node != Trie::kNone) {
    row.log_prob_trie = static_cast<float>(logit - LogSumExp(row_logits, trie.ChildrenOf(node).tokens));
  }
  return row;
}

template <typename Scalar>
AllowedChildren ViewChildren(const Trie& trie, int32_t node, const RowLogits<Scalar>& logits, int64_t i,
                             absl::Span<const int32_t> excluded) {
  const Scalar* row_logits = logits.row(i);
  const Trie::Children children = trie.ChildrenOf(node);
  const absl::Span<const int32_t> excluded_below = ExcludedUnder(trie, node, excluded);
  AllowedChildren allowed;
  for (size_t c = 0; c < children.tokens.size(); ++c) {
    if (HasAllowedLeaf(trie, children.first_node + static_cast<int32_t>(c), excluded_below)) {
      allowed.tokens.push_back(children.tokens[c]);
    }
  }
  if (allowed.tokens.empty()) return allowed;
  const double full = logits.log_normalizer(i);
  const double legal = LogSumExp(row_logits, children.tokens);
  const double among = LogSumExp(row_logits, allowed.tokens);
  for (const int32_t token : allowed.tokens) {
    const double logit = static_cast<double>(row_logits[token]);
    // Rounding can leave the only child a little above 0.
    allowed.log_probs.push_back(std::min(0.0, logit - among));
    allowed.log_probs_full.push_back(static_cast<float>(logit - full));
    allowed.log_probs_trie.push_back(static_cast<float>(logit - legal));
  }
  return allowed;
}

Completion TraceCompletion(const Trie& trie, absl::Span<const std::vector<DecodeRow>> levels, int32_t row) {
  Completion completion;
  completion.tokens.resize(levels.size());
  completion.log_probs_full.resize(levels.size());
  completion.log_probs_trie.resize(levels.size());
  const int32_t node = levels.back()[row].node;
  for (size_t level = levels.size(); level-- > 0;) {
    const DecodeRow& step = levels[level][row];
    completion.tokens[level] = step.token;
    completion.log_probs_full[level] = step.log_prob_full;
    completion.log_probs_trie[level] = step.log_prob_trie;
    row = step.parent;
  }
  if (node != Trie::kNone && trie.IsLeaf(node)) {
    completion.leaf = trie.LeafOfNode(node);
  } else {
    completion.log_probs_trie.clear();
  }
  return completion;
}

#define SLUICE_INSTANTIATE_STEP(Scalar)                                                                              \
  template double LogSumExp<Scalar>(const Scalar*, absl::Span<const int32_t>);                                       \
  template std::vector<DecodeRow> ExpandBeams<Scalar>(const Trie&, absl::Span<const DecodeRow>,                      \
                                                      const RowLogits<Scalar>&, absl::Span<const int32_t>, int,      \
                                                      LogProbSpace);                                                 \
  template std::vector<DecodeRow> ExpandUnconstrained<Scalar>(const Trie&, absl::Span<const DecodeRow>,              \
                                                              const RowLogits<Scalar>&, int);                        \
  template DecodeRow DrawChild<Scalar>(const Trie&, absl::Span<const DecodeRow>, int32_t, const RowLogits<Scalar>&,  \
                                       absl::Span<const int32_t>, double, double);                                   \
  template DecodeRow ForceToken<Scalar>(const Trie&, absl::Span<const DecodeRow>, int32_t, const RowLogits<Scalar>&, \
                                        int32_t);                                                                    \
  template AllowedChildren ViewChildren<Scalar>(const Trie&, int32_t, const RowLogits<Scalar>&, int64_t,             \
                                                absl::Span<const int32_t>)
SLUICE_INSTANTIATE_STEP(float);
SLUICE_INSTANTIATE_STEP(double);
#undef SLUICE_INSTANTIATE_STEP

}  // namespace sluice

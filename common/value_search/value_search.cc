#include "common/value_search/value_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kRoot = -1;

// A node with what the search needs beyond its result.
struct Branch {
  PrefixView view;
  int parent = kRoot;
  std::vector<int> children;   // indices of nodes
  std::vector<char> expanded;  // by place in view.tokens
  size_t num_expanded = 0;
  bool exhausted = false;  // complete, or all legal children are there and exhausted

  bool has_unexpanded() const { return num_expanded < view.tokens.size(); }
};

double Entropy(const std::vector<double>& log_probs) {
  double entropy = 0;
  for (const double log_prob : log_probs) {
    if (std::isfinite(log_prob)) entropy -= std::exp(log_prob) * log_prob;
  }
  return entropy;
}

class Search {
 public:
  Search(PrefixTree& tree, const ValueSearchOptions& options)
      : tree_(tree),
        options_(options),
        random_(options.seed),
        depth_sum_(static_cast<size_t>(tree.levels()) + 1, 0),
        depth_count_(static_cast<size_t>(tree.levels()) + 1, 0) {}

  absl::StatusOr<ValueSearchResult> Run() {
    const std::vector<Prefix> root = {{}};
    SLUICE_ASSIGN_OR_RETURN(std::vector<PrefixView> views, LookAt(root));
    root_.view = std::move(views[0]);
    root_.expanded.assign(root_.view.tokens.size(), 0);
    result_.root_visits = 1;
    SLUICE_RETURN_IF_ERROR(StartWithBeam());
    result_.root_visits += static_cast<int>(root_.children.size());
    while (result_.forward_tokens < options_.budget && !root_.exhausted) SLUICE_RETURN_IF_ERROR(Grow());
    Choose();
    return std::move(result_);
  }

 private:
  struct Candidate {
    int parent = kRoot;
    size_t place = 0;  // in the parent's view
    double log_prob = 0;
  };

  Branch& branch(int node) { return node == kRoot ? root_ : branches_[static_cast<size_t>(node)]; }
  SearchNode& node(int index) { return result_.nodes[static_cast<size_t>(index)]; }

  absl::StatusOr<std::vector<PrefixView>> LookAt(absl::Span<const Prefix> prefixes) {
    SLUICE_ASSIGN_OR_RETURN(std::vector<PrefixView> views, tree_.Look(prefixes));
    if (views.size() != prefixes.size()) {
      return absl::DataLossError(absl::StrCat("want ", prefixes.size(), " views of prefixes, got ", views.size()));
    }
    for (const PrefixView& view : views) {
      bool good = std::isfinite(view.value) && view.tokens.size() == view.log_probs.size();
      for (const double log_prob : view.log_probs) good = good && !std::isnan(log_prob) && log_prob <= 1e-6;
      if (!good) return absl::DataLossError("the view of a prefix has numbers that are not finite, or too few");
    }
    return views;
  }

  // Adds children of nodes that are there, in one look.
  absl::Status Add(const std::vector<Candidate>& candidates) {
    std::vector<Prefix> prefixes;
    for (const Candidate& candidate : candidates) {
      Prefix prefix = candidate.parent == kRoot ? Prefix() : node(candidate.parent).prefix;
      prefix.push_back(branch(candidate.parent).view.tokens[candidate.place]);
      prefixes.push_back(std::move(prefix));
    }
    SLUICE_ASSIGN_OR_RETURN(std::vector<PrefixView> views, LookAt(prefixes));
    result_.forward_tokens += static_cast<int>(candidates.size());
    for (size_t i = 0; i < candidates.size(); ++i) {
      const int index = static_cast<int>(result_.nodes.size());
      Branch& parent = branch(candidates[i].parent);
      parent.children.push_back(index);
      parent.expanded[candidates[i].place] = 1;
      ++parent.num_expanded;

      SearchNode& added = result_.nodes.emplace_back();
      added.prefix = std::move(prefixes[i]);
      added.value = views[i].value;
      added.entropy = Entropy(views[i].log_probs);
      added.priority = added.value + options_.entropy_weight * added.entropy;
      added.log_prob = candidates[i].log_prob;
      added.visits = 1;
      depth_sum_[added.prefix.size()] += added.priority;
      ++depth_count_[added.prefix.size()];

      Branch& grown = branches_.emplace_back();  // `parent` is not used after this
      grown.view = std::move(views[i]);
      grown.parent = candidates[i].parent;
      grown.expanded.assign(grown.view.tokens.size(), 0);
      grown.exhausted = grown.view.tokens.empty();
    }
    for (const Candidate& candidate : candidates) MarkExhausted(candidate.parent);
    return absl::OkStatus();
  }

  // From a node upward, as far as that follows.
  void MarkExhausted(int index) {
    while (true) {
      Branch& here = branch(index);
      if (here.exhausted || here.has_unexpanded()) return;
      for (const int child : here.children) {
        if (!branch(child).exhausted) return;
      }
      here.exhausted = true;
      if (index == kRoot) return;
      index = here.parent;
    }
  }

  absl::Status StartWithBeam() {
    std::vector<int> frontier = {kRoot};
    for (int level = 0; level < tree_.levels(); ++level) {
      std::vector<Candidate> candidates;
      for (const int parent : frontier) {
        const PrefixView& view = branch(parent).view;
        const double log_prob = parent == kRoot ? 0 : node(parent).log_prob;
        for (size_t place = 0; place < view.tokens.size(); ++place) {
          candidates.push_back({parent, place, log_prob + view.log_probs[place]});
        }
      }
      // Stable: ties go to the better parent, then to the lower token.
      std::stable_sort(candidates.begin(), candidates.end(),
                       [](const Candidate& a, const Candidate& b) { return a.log_prob > b.log_prob; });
      if (candidates.size() > static_cast<size_t>(options_.initial_width)) {
        candidates.resize(static_cast<size_t>(options_.initial_width));
      }
      if (candidates.empty()) return absl::OkStatus();
      const int first = static_cast<int>(result_.nodes.size());
      SLUICE_RETURN_IF_ERROR(Add(candidates));
      frontier.clear();
      for (int index = first; index < static_cast<int>(result_.nodes.size()); ++index) frontier.push_back(index);
    }
    return absl::OkStatus();
  }

  bool MayExpand(int index) {
    const Branch& here = branch(index);
    const double visits = index == kRoot ? result_.root_visits : node(index).visits;
    // The root is alone at its depth, so its priority is the mean.
    const double bound = std::ceil(options_.widening * std::pow(visits, options_.widening_power) - 1e-9);
    if (static_cast<double>(here.num_expanded) >= bound) return false;
    if (index == kRoot) return true;
    const size_t depth = node(index).prefix.size();
    return node(index).priority >= depth_sum_[depth] / depth_count_[depth];
  }

  // The child of highest upper confidence bound that is not exhausted, or kRoot if there is none.
  int BestChild(int index) {
    int best = kRoot;
    double highest = 0;
    for (const int child : branch(index).children) {
      if (branch(child).exhausted) continue;
      const double bound = node(child).priority + options_.exploration * std::sqrt(std::log(result_.root_visits + 1.0) /
                                                                                   (node(child).visits + 1.0));
      if (best == kRoot || bound > highest) {
        best = child;
        highest = bound;
      }
    }
    return best;
  }

  // One descent and one node more.
  absl::Status Grow() {
    int here = kRoot;
    while (!(branch(here).has_unexpanded() && MayExpand(here))) {
      const int child = BestChild(here);
      if (child == kRoot) break;  // not exhausted, so it has a child to add
      here = child;
    }
    const Branch& chosen = branch(here);
    double total = 0;
    for (size_t place = 0; place < chosen.view.tokens.size(); ++place) {
      if (!chosen.expanded[place]) total += std::exp(chosen.view.log_probs[place]);
    }
    // Of probabilities that a double rounds to 0 the last one is taken.
    double draw = random_.Uniform() * total;
    size_t place = 0;
    for (size_t i = 0; i < chosen.view.tokens.size(); ++i) {
      if (chosen.expanded[i]) continue;
      place = i;
      draw -= std::exp(chosen.view.log_probs[i]);
      if (draw < 0) break;
    }
    const double log_prob = (here == kRoot ? 0 : node(here).log_prob) + chosen.view.log_probs[place];
    for (int above = here; above != kRoot; above = branch(above).parent) ++node(above).visits;
    ++result_.root_visits;
    return Add({{here, place, log_prob}});
  }

  void Choose() {
    for (int i = 0; i < static_cast<int>(result_.nodes.size()); ++i) {
      if (node(i).prefix.size() == static_cast<size_t>(tree_.levels())) result_.best.push_back(i);
    }
    std::sort(result_.best.begin(), result_.best.end(), [this](int a, int b) {
      const SearchNode& first = node(a);
      const SearchNode& second = node(b);
      return std::tie(second.priority, second.log_prob, first.prefix) <
             std::tie(first.priority, first.log_prob, second.prefix);
    });
    if (result_.best.size() > static_cast<size_t>(options_.results)) {
      result_.best.resize(static_cast<size_t>(options_.results));
    }
  }

  PrefixTree& tree_;
  const ValueSearchOptions& options_;
  Random random_;
  Branch root_;
  std::vector<Branch> branches_;   // parallel to result_.nodes
  std::vector<double> depth_sum_;  // of priorities
  std::vector<double> depth_count_;
  ValueSearchResult result_;
};

}  // namespace

absl::Status ValueSearchOptions::Validate(int levels) const {
  if (initial_width < 1 || results < 1) {
    return absl::InvalidArgumentError(absl::StrCat("want an initial width and a number of results of at least 1, got ",
                                                   initial_width, " and ", results));
  }
  if (!(entropy_weight >= 0 && exploration >= 0 && widening > 0 && widening_power >= 0 && widening_power <= 1)) {
    return absl::InvalidArgumentError(
        "want entropy_weight and exploration of at least 0, widening above 0, widening_power in [0, 1]");
  }
  const int64_t beam = static_cast<int64_t>(levels) * initial_width;
  if (budget < beam) {
    return absl::InvalidArgumentError(
        absl::StrCat("a budget of ", budget, " forward tokens does not pay for the initial beam: ", levels,
                     " levels times width ", initial_width, " = ", beam, "; raise the budget or narrow the beam"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ValueSearchResult> ValueSearch(PrefixTree& tree, const ValueSearchOptions& options) {
  SLUICE_RETURN_IF_ERROR(options.Validate(tree.levels()));
  return Search(tree, options).Run();
}

}  // namespace sluice

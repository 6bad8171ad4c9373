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

}  // namespace

class ValueSearcher::Search {
 public:
  Search(int levels, const ValueSearchOptions& options)
      : levels_(levels),
        options_(options),
        random_(options.seed),
        depth_sum_(static_cast<size_t>(levels) + 1, 0),
        depth_count_(static_cast<size_t>(levels) + 1, 0) {
    wanted_.emplace_back();
  }

  const std::vector<Wanted>& wanted() const { return wanted_; }

  absl::Status Take(std::vector<PrefixView> views) {
    SLUICE_RETURN_IF_ERROR(Check(views));
    if (!started_) {
      started_ = true;
      root_.view = std::move(views[0]);
      root_.expanded.assign(root_.view.tokens.size(), 0);
      root_.exhausted = root_.view.tokens.empty();
      result_.root_visits = 1;
    } else {
      Add(std::move(views));
    }
    candidates_.clear();
    wanted_.clear();
    if (beam_levels_ < levels_) {
      PlanBeam();
      if (++beam_levels_ == 1) result_.root_visits += static_cast<int>(candidates_.size());
    } else if (result_.forward_tokens < options_.budget && !root_.exhausted) {
      PlanGrowth();
    }
    for (const Candidate& candidate : candidates_) {
      Wanted& one = wanted_.emplace_back();
      one.parent = candidate.parent;
      if (candidate.parent != kRoot) one.prefix = node(candidate.parent).prefix;
      one.prefix.push_back(branch(candidate.parent).view.tokens[candidate.place]);
    }
    return absl::OkStatus();
  }

  ValueSearchResult Finish() {
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

  absl::Status Check(const std::vector<PrefixView>& views) const {
    if (views.size() != wanted_.size()) {
      return absl::DataLossError(absl::StrCat("want ", wanted_.size(), " views of prefixes, got ", views.size()));
    }
    for (const PrefixView& view : views) {
      bool good = std::isfinite(view.value) && view.tokens.size() == view.log_probs.size();
      for (const double log_prob : view.log_probs) good = good && !std::isnan(log_prob) && log_prob <= 1e-6;
      if (!good) return absl::DataLossError("the view of a prefix has numbers that are not finite, or too few");
    }
    return absl::OkStatus();
  }

  // Adds the candidates, children of nodes that are there.
  void Add(std::vector<PrefixView> views) {
    const std::vector<Candidate>& candidates = candidates_;
    result_.forward_tokens += static_cast<int>(candidates.size());
    for (size_t i = 0; i < candidates.size(); ++i) {
      const int index = static_cast<int>(result_.nodes.size());
      Branch& parent = branch(candidates[i].parent);
      parent.children.push_back(index);
      parent.expanded[candidates[i].place] = 1;
      ++parent.num_expanded;

      SearchNode& added = result_.nodes.emplace_back();
      added.prefix = std::move(wanted_[i].prefix);
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

  // The next level of the initial beam: from the root, or from what the level before added.
  void PlanBeam() {
    std::vector<int> frontier = {kRoot};
    if (beam_levels_ > 0) {
      frontier.clear();
      for (int index = beam_first_; index < static_cast<int>(result_.nodes.size()); ++index) frontier.push_back(index);
    }
    beam_first_ = static_cast<int>(result_.nodes.size());
    for (const int parent : frontier) {
      const PrefixView& view = branch(parent).view;
      const double log_prob = parent == kRoot ? 0 : node(parent).log_prob;
      for (size_t place = 0; place < view.tokens.size(); ++place) {
        candidates_.push_back({parent, place, log_prob + view.log_probs[place]});
      }
    }
    // Stable: ties go to the better parent, then to the lower token.
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.log_prob > b.log_prob; });
    if (candidates_.size() > static_cast<size_t>(options_.initial_width)) {
      candidates_.resize(static_cast<size_t>(options_.initial_width));
    }
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
  void PlanGrowth() {
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
    candidates_.push_back({here, place, log_prob});
  }

  void Choose() {
    for (int i = 0; i < static_cast<int>(result_.nodes.size()); ++i) {
      if (node(i).prefix.size() == static_cast<size_t>(levels_)) result_.best.push_back(i);
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

  const int levels_;
  const ValueSearchOptions options_;
  Random random_;
  bool started_ = false;
  int beam_levels_ = 0;                // of the initial beam that are planned
  int beam_first_ = 0;                 // node that its last level begins with
  std::vector<Candidate> candidates_;  // what is wanted
  std::vector<Wanted> wanted_;
  Branch root_;
  std::vector<Branch> branches_;   // parallel to result_.nodes
  std::vector<double> depth_sum_;  // of priorities
  std::vector<double> depth_count_;
  ValueSearchResult result_;
};

ValueSearcher::ValueSearcher(int levels, const ValueSearchOptions& options)
    : search_(std::make_unique<Search>(levels, options)) {}
ValueSearcher::ValueSearcher(ValueSearcher&&) noexcept = default;
ValueSearcher::~ValueSearcher() = default;

const std::vector<ValueSearcher::Wanted>& ValueSearcher::wanted() const { return search_->wanted(); }
absl::Status ValueSearcher::Take(std::vector<PrefixView> views) { return search_->Take(std::move(views)); }
ValueSearchResult ValueSearcher::Finish() { return search_->Finish(); }

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
  ValueSearcher searcher(tree.levels(), options);
  while (!searcher.wanted().empty()) {
    std::vector<Prefix> prefixes;
    for (const ValueSearcher::Wanted& one : searcher.wanted()) prefixes.push_back(one.prefix);
    SLUICE_ASSIGN_OR_RETURN(std::vector<PrefixView> views, tree.Look(prefixes));
    SLUICE_RETURN_IF_ERROR(searcher.Take(std::move(views)));
  }
  return searcher.Finish();
}

}  // namespace sluice

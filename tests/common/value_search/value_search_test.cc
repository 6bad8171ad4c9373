#include "common/value_search/value_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "common/random/random.h"

namespace sluice {
namespace {

// A random tree of three levels, held whole.
class FakeTree : public PrefixTree {
 public:
  explicit FakeTree(uint64_t seed, int fanout = 5) {
    Random random(seed);
    Fill({}, fanout, &random);
  }

  int levels() const override { return 3; }
  absl::StatusOr<std::vector<PrefixView>> Look(absl::Span<const Prefix> prefixes) override {
    std::vector<PrefixView> found;
    for (const Prefix& prefix : prefixes) {
      EXPECT_TRUE(views.contains(prefix));
      EXPECT_TRUE(looked.insert(prefix).second) << "asked twice";
      found.push_back(views.at(prefix));
    }
    return found;
  }

  std::vector<Prefix> Leaves() const {
    std::vector<Prefix> leaves;
    for (const auto& [prefix, view] : views) {
      if (prefix.size() == 3) leaves.push_back(prefix);
    }
    return leaves;
  }

  std::map<Prefix, PrefixView> views;
  std::set<Prefix> looked;

 private:
  void Fill(const Prefix& prefix, int fanout, Random* random) {
    PrefixView& view = views[prefix];
    view.value = random->Normal();
    if (prefix.size() == 3) return;
    const int children = 1 + static_cast<int>(random->Below(static_cast<uint64_t>(fanout)));
    double total = 0;
    for (int i = 0; i < children; ++i) {
      view.tokens.push_back(3 * i + 1);
      view.log_probs.push_back(random->Normal());
      total += std::exp(view.log_probs.back());
    }
    for (double& log_prob : view.log_probs) log_prob -= std::log(total);
    const std::vector<int32_t> tokens = view.tokens;  // the map grows below
    for (const int32_t token : tokens) {
      Prefix child = prefix;
      child.push_back(token);
      Fill(child, fanout, random);
    }
  }
};

// The search of the header's three points, told another way: a map from prefix to visits, and everything else computed
// anew from the tree at every turn.
class SlowSearch {
 public:
  SlowSearch(const FakeTree& tree, const ValueSearchOptions& options)
      : tree_(tree), options_(options), random_(options.seed) {
    std::vector<std::pair<double, Prefix>> beam = {{0, {}}};
    for (int level = 0; level < 3; ++level) {
      std::vector<std::pair<double, Prefix>> next;
      for (const auto& [log_prob, prefix] : beam) {
        const PrefixView& view = tree_.views.at(prefix);
        for (size_t i = 0; i < view.tokens.size(); ++i)
          next.push_back({log_prob + view.log_probs[i], Child(prefix, view.tokens[i])});
      }
      std::sort(next.begin(), next.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
      if (next.size() > static_cast<size_t>(options.initial_width))
        next.resize(static_cast<size_t>(options.initial_width));
      for (const auto& [log_prob, prefix] : next) visits[prefix] = 1;
      beam = next;
    }
    root_visits = 1;
    for (const auto& [prefix, count] : visits) root_visits += prefix.size() == 1;
    while (static_cast<int>(visits.size()) < options.budget && visits.size() + 1 < tree_.views.size()) Turn();
  }

  std::map<Prefix, int> visits;
  int root_visits = 0;

 private:
  static Prefix Child(Prefix prefix, int32_t token) {
    prefix.push_back(token);
    return prefix;
  }
  double Priority(const Prefix& prefix) const {
    const PrefixView& view = tree_.views.at(prefix);
    double entropy = 0;
    for (const double log_prob : view.log_probs) entropy -= std::exp(log_prob) * log_prob;
    return view.value + options_.entropy_weight * entropy;
  }
  double MeanOfDepth(size_t depth) const {
    double sum = 0, count = 0;
    for (const auto& [prefix, unused] : visits) {
      if (prefix.size() == depth) sum += Priority(prefix), ++count;
    }
    return sum / count;
  }
  bool IsWholeBelow(const Prefix& prefix) const {
    for (const auto& [other, view] : tree_.views) {
      if (other.size() > prefix.size() && std::equal(prefix.begin(), prefix.end(), other.begin()) &&
          !visits.contains(other)) {
        return false;
      }
    }
    return true;
  }
  void Turn() {
    Prefix here;
    while (true) {
      std::vector<int32_t> missing;
      std::vector<Prefix> there;
      for (const int32_t token : tree_.views.at(here).tokens) {
        if (visits.contains(Child(here, token))) {
          there.push_back(Child(here, token));
        } else {
          missing.push_back(token);
        }
      }
      const int count = here.empty() ? root_visits : visits.at(here);
      const bool room = static_cast<double>(there.size()) <
                        std::ceil(options_.widening * std::pow(count, options_.widening_power) - 1e-9);
      const bool worthy = here.empty() || Priority(here) >= MeanOfDepth(here.size()) - 1e-12;
      std::erase_if(there, [this](const Prefix& child) { return IsWholeBelow(child); });
      if (!missing.empty() && ((room && worthy) || there.empty())) return Add(here, missing);
      here = *std::max_element(there.begin(), there.end(),
                               [this](const Prefix& a, const Prefix& b) { return Bound(a) < Bound(b); });
    }
  }
  double Bound(const Prefix& prefix) const {
    return Priority(prefix) + options_.exploration * std::sqrt(std::log(root_visits + 1) / (visits.at(prefix) + 1));
  }
  void Add(const Prefix& parent, const std::vector<int32_t>& missing) {
    const PrefixView& view = tree_.views.at(parent);
    const auto probability = [&](int32_t token) {
      return std::exp(view.log_probs[static_cast<size_t>(std::find(view.tokens.begin(), view.tokens.end(), token) -
                                                         view.tokens.begin())]);
    };
    double total = 0;
    for (const int32_t token : missing) total += probability(token);
    double below = 0;
    const double draw = random_.Uniform() * total;
    size_t chosen = 0;
    while (chosen + 1 < missing.size() && (below += probability(missing[chosen])) <= draw) ++chosen;
    ++root_visits;
    for (size_t length = 1; length <= parent.size(); ++length)
      ++visits[Prefix(parent.begin(), parent.begin() + static_cast<std::ptrdiff_t>(length))];
    visits[Child(parent, missing[chosen])] = 1;
  }

  const FakeTree& tree_;
  const ValueSearchOptions& options_;
  Random random_;
};

ValueSearchOptions Options(int budget) {
  ValueSearchOptions options;
  options.initial_width = 4;
  options.results = 6;
  options.budget = budget;
  options.seed = 3;
  return options;
}

TEST(ValueSearchTest, AgreesWithASlowSearchThatComputesEverythingAnew) {
  int deeper = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    FakeTree tree(seed);
    ValueSearchOptions options = Options(12 + static_cast<int>(seed % 30));
    options.seed = seed;
    options.exploration = 0.5 * static_cast<double>(seed % 4);
    options.widening = seed % 3 == 0 ? 2 : 1;
    const ValueSearchResult result = ValueSearch(tree, options).value();
    const SlowSearch slow(tree, options);
    std::map<Prefix, int> visits;
    for (const SearchNode& node : result.nodes) visits[node.prefix] = node.visits;
    EXPECT_EQ(visits, slow.visits) << seed;
    EXPECT_EQ(result.root_visits, slow.root_visits);
    deeper += result.forward_tokens > 12;
  }
  EXPECT_GT(deeper, 20);
}

TEST(ValueSearchTest, AWholeTreeGivesTheBestOfAllLeaves) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    FakeTree tree(seed);
    const ValueSearchResult result = ValueSearch(tree, Options(100000)).value();
    EXPECT_EQ(result.forward_tokens + 1, static_cast<int>(tree.views.size()));
    std::vector<Prefix> leaves = tree.Leaves();
    std::sort(leaves.begin(), leaves.end(),
              [&](const Prefix& a, const Prefix& b) { return tree.views.at(a).value > tree.views.at(b).value; });
    leaves.resize(std::min<size_t>(leaves.size(), 6));
    std::vector<Prefix> best;
    for (const int index : result.best) best.push_back(result.nodes[static_cast<size_t>(index)].prefix);
    EXPECT_EQ(best, leaves);
  }
}

TEST(ValueSearchTest, NeverSpendsMoreThanItsBudgetAndCountsEveryLook) {
  for (int budget = 12; budget < 40; ++budget) {
    FakeTree tree(7);
    const ValueSearchResult result = ValueSearch(tree, Options(budget)).value();
    EXPECT_LE(result.forward_tokens, budget);
    EXPECT_EQ(result.forward_tokens + 1, static_cast<int>(tree.looked.size()));  // the root is free
    EXPECT_EQ(result.forward_tokens, static_cast<int>(result.nodes.size()));
  }
}

TEST(ValueSearchTest, SelectionStopsAtInnerNodes) {
  FakeTree tree(1, 9);
  const ValueSearchResult result = ValueSearch(tree, Options(60)).value();
  std::map<size_t, int> by_depth;
  for (const SearchNode& node : result.nodes) ++by_depth[node.prefix.size()];
  EXPECT_GT(by_depth[1] + by_depth[2], 8);  // more than the beam's four and four
  EXPECT_GT(by_depth[3], 4);
}

TEST(ValueSearchTest, LogProbabilitiesAndEntropiesAreThoseOfTheTree) {
  FakeTree tree(4);
  const ValueSearchResult result = ValueSearch(tree, Options(30)).value();
  for (const SearchNode& node : result.nodes) {
    double log_prob = 0;
    Prefix prefix;
    for (const int32_t token : node.prefix) {
      const PrefixView& view = tree.views.at(prefix);
      const auto place = std::find(view.tokens.begin(), view.tokens.end(), token) - view.tokens.begin();
      log_prob += view.log_probs[static_cast<size_t>(place)];
      prefix.push_back(token);
    }
    EXPECT_NEAR(node.log_prob, log_prob, 1e-12);
    if (node.prefix.size() == 3) {
      EXPECT_EQ(node.entropy, 0);
    }
  }
}

TEST(ValueSearchTest, TheSameSeedGivesTheSameTree) {
  FakeTree first(2, 8), second(2, 8);
  const ValueSearchResult a = ValueSearch(first, Options(40)).value();
  const ValueSearchResult b = ValueSearch(second, Options(40)).value();
  EXPECT_EQ(a.best, b.best);
  EXPECT_EQ(first.looked, second.looked);
}

TEST(ValueSearchTest, ABudgetBelowTheBeamIsRefusedInWords) {
  FakeTree tree(1);
  const absl::Status status = ValueSearch(tree, Options(11)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("3 levels times width 4 = 12"), std::string::npos) << status;
  ValueSearchOptions options = Options(40);
  options.widening = 0;
  EXPECT_EQ(ValueSearch(tree, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ValueSearchTest, SearchesThatTakeTurnsFindWhatEachFindsAlone) {
  std::vector<ValueSearcher> searchers;
  std::vector<std::unique_ptr<FakeTree>> trees;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    trees.push_back(std::make_unique<FakeTree>(seed));
    searchers.emplace_back(3, Options(20 + static_cast<int>(seed)));
  }
  bool any = true;
  while (any) {
    any = false;
    for (size_t i = 0; i < searchers.size(); ++i) {
      std::vector<PrefixView> views;
      for (const ValueSearcher::Wanted& wanted : searchers[i].wanted()) {
        views.push_back(trees[i]->Look({wanted.prefix}).value()[0]);
      }
      if (views.empty()) continue;
      any = true;
      ASSERT_TRUE(searchers[i].Take(std::move(views)).ok());
    }
  }
  for (uint64_t seed = 0; seed < 5; ++seed) {
    FakeTree tree(seed);
    const ValueSearchResult alone = ValueSearch(tree, Options(20 + static_cast<int>(seed))).value();
    const ValueSearchResult found = searchers[seed].Finish();
    EXPECT_EQ(found.best, alone.best);
    EXPECT_EQ(found.nodes.size(), alone.nodes.size());
    EXPECT_EQ(trees[seed]->looked, tree.looked);
  }
}

TEST(ValueSearchTest, WhatIsWantedNamesItsParent) {
  FakeTree tree(1, 9);
  ValueSearcher searcher(3, Options(30));
  std::vector<Prefix> prefixes;
  while (!searcher.wanted().empty()) {
    const bool is_root = searcher.wanted()[0].prefix.empty();
    std::vector<PrefixView> views;
    for (const ValueSearcher::Wanted& wanted : searcher.wanted()) {
      if (!is_root) {
        Prefix above = wanted.prefix;
        above.pop_back();
        EXPECT_EQ(wanted.parent < 0 ? Prefix() : prefixes[static_cast<size_t>(wanted.parent)], above);
      }
      views.push_back(tree.views.at(wanted.prefix));
    }
    for (const ValueSearcher::Wanted& wanted : searcher.wanted()) {
      if (!is_root) prefixes.push_back(wanted.prefix);
    }
    ASSERT_TRUE(searcher.Take(std::move(views)).ok());
  }
  EXPECT_EQ(prefixes.size(), 30u);
}

TEST(ValueSearchTest, ATreeWithoutLegalTokensEndsAtOnce) {
  ValueSearcher searcher(3, Options(20));
  EXPECT_EQ(searcher.Take({}).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(searcher.Take(std::vector<PrefixView>(1)).ok());
  EXPECT_TRUE(searcher.wanted().empty());
  EXPECT_TRUE(searcher.Finish().best.empty());
}

TEST(ValueSearchTest, AViewThatIsNotFiniteIsDataLoss) {
  FakeTree tree(1);
  tree.views.begin()->second.value = std::nan("");
  EXPECT_EQ(ValueSearch(tree, Options(20)).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice

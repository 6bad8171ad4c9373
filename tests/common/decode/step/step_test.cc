#include "common/decode/step/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "common/random/random.h"

namespace sluice {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kVocabulary = 12;

// A catalog of three levels over tokens 1 to 11, with prefixes of one child and of many.
Trie SmallTrie() {
  const std::vector<int32_t> tokens = {1, 4, 8, 1, 4, 9, 1, 5, 8,  1, 5, 10, 1, 5, 11,  //
                                       2, 4, 8, 2, 6, 9, 2, 6, 11, 3, 7, 8,  3, 7, 9};
  absl::StatusOr<Trie> trie = Trie::Build(3, tokens);
  EXPECT_TRUE(trie.ok()) << trie.status();
  return *std::move(trie);
}

std::vector<Tokens> AllLeaves(const Trie& trie) {
  std::vector<Tokens> leaves;
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
    const absl::Span<const int32_t> tokens = trie.TokensOfLeaf(leaf);
    leaves.emplace_back(tokens.begin(), tokens.end());
  }
  return leaves;
}

// Logits that depend on the whole prefix, so that a mixed-up parent shows.
std::vector<double> LogitsAfter(const Tokens& prefix, uint64_t seed, double scale = 2) {
  for (const int32_t token : prefix) seed = DeriveSeed(seed, {static_cast<uint64_t>(token)});
  Random random(DeriveSeed(seed, {prefix.size()}));
  std::vector<double> logits;
  for (int64_t v = 0; v < kVocabulary; ++v) logits.push_back(scale * random.Normal());
  return logits;
}

double FullLogProb(const std::vector<double>& logits, int32_t token) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit);
  return logits[token] - std::log(sum);
}

// Over the next tokens of all leaves that start with `prefix`, found by looking at every leaf.
double TrieLogProb(const std::vector<Tokens>& leaves, const Tokens& prefix, const std::vector<double>& logits,
                   int32_t token) {
  std::set<int32_t> legal;
  for (const Tokens& leaf : leaves) {
    if (std::equal(prefix.begin(), prefix.end(), leaf.begin())) legal.insert(leaf[prefix.size()]);
  }
  double sum = 0;
  for (const int32_t child : legal) sum += std::exp(logits[child]);
  return logits[token] - std::log(sum);
}

struct Scored {
  Tokens tokens;
  double full = 0;
  double trie = 0;
};

// A leaf's log-probabilities by the chain rule.
Scored ScoreLeaf(const std::vector<Tokens>& leaves, const Tokens& leaf, uint64_t seed, double scale = 2) {
  Scored scored{leaf, 0, 0};
  Tokens prefix;
  for (const int32_t token : leaf) {
    const std::vector<double> logits = LogitsAfter(prefix, seed, scale);
    scored.full += FullLogProb(logits, token);
    scored.trie += TrieLogProb(leaves, prefix, logits, token);
    prefix.push_back(token);
  }
  return scored;
}

// Drives the functions under test level by level, as decode.cc does with a policy.
class Driver {
 public:
  Driver(const Trie& trie, uint64_t seed, double scale = 2) : trie_(trie), seed_(seed), scale_(scale) {}

  std::vector<Completion> Beams(int width, LogProbSpace space, const std::vector<int32_t>& excluded = {}) {
    return Run([&](absl::Span<const DecodeRow> rows, const RowLogits<double>& logits) {
      return ExpandBeams(trie_, rows, logits, excluded, width, space);
    });
  }
  std::vector<Completion> Unconstrained(int width) {
    return Run([&](absl::Span<const DecodeRow> rows, const RowLogits<double>& logits) {
      return ExpandUnconstrained(trie_, rows, logits, width);
    });
  }
  std::vector<Completion> Sample(int count, double temperature, Random* random,
                                 const std::vector<int32_t>& excluded = {}) {
    return Run([&](absl::Span<const DecodeRow> rows, const RowLogits<double>& logits) {
      std::vector<DecodeRow> next;
      for (int32_t i = 0; i < count; ++i) {
        const int32_t parent = rows.size() == 1 && count > 1 ? 0 : i;
        next.push_back(DrawChild(trie_, rows, parent, logits, excluded, temperature, random->Uniform()));
      }
      return next;
    });
  }
  std::vector<Completion> Force(const Tokens& tokens) {
    size_t level = 0;
    return Run([&](absl::Span<const DecodeRow> rows, const RowLogits<double>& logits) {
      return std::vector<DecodeRow>{ForceToken(trie_, rows, 0, logits, tokens[level++])};
    });
  }

 private:
  template <typename Expand>
  std::vector<Completion> Run(Expand expand) {
    std::vector<std::vector<DecodeRow>> levels;
    std::vector<Tokens> prefixes = {{}};
    std::vector<DecodeRow> rows(1);
    for (int level = 0; level < trie_.levels(); ++level) {
      std::vector<double> logits;
      std::vector<double> normalizers;
      for (const Tokens& prefix : prefixes) {
        const std::vector<double> row = LogitsAfter(prefix, seed_, scale_);
        logits.insert(logits.end(), row.begin(), row.end());
        normalizers.push_back(row[0] - FullLogProb(row, 0));
      }
      const RowLogits<double> view{logits.data(), normalizers.data(), kVocabulary};
      const std::vector<DecodeRow> next = expand(absl::MakeConstSpan(rows), view);
      std::vector<Tokens> longer;
      for (const DecodeRow& row : next) {
        longer.push_back(prefixes[row.parent]);
        longer.back().push_back(row.token);
      }
      prefixes = std::move(longer);
      rows = next;
      levels.push_back(next);
    }
    std::vector<Completion> completions;
    for (size_t row = 0; row < rows.size(); ++row) {
      completions.push_back(TraceCompletion(trie_, levels, static_cast<int32_t>(row)));
      EXPECT_EQ(completions.back().tokens, prefixes[row]);
    }
    return completions;
  }

  const Trie& trie_;
  uint64_t seed_;
  double scale_;
};

double Sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

TEST(StepTest, LeavesUnderANodeAreThoseThatStartWithItsTokens) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  for (const Tokens& prefix : std::vector<Tokens>{{}, {1}, {2}, {3}, {1, 5}, {2, 4}, {3, 7}, {1, 5, 10}}) {
    int32_t node = Trie::kRoot;
    for (const int32_t token : prefix) node = trie.Child(node, token);
    std::vector<int32_t> want;
    for (size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      if (std::equal(prefix.begin(), prefix.end(), leaves[leaf].begin())) want.push_back(static_cast<int32_t>(leaf));
    }
    const LeafRange range = LeavesUnder(trie, node);
    EXPECT_EQ(range.first, want.front());
    EXPECT_EQ(range.last, want.back() + 1);
  }
}

TEST(StepTest, ANodeIsDeadWhenAllItsLeavesAreExcluded) {
  const Trie trie = SmallTrie();
  const int32_t three = trie.Child(Trie::kRoot, 3);  // leaves 8 and 9
  EXPECT_TRUE(HasAllowedLeaf(trie, three, {}));
  EXPECT_TRUE(HasAllowedLeaf(trie, three, {0, 8}));
  EXPECT_FALSE(HasAllowedLeaf(trie, three, {0, 8, 9}));
  EXPECT_TRUE(HasAllowedLeaf(trie, Trie::kRoot, {0, 8, 9}));
}

TEST(StepTest, BeamsAsWideAsTheCatalogAreTheExactOrderOfAllLeaves) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const LogProbSpace space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
      std::vector<Scored> want;
      for (const Tokens& leaf : leaves) want.push_back(ScoreLeaf(leaves, leaf, seed));
      std::sort(want.begin(), want.end(), [&](const Scored& a, const Scored& b) {
        return space == LogProbSpace::kFull ? a.full > b.full : a.trie > b.trie;
      });
      const std::vector<Completion> got = Driver(trie, seed).Beams(100, space);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].tokens, want[i].tokens);
        EXPECT_EQ(got[i].leaf, trie.FindLeaf(want[i].tokens));
        EXPECT_NEAR(Sum(got[i].log_probs_full), want[i].full, 1e-5);
        EXPECT_NEAR(Sum(got[i].log_probs_trie), want[i].trie, 1e-5);
      }
    }
  }
}

TEST(StepTest, NarrowBeamsEqualASlowBeamSearchOverPrefixes) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (int width = 1; width <= 4; ++width) {
      // Sorts all legal prefixes of a level that extend the kept ones.
      std::vector<std::pair<double, Tokens>> kept = {{0.0, {}}};
      for (int level = 0; level < 3; ++level) {
        std::set<std::pair<double, Tokens>> candidates;
        for (const auto& [score, prefix] : kept) {
          for (const Tokens& leaf : leaves) {
            if (!std::equal(prefix.begin(), prefix.end(), leaf.begin())) continue;
            const Tokens longer(leaf.begin(), leaf.begin() + level + 1);
            candidates.insert({-(score + FullLogProb(LogitsAfter(prefix, seed), longer.back())), longer});
          }
        }
        kept.clear();
        for (const auto& [negative, prefix] : candidates) {
          if (static_cast<int>(kept.size()) < width) kept.push_back({-negative, prefix});
        }
      }
      const std::vector<Completion> got = Driver(trie, seed).Beams(width, LogProbSpace::kFull);
      ASSERT_EQ(got.size(), kept.size());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].tokens, kept[i].second) << "seed " << seed;
    }
  }
}

TEST(StepTest, EqualScoresAreOrderedByLowerTokens) {
  const Trie trie = SmallTrie();
  // Scale 0: all logits are 0, so in the full space all prefixes of a level are equally probable.
  const std::vector<Completion> got = Driver(trie, 1, 0).Beams(4, LogProbSpace::kFull);
  ASSERT_EQ(got.size(), 4);
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(got[i].leaf, i);
}

TEST(StepTest, ExcludedLeavesAreMissingAndDoNotCostBeams) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  for (uint64_t seed = 0; seed < 30; ++seed) {
    // Everything but two leaves in different corners is excluded: a search that looked at leaves only in the end
    // would have filled its two beams with prefixes that lead nowhere.
    const std::vector<int32_t> excluded = {0, 1, 3, 4, 5, 6, 8, 9};
    const std::vector<Completion> got = Driver(trie, seed).Beams(2, LogProbSpace::kFull, excluded);
    ASSERT_EQ(got.size(), 2);
    EXPECT_EQ((std::set<int32_t>{got[0].leaf, got[1].leaf}), (std::set<int32_t>{2, 7}));
    for (const Completion& completion : got) {
      // The numbers are those without any exclusion.
      const Scored want = ScoreLeaf(leaves, completion.tokens, seed);
      EXPECT_NEAR(Sum(completion.log_probs_full), want.full, 1e-5);
      EXPECT_NEAR(Sum(completion.log_probs_trie), want.trie, 1e-5);
    }
  }
}

TEST(StepTest, NothingIsLeftWhenEverythingIsExcluded) {
  const Trie trie = SmallTrie();
  std::vector<int32_t> all(trie.num_leaves());
  std::iota(all.begin(), all.end(), 0);
  const std::vector<DecodeRow> root(1);
  const std::vector<double> logits(kVocabulary, 0.0);
  const double normalizer = std::log(kVocabulary);
  EXPECT_TRUE(ExpandBeams(trie, absl::MakeConstSpan(root), RowLogits<double>{logits.data(), &normalizer, kVocabulary},
                          all, 4, LogProbSpace::kTrie)
                  .empty());
}

TEST(StepTest, UnconstrainedBeamsAreTheBestOfAllTokenSequences) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  int invalid = 0;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::vector<std::pair<double, Tokens>> all;
    for (int32_t a = 0; a < kVocabulary; ++a) {
      const double first = FullLogProb(LogitsAfter({}, seed), a);
      for (int32_t b = 0; b < kVocabulary; ++b) {
        const double second = first + FullLogProb(LogitsAfter({a}, seed), b);
        for (int32_t c = 0; c < kVocabulary; ++c) {
          all.push_back({-(second + FullLogProb(LogitsAfter({a, b}, seed), c)), {a, b, c}});
        }
      }
    }
    std::sort(all.begin(), all.end());
    // A width at which no prefix is ever cut, so that the beams are exact.
    const std::vector<Completion> got = Driver(trie, seed).Unconstrained(kVocabulary * kVocabulary);
    ASSERT_EQ(got.size(), static_cast<size_t>(kVocabulary * kVocabulary));
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(got[i].tokens, all[i].second);
      EXPECT_NEAR(Sum(got[i].log_probs_full), -all[i].first, 1e-5);
      const bool valid = std::find(leaves.begin(), leaves.end(), got[i].tokens) != leaves.end();
      EXPECT_EQ(got[i].leaf >= 0, valid);
      EXPECT_EQ(got[i].log_probs_trie.empty(), !valid);
      invalid += !valid;
    }
  }
  EXPECT_GT(invalid, 0);
}

// Chi-square of `counts` against `probabilities`; both over the same outcomes.
double ChiSquare(const std::map<int32_t, int>& counts, const std::map<int32_t, double>& probabilities, int draws) {
  double statistic = 0;
  for (const auto& [leaf, probability] : probabilities) {
    const double expected = probability * draws;
    const double count = counts.count(leaf) ? counts.at(leaf) : 0;
    statistic += (count - expected) * (count - expected) / expected;
  }
  return statistic;
}

// What sampling without exclusion at a temperature must follow, by enumeration; then conditioned level by level on
// having an allowed leaf below.
std::map<int32_t, double> ExactProbabilities(const std::vector<Tokens>& leaves, uint64_t seed, double temperature,
                                             const std::set<int32_t>& excluded) {
  std::map<int32_t, double> exact;
  for (size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    if (excluded.count(static_cast<int32_t>(leaf))) continue;
    double probability = 1;
    Tokens prefix;
    for (const int32_t token : leaves[leaf]) {
      std::set<int32_t> allowed;
      for (size_t other = 0; other < leaves.size(); ++other) {
        if (excluded.count(static_cast<int32_t>(other))) continue;
        if (std::equal(prefix.begin(), prefix.end(), leaves[other].begin()))
          allowed.insert(leaves[other][prefix.size()]);
      }
      const std::vector<double> logits = LogitsAfter(prefix, seed);
      double sum = 0;
      for (const int32_t child : allowed) sum += std::exp(logits[child] / temperature);
      probability *= std::exp(logits[token] / temperature) / sum;
      prefix.push_back(token);
    }
    exact[static_cast<int32_t>(leaf)] = probability;
  }
  return exact;
}

TEST(StepTest, SamplesFollowTheExactDistributionOverLeaves) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  constexpr int kDraws = 20000;
  struct Case {
    double temperature;
    std::vector<int32_t> excluded;
    double critical;  // chi-square at 0.999, one degree less than outcomes
  };
  for (const Case& test : std::vector<Case>{{1, {}, 27.88}, {2.5, {}, 27.88}, {1, {2, 8, 9}, 22.46}}) {
    constexpr uint64_t kSeed = 11;
    Random random(5);
    std::map<int32_t, int> counts;
    for (const Completion& sample : Driver(trie, kSeed).Sample(kDraws, test.temperature, &random, test.excluded)) {
      ++counts[sample.leaf];
    }
    const std::map<int32_t, double> exact = ExactProbabilities(
        leaves, kSeed, test.temperature, std::set<int32_t>(test.excluded.begin(), test.excluded.end()));
    for (const auto& [leaf, count] : counts) EXPECT_TRUE(exact.count(leaf)) << "leaf " << leaf;
    EXPECT_LT(ChiSquare(counts, exact, kDraws), test.critical);
    // The test can fail: another temperature is told apart.
    const std::map<int32_t, double> other = ExactProbabilities(
        leaves, kSeed, test.temperature * 1.3, std::set<int32_t>(test.excluded.begin(), test.excluded.end()));
    EXPECT_GT(ChiSquare(counts, other, kDraws), test.critical);
  }
}

TEST(StepTest, RecordedLogProbabilitiesOfSamplesStayAtTemperatureOne) {
  const Trie trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(trie);
  Random random(5);
  for (const Completion& sample : Driver(trie, 3).Sample(50, 4, &random, {0, 1})) {
    const Scored want = ScoreLeaf(leaves, sample.tokens, 3);
    EXPECT_NEAR(Sum(sample.log_probs_full), want.full, 1e-5);
    EXPECT_NEAR(Sum(sample.log_probs_trie), want.trie, 1e-5);
  }
}

TEST(StepTest, ADrawAtEitherEndOfTheUnitIntervalIsAnAllowedChild) {
  const Trie trie = SmallTrie();
  const std::vector<DecodeRow> root(1);
  const std::vector<double> logits(kVocabulary, 0.0);
  const double normalizer = std::log(kVocabulary);
  const RowLogits<double> view{logits.data(), &normalizer, kVocabulary};
  EXPECT_EQ(DrawChild(trie, absl::MakeConstSpan(root), 0, view, {}, 1.0, 0.0).token, 1);
  EXPECT_EQ(DrawChild(trie, absl::MakeConstSpan(root), 0, view, {}, 1.0, 1.0).token, 3);
  EXPECT_EQ(DrawChild(trie, absl::MakeConstSpan(root), 0, view, {8, 9}, 1.0, 1.0).token, 2);
}

TEST(StepTest, ForcedTokensOffTheCatalogHaveNoLeafAndNoTrieLogProbabilities) {
  const Trie trie = SmallTrie();
  const Completion valid = Driver(trie, 7).Force({2, 6, 11})[0];
  EXPECT_EQ(valid.leaf, trie.FindLeaf({2, 6, 11}));
  const Scored want = ScoreLeaf(AllLeaves(trie), {2, 6, 11}, 7);
  EXPECT_NEAR(Sum(valid.log_probs_full), want.full, 1e-5);
  EXPECT_NEAR(Sum(valid.log_probs_trie), want.trie, 1e-5);

  for (const Tokens& tokens : std::vector<Tokens>{{2, 6, 8}, {2, 7, 8}, {0, 0, 0}}) {
    const Completion invalid = Driver(trie, 7).Force(tokens)[0];
    EXPECT_EQ(invalid.leaf, -1);
    EXPECT_THAT(invalid.log_probs_trie, testing::IsEmpty());
    EXPECT_THAT(invalid.log_probs_full, testing::SizeIs(3));
  }
}

TEST(StepTest, LogSumExpOfLargeLogitsDoesNotOverflow) {
  const std::vector<float> logits = {5000, 5000, -5000};
  EXPECT_NEAR(LogSumExp(logits.data(), {0, 1}), 5000 + std::log(2.0), 1e-9);
  EXPECT_NEAR(LogSumExp(logits.data(), {2}), -5000, 1e-9);
}

}  // namespace
}  // namespace sluice

#include "common/decode/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "common/catalog/vocabulary.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Tokens = std::vector<int32_t>;

constexpr int kCodes = 5;

// 24 items on three levels of five codes, some prefixes shared, two items on one leaf.
std::shared_ptr<const Trie> SmallTrie() {
  const SidVocabulary vocabulary{3, kCodes};
  std::vector<int32_t> tokens;
  for (int32_t item = 0; item < 24; ++item) {
    const int32_t known = item == 23 ? 0 : item;
    tokens.push_back(vocabulary.Token(0, known % 3));
    tokens.push_back(vocabulary.Token(1, known % 5));
    tokens.push_back(vocabulary.Token(2, (known * known / 2) % 4));
  }
  return std::make_shared<const Trie>(*Trie::Build(3, tokens));
}

PolicyConfig TinyConfig() {
  PolicyConfig config;
  config.architecture = PolicyArchitecture::kQwen3;
  config.vocab_size = SidVocabulary{3, kCodes}.size();
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 8;
  config.max_positions = 64;
  config.tie_embeddings = false;
  config.initializer_range = 0.4;  // far from uniform, so that beams have something to choose
  config.begin_token = SidVocabulary::kBegin;
  return config;
}

std::unique_ptr<Policy> TinyPolicy(const std::shared_ptr<const Trie>& trie, at::ScalarType dtype = at::kDouble,
                                   uint64_t seed = 1, PolicyConfig config = TinyConfig()) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::Create(config, trie, seed, dtype);
  EXPECT_TRUE(policy.ok()) << policy.status();
  PlaceForTest(policy->get());
  return *std::move(policy);
}

DecodePrompt PromptOf(PromptInput input, std::vector<int32_t> excluded = {}) {
  DecodePrompt prompt;
  prompt.input = std::move(input);
  prompt.excluded_leaves = std::move(excluded);
  return prompt;
}

// Three prompts of different lengths.
std::vector<DecodePrompt> SomePrompts() {
  return {PromptOf({1, 3, 8, 13}), PromptOf({1, 4, 9, 14, 5, 10, 15, 3, 9, 13}), PromptOf({1})};
}

// log_softmax of the logits after `prefix`, which is computed as a prompt of its own: no cache, no tree.
std::vector<double> NextLogProbs(Policy& policy, PromptInput prompt, const Tokens& prefix) {
  const c10::InferenceMode inference;
  prompt.insert(prompt.end(), prefix.begin(), prefix.end());
  absl::StatusOr<Policy::Prefilled> prefilled = policy.Prefill({prompt}, 0);
  EXPECT_TRUE(prefilled.ok()) << prefilled.status();
  const at::Tensor log_probs = at::log_softmax(policy.Logits(prefilled->hidden).to(at::kCPU, at::kDouble), 1);
  return {log_probs.const_data_ptr<double>(), log_probs.const_data_ptr<double>() + log_probs.size(1)};
}

std::vector<Tokens> AllLeaves(const Trie& trie) {
  std::vector<Tokens> leaves;
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
    const absl::Span<const int32_t> tokens = trie.TokensOfLeaf(leaf);
    leaves.emplace_back(tokens.begin(), tokens.end());
  }
  return leaves;
}

bool StartsWith(const Tokens& tokens, const Tokens& prefix) {
  return std::equal(prefix.begin(), prefix.end(), tokens.begin());
}

struct Scored {
  Tokens tokens;
  std::vector<double> full;
  std::vector<double> trie;

  double Sum(LogProbSpace space) const {
    const std::vector<double>& values = space == LogProbSpace::kFull ? full : trie;
    return std::accumulate(values.begin(), values.end(), 0.0);
  }
};

// The chain rule over whole prompts; legal children found by looking at every leaf.
Scored ScoreNaively(Policy& policy, const std::vector<Tokens>& leaves, const PromptInput& prompt,
                    const Tokens& tokens) {
  Scored scored{tokens, {}, {}};
  Tokens prefix;
  for (const int32_t token : tokens) {
    const std::vector<double> log_probs = NextLogProbs(policy, prompt, prefix);
    std::set<int32_t> legal;
    for (const Tokens& leaf : leaves) {
      if (StartsWith(leaf, prefix)) legal.insert(leaf[prefix.size()]);
    }
    double mass = 0;
    for (const int32_t child : legal) mass += std::exp(log_probs[child]);
    scored.full.push_back(log_probs[token]);
    scored.trie.push_back(log_probs[token] - std::log(mass));
    prefix.push_back(token);
  }
  return scored;
}

void ExpectSame(const Completion& got, const Scored& want, double tolerance) {
  ASSERT_EQ(got.tokens, want.tokens);
  ASSERT_EQ(got.log_probs_full.size(), want.full.size());
  ASSERT_EQ(got.log_probs_trie.size(), want.trie.size());
  for (size_t t = 0; t < want.full.size(); ++t) {
    EXPECT_NEAR(got.log_probs_full[t], want.full[t], tolerance);
    EXPECT_NEAR(got.log_probs_trie[t], want.trie[t], tolerance);
  }
}

std::vector<Scored> RankNaively(Policy& policy, const Trie& trie, const PromptInput& prompt, LogProbSpace space) {
  const std::vector<Tokens> leaves = AllLeaves(trie);
  std::vector<Scored> ranked;
  for (const Tokens& leaf : leaves) ranked.push_back(ScoreNaively(policy, leaves, prompt, leaf));
  std::sort(ranked.begin(), ranked.end(),
            [space](const Scored& a, const Scored& b) { return a.Sum(space) > b.Sum(space); });
  return ranked;
}

TEST(DecodeTest, BeamsAsWideAsTheCatalogAreItsExactOrder) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const std::vector<DecodePrompt> prompts = SomePrompts();
  for (const LogProbSpace space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
    const auto beams = ConstrainedBeamSearch(*policy, *trie, prompts, 40, space);
    ASSERT_TRUE(beams.ok()) << beams.status();
    for (size_t b = 0; b < prompts.size(); ++b) {
      const std::vector<Scored> want = RankNaively(*policy, *trie, prompts[b].input, space);
      ASSERT_THAT((*beams)[b], SizeIs(trie->num_leaves()));
      for (size_t i = 0; i < want.size(); ++i) {
        ExpectSame((*beams)[b][i], want[i], 1e-6);
        EXPECT_EQ((*beams)[b][i].leaf, trie->FindLeaf(want[i].tokens));
      }
    }
  }
}

TEST(DecodeTest, NarrowBeamsEqualASlowBeamSearch) {
  const auto trie = SmallTrie();
  const std::vector<Tokens> leaves = AllLeaves(*trie);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const auto policy = TinyPolicy(trie, at::kDouble, seed);
    const std::vector<DecodePrompt> prompts = SomePrompts();
    for (const int width : {1, 2, 5}) {
      const auto beams = ConstrainedBeamSearch(*policy, *trie, prompts, width, LogProbSpace::kFull);
      ASSERT_TRUE(beams.ok()) << beams.status();
      for (size_t b = 0; b < prompts.size(); ++b) {
        std::vector<std::pair<double, Tokens>> kept = {{0.0, {}}};
        for (size_t level = 0; level < 3; ++level) {
          std::set<std::pair<double, Tokens>> candidates;
          for (const auto& [negative, prefix] : kept) {
            const std::vector<double> log_probs = NextLogProbs(*policy, prompts[b].input, prefix);
            for (const Tokens& leaf : leaves) {
              if (!StartsWith(leaf, prefix)) continue;
              const Tokens longer(leaf.begin(), leaf.begin() + static_cast<int>(level) + 1);
              candidates.insert({negative - log_probs[longer.back()], longer});
            }
          }
          kept.assign(candidates.begin(),
                      std::next(candidates.begin(), std::min<int>(width, static_cast<int>(candidates.size()))));
        }
        ASSERT_THAT((*beams)[b], SizeIs(kept.size()));
        for (size_t i = 0; i < kept.size(); ++i) {
          EXPECT_EQ((*beams)[b][i].tokens, kept[i].second) << "width " << width << ", prompt " << b;
        }
      }
    }
  }
}

TEST(DecodeTest, ExcludedLeavesNeverComeAndOthersTakeTheirPlaces) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const PromptInput input = {1, 3, 8, 13};
  const std::vector<Scored> ranked = RankNaively(*policy, *trie, input, LogProbSpace::kFull);
  // The five best are excluded: the beams must be the next ones, with unchanged log-probabilities.
  std::vector<int32_t> excluded;
  for (size_t i = 0; i < 5; ++i) excluded.push_back(trie->FindLeaf(ranked[i].tokens));
  std::sort(excluded.begin(), excluded.end());
  const auto beams =
      ConstrainedBeamSearch(*policy, *trie, {PromptOf(input, excluded), PromptOf(input)}, 40, LogProbSpace::kFull);
  ASSERT_TRUE(beams.ok()) << beams.status();
  ASSERT_THAT((*beams)[0], SizeIs(ranked.size() - 5));
  for (size_t i = 5; i < ranked.size(); ++i) ExpectSame((*beams)[0][i - 5], ranked[i], 1e-6);
  EXPECT_THAT((*beams)[1], SizeIs(ranked.size()));

  const auto samples = SampleCompletions(*policy, *trie, {PromptOf(input, excluded)}, 300, 1, {7});
  ASSERT_TRUE(samples.ok()) << samples.status();
  for (const Completion& sample : (*samples)[0]) {
    EXPECT_FALSE(std::binary_search(excluded.begin(), excluded.end(), sample.leaf));
  }
}

TEST(DecodeTest, APromptWithEverythingExcludedHasNoCompletionsAndHarmsNobody) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  std::vector<int32_t> all(trie->num_leaves());
  std::iota(all.begin(), all.end(), 0);
  std::vector<int32_t> all_but_one(all.begin() + 1, all.end());
  const std::vector<DecodePrompt> prompts = {PromptOf({1, 3}, all), PromptOf({1, 3}, all_but_one), PromptOf({1, 3})};
  const auto beams = ConstrainedBeamSearch(*policy, *trie, prompts, 4, LogProbSpace::kTrie);
  const auto samples = SampleCompletions(*policy, *trie, prompts, 3, 1, {1, 2, 3});
  ASSERT_TRUE(beams.ok() && samples.ok()) << beams.status() << samples.status();
  EXPECT_THAT((*beams)[0], IsEmpty());
  EXPECT_THAT((*samples)[0], IsEmpty());
  ASSERT_THAT((*beams)[1], SizeIs(1));
  EXPECT_EQ((*beams)[1][0].leaf, 0);
  ASSERT_THAT((*samples)[1], SizeIs(3));
  EXPECT_EQ((*samples)[1][2].leaf, 0);
  EXPECT_THAT((*beams)[2], SizeIs(4));
}

TEST(DecodeTest, SamplesFollowTheExactDistributionOverTheCatalog) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie, at::kFloat);
  const std::vector<Tokens> leaves = AllLeaves(*trie);
  const PromptInput input = {1, 3, 8, 13};
  constexpr int kDraws = 6000;
  for (const double temperature : {1.0, 2.0}) {
    // Enumerated: at each level the children's logits over the temperature, renormalised.
    std::vector<double> exact;
    for (const Tokens& leaf : leaves) {
      double probability = 1;
      Tokens prefix;
      for (const int32_t token : leaf) {
        const std::vector<double> log_probs = NextLogProbs(*policy, input, prefix);
        std::set<int32_t> legal;
        for (const Tokens& other : leaves) {
          if (StartsWith(other, prefix)) legal.insert(other[prefix.size()]);
        }
        double mass = 0;
        for (const int32_t child : legal) mass += std::exp(log_probs[child] / temperature);
        probability *= std::exp(log_probs[token] / temperature) / mass;
        prefix.push_back(token);
      }
      exact.push_back(probability);
    }
    const auto samples = SampleCompletions(*policy, *trie, {PromptOf(input)}, kDraws, temperature, {99});
    ASSERT_TRUE(samples.ok()) << samples.status();
    std::map<int32_t, double> counts;
    for (const Completion& sample : (*samples)[0]) ++counts[sample.leaf];
    // Leaves that are expected less than five times are put together, as the statistic asks for.
    double statistic = 0, rare_expected = 0, rare_count = 0;
    int outcomes = 0;
    for (size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      const double expected = exact[leaf] * kDraws;
      const double count = counts[static_cast<int32_t>(leaf)];
      if (expected < 5) {
        rare_expected += expected;
        rare_count += count;
        continue;
      }
      statistic += (count - expected) * (count - expected) / expected;
      ++outcomes;
    }
    if (rare_expected > 0) statistic += (rare_count - rare_expected) * (rare_count - rare_expected) / rare_expected;
    EXPECT_GT(outcomes, 8);
    EXPECT_LT(statistic, 51.2);  // the 0.999 quantile at 24 degrees of freedom, more than there are
    EXPECT_GT(statistic, 1.0);   // counts that fit too well are not draws
  }
}

TEST(DecodeTest, ASampleDependsOnItsSeedAndNotOnItsBatch) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const std::vector<DecodePrompt> prompts = SomePrompts();
  const auto together = SampleCompletions(*policy, *trie, prompts, 6, 1, {11, 12, 13});
  const auto alone = SampleCompletions(*policy, *trie, {prompts[1]}, 6, 1, {12});
  const auto fewer = SampleCompletions(*policy, *trie, {prompts[1]}, 2, 1, {12});
  const auto other = SampleCompletions(*policy, *trie, {prompts[1]}, 6, 1, {14});
  ASSERT_TRUE(together.ok() && alone.ok() && fewer.ok() && other.ok());
  const auto leaves = [](const std::vector<Completion>& completions) {
    std::vector<int32_t> result;
    for (const Completion& completion : completions) result.push_back(completion.leaf);
    return result;
  };
  EXPECT_EQ(leaves((*together)[1]), leaves((*alone)[0]));
  EXPECT_EQ((*fewer)[0][1].leaf, (*alone)[0][1].leaf);
  EXPECT_NE(leaves((*other)[0]), leaves((*alone)[0]));
}

TEST(DecodeTest, RecordedLogProbabilitiesAreThoseOfTeacherForcing) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const std::vector<DecodePrompt> prompts = SomePrompts();
  const auto samples = SampleCompletions(*policy, *trie, prompts, 8, 3.0, {1, 2, 3});
  ASSERT_TRUE(samples.ok()) << samples.status();
  std::vector<std::vector<Tokens>> tokens(prompts.size());
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (const Completion& sample : (*samples)[b]) tokens[b].push_back(sample.tokens);
  }
  const auto scored = ScoreCompletions(*policy, *trie, prompts, tokens);
  ASSERT_TRUE(scored.ok()) << scored.status();
  const std::vector<Tokens> leaves = AllLeaves(*trie);
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (size_t i = 0; i < tokens[b].size(); ++i) {
      const Scored want = ScoreNaively(*policy, leaves, prompts[b].input, tokens[b][i]);
      ExpectSame((*samples)[b][i], want, 1e-6);
      ExpectSame((*scored)[b][i], want, 1e-6);
      EXPECT_EQ((*scored)[b][i].leaf, (*samples)[b][i].leaf);
    }
  }
}

TEST(DecodeTest, IllegalAndShortCompletionsAreScoredWithoutTrieLogProbabilities) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const std::vector<DecodePrompt> prompts = {PromptOf({1, 3, 8}), PromptOf({1})};
  const auto scored = ScoreCompletions(*policy, *trie, prompts, {{{0, 2, 17, 4}, {3}}, {}});
  ASSERT_TRUE(scored.ok()) << scored.status();
  ASSERT_THAT((*scored)[0], SizeIs(2));
  EXPECT_THAT((*scored)[1], IsEmpty());
  Tokens prefix;
  for (size_t t = 0; t < 4; ++t) {
    const int32_t token = (*scored)[0][0].tokens[t];
    EXPECT_NEAR((*scored)[0][0].log_probs_full[t], NextLogProbs(*policy, {1, 3, 8}, prefix)[token], 1e-6);
    prefix.push_back(token);
  }
  for (const Completion& completion : (*scored)[0]) {
    EXPECT_EQ(completion.leaf, -1);
    EXPECT_THAT(completion.log_probs_trie, IsEmpty());
  }
}

TEST(DecodeTest, UnconstrainedBeamsAreTheBestSequencesAndNameTheInvalidOnes) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const PromptInput input = {1, 4, 9, 14};
  const int32_t vocabulary = static_cast<int32_t>(policy->config().vocab_size);
  // Width V^2: no prefix is ever cut, so the first beams are the best of all V^3 sequences.
  const auto beams = UnconstrainedBeamSearch(*policy, *trie, {PromptOf(input)}, vocabulary * vocabulary);
  ASSERT_TRUE(beams.ok()) << beams.status();
  std::vector<std::pair<double, Tokens>> all;
  const std::vector<double> first = NextLogProbs(*policy, input, {});
  for (int32_t a = 0; a < vocabulary; ++a) {
    const std::vector<double> second = NextLogProbs(*policy, input, {a});
    for (int32_t b = 0; b < vocabulary; ++b) {
      const std::vector<double> third = NextLogProbs(*policy, input, {a, b});
      for (int32_t c = 0; c < vocabulary; ++c) all.push_back({-(first[a] + second[b] + third[c]), {a, b, c}});
    }
  }
  std::sort(all.begin(), all.end());
  int invalid = 0;
  for (size_t i = 0; i < 50; ++i) {
    const Completion& beam = (*beams)[0][i];
    EXPECT_EQ(beam.tokens, all[i].second);
    EXPECT_EQ(beam.leaf, trie->FindLeaf(all[i].second));
    EXPECT_EQ(beam.log_probs_trie.empty(), beam.leaf < 0);
    invalid += beam.leaf < 0;
  }
  EXPECT_GT(invalid, 0);
}

TEST(DecodeTest, OnePlanGivesWhatSeparateCallsGive) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  std::vector<DecodePrompt> prompts = SomePrompts();
  prompts[0].excluded_leaves = {0, 4};
  prompts[0].target_leaf = 4;  // also excluded: a target is scored all the same
  prompts[1].target_leaf = 9;
  for (size_t b = 0; b < 3; ++b) prompts[b].seed = 20 + b;
  DecodePlan plan;
  plan.beams = 3;
  plan.beam_space = LogProbSpace::kTrie;
  plan.samples = 4;
  plan.temperature = 1.5;
  plan.unconstrained_beams = 2;
  const auto together = Decode(*policy, *trie, prompts, plan);
  const auto beams = ConstrainedBeamSearch(*policy, *trie, prompts, 3, LogProbSpace::kTrie);
  const auto samples = SampleCompletions(*policy, *trie, prompts, 4, 1.5, {20, 21, 22});
  const auto unconstrained = UnconstrainedBeamSearch(*policy, *trie, prompts, 2);
  ASSERT_TRUE(together.ok() && beams.ok() && samples.ok() && unconstrained.ok()) << together.status();
  const auto expect_same = [](const std::vector<Completion>& got, const std::vector<Completion>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].tokens, want[i].tokens);
      EXPECT_EQ(got[i].leaf, want[i].leaf);
      EXPECT_THAT(got[i].log_probs_full, testing::Pointwise(testing::FloatNear(1e-5f), want[i].log_probs_full));
    }
  };
  const std::vector<Tokens> leaves = AllLeaves(*trie);
  for (size_t b = 0; b < 3; ++b) {
    expect_same((*together)[b].beams, (*beams)[b]);
    expect_same((*together)[b].samples, (*samples)[b]);
    expect_same((*together)[b].unconstrained, (*unconstrained)[b]);
    if (prompts[b].target_leaf < 0) {
      EXPECT_THAT((*together)[b].target.tokens, IsEmpty());
      continue;
    }
    EXPECT_EQ((*together)[b].target.leaf, prompts[b].target_leaf);
    ExpectSame((*together)[b].target, ScoreNaively(*policy, leaves, prompts[b].input, leaves[prompts[b].target_leaf]),
               1e-6);
  }
}

// Rows that a call sends through the layers after the prompts; checks that those went through once.
int64_t AppendedRows(Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts, const DecodePlan& plan,
                     std::vector<DecodeResult>* results = nullptr) {
  const PolicyWork before = policy.work();
  const auto decoded = Decode(policy, trie, prompts, plan);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  int64_t positions = 0;
  for (const DecodePrompt& prompt : prompts) positions += static_cast<int64_t>(prompt.input.size());
  EXPECT_EQ(policy.work().prefilled - before.prefilled, positions);
  if (results != nullptr) *results = *decoded;
  return policy.work().appended - before.appended;
}

TEST(DecodeTest, ASearchForwardsARowForEachBeamAndLevelButTheLast) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  DecodePlan plan;
  plan.beams = 4;
  // Three first tokens are all there are; then 4 beams. The last level's tokens are read off and not forwarded.
  EXPECT_EQ(AppendedRows(*policy, *trie, SomePrompts(), plan), 3 * (3 + 4));
}

TEST(DecodeTest, RowsWithEqualTokensAreForwardedOnce) {
  if (TestPlacement().takes_device_path()) GTEST_SKIP() << "a promise of the processor's path alone";
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  std::vector<DecodePrompt> prompts = SomePrompts();
  DecodePlan plan;
  plan.samples = 40;
  std::vector<DecodeResult> results;
  const int64_t rows = AppendedRows(*policy, *trie, prompts, plan, &results);
  int64_t prefixes = 0;
  for (const DecodeResult& result : results) {
    std::set<Tokens> distinct;
    for (const Completion& sample : result.samples) {
      for (int length = 1; length <= 2; ++length) {
        distinct.emplace(sample.tokens.begin(), sample.tokens.begin() + length);
      }
    }
    prefixes += static_cast<int64_t>(distinct.size());
  }
  EXPECT_EQ(rows, prefixes);
  EXPECT_LT(rows, 3 * 2 * 40);

  // Beams as wide as the catalog hold every legal prefix: samples and targets cost no rows beside them.
  plan.samples = 0;
  plan.beams = 30;
  const int64_t beams_alone = AppendedRows(*policy, *trie, prompts, plan);
  plan.samples = 40;
  for (DecodePrompt& prompt : prompts) prompt.target_leaf = 7;
  EXPECT_EQ(AppendedRows(*policy, *trie, prompts, plan), beams_alone);
}

TEST(DecodeTest, FloatAndDoublePoliciesAgree) {
  const auto trie = SmallTrie();
  const auto in_double = TinyPolicy(trie, at::kDouble);
  const auto in_float = TinyPolicy(trie, at::kFloat);
  {
    const at::NoGradGuard no_grad;
    in_float->parameters().copy_(in_double->parameters());
  }
  const auto want = ConstrainedBeamSearch(*in_double, *trie, SomePrompts(), 30, LogProbSpace::kFull);
  const auto got = ConstrainedBeamSearch(*in_float, *trie, SomePrompts(), 30, LogProbSpace::kFull);
  ASSERT_TRUE(want.ok() && got.ok());
  for (size_t b = 0; b < want->size(); ++b) {
    std::map<int32_t, double> sums;
    for (const Completion& beam : (*want)[b]) {
      sums[beam.leaf] = std::accumulate(beam.log_probs_full.begin(), beam.log_probs_full.end(), 0.0);
    }
    for (const Completion& beam : (*got)[b]) {
      EXPECT_NEAR(std::accumulate(beam.log_probs_full.begin(), beam.log_probs_full.end(), 0.0), sums.at(beam.leaf),
                  1e-4);
    }
  }
}

TEST(DecodeTest, AMergedPolicyDecodesFromItemPositions) {
  const auto trie = SmallTrie();
  PolicyConfig config = TinyConfig();
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = trie->num_leaves();
  config.catalog_version = trie->version();
  const auto policy = TinyPolicy(trie, at::kDouble, 1, config);
  const absl::StatusOr<PromptInput> input = policy->EncodePrompt({3, 9, 23});
  ASSERT_TRUE(input.ok()) << input.status();
  ASSERT_THAT(*input, SizeIs(4));
  const auto beams = ConstrainedBeamSearch(*policy, *trie, {PromptOf(*input)}, 40, LogProbSpace::kTrie);
  ASSERT_TRUE(beams.ok()) << beams.status();
  const std::vector<Scored> want = RankNaively(*policy, *trie, *input, LogProbSpace::kTrie);
  for (size_t i = 0; i < want.size(); ++i) ExpectSame((*beams)[0][i], want[i], 1e-6);
}

TEST(DecodeTest, BadRequestsAreNamed) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie);
  const std::vector<DecodePrompt> good = SomePrompts();
  const auto expect_bad = [](const absl::Status& status, const std::string& message) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  expect_bad(ConstrainedBeamSearch(*policy, *trie, good, 0, LogProbSpace::kFull).status(), "beam width of at least 1");
  expect_bad(ConstrainedBeamSearch(*policy, *trie, {}, 2, LogProbSpace::kFull).status(), "at least one prompt");
  expect_bad(UnconstrainedBeamSearch(*policy, *trie, good, -1).status(), "beam width of at least 1");
  expect_bad(SampleCompletions(*policy, *trie, good, 2, 0, {1, 2, 3}).status(), "temperature above 0");
  expect_bad(SampleCompletions(*policy, *trie, good, 2, std::nan(""), {1, 2, 3}).status(), "temperature above 0");
  expect_bad(SampleCompletions(*policy, *trie, good, 2, 1, {1, 2}).status(), "want 3 seeds, got 2");
  expect_bad(ConstrainedBeamSearch(*policy, *trie, {PromptOf({1}, {3, 2})}, 2, LogProbSpace::kFull).status(),
             "ascending");
  expect_bad(ConstrainedBeamSearch(*policy, *trie, {PromptOf({1}, {1000})}, 2, LogProbSpace::kFull).status(), "1000");
  expect_bad(ConstrainedBeamSearch(*policy, *trie, {PromptOf({1, 99})}, 2, LogProbSpace::kFull).status(), "99");
  expect_bad(Decode(*policy, *trie, good, DecodePlan()).status(), "got none");
  expect_bad(ScoreCompletions(*policy, *trie, good, {{}, {{}}, {}}).status(), "completion 0 of prompt 1");
  expect_bad(ScoreCompletions(*policy, *trie, good, {{}}).status(), "3 prompts and 1 lists");
  expect_bad(ScoreCompletions(*policy, *trie, good, {{{50}}, {}, {}}).status(), "50");

  const Trie foreign = *Trie::Build(1, std::vector<int32_t>{5, 4000});
  expect_bad(ConstrainedBeamSearch(*policy, foreign, good, 2, LogProbSpace::kFull).status(), "token 4000");
  expect_bad(UnconstrainedBeamSearch(*policy, foreign, good, 2).status(), "token 4000");
  expect_bad(ScoreCompletions(*policy, foreign, good, {{{5}}, {}, {}}).status(), "token 4000");
}

TEST(DecodeTest, DamagedWeightsAreAnErrorAndNotANumber) {
  const auto trie = SmallTrie();
  const auto policy = TinyPolicy(trie, at::kFloat);
  {
    const at::NoGradGuard no_grad;
    policy->parameters().fill_(std::nan(""));
  }
  EXPECT_EQ(ConstrainedBeamSearch(*policy, *trie, SomePrompts(), 2, LogProbSpace::kFull).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(ScoreCompletions(*policy, *trie, SomePrompts(), {{{3, 8, 13}}, {}, {}}).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice

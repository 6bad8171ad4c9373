// A sampled and scored group without a policy or a ranker: random items of the catalog with plausible numbers. Useful
// for benchmarks of what lies around them.
#ifndef SLUICE_TESTS_TESTING_SCRIPTED_GROUP_H_
#define SLUICE_TESTS_TESTING_SCRIPTED_GROUP_H_

#include "common/catalog/dataset.h"
#include "common/random/random.h"
#include "common/types/group.h"

namespace sluice {

// Ordinal, attempt, lease and version are the caller's to fill in; behavior_version is 1.
inline ScoredGroup ScriptedGroup(const Dataset& dataset, int completions, int negatives, Random* random) {
  const Trie& trie = dataset.trie();
  const auto leaf = [&] { return static_cast<int32_t>(random->Below(static_cast<uint64_t>(trie.num_leaves()))); };
  const auto log_probs = [&] {
    std::vector<float> values;
    for (int level = 0; level < trie.levels(); ++level) values.push_back(-static_cast<float>(random->Uniform()));
    return values;
  };
  ScoredGroup group;
  group.attempt = 1;
  group.behavior_version = 1;
  group.catalog_version = trie.version();
  group.score_status = ScoreStatus::kOk;
  group.ranker_version = "scripted";
  ScoreHead& head = group.heads.emplace_back();
  head.name = "score";
  head.target_score = 0.5f;
  for (int g = 0; g < completions; ++g) {
    Completion& completion = group.completions.emplace_back();
    completion.leaf = leaf();
    const auto tokens = trie.TokensOfLeaf(completion.leaf);
    completion.tokens.assign(tokens.begin(), tokens.end());
    completion.log_probs_full = log_probs();
    completion.log_probs_trie = log_probs();
    head.completion_scores.push_back(static_cast<float>(random->Uniform()));
  }
  for (int m = 0; m < negatives; ++m) {
    group.negative_leaves.push_back(leaf());
    head.negative_scores.push_back(static_cast<float>(random->Uniform()));
  }
  group.target_log_probs_full = log_probs();
  group.target_log_probs_trie = log_probs();
  return group;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_SCRIPTED_GROUP_H_

// What tests of training steps share: the slow decoder's losses and ranks as threads.
#ifndef SLUICE_TESTS_LEARNER_TRAIN_TRAIN_TESTING_H_
#define SLUICE_TESTS_LEARNER_TRAIN_TRAIN_TESTING_H_

#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/collective/collective.h"
#include "common/model/policy.h"
#include "common/sync/memory_kv_store.h"
#include "common/sync/thread.h"
#include "gtest/gtest.h"
#include "tests/common/model/model_testing.h"

namespace sluice::learner {

// Logits that predict tokens[0], tokens[1], ... after `prompt`, from one whole sequence, [T, V]. No branch, no packing.
inline at::Tensor NaiveTokenLogits(const PolicyConfig& config, const Trie* trie,
                                   const std::map<std::string, at::Tensor>& parameters, const PromptInput& prompt,
                                   absl::Span<const int32_t> tokens) {
  PromptInput sequence = prompt;
  sequence.insert(sequence.end(), tokens.begin(), tokens.end());
  const at::Tensor hidden = testing::NaiveHidden(config, trie, parameters, sequence);
  return testing::NaiveLogits(config, parameters, hidden)
      .slice(0, static_cast<int64_t>(prompt.size()) - 1, static_cast<int64_t>(sequence.size()) - 1);
}

// log p(token | prefix) over the whole vocabulary, [T].
inline at::Tensor NaiveFullLogProbs(const at::Tensor& logits, absl::Span<const int32_t> tokens) {
  std::vector<at::Tensor> log_probs;
  for (size_t t = 0; t < tokens.size(); ++t) {
    log_probs.push_back(logits[static_cast<int64_t>(t)].log_softmax(0)[tokens[t]]);
  }
  return at::stack(log_probs);
}

// The same renormalised over legal continuations, found by looking through every item of the catalog. [T]
inline at::Tensor NaiveTrieLogProbs(const at::Tensor& logits, absl::Span<const int32_t> tokens, const Trie& trie) {
  std::vector<at::Tensor> log_probs;
  for (size_t t = 0; t < tokens.size(); ++t) {
    std::vector<int64_t> legal;
    for (int64_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
      const absl::Span<const int32_t> other = trie.TokensOfLeaf(static_cast<int32_t>(leaf));
      if (std::equal(tokens.begin(), tokens.begin() + t, other.begin())) legal.push_back(other[t]);
    }
    std::sort(legal.begin(), legal.end());
    legal.erase(std::unique(legal.begin(), legal.end()), legal.end());
    const at::Tensor row = logits[static_cast<int64_t>(t)];
    log_probs.push_back(row[tokens[t]] - row.index_select(0, torch::tensor(legal, torch::kLong)).logsumexp(0));
  }
  return at::stack(log_probs);
}

// Expects the arena's gradient to be what autograd gave the slow decoder's parameters; 0 where it gave none.
inline void ExpectGradients(const Policy& policy, const std::map<std::string, at::Tensor>& naive, double tolerance) {
  const std::map<std::string, at::Tensor> gradients = testing::NamedGradients(policy);
  double largest = 0;
  for (const auto& [name, gradient] : gradients) {
    const at::Tensor want = naive.at(name).grad().defined() ? naive.at(name).grad() : torch::zeros_like(gradient);
    EXPECT_LE((gradient - want).abs().max().item<double>(), tolerance) << name;
    largest = std::max(largest, want.abs().max().item<double>());
  }
  EXPECT_GT(largest, 1e-4) << "nothing was compared";
}

// Runs `body` on each rank of a Gloo group, ranks as threads; a group of one without Gloo.
inline void RunCollective(int world_size, const std::function<void(Collective&)>& body) {
  if (world_size == 1) {
    body(*MakeSingleCollective());
    return;
  }
  auto store = std::make_shared<MemoryKvStore>();
  std::vector<Thread> ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    ranks.push_back(StartThread("rank", [&, rank] {
      absl::StatusOr<std::unique_ptr<Collective>> group = MakeGlooCollective(store, rank, world_size, 1, {});
      ASSERT_TRUE(group.ok()) << group.status();
      body(**group);
    }));
  }
}

}  // namespace sluice::learner

#endif  // SLUICE_TESTS_LEARNER_TRAIN_TRAIN_TESTING_H_

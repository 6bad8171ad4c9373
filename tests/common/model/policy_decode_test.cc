// Decoding with the cache against the training pass: the same sequences, the same logits.
#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "common/model/policy.h"
#include "common/random/random.h"
#include "tests/common/model/model_testing.h"
#include "tests/testing/placement.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kCodes = 5;

class PolicyDecodeTest : public ::testing::Test {
 protected:
  std::vector<PromptInput> Prompts() {
    return {{1, MergedItemEntry(3), MergedItemEntry(8)}, {1}, {1, 5, MergedItemEntry(0), 7, 9, MergedItemEntry(30), 4}};
  }

  // Hidden states of the last entry of each sequence, by the training pass.
  at::Tensor LastHidden(Policy& policy, const std::vector<PromptInput>& sequences) {
    at::NoGradGuard no_grad;
    TreeBatch batch;
    batch.prompts = sequences;
    const TreeOutput output = policy.ForwardTree(batch).value();
    std::vector<at::Tensor> rows;
    for (size_t i = 0; i < sequences.size(); ++i) {
      rows.push_back(output.hidden[output.trunk_first_row[i] + static_cast<int64_t>(sequences[i].size()) - 1]);
    }
    return at::stack(rows);
  }

  // Random beams of 3, 5, then 2 rows a prompt, each step re-ordered; compares every step.
  void ExpectDecodingEqualsTraining(const PolicyConfig& config, at::ScalarType dtype, double tolerance) {
    const std::unique_ptr<Policy> policy = RandomPolicy(config, trie_, 3, dtype);
    c10::InferenceMode inference;
    Random random(5);
    const std::vector<PromptInput> prompts = Prompts();
    Policy::Prefilled prefilled = policy->Prefill(prompts, 3).value();
    auto difference = [&](const at::Tensor& hidden, const std::vector<PromptInput>& sequences) {
      return (policy->Logits(hidden) - policy->Logits(LastHidden(*policy, sequences))).abs().max().item<double>();
    };
    EXPECT_LT(difference(prefilled.hidden, prompts), tolerance);
    std::vector<PromptInput> rows = prompts;
    int width = 1;
    for (const int next_width : {3, 5, 2}) {
      std::vector<int32_t> tokens, parents;
      std::vector<PromptInput> next;
      for (size_t b = 0; b < prompts.size(); ++b) {
        for (int w = 0; w < next_width; ++w) {
          parents.push_back(static_cast<int32_t>(b * width + random.Below(width)));
          tokens.push_back(static_cast<int32_t>(random.Below(config.vocab_size)));
          next.push_back(rows[parents.back()]);
          next.back().push_back(tokens.back());
        }
      }
      const at::Tensor hidden = policy->Step(prefilled.state.get(), tokens, parents, next_width).value();
      EXPECT_LT(difference(hidden, next), tolerance) << "width " << next_width;
      rows = next;
      width = next_width;
    }
  }

  std::shared_ptr<const Trie> trie_ = RandomTrie(40, kCodes, 7);
  PolicyConfig config_ = SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
};

TEST_F(PolicyDecodeTest, LogitsEqualTheTrainingPassInFloat64) {
  ExpectDecodingEqualsTraining(config_, at::kDouble, 1e-10);
}

TEST_F(PolicyDecodeTest, LogitsEqualTheTrainingPassInFloat32) {
  ExpectDecodingEqualsTraining(config_, at::kFloat, 1e-5);
}

TEST_F(PolicyDecodeTest, BiasesAndUntiedHeadsTakePart) {
  PolicyConfig config = SmallMergedConfig(PolicyArchitecture::kLlama, kCodes, *trie_);
  config.attention_bias = true;
  config.tie_embeddings = false;
  ExpectDecodingEqualsTraining(config, at::kDouble, 1e-10);
  ExpectDecodingEqualsTraining(SmallMergedConfig(PolicyArchitecture::kQwen2, kCodes, *trie_), at::kDouble, 1e-10);
}

TEST_F(PolicyDecodeTest, APromptDoesNotDependOnItsNeighbours) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kDouble);
  const std::vector<PromptInput> prompts = Prompts();
  const at::Tensor together = policy->Prefill(prompts, 0)->hidden;
  for (size_t b = 0; b < prompts.size(); ++b) {
    const at::Tensor alone = policy->Prefill({prompts[b]}, 0)->hidden;
    EXPECT_LT((together[static_cast<int64_t>(b)] - alone[0]).abs().max().item<double>(), 1e-12);
  }
}

TEST_F(PolicyDecodeTest, WrongStepsAreRefused) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kFloat);
  auto state = policy->Prefill({{1, 2}, {1}}, 2)->state;
  auto message = [&](std::vector<int32_t> tokens, std::vector<int32_t> parents, int width) {
    const absl::Status status = policy->Step(state.get(), tokens, parents, width).status();
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  };
  EXPECT_THAT(message({3, 4, 5}, {}, 2), HasSubstr("want tokens [4], got [3]"));
  EXPECT_THAT(message({3, 4, 5, 23}, {}, 2), HasSubstr("token 23 of row 3 is outside"));
  EXPECT_THAT(message({3}, {}, 0), HasSubstr("rows_per_prompt"));
  ASSERT_TRUE(policy->Step(state.get(), {3, 4, 5, 6}, {}, 2).ok());
  EXPECT_THAT(message({3, 4, 5, 6}, {0, 1}, 2), HasSubstr("want parents [4], got [2]"));
  EXPECT_THAT(message({3, 4, 5, 6}, {0, 1, 2, 1}, 2), HasSubstr("row 3 cannot continue row 1"));
  ASSERT_TRUE(policy->Step(state.get(), {3, 4, 5, 6}, {0, 1, 2, 3}, 2).ok());
  EXPECT_THAT(message({3, 4, 5, 6}, {0, 1, 2, 3}, 2), HasSubstr("made for 2 new tokens"));
  EXPECT_THAT(std::string(policy->Prefill({}, 1).status().message()), HasSubstr("at least one prompt"));
}

TEST_F(PolicyDecodeTest, DecodingStopsAtTheLastPosition) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kFloat);
  auto state = policy->Prefill({PromptInput(63, 1)}, 2)->state;
  ASSERT_TRUE(policy->Step(state.get(), {3}, {}, 1).ok());
  EXPECT_EQ(policy->Step(state.get(), {3}, {0}, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PolicyDecodeTest, PromptsMayHaveDifferentNumbersOfRowsAndNone) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, dtype);
    c10::InferenceMode inference;
    const std::vector<PromptInput> prompts = Prompts();
    auto state = policy->Prefill(prompts, 3)->state;
    ASSERT_TRUE(policy->Step(state.get(), {3, 4, 5, 6}, {}, std::vector<int32_t>{1, 3, 0}).ok());
    // Rows 1 and 3 of the second prompt go on, the first prompt's row goes on twice.
    const absl::StatusOr<at::Tensor> hidden =
        policy->Step(state.get(), {7, 8, 9, 10}, {0, 0, 3, 1}, std::vector<int32_t>{2, 2, 0});
    ASSERT_TRUE(hidden.ok()) << hidden.status();
    std::vector<PromptInput> wanted = {prompts[0], prompts[0], prompts[1], prompts[1]};
    const std::vector<std::vector<int32_t>> added = {{3, 7}, {3, 8}, {6, 9}, {4, 10}};
    for (size_t i = 0; i < 4; ++i) wanted[i].insert(wanted[i].end(), added[i].begin(), added[i].end());
    EXPECT_LT((*hidden - LastHidden(*policy, wanted)).abs().max().item<double>(), dtype == at::kDouble ? 1e-10 : 1e-5);
    EXPECT_THAT(std::string(policy->Step(state.get(), {3}, {0}, std::vector<int32_t>{1}).status().message()),
                HasSubstr("want rows_of_prompt [3], got [1]"));
    EXPECT_THAT(std::string(policy->Step(state.get(), {3}, {3}, std::vector<int32_t>{0, 0, 1}).status().message()),
                HasSubstr("row 0 cannot continue row 3"));
    const absl::StatusOr<at::Tensor> none = policy->Step(state.get(), {}, {}, std::vector<int32_t>{0, 0, 0});
    ASSERT_TRUE(none.ok()) << none.status();
    EXPECT_EQ(none->size(0), 0);
  }
}

// Counts the tensors' allocations and leaves them to torch's own allocator.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() { c10::SetCPUAllocator(this, kPriority); }
  ~CountingAllocator() override { c10::SetCPUAllocator(usual_, kPriority); }
  c10::DataPtr allocate(size_t bytes) override {
    ++count;
    return usual_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return usual_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { usual_->copy_data(to, from, bytes); }

  int64_t count = 0;

 private:
  static constexpr uint8_t kPriority = 100;
  c10::Allocator* const usual_ = c10::GetCPUAllocator();
};

// Trees that grow at any node, several rows of any depth a call, against the training pass of every row's sequence.
TEST_F(PolicyDecodeTest, AGrownTreeEqualsTheTrainingPassWhereverItGrows) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kDouble);
  c10::InferenceMode inference;
  Random random(11);
  const std::vector<PromptInput> prompts = Prompts();
  const int deepest = 4;
  Policy::Prefilled prefilled = policy->Prefill(prompts, deepest).value();
  struct Grown {
    size_t prompt;
    PromptInput sequence;
  };
  std::vector<Grown> grown;
  const int64_t before = policy->work().appended;
  for (int call = 0; call < 12; ++call) {
    std::vector<int32_t> tokens, rows_of_prompt;
    std::vector<int64_t> parents;
    std::vector<PromptInput> sequences;
    const size_t known = grown.size();
    for (size_t b = 0; b < prompts.size(); ++b) {
      const int rows = static_cast<int>(random.Below(4));  // none is fine
      rows_of_prompt.push_back(rows);
      for (int row = 0; row < rows; ++row) {
        std::vector<int64_t> may = {-1};
        for (size_t i = 0; i < known; ++i) {
          if (grown[i].prompt == b && grown[i].sequence.size() < prompts[b].size() + deepest) {
            may.push_back(static_cast<int64_t>(i));
          }
        }
        parents.push_back(may[random.Below(may.size())]);
        tokens.push_back(static_cast<int32_t>(random.Below(config_.vocab_size)));
        PromptInput sequence = parents.back() < 0 ? prompts[b] : grown[static_cast<size_t>(parents.back())].sequence;
        sequence.push_back(tokens.back());
        grown.push_back({b, sequence});
        sequences.push_back(sequence);
      }
    }
    const at::Tensor hidden = policy->Grow(prefilled.state.get(), tokens, parents, rows_of_prompt).value();
    ASSERT_EQ(hidden.size(0), static_cast<int64_t>(tokens.size()));
    if (tokens.empty()) continue;
    EXPECT_LT((hidden - LastHidden(*policy, sequences)).abs().max().item<double>(), 1e-10) << "call " << call;
  }
  EXPECT_GT(grown.size(), 30u);
  EXPECT_EQ(policy->work().appended - before, static_cast<int64_t>(grown.size()));
}

TEST_F(PolicyDecodeTest, WrongGrowthIsRefused) {
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kFloat);
  c10::InferenceMode inference;
  Policy::Prefilled prefilled = policy->Prefill(Prompts(), 2).value();
  DecodeState* state = prefilled.state.get();
  const auto code = [&](std::vector<int32_t> tokens, std::vector<int64_t> parents, std::vector<int32_t> rows) {
    return policy->Grow(state, tokens, parents, rows).status().code();
  };
  using Code = absl::StatusCode;
  EXPECT_EQ(code({3, 4}, {-1, -1}, {1, 1, 0}), Code::kOk);
  EXPECT_EQ(code({3}, {1}, {1, 0, 0}), Code::kInvalidArgument);  // prompt 1's row
  EXPECT_EQ(code({3}, {2}, {1, 0, 0}), Code::kInvalidArgument);  // no such row
  EXPECT_EQ(code({3}, {-2}, {1, 0, 0}), Code::kInvalidArgument);
  EXPECT_EQ(code({3}, {-1}, {1, 0}), Code::kInvalidArgument);  // two prompts' counts for three
  EXPECT_EQ(code({3}, {-1, -1}, {1, 0, 0}), Code::kInvalidArgument);
  EXPECT_EQ(code({999}, {-1}, {1, 0, 0}), Code::kInvalidArgument);
  EXPECT_EQ(code({3}, {0}, {1, 0, 0}), Code::kOk);
  EXPECT_EQ(code({3}, {2}, {1, 0, 0}), Code::kInvalidArgument);  // deeper than the state was made for
  EXPECT_EQ(policy->Grow(nullptr, {}, {}, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(policy->Step(state, {3, 3, 3}, {}, 1).status().code(), Code::kFailedPrecondition);
  Policy::Prefilled stepped = policy->Prefill(Prompts(), 2).value();
  ASSERT_TRUE(policy->Step(stepped.state.get(), {3, 3, 3}, {}, 1).ok());
  EXPECT_EQ(policy->Grow(stepped.state.get(), {3}, {-1}, {1, 0, 0}).status().code(), Code::kFailedPrecondition);
}

TEST_F(PolicyDecodeTest, AStepAllocatesTheResultsOfItsProductsAndNothingElse) {
  if (TestPlacement().takes_device_path()) GTEST_SKIP() << "a promise of the processor's path alone";
  const std::unique_ptr<Policy> policy = RandomPolicy(config_, trie_, 3, at::kDouble);
  c10::InferenceMode inference;
  auto state = policy->Prefill(Prompts(), 3)->state;
  const std::vector<int32_t> tokens(30, 4);
  std::vector<int32_t> parents;
  for (int32_t n = 0; n < 30; ++n) parents.push_back(n);
  ASSERT_TRUE(policy->Step(state.get(), tokens, {}, 10).ok());  // the cache and the buffers are made here
  CountingAllocator allocator;
  for (int step = 0; step < 2; ++step) {
    allocator.count = 0;
    ASSERT_TRUE(policy->Step(state.get(), tokens, parents, 10).ok());
    // Four products a layer; the embeddings; the final norm with its inverse roots.
    EXPECT_EQ(allocator.count, 4 * config_.num_layers + 3);
  }
}

}  // namespace
}  // namespace sluice::testing

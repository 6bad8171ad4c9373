#include "common/ranker/sequential_training.h"

#include <torch/types.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr int kItems = 20;

// Item i is always followed by (3 i + 7) mod 20, a permutation of the items.
int32_t Successor(int32_t item) { return (3 * item + 7) % kItems; }

std::vector<std::vector<int32_t>> SuccessorSequences(int users, int length) {
  Random random(1);
  std::vector<std::vector<int32_t>> sequences;
  for (int user = 0; user < users; ++user) {
    std::vector<int32_t> sequence = {static_cast<int32_t>(random.Below(kItems))};
    while (static_cast<int>(sequence.size()) < length) sequence.push_back(Successor(sequence.back()));
    sequences.push_back(sequence);
  }
  return sequences;
}

const SequentialRankerConfig kConfig = {
    .num_items = kItems, .hidden_size = 16, .num_layers = 1, .num_heads = 2, .max_positions = 8};

SequentialTrainingOptions FastOptions() {
  SequentialTrainingOptions options;
  options.passes = 15;
  options.learning_rate = 1e-2;
  options.dropout = 0.1;
  options.batch_sequences = 16;
  options.seed = 5;
  return options;
}

TEST(SequentialTrainingTest, LearnsADeterministicSuccessorRule) {
  // Sequences of 16 items are longer than the window of 8, so they are cut.
  const auto result = TrainSequentialRanker(SuccessorSequences(150, 16), kConfig, FastOptions(), WallClock());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->passes, 15);
  EXPECT_FALSE(result->stopped);
  std::vector<std::vector<int32_t>> histories;
  for (int32_t item = 0; item < kItems; ++item) histories.push_back({item, Successor(item)});
  const at::Tensor best = result->ranker->ScoreAll(histories).value().argmax(-1);
  for (int32_t item = 0; item < kItems; ++item) {
    EXPECT_EQ(best[item].item<int64_t>(), Successor(Successor(item)));
  }
}

TEST(SequentialTrainingTest, SameSeedSameWeightsOtherSeedOthers) {
  SequentialTrainingOptions options = FastOptions();
  options.passes = 2;
  const std::vector<std::vector<int32_t>> sequences = SuccessorSequences(20, 12);
  const std::string first = TrainSequentialRanker(sequences, kConfig, options, WallClock())->ranker->Digest();
  EXPECT_EQ(TrainSequentialRanker(sequences, kConfig, options, WallClock())->ranker->Digest(), first);
  options.seed = 6;
  EXPECT_NE(TrainSequentialRanker(sequences, kConfig, options, WallClock())->ranker->Digest(), first);
}

TEST(SequentialTrainingTest, FirstLossIsThatOfAUniformGuess) {
  // Small initial weights: every item has about the same logit, so the loss is log(20) nats.
  SequentialTrainingOptions options = FastOptions();
  options.passes = 1;
  double first_loss = 0;
  const auto result = TrainSequentialRanker(SuccessorSequences(20, 12), kConfig, options, WallClock(),
                                            [&](const SequentialTrainingProgress& progress) {
                                              if (progress.step == 1) first_loss = progress.loss;
                                              EXPECT_LE(progress.step, progress.total_steps);
                                              EXPECT_EQ(progress.passes, 1);
                                            });
  ASSERT_TRUE(result.ok());
  EXPECT_NEAR(first_loss, std::log(20.0), 0.1);
}

TEST(SequentialTrainingTest, LongSequencesAreCutIntoPiecesOfHalfAWindow) {
  // 13 events have 12 targets; pieces of half a window of 4 are 6, or 7 when the offset splits one.
  SequentialTrainingOptions options = FastOptions();
  options.passes = 6;
  options.batch_sequences = 1;
  SequentialRankerConfig config = kConfig;
  config.max_positions = 4;
  const auto result = TrainSequentialRanker(SuccessorSequences(1, 13), config, options, WallClock());
  ASSERT_TRUE(result.ok());
  EXPECT_GE(result->steps, 6 * 6);
  EXPECT_LE(result->steps, 6 * 7);
  // Five events fit the window: one piece a pass.
  EXPECT_EQ(TrainSequentialRanker(SuccessorSequences(1, 5), config, options, WallClock())->steps, 6);
}

TEST(SequentialTrainingTest, StopEndsTrainingWellBetweenSteps) {
  int64_t steps = 0;
  const auto result = TrainSequentialRanker(
      SuccessorSequences(64, 8), kConfig, FastOptions(), WallClock(),
      [&](const SequentialTrainingProgress& progress) { steps = progress.step; }, [&] { return steps == 6; });
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->stopped);
  EXPECT_EQ(result->steps, 6);
  EXPECT_EQ(result->passes, 1);  // 64 sequences are 4 steps a pass
  EXPECT_FALSE(result->ranker->item_embedding().requires_grad());
}

TEST(SequentialTrainingTest, TimeLimitCutsThePassesToWhatFits) {
  // A clock that moves 1 s a step: a pass of 4 steps takes 4 s, 9 s hold two of them.
  SequentialTrainingOptions options = FastOptions();
  options.time_limit = absl::Seconds(9);
  absl::Time now = absl::UnixEpoch();
  int planned = 0;
  const auto result = TrainSequentialRanker(
      SuccessorSequences(64, 8), kConfig, options, [&] { return now; },
      [&](const SequentialTrainingProgress& progress) {
        now += absl::Seconds(1);
        planned = progress.passes;
      });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(planned, 2);
  EXPECT_EQ(result->passes, 2);
  EXPECT_EQ(result->steps, 8);
  EXPECT_TRUE(result->stopped);
}

TEST(SequentialTrainingTest, BadInputIsRefused) {
  const auto code = [](const std::vector<std::vector<int32_t>>& sequences, const SequentialTrainingOptions& options) {
    return TrainSequentialRanker(sequences, kConfig, options, WallClock()).status().code();
  };
  EXPECT_EQ(code({{1, 20}}, FastOptions()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{1}, {}}, FastOptions()), absl::StatusCode::kInvalidArgument);
  SequentialTrainingOptions options = FastOptions();
  options.dropout = 1;
  EXPECT_EQ(code({{1, 2}}, options), absl::StatusCode::kInvalidArgument);
}

TEST(SequentialTrainingTest, DivergenceHoldsInsteadOfReturningNonsense) {
  SequentialTrainingOptions options = FastOptions();
  options.learning_rate = 1e30;
  const absl::Status status = TrainSequentialRanker(SuccessorSequences(40, 8), kConfig, options, WallClock()).status();
  EXPECT_EQ(ExitCodeFor(status), ExitCode::kHeld) << status;
}

}  // namespace
}  // namespace sluice

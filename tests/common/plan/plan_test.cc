#include "common/plan/plan.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "common/model/policy.h"

namespace sluice {
namespace {

PolicyConfig Config(PolicyArchitecture architecture) {
  PolicyConfig config;
  config.architecture = architecture;
  config.vocab_size = 101;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 10;
  return config;
}

TEST(PlanTest, CountsTheParametersThatAPolicyAllocates) {
  for (const auto architecture : {PolicyArchitecture::kQwen3, PolicyArchitecture::kQwen2, PolicyArchitecture::kLlama}) {
    for (const bool tied : {true, false}) {
      PolicyConfig config = Config(architecture);
      config.tie_embeddings = tied;
      config.attention_bias = architecture == PolicyArchitecture::kLlama && tied;
      config.value_hidden = tied ? 7 : 0;
      const auto policy = Policy::Create(config, nullptr, 1);
      ASSERT_TRUE(policy.ok()) << policy.status();
      EXPECT_EQ(ArenaElements(PolicyShape::Of(config)), (*policy)->parameters().numel());
    }
  }
}

TEST(PlanTest, ReadsTheEncoderAndItsItemRows) {
  PolicyConfig config = Config(PolicyArchitecture::kQwen3);
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = 77;
  const PolicyShape shape = PolicyShape::Of(config);
  EXPECT_TRUE(shape.merged);
  EXPECT_EQ(shape.item_rows, 77);
  PolicyShape without = shape;
  without.item_rows = 0;
  EXPECT_EQ(ArenaElements(shape) - ArenaElements(without), (77 * 24 + 15) / 16 * 16);
}

// The counts that their makers publish.
TEST(PlanTest, CountsTheParametersOfKnownModels) {
  PolicyShape shape;
  shape.vocab = 151936;
  shape.hidden = 896;
  shape.intermediate = 4864;
  shape.layers = 24;
  shape.heads = 14;
  shape.kv_heads = 2;
  shape.head_dim = 64;
  shape.qkv_bias = true;
  EXPECT_EQ(ArenaElements(shape), 494032768);  // Qwen2.5-0.5B
  shape.hidden = 2048;
  shape.intermediate = 6144;
  shape.layers = 28;
  shape.heads = 16;
  shape.kv_heads = 8;
  shape.head_dim = 128;
  shape.qkv_bias = false;
  shape.head_norms = true;
  EXPECT_EQ(ArenaElements(shape), 1720574976);  // Qwen3-1.7B
}

TEST(PlanTest, LanesStopWhereTheirGradientsPassTheLimit) {
  EXPECT_EQ(TrainingLanes(100, 4), 4);
  EXPECT_EQ(TrainingLanes(100, 4, 299), 3);  // two beside the first
  EXPECT_EQ(TrainingLanes(100, 4, 99), 1);
  EXPECT_EQ(TrainingLanes(100, 0), 1);
  EXPECT_EQ(TrainingLanes(int64_t{2} << 30, 16), 1);  // half a billion parameters
}

TEST(PlanTest, APartOfAStepHoldsAtMostItsRows) {
  TrainingBatch batch;
  batch.groups = 64;
  batch.prompt_positions = 21;
  batch.branches = 17;
  batch.levels = 4;
  EXPECT_EQ(batch.rows(), 64 * (21 + 17 * 3));
  EXPECT_EQ(batch.part_rows(), batch.rows());
  batch.max_rows = 1000;
  EXPECT_EQ(batch.part_rows(), 1000);
  batch.max_rows = 10;
  EXPECT_EQ(batch.part_rows(), 21 + 17 * 3);  // one prompt is never cut
}

TEST(PlanTest, MemoryFollowsItsFormulasOnAModelByHand) {
  PolicyShape shape;
  shape.vocab = 16;
  shape.hidden = shape.intermediate = 16;
  shape.layers = shape.heads = shape.kv_heads = 1;
  shape.head_dim = 16;
  // Embedding 256, norms 3 * 16, q k v o 4 * 256, MLP 3 * 256.
  EXPECT_EQ(ArenaElements(shape), 256 + 48 + 1024 + 768);
  EXPECT_EQ(MatrixElements(shape), 256 + 1024 + 768);
  TrainingBatch batch;
  batch.groups = 1;
  batch.prompt_positions = 2;
  batch.branches = 1;
  batch.levels = 3;
  const MemoryEstimate estimate = LearnerMemory(shape, batch);
  const double p = 4 * 2096;
  EXPECT_EQ(estimate.parts[0].bytes, p);
  EXPECT_EQ(estimate.parts[2].bytes, 2 * p);
  // 4 rows: 4 D + 3 Q + 3 K + H + 3 I + 2, and 2 D once.
  EXPECT_EQ(estimate.parts[5].bytes, 4 * 4 * (13 * 16 + 1 + 2 + 2 * 16));
  // 3 predicted rows.
  EXPECT_DOUBLE_EQ(estimate.parts[7].bytes, 4 * 3 * (3 * 16 + 16));
  double sum = 0;
  for (const MemoryPart& part : estimate.parts) sum += part.bytes;
  EXPECT_DOUBLE_EQ(estimate.total(), sum);

  const MemoryEstimate actor = ActorMemory(shape, {2, 5, 3, 4});
  EXPECT_EQ(actor.parts[0].bytes, 2 * p);
  // 10 prompt positions and 2 * 4 rows of 3 tokens; keys and values of one layer.
  EXPECT_EQ(actor.parts[1].bytes, 4 * (10 + 8 * 3) * 2 * 16);
}

TEST(PlanTest, LinksTakeWhatTheirAlgorithmsSend) {
  EXPECT_EQ(RingReduceSeconds(8e9, 1, 1e9), 0);
  EXPECT_DOUBLE_EQ(RingReduceSeconds(8e9, 2, 1e9), 8);
  EXPECT_DOUBLE_EQ(RingReduceSeconds(8e9, 4, 1e9), 12);
  EXPECT_DOUBLE_EQ(FlatSendSeconds(1e9, 5, 1e9), 5);
  EXPECT_DOUBLE_EQ(BroadcastSeconds(1e9, 5, 1e9), 1);
}

TEST(PlanTest, BytesReadAsPeopleSayThem) {
  EXPECT_EQ(BytesText(12), "12 B");
  EXPECT_EQ(BytesText(21.3e6), "21.3 MB");
  EXPECT_EQ(BytesText(999.9e6), "1 GB");
  EXPECT_EQ(BytesText(512e9), "512 GB");
}

}  // namespace
}  // namespace sluice

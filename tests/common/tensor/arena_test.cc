#include "common/tensor/arena.h"

#include <gtest/gtest.h>
#include <torch/types.h>

namespace sluice {
namespace {

ArenaLayout TwoTensors() {
  ArenaLayout layout;
  layout.Add("weight", {3, 2}, /*decays=*/true);
  layout.Add("norm", {5}, /*decays=*/false);
  return layout;
}

TEST(ArenaLayoutTest, EntriesStartOnCacheLinesAndDoNotOverlap) {
  const ArenaLayout layout = TwoTensors();
  EXPECT_EQ(layout.entry(0).offset, 0);
  EXPECT_EQ(layout.entry(1).offset, 16);  // 6 elements, rounded up
  EXPECT_EQ(layout.size(), 32);
}

TEST(ArenaLayoutTest, TheDecayMaskCoversTheMatrixAndNeitherNormNorGaps) {
  const at::Tensor mask = TwoTensors().DecayMask(at::kFloat);
  EXPECT_EQ(mask.sum().item<double>(), 6);
  EXPECT_EQ(mask.narrow(0, 0, 6).sum().item<double>(), 6);
}

TEST(ArenaLayoutTest, TheDigestChangesWithNameShapeAndOrder) {
  ArenaLayout renamed, reshaped, reordered;
  renamed.Add("weights", {3, 2}, true);
  renamed.Add("norm", {5}, false);
  reshaped.Add("weight", {2, 3}, true);
  reshaped.Add("norm", {5}, false);
  reordered.Add("norm", {5}, false);
  reordered.Add("weight", {3, 2}, true);
  const std::string digest = TwoTensors().Digest();
  EXPECT_EQ(digest, TwoTensors().Digest());
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_NE(digest, renamed.Digest());
  EXPECT_NE(digest, reshaped.Digest());
  EXPECT_NE(digest, reordered.Digest());
}

TEST(TrainableViewTest, BackwardAccumulatesInTheGradientArenaWithoutMovingIt) {
  const ArenaLayout layout = TwoTensors();
  at::Tensor parameters = layout.Allocate(at::kDouble);
  at::Tensor gradients = layout.Allocate(at::kDouble);
  parameters.fill_(2);
  const at::Tensor weight = TrainableView(layout.View(parameters, 0), layout.View(gradients, 0));
  const void* memory = weight.grad().data_ptr();
  for (int i = 0; i < 2; ++i) (weight * weight).sum().backward();  // d/dw = 2 w = 4, twice
  EXPECT_EQ(weight.grad().data_ptr(), memory);
  EXPECT_EQ(gradients.narrow(0, 0, 6).min().item<double>(), 8);
  EXPECT_EQ(gradients.sum().item<double>(), 48);
  parameters.mul_(.5);  // the view sees the arena change
  EXPECT_EQ(weight.sum().item<double>(), 6);
}

}  // namespace
}  // namespace sluice

// The loss of whole items against torch's own cross entropy, in float64.
#include "learner/train/item_term.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

TEST(ItemTermTest, EqualsCrossEntropyHoweverManyBlocks) {
  torch::manual_seed(3);
  const at::Tensor leaves = torch::tensor({4, 0, 4, 10, 7}, torch::kLong);
  for (const int64_t max_logits : {kMaxItemLogits, int64_t{1}, int64_t{22}, int64_t{33}}) {
    const at::Tensor hidden = torch::randn({5, 3}, torch::kDouble).requires_grad_();
    const at::Tensor vectors = torch::randn({11, 3}, torch::kDouble).requires_grad_();
    const at::Tensor loss = ItemLossSum(hidden, vectors, leaves, max_logits);
    (2 * loss).backward();
    const at::Tensor hidden2 = hidden.detach().clone().requires_grad_();
    const at::Tensor vectors2 = vectors.detach().clone().requires_grad_();
    const at::Tensor want = at::cross_entropy_loss(at::matmul(hidden2, vectors2.t()), leaves, {}, at::Reduction::Sum);
    (2 * want).backward();
    EXPECT_NEAR(loss.item<double>(), want.item<double>(), 1e-12);
    EXPECT_TRUE(at::allclose(hidden.grad(), hidden2.grad(), 0, 1e-12));
    EXPECT_TRUE(at::allclose(vectors.grad(), vectors2.grad(), 0, 1e-12));
  }
}

TEST(ItemTermTest, AddingToAllLogitsChangesNothing) {
  torch::manual_seed(4);
  const at::Tensor hidden = torch::randn({2, 3}, torch::kDouble);
  const at::Tensor vectors = torch::randn({6, 3}, torch::kDouble);
  const at::Tensor leaves = torch::tensor({1, 5}, torch::kLong);
  const double loss = ItemLossSum(hidden, vectors, leaves).item<double>();
  const double shifted = ItemLossSum(hidden, vectors + torch::tensor({50.0, -20.0, 7.0}), leaves).item<double>();
  EXPECT_NEAR(loss, shifted, 1e-9);
}

}  // namespace
}  // namespace sluice::learner

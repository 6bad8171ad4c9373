#include "common/tensor/shape.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>

namespace sluice {
namespace {

TEST(ShapeTest, TheMessageSaysWhatWasWantedAndWhatCame) {
  const absl::Status status = CheckShape("log_probs", at::zeros({8, 4}), {8, 3});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()), "want log_probs [8, 3], got [8, 4]");
}

TEST(ShapeTest, AnySizeMatchesEverySizeButNotAnotherRank) {
  EXPECT_TRUE(CheckShape("x", at::zeros({8, 4}), {kAnySize, 4}).ok());
  EXPECT_EQ(std::string(CheckShape("x", at::zeros({8}), {kAnySize, 4}).message()), "want x [any, 4], got [8]");
  EXPECT_EQ(std::string(CheckShape("x", at::Tensor(), {1}).message()), "want x [1], got nothing");
}

TEST(ShapeTest, AWrongTypeIsNamed) {
  EXPECT_TRUE(CheckType("x", at::zeros({1}), at::kFloat).ok());
  EXPECT_EQ(std::string(CheckType("x", at::zeros({1}, at::kLong), at::kFloat).message()),
            "want x of type Float, got Long");
}

}  // namespace
}  // namespace sluice

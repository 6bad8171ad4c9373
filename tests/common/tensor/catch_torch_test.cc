#include "common/tensor/catch_torch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <new>
#include <stdexcept>
#include <string>

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(CatchTorchTest, ValuesAndStatusesPassThrough) {
  const absl::StatusOr<int> value = CatchTorch("counting", [] { return 7; });
  EXPECT_EQ(value.value(), 7);
  EXPECT_TRUE(CatchTorch("nothing", [] {}).ok());
  const absl::StatusOr<int> inner =
      CatchTorch("x", []() -> absl::StatusOr<int> { return absl::NotFoundError("gone"); });
  EXPECT_EQ(inner.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(CatchTorch("x", [] { return absl::AbortedError("late"); }).code(), absl::StatusCode::kAborted);
}

TEST(CatchTorchTest, ATorchErrorIsInternalAndSaysWhatWasBeingDone) {
  const auto status = CatchTorch("forward pass", [] { return at::ones({2, 3}).matmul(at::ones({2, 3})); }).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("forward pass: mat1 and mat2"));
}

TEST(CatchTorchTest, AnImpossibleAllocationIsResourceExhausted) {
  const auto status = CatchTorch("huge", [] { return at::empty({int64_t{1} << 58}); }).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(CatchTorch("new", [] { throw std::bad_alloc(); }).code(), absl::StatusCode::kResourceExhausted);
}

TEST(CatchTorchTest, AnyStandardExceptionBecomesAStatus) {
  EXPECT_EQ(CatchTorch("x", [] { throw std::runtime_error("odd"); }).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace sluice

#include "common/tensor/device.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(ParsePlacementTest, TakesTheProcessorAndNumberedGpus) {
  EXPECT_TRUE(ParsePlacement("cpu", "fp32")->device.is_cpu());
  const Placement gpu = ParsePlacement("cuda:3", "bf16").value();
  EXPECT_TRUE(gpu.device.is_cuda());
  EXPECT_EQ(gpu.device.index(), 3);
  EXPECT_EQ(gpu.compute, at::kBFloat16);
}

TEST(ParsePlacementTest, RefusesOtherNamesAndSaysWhatIsWanted) {
  for (const absl::string_view name :
       {"gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "cuda:1000", "cuda: 1", "cuda:01", "CPU", ""}) {
    const absl::Status status = ParsePlacement(name, "fp32").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Text(status), HasSubstr("want cpu, or cuda:N")) << name;
  }
  EXPECT_THAT(Text(ParsePlacement("cpu", "fp16").status()), HasSubstr("want fp32 or bf16"));
}

TEST(ParsePlacementTest, TheProcessorKeepsItsKernelsUnlessAskedForBf16) {
  EXPECT_FALSE(ParsePlacement("cpu", "fp32")->takes_device_path());
  EXPECT_TRUE(ParsePlacement("cpu", "bf16")->takes_device_path());
  EXPECT_TRUE(ParsePlacement("cuda:0", "fp32")->takes_device_path());
}

TEST(OpenDeviceTest, TheProcessorIsAlwaysThere) { EXPECT_TRUE(OpenDevice(at::kCPU).ok()); }

TEST(OpenDeviceTest, AGpuThatIsNotThereIsRefusedWithARemedy) {
  const absl::Status status = OpenDevice(at::Device(at::kCUDA, 99));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("device cuda:99: "));
  // What is missing depends on the machine.
  const bool driver = dlopen("libcuda.so.1", RTLD_NOW) != nullptr;
  EXPECT_THAT(Text(status), HasSubstr(driver ? "GPU" : "nvidia-smi must work")) << status;
}

TEST(UploadTest, KeepsValuesAndType) {
  const at::Tensor values = Upload(std::vector<int64_t>{int64_t{1} << 40, -2}, at::kCPU);
  EXPECT_EQ(values.scalar_type(), at::kLong);
  EXPECT_EQ(values[0].item<int64_t>(), int64_t{1} << 40);
  EXPECT_EQ(Upload(absl::Span<const double>(), at::kCPU).numel(), 0);
}

}  // namespace
}  // namespace sluice

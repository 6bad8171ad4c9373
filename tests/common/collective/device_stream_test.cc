#include "common/collective/device_stream.h"

#include <torch/types.h>

#include "gtest/gtest.h"
#include "tests/testing/fake_device/fake_device.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

TEST(TorchStreamTest, RunsBesideTheCallersWork) {
  const at::Device device = TestPlacement().device.is_cuda() ? TestPlacement().device : at::Device(FakeDevice());
  const auto stream = MakeTorchStream(device);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ((*stream)->device(), device);
  const at::Tensor work = torch::ones({1000}, device) * 2;
  (*stream)->WaitForCaller();
  // A stream of a GPU is done when the caller's work is; the fake one is at once.
  while (!(*stream)->Done()) std::this_thread::yield();
  EXPECT_EQ((*stream)->handle() != nullptr, device.is_cuda());
  EXPECT_EQ(work.sum().item<float>(), 2000);
}

TEST(TorchStreamTest, TheProcessorHasNone) {
  EXPECT_EQ(MakeTorchStream(at::kCPU).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace sluice

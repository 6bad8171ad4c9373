// Where tensors lie and compute: the processor, or a CUDA device that is brought in when it is asked for.
//
// Binaries link LibTorch's processor half alone. The CUDA half is loaded at run time, so that one binary serves
// machines with and without a GPU (docs/gpu.md).
#ifndef SLUICE_COMMON_TENSOR_DEVICE_H_
#define SLUICE_COMMON_TENSOR_DEVICE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

// Where a policy computes, and in what.
struct Placement {
  at::Device device = at::kCPU;
  // Type of matrix products, activations and the KV cache: kFloat, or kBFloat16 with parameters, gradients and
  // moments left in float32 ("fp32 masters"). A float64 policy computes in float64 whatever this says.
  at::ScalarType compute = at::kFloat;
  // For tests: takes the path of devices on the processor too.
  bool generic = false;

  // Whether tensors go through the device-generic path (common/model/device_path.h) and not through the processor's
  // own kernels.
  bool takes_device_path() const { return !device.is_cpu() || compute == at::kBFloat16 || generic; }
};

// "cpu" or "cuda:N" and "fp32" or "bf16". InvalidArgument for anything else, with what is wanted.
absl::StatusOr<Placement> ParsePlacement(absl::string_view device, absl::string_view precision);

// Makes the device usable in this process: nothing for the processor; for CUDA loads the driver and LibTorch's CUDA
// half, and checks that the device is there. The first call must come before anything else asks LibTorch for CUDA,
// as LibTorch remembers the answer: call it from main.
// FailedPrecondition, with the remedy: no driver, wheels missing, no such device.
absl::Status OpenDevice(const at::Device& device);

// ParsePlacement, then OpenDevice: what a process does with its --device and --precision.
absl::StatusOr<Placement> OpenPlacement(absl::string_view device, absl::string_view precision);

// What --help says of the two.
inline constexpr char kDeviceHelp[] =
    "Where the policy computes: cpu, or cuda:N on a machine with a GPU, its driver and all of NVIDIA's wheels of torch";
inline constexpr char kPrecisionHelp[] =
    "Of products, activations and the KV cache: fp32, or bf16 (weights, gradients and moments stay fp32)";

// The values as a tensor [n] on `device`. From page-locked memory where the device is a GPU, so that the copy waits
// for nothing and nothing waits for it.
at::Tensor Upload(absl::Span<const int64_t> values, const at::Device& device);
at::Tensor Upload(absl::Span<const int32_t> values, const at::Device& device);
at::Tensor Upload(absl::Span<const double> values, const at::Device& device);

}  // namespace sluice

#endif  // SLUICE_COMMON_TENSOR_DEVICE_H_

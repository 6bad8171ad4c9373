#include "common/tensor/device.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <torch/types.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/status/status.h"

namespace sluice {
namespace {

// Never unloaded: LibTorch's registries point into them.
absl::Status LoadLibrary(const char* name, absl::string_view what, absl::string_view remedy) {
  if (dlopen(name, RTLD_NOW | RTLD_GLOBAL) != nullptr) return absl::OkStatus();
  const char* const error = dlerror();
  return absl::FailedPreconditionError(
      absl::StrCat("cannot load ", what, " (", error != nullptr ? error : name, "); ", remedy));
}

template <typename T>
at::Tensor UploadValues(absl::Span<const T> values, at::ScalarType dtype, const at::Device& device) {
  const int64_t count = static_cast<int64_t>(values.size());
  const at::Tensor host = at::empty({count}, at::TensorOptions().dtype(dtype).pinned_memory(device.is_cuda()));
  std::copy(values.begin(), values.end(), host.data_ptr<T>());
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

}  // namespace

absl::StatusOr<Placement> ParsePlacement(absl::string_view device, absl::string_view precision) {
  Placement placement;
  absl::string_view number = device;
  int index = 0;
  if (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index) && index >= 0 && index < 128 &&
      absl::StrCat(index) == number) {
    placement.device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
  } else if (device != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no device '", device, "'; want cpu, or cuda:N with the GPU's number, e.g. cuda:0"));
  }
  if (precision == "bf16") {
    placement.compute = at::kBFloat16;
  } else if (precision != "fp32") {
    return absl::InvalidArgumentError(absl::StrCat("there is no precision '", precision, "'; want fp32 or bf16"));
  }
  return placement;
}

absl::Status OpenDevice(const at::Device& device) {
  if (device.is_cpu()) return absl::OkStatus();
  const std::string want = absl::StrCat("device ", device.str(), ": ");
  absl::Status status =
      LoadLibrary("libcuda.so.1", "the NVIDIA driver",
                  "use a machine with a GPU and its driver (nvidia-smi must work), or the device cpu");
  if (status.ok()) {
    status = LoadLibrary(
        "libtorch_cuda.so", "LibTorch's CUDA half",
        "install NVIDIA's wheels too (.venv/bin/pip install --no-deps -r requirements-gpu.txt), or use the device cpu");
  }
  if (!status.ok()) return absl::FailedPreconditionError(absl::StrCat(want, status.message()));
  const c10::impl::DeviceGuardImplInterface* const guard =
      c10::impl::device_guard_impl_registry[static_cast<size_t>(device.type())];
  const int count = guard == nullptr ? 0 : guard->deviceCount();
  if (count == 0 || !at::hasCUDA()) {
    return absl::FailedPreconditionError(absl::StrCat(
        want, "the driver shows no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the device cpu"));
  }
  if (device.index() >= count) {
    return absl::FailedPreconditionError(absl::StrCat(want, "this machine has ", count, count == 1 ? " GPU" : " GPUs",
                                                      "; the highest is cuda:", count - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<Placement> OpenPlacement(absl::string_view device, absl::string_view precision) {
  SLUICE_ASSIGN_OR_RETURN(const Placement placement, ParsePlacement(device, precision));
  SLUICE_RETURN_IF_ERROR(OpenDevice(placement.device));
  return placement;
}

at::Tensor Upload(absl::Span<const int64_t> values, const at::Device& device) {
  return UploadValues(values, at::kLong, device);
}
at::Tensor Upload(absl::Span<const int32_t> values, const at::Device& device) {
  return UploadValues(values, at::kInt, device);
}
at::Tensor Upload(absl::Span<const double> values, const at::Device& device) {
  return UploadValues(values, at::kDouble, device);
}

}  // namespace sluice

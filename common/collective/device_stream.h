// The queue of a device on which NCCL does its work, apart from the queue that computes. An interface, so that what
// NCCL is made to do can be tested without a device.
#ifndef SLUICE_COMMON_COLLECTIVE_DEVICE_STREAM_H_
#define SLUICE_COMMON_COLLECTIVE_DEVICE_STREAM_H_

#include <ATen/core/Tensor.h>

#include <memory>

#include "absl/status/statusor.h"

namespace sluice {

// Used by one thread at a time. Functions throw what LibTorch throws.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;
  virtual at::Device device() const = 0;
  // What NCCL is given: a cudaStream_t.
  virtual void* handle() = 0;
  // What is put on this queue from now on starts after all that the calling thread has asked of the device so far.
  virtual void WaitForCaller() = 0;
  // Whether all that was put on this queue has ended. Never waits.
  virtual bool Done() = 0;
};

// A stream of LibTorch's pool. The device must have been opened (common/tensor/device.h). Internal if LibTorch has
// none for this kind of device.
absl::StatusOr<std::unique_ptr<DeviceStream>> MakeTorchStream(const at::Device& device);

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_DEVICE_STREAM_H_

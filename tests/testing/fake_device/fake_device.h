// A device for tests on machines without one, in LibTorch's place for devices of other makers ("privateuseone:0").
//
// Useful for: proving that code which is meant for GPUs never waits for one, never reads its memory, and never mixes
// its tensors with the host's. Every operation computes on the processor, so values are right and slow. What a real
// device would punish is caught here:
//   - the host reads or writes a tensor's memory: the pages are not accessible, the process dies of it;
//   - an operation takes tensors of the device and of the host (beyond scalars): it throws;
//   - the host waits, for a value or for a blocking copy either way: it is counted.
// Not seen: what CUDA's own kernels do inside (sizes that depend on values are refused by an operator's name), its
// streams, its memory.
#ifndef SLUICE_TESTS_TESTING_FAKE_DEVICE_FAKE_DEVICE_H_
#define SLUICE_TESTS_TESTING_FAKE_DEVICE_FAKE_DEVICE_H_

#include <c10/core/Device.h>

namespace sluice {

// The first call makes it the process's accelerator for LibTorch: not in a process that computes on a GPU.
c10::Device FakeDevice();

// Where the device finds what tensors say lies at `address`: for fakes of libraries that compute on it.
void* FakeDeviceMemory(const void* address);

// Waits of the host for the device, from construction on, on all threads. One at a time.
class FakeDeviceWaits {
 public:
  FakeDeviceWaits();
  int count() const;

 private:
  const int before_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_FAKE_DEVICE_FAKE_DEVICE_H_

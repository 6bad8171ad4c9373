// Where a test's policies compute: the environment variable SLUICE_TEST_PLACEMENT decides, so that one test binary
// proves the same equalities for the processor's kernels (unset), for the device-generic path on the processor
// ("generic"), on the fake device ("fake") and on a GPU ("cuda:0").
#ifndef SLUICE_TESTS_TESTING_PLACEMENT_H_
#define SLUICE_TESTS_TESTING_PLACEMENT_H_

#include <cstdlib>
#include <string>

#include "common/model/policy.h"
#include "common/status/status.h"
#include "common/tensor/device.h"
#include "tests/testing/fake_device/fake_device.h"

namespace sluice {

inline Placement TestPlacement() {
  const char* const name = std::getenv("SLUICE_TEST_PLACEMENT");
  Placement placement;
  if (name == nullptr) return placement;
  if (std::string(name) == "generic") {
    placement.generic = true;
    return placement;
  }
  if (std::string(name) == "fake") {
    placement.device = FakeDevice();
    return placement;
  }
  // A misspelt name must not pass as the processor's path.
  placement = ParsePlacement(name, "fp32").value();
  static const absl::Status opened = OpenDevice(placement.device);
  SLUICE_CHECK(opened.ok(), opened.ToString());
  return placement;
}

// Why a test on the fake device cannot run beside a GPU, in one process.
inline constexpr char kNotBesideAGpu[] = "LibTorch knows one accelerator a process, and this one has a GPU";

inline void PlaceForTest(Policy* policy) {
  const Placement placement = TestPlacement();
  if (!placement.takes_device_path()) return;
  const absl::Status placed = policy->Place(placement);
  SLUICE_CHECK(placed.ok(), placed.ToString());
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_PLACEMENT_H_

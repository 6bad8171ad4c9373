// LibTorch reports by exception, Sluice by Status: the one wrapper between the two.
//
// Every public entry point of a (T) folder checks its input, then computes inside CatchTorch, so that no exception
// leaves the folder. Out of memory becomes ResourceExhausted (a smaller batch may fit), anything else Internal
// (what came in had been checked).
#ifndef SLUICE_COMMON_TENSOR_CATCH_TORCH_H_
#define SLUICE_COMMON_TENSOR_CATCH_TORCH_H_

#include <exception>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// `what` says what was being done, in plain words: "forward pass".
absl::Status StatusFromException(absl::string_view what, const std::exception& exception);

namespace internal {

template <typename T>
struct CaughtResult {
  using type = absl::StatusOr<T>;
};
template <>
struct CaughtResult<void> {
  using type = absl::Status;
};
template <>
struct CaughtResult<absl::Status> {
  using type = absl::Status;
};
template <typename T>
struct CaughtResult<absl::StatusOr<T>> {
  using type = absl::StatusOr<T>;
};

}  // namespace internal

// Calls `function` and turns std::exception into a Status. A function that returns T gives StatusOr<T>, one that
// returns nothing gives Status, and Status or StatusOr pass through.
template <typename Function>
auto CatchTorch(absl::string_view what, Function&& function) ->
    typename internal::CaughtResult<std::invoke_result_t<Function>>::type {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Function>>) {
      std::forward<Function>(function)();
      return absl::OkStatus();
    } else {
      return std::forward<Function>(function)();
    }
  } catch (const std::exception& exception) {
    return StatusFromException(what, exception);
  }
}

}  // namespace sluice

#endif  // SLUICE_COMMON_TENSOR_CATCH_TORCH_H_

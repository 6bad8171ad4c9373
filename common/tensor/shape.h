// Checks of shape and type, with messages that say what was wanted and what came.
#ifndef SLUICE_COMMON_TENSOR_SHAPE_H_
#define SLUICE_COMMON_TENSOR_SHAPE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

inline constexpr int64_t kAnySize = -1;

// "[8, 3]", or "nothing" for an undefined tensor.
std::string ShapeOf(const at::Tensor& tensor);

// InvalidArgument unless `tensor` is defined and has this shape (kAnySize matches every size):
// "want log_probs [8, 3], got [8, 4]".
absl::Status CheckShape(absl::string_view name, const at::Tensor& tensor, absl::Span<const int64_t> shape);

// InvalidArgument unless `tensor` has this type: "want log_probs of type Float, got Long".
absl::Status CheckType(absl::string_view name, const at::Tensor& tensor, at::ScalarType type);

}  // namespace sluice

#endif  // SLUICE_COMMON_TENSOR_SHAPE_H_

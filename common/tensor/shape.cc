#include "common/tensor/shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {
namespace {

std::string WantedText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[",
                      absl::StrJoin(shape, ", ",
                                    [](std::string* out, int64_t size) {
                                      if (size == kAnySize) {
                                        out->append("any");
                                      } else {
                                        absl::StrAppend(out, size);
                                      }
                                    }),
                      "]");
}

}  // namespace

std::string ShapeOf(const at::Tensor& tensor) {
  if (!tensor.defined()) return "nothing";
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "]");
}

absl::Status CheckShape(absl::string_view name, const at::Tensor& tensor, absl::Span<const int64_t> shape) {
  bool equal = tensor.defined() && tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; equal && i < shape.size(); ++i) {
    equal = shape[i] == kAnySize || tensor.size(static_cast<int64_t>(i)) == shape[i];
  }
  if (equal) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("want ", name, " ", WantedText(shape), ", got ", ShapeOf(tensor)));
}

absl::Status CheckType(absl::string_view name, const at::Tensor& tensor, at::ScalarType type) {
  if (tensor.defined() && tensor.scalar_type() == type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("want ", name, " of type ", c10::toString(type), ", got ",
                                                 tensor.defined() ? c10::toString(tensor.scalar_type()) : "nothing"));
}

}  // namespace sluice

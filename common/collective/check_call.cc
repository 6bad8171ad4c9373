#include "common/collective/check_call.h"

#include "absl/strings/str_cat.h"

namespace sluice {

absl::Status CheckTensor(const at::Tensor& tensor, absl::string_view what) {
  const bool dtype =
      tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble || tensor.scalar_type() == at::kLong;
  if (dtype && tensor.is_contiguous()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": want a contiguous tensor of float32, float64 or int64, got ",
                                                 tensor.is_contiguous() ? "" : "strided ", tensor.device().str(), " ",
                                                 c10::toString(tensor.scalar_type())));
}

absl::Status CheckRoot(int root, int world_size, absl::string_view what) {
  if (root >= 0 && root < world_size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": want a root in [0, ", world_size, "), got ", root));
}

absl::Status CheckRank(int rank, int world_size) {
  if (world_size >= 1 && rank >= 0 && rank < world_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("want a rank in [0, world size), got rank ", rank, " of ", world_size));
}

absl::Status DeadGroupError(absl::string_view place) {
  return absl::UnavailableError(
      absl::StrCat(place, ": the group is dead after an error or an abort; form a new one in a new epoch"));
}

}  // namespace sluice

#include "common/tensor/catch_torch.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sluice {

absl::Status StatusFromException(absl::string_view what, const std::exception& exception) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&exception);
  std::string message = torch_error != nullptr ? torch_error->what_without_backtrace() : exception.what();
  // The CPU allocator throws a plain c10::Error and can be told by its text alone.
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&exception) != nullptr ||
                             dynamic_cast<const c10::OutOfMemoryError*>(&exception) != nullptr ||
                             absl::StrContains(message, "DefaultCPUAllocator: ");
  message = absl::StrCat(what, ": ", message);
  if (out_of_memory) {
    return absl::ResourceExhaustedError(absl::StrCat(message, "; out of memory: make the batch or the model smaller"));
  }
  return absl::InternalError(message);
}

}  // namespace sluice

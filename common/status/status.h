// Helpers around absl::Status, which every boundary of Sluice returns.
//
// SLUICE_CHECK is for our own broken promises only; bad input is a Status. The macros carry our prefix
// because LibTorch defines bare CHECK and LOG.
#ifndef SLUICE_COMMON_STATUS_STATUS_H_
#define SLUICE_COMMON_STATUS_STATUS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// Returns `status` with "`context`: " before its message; OK stays OK. The code is kept.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

// Prints the place and the message to standard error and aborts. For SLUICE_CHECK.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace sluice

#define SLUICE_CHECK(condition, message)                                \
  do {                                                                  \
    if (!(condition)) {                                                 \
      ::sluice::CheckFailed(__FILE__, __LINE__, #condition, (message)); \
    }                                                                   \
  } while (false)

#define SLUICE_RETURN_IF_ERROR(expression)           \
  do {                                               \
    absl::Status sluice_status_ = (expression);      \
    if (!sluice_status_.ok()) return sluice_status_; \
  } while (false)

#define SLUICE_CONCAT_INNER_(a, b) a##b
#define SLUICE_CONCAT_(a, b) SLUICE_CONCAT_INNER_(a, b)

// SLUICE_ASSIGN_OR_RETURN(auto value, MakeValue());
#define SLUICE_ASSIGN_OR_RETURN(declaration, expression) \
  SLUICE_ASSIGN_OR_RETURN_(SLUICE_CONCAT_(sluice_status_or_, __LINE__), declaration, expression)
#define SLUICE_ASSIGN_OR_RETURN_(temporary, declaration, expression) \
  auto temporary = (expression);                                     \
  if (!temporary.ok()) return std::move(temporary).status();         \
  declaration = *std::move(temporary)

#endif  // SLUICE_COMMON_STATUS_STATUS_H_

#include "common/status/exit_code.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace sluice {
namespace {

constexpr char kExitPayload[] = "sluice/exit-code";

absl::Status WithExit(absl::StatusCode code, absl::string_view message, ExitCode exit) {
  absl::Status status(code, message);
  status.SetPayload(kExitPayload, absl::Cord(std::to_string(static_cast<int>(exit))));
  return status;
}

}  // namespace

ExitCode ExitCodeFor(const absl::Status& status) {
  if (const absl::optional<absl::Cord> payload = status.GetPayload(kExitPayload)) {
    return static_cast<ExitCode>(std::stoi(std::string(*payload)));
  }
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
      return ExitCode::kIntegrity;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return ExitCode::kPermission;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kTransient;
    case absl::StatusCode::kCancelled:
      return ExitCode::kCancelled;
    default:
      return ExitCode::kFailed;
  }
}

absl::Status NoSpaceError(absl::string_view message) {
  return WithExit(absl::StatusCode::kResourceExhausted, message, ExitCode::kNoSpace);
}

absl::Status PreemptedError(absl::string_view message) {
  return WithExit(absl::StatusCode::kAborted, message, ExitCode::kPreempted);
}

absl::Status HeldError(absl::string_view message) {
  return WithExit(absl::StatusCode::kFailedPrecondition, message, ExitCode::kHeld);
}

}  // namespace sluice

#include "common/security/audit_log.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr size_t kMaxFieldBytes = 256;
constexpr size_t kMaxReasonBytes = 512;

std::string Cut(absl::string_view text, size_t limit) {
  return text.size() <= limit ? std::string(text) : absl::StrCat(text.substr(0, limit - 3), "...");
}

absl::string_view Verdict(const absl::Status& outcome) {
  switch (outcome.code()) {
    case absl::StatusCode::kOk:
      return "allowed";
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return "refused";
    default:
      return "failed";  // it might have been done, and was not
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(std::string path, NowFunction wall, AuditLogOptions options) {
  std::unique_ptr<AuditLog> log(new AuditLog(std::move(path), std::move(wall), options));
  MutexLock lock(&log->mutex_);
  SLUICE_ASSIGN_OR_RETURN(log->file_, AppendFile::Open(log->path_));
  SLUICE_ASSIGN_OR_RETURN(log->bytes_, FileBytes(log->path_));
  return log;
}

absl::Status AuditLog::Write(const AuditEntry& entry) {
  const nlohmann::ordered_json json = {{"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", wall_(), absl::UTCTimeZone())},
                                       {"who", Cut(entry.who, kMaxFieldBytes)},
                                       {"by", Cut(entry.by, kMaxFieldBytes)},
                                       {"from", Cut(entry.from, kMaxFieldBytes)},
                                       {"call", Cut(entry.call, kMaxFieldBytes)},
                                       {"verdict", std::string(Verdict(entry.outcome))},
                                       {"code", absl::StatusCodeToString(entry.outcome.code())},
                                       {"reason", Cut(entry.outcome.message(), kMaxReasonBytes)},
                                       {"job", Cut(entry.job, kMaxFieldBytes)},
                                       {"member", Cut(entry.member, kMaxFieldBytes)}};
  const std::string line = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  MutexLock lock(&mutex_);
  if (bytes_ > 0 && bytes_ + static_cast<int64_t>(line.size()) + 1 > options_.max_file_bytes) {
    SLUICE_RETURN_IF_ERROR(RotateLocked());
  }
  SLUICE_RETURN_IF_ERROR(file_->Append(line));
  bytes_ += static_cast<int64_t>(line.size()) + 1;
  return absl::OkStatus();
}

absl::Status AuditLog::RotateLocked() {
  const auto numbered = [this](int number) { return absl::StrCat(path_, ".", number); };
  for (int number = options_.max_old_files - 1; number >= 1; --number) {
    if (PathExists(numbered(number))) SLUICE_RETURN_IF_ERROR(RenamePath(numbered(number), numbered(number + 1)));
  }
  if (PathExists(path_)) SLUICE_RETURN_IF_ERROR(RenamePath(path_, numbered(1)));
  SLUICE_ASSIGN_OR_RETURN(file_, AppendFile::Open(path_));
  bytes_ = 0;
  return absl::OkStatus();
}

}  // namespace sluice

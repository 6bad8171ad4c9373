// Who asked for what, and what came of it: one JSON object a line, appended.
//
//     {"time":"...","who":"ada","by":"token","from":"ipv4:192.0.2.7:51234","call":"/sluice.v1.JobService/Cancel",
//      "verdict":"refused","code":"PERMISSION_DENIED","reason":"...","job":"tiny-1a2b3c","member":""}
//
// Nothing of a request is in it but the ids of the job and of the member, and no secret ever.
#ifndef SLUICE_COMMON_SECURITY_AUDIT_LOG_H_
#define SLUICE_COMMON_SECURITY_AUDIT_LOG_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file/file.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

struct AuditEntry {
  std::string who;   // a token's or certificate's name; empty: nobody said who
  std::string by;    // "token", "certificate" or "nothing": what says so
  std::string from;  // the peer's address as gRPC writes it; empty where gRPC does not tell it
  std::string call;  // "/sluice.v1.JobService/Submit"
  std::string job;   // its id; empty: none
  absl::Status outcome;
  std::string member;  // id of the learner rank's process that joins or leaves; empty: the call names none
};

struct AuditLogOptions {
  // A file that has grown to this is renamed to NAME.1, that to NAME.2, and so on.
  int64_t max_file_bytes = 16 << 20;
  int max_old_files = 8;  // beyond them the oldest is removed
};

// Thread-safe.
class AuditLog {
 public:
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(std::string path, NowFunction wall,
                                                        AuditLogOptions options = {});

  // Appends a line. Fields are cut to a few hundred bytes. An error is the storage's; the call it tells of goes on.
  absl::Status Write(const AuditEntry& entry);

 private:
  AuditLog(std::string path, NowFunction wall, AuditLogOptions options)
      : path_(std::move(path)), wall_(std::move(wall)), options_(options) {}
  absl::Status RotateLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const NowFunction wall_;
  const AuditLogOptions options_;
  Mutex mutex_;  // held over writes on purpose: lines are in the order of the calls
  std::unique_ptr<AppendFile> file_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_AUDIT_LOG_H_

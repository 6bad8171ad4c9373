#include "learner/rpc/write_audit.h"

#include "absl/status/status.h"
#include "common/log/log.h"

namespace sluice::learner {

void WriteAudit(AuditLog* audit, const AuditEntry& entry) {
  if (audit == nullptr) return;
  const absl::Status written = audit->Write(entry);
  if (!written.ok()) LogError("a line is missing in the audit log", {{"error", written.message()}});
}

}  // namespace sluice::learner

// A line in the coordinator's audit log, for the services that write them.
#ifndef SLUICE_LEARNER_RPC_WRITE_AUDIT_H_
#define SLUICE_LEARNER_RPC_WRITE_AUDIT_H_

#include "common/security/audit_log.h"

namespace sluice::learner {

// Appends the line; null: there is no audit log. The call that it tells of goes on whatever comes of it, so a line that
// cannot be written is an error in the process's own log. Thread-safe.
void WriteAudit(AuditLog* audit, const AuditEntry& entry);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_WRITE_AUDIT_H_

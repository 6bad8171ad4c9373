// Why a TLS connection does not come about, in words: gRPC tells its client hardly more than "Socket closed".
#ifndef SLUICE_COMMON_SECURITY_HANDSHAKE_H_
#define SLUICE_COMMON_SECURITY_HANDSHAKE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/security/certificate.h"
#include "common/security/role.h"

namespace sluice {

// Makes one connection to `address` ("host:port") with `files` (empty: as a client that speaks no TLS), looks at how it
// goes and closes it. It blocks for at most about `timeout`.
//
// OK: nothing is wrong with TLS there. Unavailable: nobody answers, or not in time. PermissionDenied (exit code 4), a
// sentence with the remedy: one side speaks TLS and the other does not, the server's certificate is from another CA,
// expired, or for none of the roles `server`, or the server refuses our certificate or the lack of it.
absl::Status TryHandshake(const std::string& address, const TlsFiles& files, RoleSet server, absl::Duration timeout);

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_HANDSHAKE_H_

// The flags of transport security, the same in every program.
#ifndef SLUICE_COMMON_RPC_SECURITY_FLAGS_H_
#define SLUICE_COMMON_RPC_SECURITY_FLAGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/server.h"
#include "common/security/certificate.h"
#include "common/security/role.h"

namespace CLI {
class App;
}

namespace sluice {

struct SecurityFlags {
  TlsFiles tls;
  std::string token_file;      // sluicectl alone
  bool insecure = false;       // servers alone
  std::string health_address;  // servers alone
};

// --tls-ca, --tls-cert and --tls-key, also by SLUICE_TLS_CA, SLUICE_TLS_CERT and SLUICE_TLS_KEY.
void AddTlsFlags(CLI::App* app, SecurityFlags* flags);
// --token-file, also by SLUICE_TOKEN_FILE.
void AddTokenFlag(CLI::App* app, SecurityFlags* flags);
// --insecure and --health-address.
void AddServerSecurityFlags(CLI::App* app, SecurityFlags* flags);

// Reads the files for a process with these roles. InvalidArgument as Credentials::Load.
absl::StatusOr<ServerSecurity> LoadServerSecurity(const SecurityFlags& flags, RoleSet roles);

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_SECURITY_FLAGS_H_

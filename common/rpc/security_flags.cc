#include "common/rpc/security_flags.h"

#include <CLI/CLI.hpp>

#include "common/status/status.h"

namespace sluice {

void AddTlsFlags(CLI::App* app, SecurityFlags* flags) {
  app->add_option("--tls-ca", flags->tls.ca, "PEM file of the CA whose certificates are believed; default: no TLS")
      ->envname("SLUICE_TLS_CA");
  app->add_option("--tls-cert", flags->tls.certificate,
                  "PEM file of the own certificate, with those between it and the CA")
      ->envname("SLUICE_TLS_CERT");
  app->add_option("--tls-key", flags->tls.key, "PEM file of its private key")->envname("SLUICE_TLS_KEY");
}

void AddTokenFlag(CLI::App* app, SecurityFlags* flags) {
  app->add_option("--token-file", flags->token_file,
                  "File with a token of 'sluicectl token create', sent with every call")
      ->envname("SLUICE_TOKEN_FILE");
}

void AddServerSecurityFlags(CLI::App* app, SecurityFlags* flags) {
  app->add_flag("--insecure", flags->insecure,
                "Listen beyond loopback without TLS: whoever reaches the port may do everything");
  app->add_option("--health-address", flags->health_address,
                  "host:port of health checks without TLS, and of nothing else; default: none");
}

absl::StatusOr<ServerSecurity> LoadServerSecurity(const SecurityFlags& flags, RoleSet roles) {
  ServerSecurity security;
  security.insecure = flags.insecure;
  security.health_address = flags.health_address;
  CredentialOptions options;
  options.tls = flags.tls;
  options.roles = roles;
  SLUICE_ASSIGN_OR_RETURN(security.credentials, Credentials::Load(options));
  return security;
}

}  // namespace sluice

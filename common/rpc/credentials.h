// What a process shows its peers and asks of them: TLS with certificates by role, a token, or nothing on loopback.
//
// One object a process, shared by its channels and servers. The files are read again when they change: connections that
// are open go on with what they have, new ones take the new certificates within two seconds, and what is unfit is not
// taken (a warning says why). Thread-safe.
#ifndef SLUICE_COMMON_RPC_CREDENTIALS_H_
#define SLUICE_COMMON_RPC_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/security/certificate.h"
#include "common/security/role.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"

namespace sluice {

struct CredentialOptions {
  TlsFiles tls;            // empty: no TLS
  std::string token_file;  // a person's token, sent with every call; empty: none
  RoleSet roles;           // what this process is: its certificate must name all of them
};

class Credentials {
 public:
  // No TLS, no token.
  static std::shared_ptr<const Credentials> Plaintext();
  // InvalidArgument (exit code 2), with file and remedy, for files that cannot work.
  static absl::StatusOr<std::shared_ptr<const Credentials>> Load(CredentialOptions options);
  ~Credentials();

  bool has_tls() const { return provider_ != nullptr; }
  const CredentialOptions& options() const { return options_; }

  // For a channel to a server of one of the roles `server`: its certificate is checked for CA, dates and role, whatever
  // the host is called.
  std::shared_ptr<grpc::ChannelCredentials> ForChannel(RoleSet server) const;
  // For a server. Clients show a certificate of the CA; optional: or none, and then a token must open what they call.
  std::shared_ptr<grpc::ServerCredentials> ForServer(bool certificate_optional) const;
  // The token in the file as it is now. InvalidArgument if it cannot be read.
  absl::StatusOr<std::string> ReadToken() const;

  // `status`, or if it is Unavailable because of TLS, PermissionDenied that says what is wrong with which side. Asks
  // the server itself, for at most two seconds.
  absl::Status Explain(const absl::Status& status, const std::string& address, RoleSet server) const;

  // PermissionDenied, as Explain says it, if TLS to the server there is sure to fail as things stand; OK otherwise,
  // also if nobody answers: for a process that starts, which should end at once for what trying again does not mend.
  absl::Status CheckServer(const std::string& address, RoleSet server) const;

  // When the certificates in use expire: sluice_certificate_expiry_timestamp_seconds{file}. Nothing without TLS. The
  // metrics must not outlive the credentials.
  void AddMetrics(Metrics* metrics) const;

 private:
  explicit Credentials(CredentialOptions options) : options_(std::move(options)) {}
  absl::Status UnfitToken() const;
  // Notices changed files, for log and metrics; gRPC itself looks as often.
  void Follow();

  const CredentialOptions options_;
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider_;
  mutable Mutex mutex_;
  TlsIdentity identity_ ABSL_GUARDED_BY(mutex_);
  Notification stop_;
  Thread follower_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_CREDENTIALS_H_

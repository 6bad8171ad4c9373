#include "common/rpc/credentials.h"

#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/security/handshake.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kRefreshSeconds = 1;
constexpr absl::Duration kHandshakeTimeout = absl::Seconds(2);
constexpr int64_t kMaxTokenBytes = 4096;

// Believes a server whose certificate names one of the roles. CA and dates have been checked before.
class RoleVerifier : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit RoleVerifier(RoleSet wanted) : wanted_(wanted) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* status) override {
    std::vector<std::string> names;
    for (const grpc::string_ref& name : request->dns_names()) names.emplace_back(name.data(), name.size());
    const RoleSet roles = RolesOfDnsNames(names);
    *status =
        roles.HasAny(wanted_)
            ? grpc::Status::OK
            : grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                           absl::StrCat("its certificate is for ", roles.ToString(), ", not for ", wanted_.ToString()));
    return true;  // decided at once
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

 private:
  const RoleSet wanted_;
};

}  // namespace

std::shared_ptr<const Credentials> Credentials::Plaintext() {
  static const auto* const plaintext = new std::shared_ptr<const Credentials>(new Credentials({}));
  return *plaintext;
}

absl::StatusOr<std::shared_ptr<const Credentials>> Credentials::Load(CredentialOptions options) {
  std::shared_ptr<Credentials> loaded(new Credentials(std::move(options)));
  if (!loaded->options_.token_file.empty()) SLUICE_RETURN_IF_ERROR(loaded->ReadToken().status());
  const TlsFiles& files = loaded->options_.tls;
  if (files.empty()) return loaded;
  {
    MutexLock lock(&loaded->mutex_);
    SLUICE_ASSIGN_OR_RETURN(loaded->identity_, ReadTlsFiles(files, loaded->options_.roles, absl::Now()));
  }
  using grpc::experimental::FileWatcherCertificateProvider;
  loaded->provider_ =
      files.certificate.empty()
          ? std::make_shared<FileWatcherCertificateProvider>(files.ca, kRefreshSeconds)
          : std::make_shared<FileWatcherCertificateProvider>(files.key, files.certificate, files.ca, kRefreshSeconds);
  Credentials* const raw = loaded.get();
  loaded->follower_ = StartThread("certificates", [raw] { raw->Follow(); });
  return loaded;
}

Credentials::~Credentials() {
  stop_.Notify();
  follower_.Join();
}

void Credentials::Follow() {
  absl::Status last = absl::OkStatus();
  while (!stop_.WaitFor(absl::Seconds(kRefreshSeconds))) {
    absl::StatusOr<TlsIdentity> now = ReadTlsFiles(options_.tls, options_.roles, absl::Now());
    if (!now.ok()) {
      if (now.status() != last) {
        LogWarning("new connections may fail: the certificates are unfit", {{"error", now.status().message()}});
      }
      last = now.status();
      continue;
    }
    MutexLock lock(&mutex_);
    if (!last.ok() || now->contents != identity_.contents) {
      LogInfo("certificates read again", {{"certificate", options_.tls.certificate},
                                          {"expires", CertificateTime(now->certificate.not_after)},
                                          {"fingerprint", now->certificate.fingerprint}});
    }
    last = absl::OkStatus();
    identity_ = *std::move(now);
  }
}

std::shared_ptr<grpc::ChannelCredentials> Credentials::ForChannel(RoleSet server) const {
  if (!has_tls()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_);
  options.watch_root_certs();
  if (!options_.tls.certificate.empty()) options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(grpc::experimental::ExternalCertificateVerifier::Create<RoleVerifier>(server));
  options.set_check_call_host(false);  // the role is checked, and hosts are called as they like
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> Credentials::ForServer(bool certificate_optional) const {
  if (!has_tls()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(provider_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(certificate_optional ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
                                                     : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::string> Credentials::ReadToken() const {
  absl::StatusOr<std::string> text = ReadFile(options_.token_file, kMaxTokenBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--token-file: ", text.status().message(),
                                                   "; name a file that holds a token of 'sluicectl token create'"));
  }
  const std::string token(absl::StripAsciiWhitespace(*text));
  for (const char c : token) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) return UnfitToken();
  }
  if (token.empty()) return UnfitToken();
  return token;
}

absl::Status Credentials::UnfitToken() const {
  return absl::InvalidArgumentError(absl::StrCat("--token-file: want ", options_.token_file,
                                                 " to hold one token of 'sluicectl token create' and nothing else"));
}

absl::Status Credentials::Explain(const absl::Status& status, const std::string& address, RoleSet server) const {
  if (status.code() != absl::StatusCode::kUnavailable) return status;
  const absl::Status tried = TryHandshake(address, options_.tls, server, kHandshakeTimeout);
  return tried.code() == absl::StatusCode::kPermissionDenied ? tried : status;
}

absl::Status Credentials::CheckServer(const std::string& address, RoleSet server) const {
  const absl::Status explained = Explain(absl::UnavailableError(""), address, server);
  return explained.code() == absl::StatusCode::kPermissionDenied ? explained : absl::OkStatus();
}

void Credentials::AddMetrics(Metrics* metrics) const {
  if (!has_tls()) return;
  constexpr char kName[] = "sluice_certificate_expiry_timestamp_seconds";
  constexpr char kHelp[] = "When the certificate in a file that this process uses expires, seconds since 1970.";
  Gauge* const own = metrics->AddGauge(kName, kHelp, {{"file", "certificate"}});
  Gauge* const ca = metrics->AddGauge(kName, kHelp, {{"file", "ca"}});
  metrics->OnScrape([this, own, ca] {
    MutexLock lock(&mutex_);
    own->Set(static_cast<double>(absl::ToUnixSeconds(identity_.certificate.not_after)));
    ca->Set(static_cast<double>(absl::ToUnixSeconds(identity_.ca_not_after)));
  });
}

}  // namespace sluice

// Certificates in PEM files: what they say, and whether a set of them can work at all.
//
// Errors are InvalidArgument (exit code 2) and name the flag, the file and the remedy: whoever starts a process with
// unfit files learns it then, and not by a peer that closes the connection.
#ifndef SLUICE_COMMON_SECURITY_CERTIFICATE_H_
#define SLUICE_COMMON_SECURITY_CERTIFICATE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/security/role.h"

// OpenSSL's, from <openssl/x509.h>.
using X509 = struct x509_st;  // NOLINT(readability-identifier-naming)

namespace sluice {

// Paths of PEM files. A client without a certificate of its own names the CA alone.
struct TlsFiles {
  std::string ca;           // certificates of the authorities whose certificates are believed
  std::string certificate;  // own certificate, then those between it and the CA
  std::string key;          // its private key

  bool empty() const { return ca.empty() && certificate.empty() && key.empty(); }
};

// The files of a TlsFiles are read whole up to this size.
inline constexpr int64_t kMaxCertificateBytes = 1 << 20;

struct Certificate {
  std::string common_name;  // of the subject
  std::string issuer;       // the common name of who signed it
  std::vector<std::string> dns_names;
  absl::Time not_before;
  absl::Time not_after;
  std::string fingerprint;  // SHA-256 of its DER form, hexadecimal

  RoleSet roles() const { return RolesOfDnsNames(dns_names); }
};

// What an X509 of OpenSSL says. It stays the caller's.
Certificate DescribeCertificate(const X509& certificate);

// What was read of the files, at one moment.
struct TlsIdentity {
  Certificate certificate;  // empty for a client without one
  absl::Time ca_not_after;  // when the first of the CA's certificates expires
  std::string contents;     // digest of all three files: another one, other contents
};

// Reads all of `files` and checks that they fit: each can be read and is PEM, the key is the certificate's, the CA
// signed it, it is valid at `now` and names every one of `roles`. ca alone is enough if `roles` is empty.
absl::StatusOr<TlsIdentity> ReadTlsFiles(const TlsFiles& files, RoleSet roles, absl::Time now);

// "2026-11-29T20:00:00Z".
std::string CertificateTime(absl::Time time);

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_CERTIFICATE_H_

#include "common/security/certificate.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using CertificatePtr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free>>;

BioPtr ReadOnly(absl::string_view bytes) {
  return BioPtr(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

std::string CommonName(const X509_NAME* name) {
  char text[256] = {};
  // The deprecated reader of one field; it cuts, which is all that a name in a message needs.
  return X509_NAME_get_text_by_NID(const_cast<X509_NAME*>(name), NID_commonName, text, sizeof(text)) < 0 ? "" : text;
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm broken_down = {};
  if (ASN1_TIME_to_tm(time, &broken_down) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&broken_down));
}

absl::StatusOr<std::string> ReadNamed(absl::string_view flag, const std::string& path) {
  absl::StatusOr<std::string> bytes = ReadFile(path, kMaxCertificateBytes);
  if (bytes.ok()) return bytes;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": ", bytes.status().message(), "; name a PEM file that this process may read"));
}

// Every certificate of a PEM file, in its order.
absl::StatusOr<std::vector<CertificatePtr>> ParseCertificates(absl::string_view flag, const std::string& path,
                                                              absl::string_view pem) {
  const absl::Cleanup forget = [] { ERR_clear_error(); };
  const BioPtr bio = ReadOnly(pem);
  std::vector<CertificatePtr> found;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) found.emplace_back(certificate);
  if (found.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", path, " holds no certificate; want PEM (-----BEGIN CERTIFICATE-----)"));
  }
  return found;
}

absl::StatusOr<KeyPtr> ParseKey(const std::string& path, absl::string_view pem) {
  const absl::Cleanup forget = [] { ERR_clear_error(); };
  const BioPtr bio = ReadOnly(pem);
  // Never asks for a password: nobody is there to type it.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--tls-key: ", path, " holds no private key without a password; want PEM (-----BEGIN PRIVATE KEY-----)"));
  }
  return key;
}

absl::Status CheckValidity(absl::string_view flag, const std::string& path, const Certificate& certificate,
                           absl::Time now) {
  if (now >= certificate.not_after) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": the certificate in ", path, " expired at ",
                                                   CertificateTime(certificate.not_after), "; renew it"));
  }
  if (now < certificate.not_before) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": the certificate in ", path, " is valid from ",
                                                   CertificateTime(certificate.not_before),
                                                   " on, which has not come yet; look at the clock of this machine"));
  }
  return absl::OkStatus();
}

// Whether one of `authorities` signed `chain`, whose first certificate it is about. Dates are not looked at.
bool IsIssuedBy(const std::vector<CertificatePtr>& authorities, const std::vector<CertificatePtr>& chain) {
  const absl::Cleanup forget = [] { ERR_clear_error(); };
  const std::unique_ptr<X509_STORE, Freer<X509_STORE_free>> store(X509_STORE_new());
  for (const CertificatePtr& authority : authorities) X509_STORE_add_cert(store.get(), authority.get());
  const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> between(
      sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
  for (size_t i = 1; i < chain.size(); ++i) sk_X509_push(between.get(), chain[i].get());
  const std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
  if (X509_STORE_CTX_init(context.get(), store.get(), chain[0].get(), between.get()) != 1) return false;
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME);
  return X509_verify_cert(context.get()) == 1;
}

absl::Status CheckRoles(const TlsFiles& files, const Certificate& certificate, RoleSet roles) {
  if (certificate.roles().HasAll(roles)) return absl::OkStatus();
  std::vector<std::string> wanted;
  for (const Role role : {Role::kCoordinator, Role::kRank, Role::kActor, Role::kReward, Role::kClient}) {
    if (roles.Has(role) && !certificate.roles().Has(role)) wanted.push_back(RoleDnsName(role));
  }
  return absl::InvalidArgumentError(absl::StrCat("--tls-cert: the certificate in ", files.certificate, " is for ",
                                                 certificate.roles().ToString(),
                                                 " (DNS names: ", absl::StrJoin(certificate.dns_names, ", "),
                                                 "); this process needs one with ", absl::StrJoin(wanted, " and ")));
}

}  // namespace

std::string CertificateTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

Certificate DescribeCertificate(const X509& certificate) {
  Certificate described;
  described.common_name = CommonName(X509_get_subject_name(&certificate));
  described.issuer = CommonName(X509_get_issuer_name(&certificate));
  described.not_before = TimeOf(X509_get0_notBefore(&certificate));
  described.not_after = TimeOf(X509_get0_notAfter(&certificate));
  const std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES_free>> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_DNS) continue;
    described.dns_names.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                                     static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  if (X509_digest(&certificate, EVP_sha256(), digest, &bytes) == 1) {
    described.fingerprint = absl::BytesToHexString({reinterpret_cast<const char*>(digest), bytes});
  }
  return described;
}

absl::StatusOr<TlsIdentity> ReadTlsFiles(const TlsFiles& files, RoleSet roles, absl::Time now) {
  if (files.ca.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key need --tls-ca: the certificates of whom to believe");
  }
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("want --tls-cert and --tls-key together: a certificate and its private key");
  }
  if (files.certificate.empty() && !roles.empty()) {
    return absl::InvalidArgumentError("--tls-ca needs --tls-cert and --tls-key here: this process shows who it is");
  }
  TlsIdentity identity;
  SLUICE_ASSIGN_OR_RETURN(const std::string ca, ReadNamed("--tls-ca", files.ca));
  SLUICE_ASSIGN_OR_RETURN(const auto authorities, ParseCertificates("--tls-ca", files.ca, ca));
  identity.ca_not_after = absl::InfiniteFuture();
  for (const CertificatePtr& authority : authorities) {
    identity.ca_not_after = std::min(identity.ca_not_after, DescribeCertificate(*authority).not_after);
  }
  if (files.certificate.empty()) {
    identity.contents = Sha256(ca);
    return identity;
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string certificate, ReadNamed("--tls-cert", files.certificate));
  SLUICE_ASSIGN_OR_RETURN(const auto chain, ParseCertificates("--tls-cert", files.certificate, certificate));
  SLUICE_ASSIGN_OR_RETURN(const std::string key_pem, ReadNamed("--tls-key", files.key));
  SLUICE_ASSIGN_OR_RETURN(const KeyPtr key, ParseKey(files.key, key_pem));
  if (X509_check_private_key(chain[0].get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat("--tls-key: the key in ", files.key,
                                                   " is not that of the certificate in ", files.certificate,
                                                   "; name the pair that was issued together"));
  }
  identity.certificate = DescribeCertificate(*chain[0]);
  SLUICE_RETURN_IF_ERROR(CheckValidity("--tls-cert", files.certificate, identity.certificate, now));
  if (!IsIssuedBy(authorities, chain)) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-cert: the certificate in ", files.certificate, ", issued by ",
                                                   identity.certificate.issuer, ", is not from a CA in ", files.ca,
                                                   "; name the CA that issued it, and those in between in --tls-cert"));
  }
  SLUICE_RETURN_IF_ERROR(CheckRoles(files, identity.certificate, roles));
  identity.contents = Sha256(absl::StrCat(Sha256(ca), Sha256(certificate), Sha256(key_pem)));
  return identity;
}

}  // namespace sluice

// Certificates made on the spot, for tests of TLS.
#ifndef SLUICE_TESTS_TESTING_CERTIFICATES_H_
#define SLUICE_TESTS_TESTING_CERTIFICATES_H_

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/security/certificate.h"
#include "common/status/status.h"

namespace sluice {

// A certificate authority with a key of its own. Useful for: whole sets of files, wrong authorities, expired and
// not yet valid certificates, renewal in place.
class TestCa {
 public:
  explicit TestCa(const std::string& name)
      : key_(EVP_EC_gen("P-256")),
        certificate_(
            Make(name, nullptr, key_.get(), "", absl::Now() - absl::Hours(1), absl::Now() + absl::Hours(2400))) {}

  // Writes the CA's certificate to `path`.
  void Write(const std::string& path) const { WriteText(path, Pem(certificate_.get())); }

  // Writes FOLDER/NAME.crt and FOLDER/NAME.key for the DNS names ("a,b"; empty: none), and returns them with `ca`.
  TlsFiles Issue(const std::string& folder, const std::string& name, const std::string& dns_names,
                 absl::Time not_before = absl::Now() - absl::Hours(1),
                 absl::Time not_after = absl::Now() + absl::Hours(240)) const {
    TlsFiles files;
    files.ca = JoinPath(folder, "ca.crt");
    files.certificate = JoinPath(folder, name + ".crt");
    files.key = JoinPath(folder, name + ".key");
    const Key key(EVP_EC_gen("P-256"));
    WriteText(files.certificate, Pem(Make(name, this, key.get(), dns_names, not_before, not_after).get()));
    const Bio bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    WriteText(files.key, Text(bio.get()));
    return files;
  }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { X509_free(certificate); }
    void operator()(BIO* bio) const { BIO_free(bio); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Signed = std::unique_ptr<X509, Free>;
  using Bio = std::unique_ptr<BIO, Free>;

  static Signed Make(const std::string& name, const TestCa* issuer, EVP_PKEY* key, const std::string& dns_names,
                     absl::Time not_before, absl::Time not_after) {
    static int serial = 0;
    Signed made(X509_new());
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
    ASN1_TIME_set(X509_getm_notBefore(made.get()), absl::ToTimeT(not_before));
    ASN1_TIME_set(X509_getm_notAfter(made.get()), absl::ToTimeT(not_after));
    X509_NAME* subject = X509_get_subject_name(made.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(made.get(), issuer == nullptr ? subject : X509_get_subject_name(issuer->certificate_.get()));
    X509_set_pubkey(made.get(), key);
    if (issuer == nullptr) Extend(made.get(), NID_basic_constraints, "critical,CA:TRUE");
    std::string names;
    for (absl::string_view rest = dns_names; !rest.empty();) {
      const size_t comma = std::min(rest.find(','), rest.size());
      absl::StrAppend(&names, names.empty() ? "" : ",", "DNS:", rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    if (!names.empty()) Extend(made.get(), NID_subject_alt_name, names);
    X509_sign(made.get(), issuer == nullptr ? key : issuer->key_.get(), EVP_sha256());
    return made;
  }
  static void Extend(X509* certificate, int nid, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static std::string Text(BIO* bio) {
    char* bytes = nullptr;
    const auto size = BIO_get_mem_data(bio, &bytes);
    return std::string(bytes, static_cast<size_t>(size));
  }
  static std::string Pem(X509* certificate) {
    const Bio bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(bio.get(), certificate);
    return Text(bio.get());
  }
  static void WriteText(const std::string& path, const std::string& text) {
    SLUICE_CHECK(WriteFileAtomically(path, text).ok(), "cannot write " + path);
  }

  const Key key_;
  const Signed certificate_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_CERTIFICATES_H_

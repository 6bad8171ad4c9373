#include "common/security/handshake.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <pthread.h>

#include <csignal>
#include <ctime>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/status/status.h"
#include "common/time/clock.h"

namespace sluice {
namespace {

constexpr char kHttp2[] = "\x02h2";

// While it lives, a write to a connection that the peer has closed is an error of this thread and not the death of the
// process: OpenSSL writes without MSG_NOSIGNAL.
class BlockedSigpipe {
 public:
  BlockedSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~BlockedSigpipe() {
    const timespec now = {};
    if (sigismember(&before_, SIGPIPE) == 0) sigtimedwait(&pipe_, nullptr, &now);  // the one that a write left, if any
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  BlockedSigpipe(const BlockedSigpipe&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

// One try, with what it needs until its end.
class Handshake {
 public:
  Handshake(const std::string& address, const TlsFiles& files, RoleSet server, absl::Time deadline)
      : address_(address), files_(files), server_(server), deadline_(deadline) {}
  ~Handshake() {
    if (ssl_ != nullptr) SSL_free(ssl_);
    if (context_ != nullptr) SSL_CTX_free(context_);
    if (connection_ != nullptr) BIO_free_all(connection_);
    ERR_clear_error();
  }

  absl::Status Run() {
    SLUICE_RETURN_IF_ERROR(Connect());
    SLUICE_RETURN_IF_ERROR(Prepare());
    const int result = Drive([this] { return SSL_connect(ssl_); });
    const std::unique_ptr<X509, void (*)(X509*)> peer(SSL_get1_peer_certificate(ssl_), X509_free);
    if (files_.empty()) return peer == nullptr ? absl::OkStatus() : WantsTls();
    if (peer == nullptr) return result == SSL_ERROR_WANT_READ ? Silent() : SpeaksNoTls();
    // Of the server first: what we show is only looked at by one that we believe.
    SLUICE_RETURN_IF_ERROR(Judge(DescribeCertificate(*peer)));
    if (result != SSL_ERROR_NONE) return RefusesUs();
    // In TLS 1.3 a server judges our certificate after our side is done. One that took it sends its settings.
    char byte = 0;
    const int read = Drive([this, &byte] { return SSL_read(ssl_, &byte, 1); });
    if (read == SSL_ERROR_NONE) return absl::OkStatus();
    return read == SSL_ERROR_WANT_READ ? Silent() : RefusesUs();
  }

 private:
  absl::Status Connect() {
    connection_ = BIO_new_connect(address_.c_str());
    if (connection_ == nullptr) return absl::InternalError("OpenSSL makes no connection");
    BIO_set_nbio(connection_, 1);
    while (BIO_do_connect(connection_) != 1) {
      if (!BIO_should_retry(connection_) || !Wait(POLLOUT)) {
        return absl::UnavailableError(absl::StrCat("nobody answers at ", address_));
      }
    }
    return absl::OkStatus();
  }

  // False if the time is up before the connection is ready for these events.
  bool Wait(int events) const {
    const int64_t left = absl::ToInt64Milliseconds(deadline_ - MonotonicNow());
    pollfd connection = {static_cast<int>(BIO_get_fd(connection_, nullptr)), static_cast<int16_t>(events), 0};
    return left > 0 && poll(&connection, 1, static_cast<int>(left)) > 0;
  }

  // The checks of the server's certificate are ours, after the handshake, so that each has its sentence.
  absl::Status Prepare() {
    context_ = SSL_CTX_new(TLS_client_method());
    if (context_ == nullptr) return absl::InternalError("OpenSSL makes no context");
    SSL_CTX_set_verify(context_, SSL_VERIFY_NONE, nullptr);
    bool ok = files_.ca.empty() || SSL_CTX_load_verify_file(context_, files_.ca.c_str()) == 1;
    if (!files_.certificate.empty()) {
      ok = ok && SSL_CTX_use_certificate_chain_file(context_, files_.certificate.c_str()) == 1 &&
           SSL_CTX_use_PrivateKey_file(context_, files_.key.c_str(), SSL_FILETYPE_PEM) == 1;
    }
    if (!ok) {
      return absl::PermissionDeniedError(absl::StrCat("the files of --tls-ca, --tls-cert and --tls-key (", files_.ca,
                                                      " ", files_.certificate, " ", files_.key,
                                                      ") can no longer be used; look at what was put there"));
    }
    ssl_ = SSL_new(context_);
    if (ssl_ == nullptr) return absl::InternalError("OpenSSL makes no connection");
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(kHttp2), sizeof(kHttp2) - 1);
    BIO_up_ref(connection_);
    SSL_set_bio(ssl_, connection_, connection_);
    return absl::OkStatus();
  }

  // Repeats a step of OpenSSL until it is done or the time is up. Returns an SSL_ERROR; WANT_READ: no time left.
  template <typename Step>
  int Drive(const Step& step) {
    while (true) {
      ERR_clear_error();
      const int done = step();
      if (done > 0) return SSL_ERROR_NONE;
      const int error = SSL_get_error(ssl_, done);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return error;
      if (!Wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)) return SSL_ERROR_WANT_READ;
    }
  }

  absl::Status Judge(const Certificate& server) const {
    const absl::Time now = absl::Now();
    if (now >= server.not_after) {
      return absl::PermissionDeniedError(absl::StrCat("the certificate of the server at ", address_, " expired at ",
                                                      CertificateTime(server.not_after), "; renew it"));
    }
    if (now < server.not_before) {
      return absl::PermissionDeniedError(absl::StrCat(
          "the certificate of the server at ", address_, " is valid from ", CertificateTime(server.not_before),
          " on, and it is ", CertificateTime(now), " here; look at the clocks of both machines"));
    }
    if (SSL_get_verify_result(ssl_) != X509_V_OK) {
      return absl::PermissionDeniedError(absl::StrCat("the certificate of the server at ", address_, ", issued by ",
                                                      server.issuer, ", is not from a CA in ", files_.ca,
                                                      "; name its CA with --tls-ca"));
    }
    if (!server.roles().HasAny(server_)) {
      return absl::PermissionDeniedError(
          absl::StrCat("the server at ", address_, " has a certificate for ", server.roles().ToString(),
                       " (DNS names: ", absl::StrJoin(server.dns_names, ", "), "), and a ", server_.ToString(),
                       " is wanted; name another address, or give it the right certificate"));
    }
    return absl::OkStatus();
  }

  absl::Status WantsTls() const {
    return absl::PermissionDeniedError(
        absl::StrCat("the server at ", address_,
                     " speaks TLS alone; name the CA of its certificate with --tls-ca, and what you are with "
                     "--tls-cert and --tls-key or with --token-file"));
  }
  absl::Status SpeaksNoTls() const {
    return absl::PermissionDeniedError(absl::StrCat(
        "the server at ", address_, " speaks no TLS; start it with --tls-cert, or leave --tls-ca out here"));
  }
  absl::Status RefusesUs() const {
    if (files_.certificate.empty()) {
      return absl::PermissionDeniedError(absl::StrCat(
          "the server at ", address_, " wants a certificate; name one with --tls-cert and its key with --tls-key"));
    }
    return absl::PermissionDeniedError(
        absl::StrCat("the server at ", address_, " refuses the certificate in ", files_.certificate,
                     "; it must be valid and from a CA that the server names in its --tls-ca"));
  }
  absl::Status Silent() const { return absl::UnavailableError(absl::StrCat("no answer from ", address_, " in time")); }

  const std::string& address_;
  const TlsFiles& files_;
  const RoleSet server_;
  const absl::Time deadline_;
  BIO* connection_ = nullptr;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

}  // namespace

absl::Status TryHandshake(const std::string& address, const TlsFiles& files, RoleSet server, absl::Duration timeout) {
  const BlockedSigpipe blocked;
  return Handshake(address, files, server, MonotonicNow() + timeout).Run();
}

}  // namespace sluice

// One HTTP request after another over libcurl, signed by AWS Signature Version 4.
#ifndef SLUICE_COMMON_OBJECT_STORE_HTTP_H_
#define SLUICE_COMMON_OBJECT_STORE_HTTP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/file/file.h"

namespace sluice {

enum class HttpMethod { kGet, kHead, kPut, kPost, kDelete };

struct SigningKeys {
  std::string region;
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;  // of temporary credentials, else empty
};

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  std::string url;             // escaped; query keys sorted, each with its '='
  std::string payload_sha256;  // hexadecimal; of no bytes for requests without a body
  // The body: `file` from `offset` if set, else `bytes`.
  absl::string_view bytes;
  const InputFile* file = nullptr;
  int64_t offset = 0;
  int64_t body_bytes = 0;

  absl::Duration timeout = absl::InfiniteDuration();
  absl::Duration connect_timeout = absl::InfiniteDuration();
  absl::Duration stall_timeout = absl::InfiniteDuration();
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  // If the status is not 2xx: the start of the body.
  std::string error_body;
};

// Content-Length, or -1.
int64_t ContentLength(const HttpResponse& response);

// Takes the body of a 2xx answer in pieces; its first error ends the request. Told the answer so far.
using BodySink = std::function<absl::Status(const HttpResponse& response, absl::string_view piece)>;

// Keeps its connection for the next request. Not thread-safe: one for each thread.
class HttpClient {
 public:
  // `stopped` is asked during transfers and may be empty. `ca_file`: PEM of the authorities to trust; empty: the
  // system's.
  HttpClient(const SigningKeys& keys, std::string ca_file, std::function<bool()> stopped);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Sends once. Whatever a server answers is a response, also 404 and 500. Unavailable or DeadlineExceeded: no whole
  // answer; it may have been executed. FailedPrecondition: the server's certificate is not trusted. Cancelled: stopped.
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request, const BodySink& sink);

 private:
  struct Exchange;
  void SetUp(const HttpRequest& request, Exchange* exchange);
  static size_t Read(char* into, size_t size, size_t count, void* exchange);
  static int Seek(void* exchange, int64_t offset, int origin);
  static size_t Write(char* bytes, size_t size, size_t count, void* exchange);
  static size_t Header(char* bytes, size_t size, size_t count, void* exchange);
  static int Progress(void* client, int64_t, int64_t, int64_t, int64_t);

  const SigningKeys keys_;
  const std::string ca_file_;
  const std::function<bool()> stopped_;
  void* const curl_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_HTTP_H_

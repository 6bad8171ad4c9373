#include "common/object_store/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr size_t kMaxErrorBodyBytes = size_t{64} << 10;

// libcurl wants it once a process, before any other thread uses it.
void InitialiseCurl() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

long Milliseconds(absl::Duration duration) {  // NOLINT: libcurl takes long
  if (duration == absl::InfiniteDuration()) return 0;
  return std::max<int64_t>(1, absl::ToInt64Milliseconds(duration));
}

// Host and path of an URL, for messages: no query.
absl::string_view WithoutQuery(absl::string_view url) { return url.substr(0, url.find('?')); }

absl::Status CurlStatus(CURLcode code, absl::string_view detail, absl::string_view url) {
  const std::string message =
      absl::StrCat("no answer from '", WithoutQuery(url), "': ", detail.empty() ? curl_easy_strerror(code) : detail);
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(message);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
      return absl::FailedPreconditionError(
          absl::StrCat(message, "; name the file of the service's authority in AWS_CA_BUNDLE"));
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return absl::InvalidArgumentError(message);
    case CURLE_OUT_OF_MEMORY:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_UNKNOWN_OPTION:
    case CURLE_NOT_BUILT_IN:
      return absl::InternalError(message);
    default:  // connections that are refused, cut or garbled
      return absl::UnavailableError(message);
  }
}

}  // namespace

// What the callbacks of one request share.
struct HttpClient::Exchange {
  const HttpRequest* request;
  const BodySink* sink;
  int64_t sent = 0;  // of the body
  HttpResponse response;
  absl::Status status;  // ours, where a callback ended the request
  char detail[CURL_ERROR_SIZE] = "";
};

int64_t ContentLength(const HttpResponse& response) {
  const auto found = response.headers.find("content-length");
  int64_t bytes = -1;
  return found != response.headers.end() && absl::SimpleAtoi(found->second, &bytes) && bytes >= 0 ? bytes : -1;
}

HttpClient::HttpClient(const SigningKeys& keys, std::string ca_file, std::function<bool()> stopped)
    : keys_(keys),
      ca_file_(std::move(ca_file)),
      stopped_(std::move(stopped)),
      curl_((InitialiseCurl(), curl_easy_init())) {}

HttpClient::~HttpClient() { curl_easy_cleanup(curl_); }

size_t HttpClient::Read(char* into, size_t size, size_t count, void* exchange) {
  Exchange* const self = static_cast<Exchange*>(exchange);
  const int64_t left = self->request->body_bytes - self->sent;
  const size_t bytes = static_cast<size_t>(std::min<int64_t>(left, static_cast<int64_t>(size * count)));
  if (self->request->file != nullptr) {
    self->status = self->request->file->ReadAt(self->request->offset + self->sent, into, bytes);
    if (!self->status.ok()) return CURL_READFUNC_ABORT;
  } else if (bytes > 0) {
    std::memcpy(into, self->request->bytes.data() + self->sent, bytes);
  }
  self->sent += static_cast<int64_t>(bytes);
  return bytes;
}

// libcurl sends the body again from the start when a kept connection turns out to be dead.
int HttpClient::Seek(void* exchange, int64_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Exchange*>(exchange)->sent = offset;
  return CURL_SEEKFUNC_OK;
}

size_t HttpClient::Write(char* bytes, size_t size, size_t count, void* exchange) {
  Exchange* const self = static_cast<Exchange*>(exchange);
  const absl::string_view piece(bytes, size * count);
  if (self->response.status / 100 == 2) {
    self->status = (*self->sink)(self->response, piece);
    return self->status.ok() ? piece.size() : 0;
  }
  std::string* const body = &self->response.error_body;
  body->append(piece.data(), std::min(piece.size(), kMaxErrorBodyBytes - body->size()));
  return piece.size();
}

size_t HttpClient::Header(char* bytes, size_t size, size_t count, void* exchange) {
  HttpResponse* const response = &static_cast<Exchange*>(exchange)->response;
  const absl::string_view line(bytes, size * count);
  if (absl::StartsWith(line, "HTTP/")) {  // the final answer's, after those of a 100 Continue or a proxy
    response->headers.clear();
    response->status = 0;
    const size_t space = line.find(' ');
    if (space != absl::string_view::npos && !absl::SimpleAtoi(line.substr(space + 1, 3), &response->status)) {
      response->status = 0;
    }
  } else if (const size_t colon = line.find(':'); colon != absl::string_view::npos) {
    response->headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return line.size();
}

int HttpClient::Progress(void* client, int64_t, int64_t, int64_t, int64_t) {
  const HttpClient* const self = static_cast<const HttpClient*>(client);
  return self->stopped_ && self->stopped_() ? 1 : 0;
}

void HttpClient::SetUp(const HttpRequest& request, Exchange* exchange) {
  curl_easy_reset(curl_);  // keeps connections
  const auto set = [this](CURLoption option, auto value) { curl_easy_setopt(curl_, option, value); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // NOLINT
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_TIMEOUT_MS, Milliseconds(request.timeout));
  set(CURLOPT_CONNECTTIMEOUT_MS, Milliseconds(request.connect_timeout));
  if (request.stall_timeout != absl::InfiniteDuration()) {
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME,
        std::max(1L, static_cast<long>(absl::ToInt64Seconds(request.stall_timeout))));  // NOLINT
  }
  if (!ca_file_.empty()) set(CURLOPT_CAINFO, ca_file_.c_str());
  set(CURLOPT_ERRORBUFFER, exchange->detail);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &HttpClient::Progress);
  set(CURLOPT_XFERINFODATA, this);
  set(CURLOPT_WRITEFUNCTION, &HttpClient::Write);
  set(CURLOPT_WRITEDATA, exchange);
  set(CURLOPT_HEADERFUNCTION, &HttpClient::Header);
  set(CURLOPT_HEADERDATA, exchange);
  set(CURLOPT_AWS_SIGV4, absl::StrCat("aws:amz:", keys_.region, ":s3").c_str());
  set(CURLOPT_USERNAME, keys_.access_key_id.c_str());
  set(CURLOPT_PASSWORD, keys_.secret_access_key.c_str());
  switch (request.method) {
    case HttpMethod::kGet:
      break;
    case HttpMethod::kHead:
      set(CURLOPT_NOBODY, 1L);
      break;
    case HttpMethod::kDelete:
      set(CURLOPT_CUSTOMREQUEST, "DELETE");
      break;
    case HttpMethod::kPut:
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_READFUNCTION, &HttpClient::Read);
      set(CURLOPT_READDATA, exchange);
      set(CURLOPT_SEEKFUNCTION, &HttpClient::Seek);
      set(CURLOPT_SEEKDATA, exchange);
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body_bytes));
      break;
    case HttpMethod::kPost:
      set(CURLOPT_POST, 1L);
      set(CURLOPT_POSTFIELDS, request.bytes.data() == nullptr ? "" : request.bytes.data());
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body_bytes));
      break;
  }
}

absl::StatusOr<HttpResponse> HttpClient::Send(const HttpRequest& request, const BodySink& sink) {
  if (curl_ == nullptr) return absl::InternalError("libcurl could not be set up");
  if (request.timeout <= absl::ZeroDuration()) return absl::DeadlineExceededError("no time left for a request");
  Exchange exchange{.request = &request, .sink = &sink};
  SetUp(request, &exchange);
  curl_slist* headers = curl_slist_append(nullptr, ("x-amz-content-sha256: " + request.payload_sha256).c_str());
  const absl::Cleanup free_headers = [&headers] { curl_slist_free_all(headers); };
  if (!keys_.session_token.empty()) {
    headers = curl_slist_append(headers, ("x-amz-security-token: " + keys_.session_token).c_str());
  }
  if (request.method == HttpMethod::kPost) headers = curl_slist_append(headers, "content-type: application/xml");
  curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers);
  const CURLcode code = curl_easy_perform(curl_);
  if (!exchange.status.ok()) return exchange.status;
  if (code == CURLE_ABORTED_BY_CALLBACK) return absl::CancelledError("the process stops");
  if (code != CURLE_OK) return CurlStatus(code, exchange.detail, request.url);
  return std::move(exchange.response);
}

}  // namespace sluice

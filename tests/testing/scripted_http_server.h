// Useful for: a peer over HTTP that throttles, fails, cuts the connection or lies. One connection after another, one
// request each; what is answered is a function of the request, down to the last byte.
#ifndef SLUICE_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_
#define SLUICE_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"

namespace sluice {

struct ScriptedRequest {
  std::string method;
  std::string target;  // path and query, as they came
  std::string head;    // all lines, in lower case
  std::string body;
};

// A whole answer with its length.
inline std::string HttpAnswer(int status, absl::string_view body, absl::string_view headers = "") {
  return absl::StrCat("HTTP/1.1 ", status, " x\r\ncontent-length: ", body.size(), "\r\n", headers,
                      "connection: close\r\n\r\n", body);
}

class ScriptedHttpServer {
 public:
  // Called on the server's thread. The bytes to send before the connection is closed; none: closed at once.
  using Script = std::function<std::string(const ScriptedRequest& request)>;

  explicit ScriptedHttpServer(Script script) : script_(std::move(script)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    SLUICE_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(listener_, 16) == 0 &&
                     getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0,
                 "the test's server cannot listen on loopback");
    endpoint_ = absl::StrCat("http://127.0.0.1:", ntohs(address.sin_port));
    thread_ = StartThread("scripted-http", [this] { Serve(); });
  }
  ~ScriptedHttpServer() {
    stop_ = true;
    shutdown(listener_, SHUT_RDWR);
    thread_.Join();
    close(listener_);
  }

  const std::string& endpoint() const { return endpoint_; }
  std::vector<ScriptedRequest> requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }
  // "GET /bucket/x", one a request.
  std::vector<std::string> calls() const {
    std::vector<std::string> calls;
    for (const ScriptedRequest& request : requests())
      calls.push_back(absl::StrCat(request.method, " ", request.target));
    return calls;
  }

 private:
  void Serve() {
    while (!stop_) {
      const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) continue;
      Answer(connection);
      close(connection);
    }
  }

  static void SendAll(int connection, absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }

  // Appends what comes next. False at the end.
  static bool Receive(int connection, std::string* bytes) {
    char buffer[1 << 16];
    const ssize_t got = recv(connection, buffer, sizeof(buffer), 0);
    if (got > 0) bytes->append(buffer, static_cast<size_t>(got));
    return got > 0;
  }

  void Answer(int connection) {
    std::string bytes;
    size_t end = std::string::npos;
    while ((end = bytes.find("\r\n\r\n")) == std::string::npos) {
      if (!Receive(connection, &bytes)) return;
    }
    ScriptedRequest request;
    const std::vector<std::string> words = absl::StrSplit(bytes.substr(0, bytes.find("\r\n")), ' ');
    request.method = words[0];
    request.target = words.size() > 1 ? words[1] : "";
    request.head = absl::AsciiStrToLower(bytes.substr(0, end));
    request.body = bytes.substr(end + 4);
    size_t length = 0;
    if (const size_t at = request.head.find("content-length: "); at != std::string::npos) {
      const std::string value = request.head.substr(at + 16, request.head.find("\r\n", at) - at - 16);
      SLUICE_CHECK(absl::SimpleAtoi(value, &length), "a request without a number as its length");
    }
    if (absl::StrContains(request.head, "expect: 100-continue")) SendAll(connection, "HTTP/1.1 100 Continue\r\n\r\n");
    while (request.body.size() < length) {
      if (!Receive(connection, &request.body)) return;
    }
    {
      MutexLock lock(&mutex_);
      requests_.push_back(request);
    }
    SendAll(connection, script_(request));
  }

  const Script script_;
  int listener_ = -1;
  std::string endpoint_;
  std::atomic<bool> stop_{false};
  mutable Mutex mutex_;
  std::vector<ScriptedRequest> requests_ ABSL_GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_

#include "common/object_store/s3_object_store.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/file/file.h"
#include "common/object_store/s3_messages.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int64_t kMaxParts = 10'000;
constexpr int64_t kKeysPerPage = 1000;
// Of an answer in XML: a page of keys with 1024 bytes each, escaped, and their fields.
constexpr int64_t kMaxAnswerBytes = int64_t{8} << 20;
constexpr size_t kReadBytes = size_t{1} << 20;
// Uploads are started again once if it is unknown whether the last request joined them.
constexpr int kUploadAttempts = 2;
// What a process that stops still spends on an upload that it gave up.
constexpr absl::Duration kAbortTimeout = absl::Seconds(5);

absl::StatusOr<std::string> RangeSha256(const InputFile& file, int64_t offset, int64_t bytes, Sha256Stream* whole) {
  Sha256Stream part;
  std::string buffer(std::min<size_t>(kReadBytes, static_cast<size_t>(bytes)), '\0');
  while (bytes > 0) {
    const size_t piece = std::min<size_t>(buffer.size(), static_cast<size_t>(bytes));
    SLUICE_RETURN_IF_ERROR(file.ReadAt(offset, buffer.data(), piece));
    part.Update({buffer.data(), piece});
    if (whole != nullptr) whole->Update({buffer.data(), piece});
    offset += static_cast<int64_t>(piece);
    bytes -= static_cast<int64_t>(piece);
  }
  return part.Digest();
}

absl::Status CheckBytes(absl::string_view what, int64_t want, int64_t got) {
  if (want == got) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(what, " has ", got, " bytes, want ", want));
}

absl::Status CheckSha256(absl::string_view what, absl::string_view want, absl::string_view got) {
  if (want.empty() || want == got) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(what, " has another SHA-256 than it should"));
}

}  // namespace

// One operation of a caller: a connection for its requests, and its jitter.
class S3ObjectStore::Call {
 public:
  Call(const S3Options& options, uint64_t stream, std::string doing)
      : options_(options),
        doing_(std::move(doing)),
        client_(options.keys, options.location.ca_file, options.transfer.stopped),
        random_(options.transfer.seed, stream) {}

  // Sends until a 2xx answer came or nothing is left to try. `begin` makes the sink of each attempt.
  absl::StatusOr<HttpResponse> Send(HttpRequest request, int64_t transferred_bytes,
                                    const std::function<BodySink()>& begin);

  // The same for answers in XML.
  absl::StatusOr<std::string> SendForText(HttpRequest request, HttpResponse* response = nullptr);

  // One attempt, for callers that repeat more than the request.
  absl::StatusOr<HttpResponse> SendOnce(HttpRequest request, absl::Duration timeout, const BodySink& sink);
  absl::Status Repeat(int64_t transferred_bytes, const std::function<absl::Status(absl::Duration timeout)>& attempt);

 private:
  absl::Duration TimeOf(int64_t bytes) const {
    return options_.transfer.request_timeout + absl::Seconds(bytes / options_.transfer.min_bytes_per_second);
  }
  absl::Status WithoutSecrets(const absl::Status& status) const;

  const S3Options& options_;
  const std::string doing_;
  HttpClient client_;
  Random random_;
};

// A service may repeat what it was sent.
absl::Status S3ObjectStore::Call::WithoutSecrets(const absl::Status& status) const {
  std::string message(status.message());
  for (const std::string* secret :
       {&options_.keys.secret_access_key, &options_.keys.session_token, &options_.keys.access_key_id}) {
    if (!secret->empty()) message = absl::StrReplaceAll(message, {{*secret, "(hidden)"}});
  }
  if (message == status.message()) return status;  // with its payload
  return absl::Status(status.code(), message);
}

absl::StatusOr<HttpResponse> S3ObjectStore::Call::SendOnce(HttpRequest request, absl::Duration timeout,
                                                           const BodySink& sink) {
  request.timeout = timeout;
  request.connect_timeout = options_.transfer.connect_timeout;
  // A service may be silent for long while it joins the parts of an upload.
  if (request.method != HttpMethod::kPost) request.stall_timeout = options_.transfer.stall_timeout;
  if (request.payload_sha256.empty()) request.payload_sha256 = Sha256(request.bytes);
  absl::StatusOr<HttpResponse> response = client_.Send(request, sink);
  if (!response.ok()) return WithoutSecrets(Annotate(response.status(), absl::StrCat("cannot ", doing_)));
  if (response->status / 100 == 2) return response;
  return WithoutSecrets(ErrorFromAnswer(response->status, response->error_body, doing_));
}

absl::Status S3ObjectStore::Call::Repeat(int64_t transferred_bytes,
                                         const std::function<absl::Status(absl::Duration)>& attempt) {
  const TransferOptions& transfer = options_.transfer;
  const RetryOptions retry{.initial_backoff = transfer.first_backoff,
                           .max_backoff = transfer.max_backoff,
                           .attempt_timeout = TimeOf(transferred_bytes),
                           .total_timeout = TimeOf(transferred_bytes) + transfer.retry_timeout};
  return CallWithRetry(retry, transfer.now, transfer.wait, &random_, attempt);
}

absl::StatusOr<HttpResponse> S3ObjectStore::Call::Send(HttpRequest request, int64_t transferred_bytes,
                                                       const std::function<BodySink()>& begin) {
  HttpResponse response;
  SLUICE_RETURN_IF_ERROR(Repeat(transferred_bytes, [&](absl::Duration timeout) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(response, SendOnce(request, timeout, begin()));
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<std::string> S3ObjectStore::Call::SendForText(HttpRequest request, HttpResponse* response) {
  std::string text;
  const auto begin = [&text]() -> BodySink {
    text.clear();
    return [&text](const HttpResponse&, absl::string_view piece) -> absl::Status {
      if (static_cast<int64_t>(text.size() + piece.size()) > kMaxAnswerBytes) {
        return absl::DataLossError(absl::StrCat("the object store's answer has more than ", kMaxAnswerBytes, " bytes"));
      }
      absl::StrAppend(&text, piece);
      return absl::OkStatus();
    };
  };
  const int64_t bytes = request.body_bytes;
  SLUICE_ASSIGN_OR_RETURN(HttpResponse last, Send(std::move(request), bytes, begin));
  if (response != nullptr) *response = std::move(last);
  return text;
}

// A file that goes up in parts.
class S3ObjectStore::Upload {
 public:
  Upload(const S3Options& options, Call* call, std::string whole_key, const InputFile& file, std::string sha256)
      : options_(options), call_(call), key_(std::move(whole_key)), file_(file), sha256_(std::move(sha256)) {}

  // Aborted: it is unknown whether the object was made, because the answer was lost.
  absl::Status Run() {
    SLUICE_ASSIGN_OR_RETURN(const std::string answer,
                            call_->SendForText({.method = HttpMethod::kPost, .url = Url({{"uploads", ""}})}));
    SLUICE_ASSIGN_OR_RETURN(id_, ParseUploadId(answer));
    absl::Status status = SendAll();
    if (!status.ok()) Abort();
    return status;
  }

 private:
  std::string Url(const std::map<std::string, std::string>& query) const {
    return RequestUrl(options_.location, key_, query);
  }

  // Parts that stay would be paid for: tried once, also when the process stops. What failed before is the better error.
  void Abort() const {
    S3Options options = options_;
    options.transfer.stopped = nullptr;
    options.transfer.request_timeout = std::min(options.transfer.request_timeout, kAbortTimeout);
    options.transfer.retry_timeout = absl::ZeroDuration();
    Call call(options, 0, "abort an upload");
    call.SendOnce({.method = HttpMethod::kDelete, .url = Url({{"uploadId", id_}})}, options.transfer.request_timeout,
                  [](const HttpResponse&, absl::string_view) { return absl::OkStatus(); })
        .IgnoreError();
  }

  int64_t PartBytes() const { return std::max(options_.part_bytes, (file_.bytes() + kMaxParts - 1) / kMaxParts); }

  absl::Status SendAll() {
    Sha256Stream whole;
    for (int64_t offset = 0; offset < file_.bytes(); offset += PartBytes()) {
      SLUICE_RETURN_IF_ERROR(SendPart(offset, std::min(PartBytes(), file_.bytes() - offset), &whole));
    }
    SLUICE_RETURN_IF_ERROR(CheckSha256(absl::StrCat("'", file_.path(), "'"), sha256_, whole.Digest()));
    return Complete();
  }

  absl::Status SendPart(int64_t offset, int64_t bytes, Sha256Stream* whole) {
    HttpRequest request{.method = HttpMethod::kPut, .file = &file_, .offset = offset, .body_bytes = bytes};
    SLUICE_ASSIGN_OR_RETURN(request.payload_sha256, RangeSha256(file_, offset, bytes, whole));
    request.url = Url({{"partNumber", absl::StrCat(etags_.size() + 1)}, {"uploadId", id_}});
    HttpResponse response;
    SLUICE_RETURN_IF_ERROR(call_->SendForText(std::move(request), &response).status());
    if (response.headers["etag"].empty()) return absl::DataLossError("the object store gave a part no ETag");
    etags_.push_back(response.headers["etag"]);
    return absl::OkStatus();
  }

  // An answer of 200 may hold an error, and is then repeated like one of 500.
  absl::Status Complete() {
    const std::string body = CompleteUploadXml(etags_);
    HttpRequest request{.method = HttpMethod::kPost,
                        .url = Url({{"uploadId", id_}}),
                        .bytes = body,
                        .body_bytes = static_cast<int64_t>(body.size())};
    return call_->Repeat(file_.bytes(), [&](absl::Duration timeout) -> absl::Status {
      std::string text;
      const BodySink keep = [&text](const HttpResponse&, absl::string_view piece) {
        if (static_cast<int64_t>(text.size()) < kMaxAnswerBytes) absl::StrAppend(&text, piece);
        return absl::OkStatus();
      };
      SLUICE_RETURN_IF_ERROR(call_->SendOnce(request, timeout, keep).status());
      return ParseCompleted(text);
    });
  }

  const S3Options& options_;
  Call* const call_;
  const std::string key_;
  const InputFile& file_;
  const std::string sha256_;
  std::string id_;
  std::vector<std::string> etags_;
};

S3ObjectStore::S3ObjectStore(S3Options options) : options_(std::move(options)) {
  SLUICE_CHECK(options_.transfer.now && options_.transfer.wait, "an object store needs a clock and a way to wait");
  SLUICE_CHECK(options_.part_bytes > 0 && options_.transfer.min_bytes_per_second > 0, "bounds must be above 0");
}

std::string S3ObjectStore::name() const {
  return absl::StrCat("s3://", options_.location.bucket, options_.location.prefix.empty() ? "" : "/",
                      options_.location.prefix);
}

std::string S3ObjectStore::WholeKey(absl::string_view key) const {
  return options_.location.prefix.empty() ? std::string(key) : absl::StrCat(options_.location.prefix, "/", key);
}

absl::Status S3ObjectStore::Put(const std::string& key, absl::string_view bytes) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  Call call(options_, ++calls_, absl::StrCat("write '", name(), "/", key, "'"));
  return call
      .SendForText({.method = HttpMethod::kPut,
                    .url = RequestUrl(options_.location, WholeKey(key), {}),
                    .bytes = bytes,
                    .body_bytes = static_cast<int64_t>(bytes.size())})
      .status();
}

absl::Status S3ObjectStore::PutFile(const std::string& key, const std::string& path, const ExpectedContent& expected) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> file, InputFile::Open(path));
  SLUICE_RETURN_IF_ERROR(
      CheckBytes(absl::StrCat("'", path, "'"), expected.bytes.value_or(file->bytes()), file->bytes()));
  Call call(options_, ++calls_, absl::StrCat("write '", name(), "/", key, "'"));
  if (file->bytes() > options_.part_bytes) {
    absl::Status status;
    for (int attempt = 0; attempt < kUploadAttempts; ++attempt) {
      status = Upload(options_, &call, WholeKey(key), *file, expected.sha256).Run();
      if (!absl::IsAborted(status)) return status;
    }
    return status;
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string sha256, RangeSha256(*file, 0, file->bytes(), nullptr));
  SLUICE_RETURN_IF_ERROR(CheckSha256(absl::StrCat("'", path, "'"), expected.sha256, sha256));
  return call
      .SendForText({.method = HttpMethod::kPut,
                    .url = RequestUrl(options_.location, WholeKey(key), {}),
                    .payload_sha256 = sha256,
                    .file = file.get(),
                    .body_bytes = file->bytes()})
      .status();
}

namespace {

// A body of at most `max_bytes`. It must come with its length: a connection that closes early is then noticed by
// libcurl, and would not be where HTTP lets the end of the connection be the end of the body.
class BoundedBody {
 public:
  BoundedBody(std::string what, int64_t max_bytes, std::optional<int64_t> expected)
      : what_(std::move(what)), max_bytes_(max_bytes), expected_(expected) {}

  BodySink Sink(std::function<absl::Status(absl::string_view)> use) {
    return [this, use = std::move(use)](const HttpResponse& response, absl::string_view piece) -> absl::Status {
      got_ += static_cast<int64_t>(piece.size());
      const int64_t bytes = std::max(got_, ContentLength(response));
      if (bytes > expected_.value_or(bytes)) return CheckBytes(what_, *expected_, bytes);
      if (bytes > max_bytes_) {
        return absl::InvalidArgumentError(absl::StrCat(what_, " has more than ", max_bytes_, " bytes"));
      }
      return use(piece);
    };
  }

  // Whether it may be believed.
  absl::Status Check(const HttpResponse& response) const {
    if (ContentLength(response) < 0) return absl::DataLossError(absl::StrCat(what_, " came without its length"));
    return CheckBytes(what_, expected_.value_or(got_), got_);
  }

 private:
  const std::string what_;
  const int64_t max_bytes_;
  const std::optional<int64_t> expected_;
  int64_t got_ = 0;
};

}  // namespace

absl::StatusOr<std::string> S3ObjectStore::Get(const std::string& key, int64_t max_bytes) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  const std::string what = absl::StrCat("'", name(), "/", key, "'");
  Call call(options_, ++calls_, absl::StrCat("read ", what));
  std::string bytes;
  SLUICE_RETURN_IF_ERROR(call.Repeat(max_bytes, [&](absl::Duration timeout) -> absl::Status {
    bytes.clear();
    BoundedBody body(what, max_bytes, std::nullopt);
    const auto keep = [&bytes](absl::string_view piece) {
      absl::StrAppend(&bytes, piece);
      return absl::OkStatus();
    };
    SLUICE_ASSIGN_OR_RETURN(
        const HttpResponse response,
        call.SendOnce({.url = RequestUrl(options_.location, WholeKey(key), {})}, timeout, body.Sink(keep)));
    return body.Check(response);
  }));
  return bytes;
}

absl::Status S3ObjectStore::GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                                      const ExpectedContent& expected) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  const std::string what = absl::StrCat("'", name(), "/", key, "'");
  Call call(options_, ++calls_, absl::StrCat("read ", what));
  const auto attempt = [&](absl::Duration timeout) {
    return WriteFileAtomically(path, [&](const FileSink& write) -> absl::Status {
      Sha256Stream digest;
      BoundedBody body(what, max_bytes, expected.bytes);
      const auto keep = [&](absl::string_view piece) {
        digest.Update(piece);
        return write(piece);
      };
      SLUICE_ASSIGN_OR_RETURN(
          const HttpResponse response,
          call.SendOnce({.url = RequestUrl(options_.location, WholeKey(key), {})}, timeout, body.Sink(keep)));
      SLUICE_RETURN_IF_ERROR(body.Check(response));
      return CheckSha256(what, expected.sha256, digest.Digest());
    });
  };
  return call.Repeat(expected.bytes.value_or(max_bytes), attempt);
}

absl::StatusOr<std::vector<ObjectInfo>> S3ObjectStore::List(const std::string& prefix, int64_t max_objects) {
  SLUICE_RETURN_IF_ERROR(CheckPrefix(prefix));
  Call call(options_, ++calls_, absl::StrCat("list '", name(), "/", prefix, "'"));
  const std::string whole_prefix = WholeKey(prefix);
  const size_t own = whole_prefix.size() - prefix.size();
  std::vector<ObjectInfo> objects;
  std::string token;
  // An empty page that says that more follow is allowed; a service that gives nothing else is not asked for ever.
  for (int64_t page_number = 0; page_number <= max_objects / kKeysPerPage + kKeysPerPage; ++page_number) {
    std::map<std::string, std::string> query{
        {"list-type", "2"}, {"max-keys", absl::StrCat(kKeysPerPage)}, {"prefix", whole_prefix}};
    if (!token.empty()) query["continuation-token"] = token;
    SLUICE_ASSIGN_OR_RETURN(const std::string xml, call.SendForText({.url = RequestUrl(options_.location, "", query)}));
    SLUICE_ASSIGN_OR_RETURN(S3ListPage page, ParseListPage(xml));
    for (ObjectInfo& object : page.objects) {
      if (!absl::StartsWith(object.key, whole_prefix)) {
        return absl::DataLossError(absl::StrCat("the list of '", name(), "/", prefix, "' holds a key from elsewhere"));
      }
      object.key.erase(0, own);
      // What no key of ours can be, most of all the "folders" that consoles make.
      if (CheckKey(object.key).ok()) objects.push_back(std::move(object));
    }
    if (static_cast<int64_t>(objects.size()) > max_objects) {
      return absl::ResourceExhaustedError(
          absl::StrCat("there are more than ", max_objects, " objects in '", name(), "/", prefix, "'"));
    }
    if (page.next_token.empty()) {
      std::sort(objects.begin(), objects.end(), [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
      return objects;
    }
    token = page.next_token;
  }
  return absl::DataLossError(absl::StrCat("the list of '", name(), "/", prefix, "' does not end"));
}

absl::StatusOr<ObjectInfo> S3ObjectStore::Head(const std::string& key) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  Call call(options_, ++calls_, absl::StrCat("find '", name(), "/", key, "'"));
  HttpResponse response;
  SLUICE_RETURN_IF_ERROR(
      call.SendForText({.method = HttpMethod::kHead, .url = RequestUrl(options_.location, WholeKey(key), {})},
                       &response)
          .status());
  const int64_t bytes = ContentLength(response);
  if (bytes < 0) return absl::DataLossError(absl::StrCat("'", name(), "/", key, "' came without its length"));
  return ObjectInfo{key, bytes};
}

absl::Status S3ObjectStore::Delete(const std::string& key) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  Call call(options_, ++calls_, absl::StrCat("remove '", name(), "/", key, "'"));
  const absl::Status status =
      call.SendForText({.method = HttpMethod::kDelete, .url = RequestUrl(options_.location, WholeKey(key), {})})
          .status();
  // Some services say that there was no such object.
  return absl::IsNotFound(status) && !absl::StrContains(status.message(), "NoSuchBucket") ? absl::OkStatus() : status;
}

}  // namespace sluice

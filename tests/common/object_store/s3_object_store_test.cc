#include "common/object_store/s3_object_store.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/status/exit_code.h"
#include "common/sync/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/object_store_options.h"
#include "tests/testing/scripted_http_server.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Lt;
using ::testing::Not;
using ::testing::StartsWith;

std::string Error(const std::string& code, const std::string& message = "") {
  return "<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>";
}

class S3ObjectStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("no_proxy", "127.0.0.1", 1);
    std::string name = ::testing::TempDir() + "sluice_s3_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    options_.location = {.bucket = "bucket", .endpoint = "http://127.0.0.1:9", .region = "here-1"};
    options_.keys = {.region = "here-1", .access_key_id = "the-id", .secret_access_key = "the-secret"};
    options_.transfer = waits_.Options();
    options_.part_bytes = 4;
  }
  void TearDown() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  // Answers in this order, the last one again and again.
  void Serve(std::vector<std::string> answers) {
    Serve([answers = std::move(answers), next = size_t{0}](const ScriptedRequest&) mutable {
      const size_t now = next;
      if (next + 1 < answers.size()) ++next;
      return answers[now];
    });
  }
  void Serve(ScriptedHttpServer::Script script) {
    server_ = std::make_unique<ScriptedHttpServer>(std::move(script));
    options_.location.endpoint = server_->endpoint();
  }
  S3ObjectStore Store() const { return S3ObjectStore(options_); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  std::vector<std::string> Files() const { return ListDirectory(folder_).value(); }

  FakeWaits waits_;
  S3Options options_;
  std::string folder_;
  std::unique_ptr<ScriptedHttpServer> server_;
};

TEST_F(S3ObjectStoreTest, ThrottledAndFailedRequestsAreRepeatedAfterGrowingWaits) {
  Serve({HttpAnswer(503, Error("SlowDown")), HttpAnswer(429, ""), HttpAnswer(500, Error("InternalError")),
         "" /* hangs up */, HttpAnswer(200, "abc")});
  EXPECT_EQ(Store().Get("x", 10).value(), "abc");
  // 1, 2, 4, 8 s, each times a factor in [1/2, 1).
  const auto about = [](int seconds) { return AllOf(Ge(absl::Seconds(seconds) / 2), Lt(absl::Seconds(seconds))); };
  EXPECT_THAT(waits_.waits, ElementsAre(about(1), about(2), about(4), about(8)));
}

TEST_F(S3ObjectStoreTest, WhatDoesNotGetBetterIsGivenUpWithItsOwnCode) {
  Serve({HttpAnswer(503, Error("SlowDown", "Reduce your rate."))});
  absl::Status status = Store().Put("x", "abc");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("gave up after"), HasSubstr("SlowDown (Reduce your rate.)"), HasSubstr("s3://bucket/x")));
  Serve({HttpAnswer(502, "<html>")});
  EXPECT_EQ(Store().Put("x", "abc").code(), absl::StatusCode::kUnavailable);
  server_.reset();  // nobody listens there any more
  EXPECT_EQ(Store().Put("x", "abc").code(), absl::StatusCode::kUnavailable);
}

TEST_F(S3ObjectStoreTest, EveryAnswerOfAServiceHasACodeThatSaysWhatToDo) {
  struct Case {
    int status;
    const char* code;
    absl::StatusCode want;
  };
  for (const Case& one :
       {Case{403, "SignatureDoesNotMatch", absl::StatusCode::kPermissionDenied},
        Case{403, "AccessDenied", absl::StatusCode::kPermissionDenied},
        Case{403, "InvalidAccessKeyId", absl::StatusCode::kUnauthenticated},
        Case{400, "ExpiredToken", absl::StatusCode::kUnauthenticated},
        Case{401, "", absl::StatusCode::kUnauthenticated}, Case{404, "NoSuchBucket", absl::StatusCode::kNotFound},
        Case{404, "NoSuchKey", absl::StatusCode::kNotFound},
        Case{301, "PermanentRedirect", absl::StatusCode::kFailedPrecondition},
        Case{400, "AuthorizationHeaderMalformed", absl::StatusCode::kFailedPrecondition},
        Case{400, "XAmzContentSHA256Mismatch", absl::StatusCode::kDataLoss},
        Case{400, "EntityTooLarge", absl::StatusCode::kInvalidArgument}}) {
    Serve({HttpAnswer(one.status, Error(one.code))});
    const absl::Status status = Store().Put("x", "abc");
    EXPECT_EQ(status.code(), one.want) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.code));
  }
  EXPECT_THAT(waits_.waits, ElementsAre());  // none is worth another try
  Serve({HttpAnswer(507, Error("XMinioStorageFull"))});
  EXPECT_EQ(ExitCodeFor(Store().Put("x", "abc")), ExitCode::kNoSpace);
}

TEST_F(S3ObjectStoreTest, AServiceThatRepeatsCredentialsDoesNotMakeUsRepeatThem) {
  options_.keys.session_token = "the-token";
  Serve({HttpAnswer(403, Error("AccessDenied", "the-id with the-secret and the-token"))});
  const absl::Status status = Store().Put("x", "abc");
  EXPECT_THAT(std::string(status.message()),
              AllOf(Not(HasSubstr("the-")), HasSubstr("AccessDenied ((hidden) with (hidden) and (hidden))")));
}

TEST_F(S3ObjectStoreTest, RequestsAreSignedOverTheirPayloadAndTheirSortedQuery) {
  Serve({HttpAnswer(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")});
  options_.location.prefix = "runs";
  EXPECT_TRUE(Store().List("a b/", 10).value().empty());
  EXPECT_TRUE(Store().Put("a b", "abc").ok());
  EXPECT_THAT(server_->calls(),
              ElementsAre("GET /bucket?list-type=2&max-keys=1000&prefix=runs%2Fa%20b%2F", "PUT /bucket/runs/a%20b"));
  const std::string head = server_->requests()[1].head;
  EXPECT_THAT(head, HasSubstr("x-amz-content-sha256: " + Sha256("abc")));
  EXPECT_THAT(head, HasSubstr("/here-1/s3/aws4_request"));
  EXPECT_THAT(head, HasSubstr("signedheaders=host;x-amz-content-sha256;x-amz-date"));
  EXPECT_THAT(head, Not(HasSubstr("the-secret")));
}

// 10 bytes promised, 4 sent.
constexpr char kCut[] = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabcd";

TEST_F(S3ObjectStoreTest, ADownloadThatIsCutStartsAgain) {
  Serve({kCut, kCut, HttpAnswer(200, "0123456789")});
  const ExpectedContent expected{10, Sha256("0123456789")};
  EXPECT_TRUE(Store().GetToFile("x", Path("x"), 100, expected).ok());
  EXPECT_EQ(ReadFile(Path("x")).value(), "0123456789");
  EXPECT_THAT(Files(), ElementsAre("x"));
  EXPECT_EQ(waits_.waits.size(), 2u);
}

TEST_F(S3ObjectStoreTest, ADownloadThatIsAlwaysCutLeavesTheOldFileAndNothingElse) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "old").ok());
  Serve({kCut});
  EXPECT_EQ(Store().GetToFile("x", Path("x"), 100, {}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Store().Get("x", 100).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReadFile(Path("x")).value(), "old");
  EXPECT_THAT(Files(), ElementsAre("x"));
}

TEST_F(S3ObjectStoreTest, AnAnswerWithoutItsLengthIsNotTakenForWhole) {
  // By HTTP this ends where the connection does, wherever that is.
  Serve({"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcd"});
  EXPECT_EQ(Store().GetToFile("x", Path("x"), 100, {}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Store().Get("x", 100).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(S3ObjectStoreTest, AFullDiskEndsADownloadAtOnce) {
  Serve({HttpAnswer(200, std::string(100, 'x'))});
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = 50;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const absl::Status status = Store().GetToFile("x", Path("x"), 1000, {});
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(ExitCodeFor(status), ExitCode::kNoSpace) << status;
  EXPECT_THAT(Files(), ElementsAre());
  EXPECT_THAT(waits_.waits, ElementsAre());
}

TEST_F(S3ObjectStoreTest, AServerThatSaysNothingIsLeftAfterTheTimeOfARequest) {
  Notification over;
  Serve([&over](const ScriptedRequest&) {
    over.Wait();
    return std::string();
  });
  options_.transfer.request_timeout = absl::Milliseconds(50);
  options_.transfer.stall_timeout = absl::InfiniteDuration();
  options_.transfer.retry_timeout = absl::ZeroDuration();
  EXPECT_EQ(Store().Put("x", "abc").code(), absl::StatusCode::kDeadlineExceeded);
  options_.transfer.request_timeout = absl::Seconds(90);
  options_.transfer.stopped = [] { return true; };
  EXPECT_EQ(Store().Put("x", "abc").code(), absl::StatusCode::kCancelled);
  over.Notify();
  server_.reset();  // its script reads `over`, also for a request that it takes up only now
}

// A service that takes uploads in parts. `complete` answers the last request.
class UploadServer {
 public:
  explicit UploadServer(std::function<std::string(int attempt)> complete) : complete_(std::move(complete)) {}

  std::string operator()(const ScriptedRequest& request) {
    if (absl::EndsWith(request.target, "?uploads=")) {
      return HttpAnswer(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>");
    }
    if (request.method == "PUT") return HttpAnswer(200, "", "ETag: \"" + request.body + "\"\r\n");
    if (request.method == "DELETE") return HttpAnswer(204, "");
    return complete_(++attempt_);
  }

 private:
  std::function<std::string(int)> complete_;
  int attempt_ = 0;
};

constexpr char kCompleted[] = "<CompleteMultipartUploadResult/>";

class S3UploadTest : public S3ObjectStoreTest {
 protected:
  void SetUp() override {
    S3ObjectStoreTest::SetUp();
    ASSERT_TRUE(WriteFileAtomically(Path("file"), "0123456789").ok());  // parts of 4, 4 and 2 bytes
  }
};

TEST_F(S3UploadTest, ALargeFileGoesUpInPartsThatTheLastRequestJoins) {
  Serve(UploadServer([](int) { return HttpAnswer(200, kCompleted); }));
  EXPECT_TRUE(Store().PutFile("x", Path("file"), {10, Sha256("0123456789")}).ok());
  EXPECT_THAT(server_->calls(), ElementsAre("POST /bucket/x?uploads=", "PUT /bucket/x?partNumber=1&uploadId=u",
                                            "PUT /bucket/x?partNumber=2&uploadId=u",
                                            "PUT /bucket/x?partNumber=3&uploadId=u", "POST /bucket/x?uploadId=u"));
  EXPECT_EQ(server_->requests()[2].body, "4567");
  EXPECT_THAT(server_->requests()[4].body, HasSubstr("<PartNumber>3</PartNumber><ETag>\"89\"</ETag>"));
}

TEST_F(S3UploadTest, AStatusOf200WithAnErrorInItIsAnError) {
  Serve(UploadServer([](int attempt) { return HttpAnswer(200, attempt == 1 ? Error("InternalError") : kCompleted); }));
  EXPECT_TRUE(Store().PutFile("x", Path("file"), {}).ok());
  Serve(UploadServer([](int) { return HttpAnswer(200, Error("InternalError")); }));
  EXPECT_EQ(Store().PutFile("x", Path("file"), {}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(S3UploadTest, AnUploadWhoseLastAnswerWasLostIsMadeAgain) {
  // The first is executed but not answered; asked again, the service knows no such upload.
  Serve(UploadServer([](int attempt) {
    return attempt == 1 ? "" : attempt == 2 ? HttpAnswer(404, Error("NoSuchUpload")) : HttpAnswer(200, kCompleted);
  }));
  EXPECT_TRUE(Store().PutFile("x", Path("file"), {}).ok());
  Serve(UploadServer([](int) { return HttpAnswer(404, Error("NoSuchUpload")); }));
  EXPECT_EQ(Store().PutFile("x", Path("file"), {}).code(), absl::StatusCode::kAborted);
}

TEST_F(S3UploadTest, AFailedUploadTakesItsPartsBack) {
  Serve(UploadServer([](int) { return HttpAnswer(403, Error("AccessDenied")); }));
  EXPECT_EQ(Store().PutFile("x", Path("file"), {}).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(server_->calls().back(), "DELETE /bucket/x?uploadId=u");
}

TEST_F(S3UploadTest, AProcessThatStopsStillTakesItsPartsBack) {
  auto stopping = std::make_shared<std::atomic<bool>>(false);
  options_.transfer.stopped = [stopping] { return stopping->load(); };
  Serve([stopping, server = UploadServer(nullptr)](const ScriptedRequest& request) mutable {
    if (request.method == "PUT") *stopping = true;
    return server(request);
  });
  EXPECT_EQ(Store().PutFile("x", Path("file"), {}).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(server_->calls().back(), "DELETE /bucket/x?uploadId=u");
}

TEST_F(S3UploadTest, AFileThatIsNotWhatItShouldBeDoesNotGoUp) {
  Serve(UploadServer([](int) { return HttpAnswer(200, kCompleted); }));
  EXPECT_EQ(Store().PutFile("x", Path("file"), {.bytes = 11}).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(server_->calls(), ElementsAre());
  EXPECT_EQ(Store().PutFile("x", Path("file"), {.sha256 = Sha256("")}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(server_->calls().back(), "DELETE /bucket/x?uploadId=u");  // and nothing was joined
  EXPECT_EQ(Store().PutFile("x", Path("absent"), {}).code(), absl::StatusCode::kNotFound);
}

std::string Page(const std::string& key, const std::string& token) {
  return HttpAnswer(200, "<ListBucketResult><Contents><Key>" + key + "</Key><Size>1</Size></Contents><IsTruncated>" +
                             (token.empty() ? "false" : "true") + "</IsTruncated><NextContinuationToken>" + token +
                             "</NextContinuationToken></ListBucketResult>");
}

TEST_F(S3ObjectStoreTest, AListIsReadPageByPageAndNeverCutShort) {
  Serve({Page("b", "to+ken="), Page("a", "")});
  const std::vector<ObjectInfo> objects = Store().List("", 2).value();
  ASSERT_EQ(objects.size(), 2u);
  EXPECT_EQ(objects[0].key, "a");
  EXPECT_THAT(server_->calls()[1], StartsWith("GET /bucket?continuation-token=to%2Bken%3D&list-type=2&"));
  Serve({Page("b", "t"), Page("a", "")});
  EXPECT_EQ(Store().List("", 1).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(S3ObjectStoreTest, AListThatIsNoneOrDoesNotEndIsRefused) {
  Serve({HttpAnswer(200, "<html>welcome</html>")});
  EXPECT_EQ(Store().List("", 10).status().code(), absl::StatusCode::kDataLoss);
  Serve({Page("elsewhere/x", "")});
  EXPECT_EQ(Store().List("here/", 10).status().code(), absl::StatusCode::kDataLoss);
  Serve({Page("folder/", "again")});  // what consoles make for a folder, for ever
  EXPECT_EQ(Store().List("", 10).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(S3ObjectStoreTest, RemovingWhatIsNotThereIsDone) {
  Serve({HttpAnswer(404, Error("NoSuchKey"))});
  EXPECT_TRUE(Store().Delete("x").ok());
  Serve({HttpAnswer(404, Error("NoSuchBucket"))});
  EXPECT_EQ(Store().Delete("x").code(), absl::StatusCode::kNotFound);
}

TEST_F(S3ObjectStoreTest, ATextThatIsNoKeyIsRefusedBeforeAnythingIsSent) {
  EXPECT_EQ(Store().Put("../x", "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Store().Get("", 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Store().Delete("/x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Store().List("a/../", 1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice

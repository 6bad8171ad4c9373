// S3ObjectStore against moto's server, which checks every signature. Started by tests/testing/moto_server.py.
#include <stdlib.h>

#include <memory>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/object_store/open_object_store.h"
#include "common/object_store/s3_object_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/object_store_options.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// S3's smallest part but for the last one.
constexpr int64_t kPartBytes = int64_t{5} << 20;

class MotoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "sluice_moto_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    store_ = Store(Options());
  }
  void TearDown() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  // A prefix for each test, with a character that must be escaped.
  static S3Options Options() {
    const std::string url = "s3://" + Environment("SLUICE_TEST_S3_BUCKET") + "/of%20" +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name() +
                            "?endpoint=" + Environment("SLUICE_TEST_S3_ENDPOINT");
    S3Options options;
    options.location = ParseS3Url(url, ProcessEnvironment()).value();
    options.keys = SigningKeysFromEnvironment(options.location.region, ProcessEnvironment()).value();
    options.part_bytes = kPartBytes;
    return options;
  }
  static std::string Environment(const char* name) { return ProcessEnvironment()(name); }

  std::unique_ptr<ObjectStore> Store(S3Options options) {
    options.transfer = waits_.Options();
    return std::make_unique<S3ObjectStore>(std::move(options));
  }
  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  std::vector<std::string> Keys(const std::string& prefix) {
    std::vector<std::string> keys;
    const std::vector<ObjectInfo> objects = store_->List(prefix, 5000).value();
    for (const ObjectInfo& object : objects) keys.push_back(object.key);
    return keys;
  }

  FakeWaits waits_;
  std::string folder_;
  std::unique_ptr<ObjectStore> store_;
};

// Not periodic, so that parts in another order would show.
std::string SomeBytes(size_t count) {
  std::string bytes(count, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

TEST_F(MotoTest, AnObjectIsWrittenFoundReadListedAndRemoved) {
  const absl::Status written = store_->Put("a/b.json", "{}");
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(store_->Get("a/b.json", 10).value(), "{}");
  EXPECT_EQ(store_->Head("a/b.json").value().bytes, 2);
  EXPECT_THAT(Keys(""), ElementsAre("a/b.json"));
  ASSERT_TRUE(store_->Delete("a/b.json").ok());
  EXPECT_TRUE(store_->Delete("a/b.json").ok());
  EXPECT_FALSE(ObjectExists(store_.get(), "a/b.json").value());
  EXPECT_EQ(store_->Get("a/b.json", 10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(waits_.waits, ElementsAre());
}

TEST_F(MotoTest, KeysMayHoldAnythingThatMustBeEscaped) {
  const std::vector<std::string> keys = {"a b",   "a+b",     "ü/日本", "x=1&y=2",  "50%",     "50%25",
                                         "q?r#s", "t~(*)'!", "[u]{v}", "\"w\"|^`", "a:b;c,d", "@$<>"};
  for (const std::string& key : keys) {
    const absl::Status written = store_->Put(key, key);
    ASSERT_TRUE(written.ok()) << written;
  }
  for (const std::string& key : keys) {
    EXPECT_EQ(store_->Get(key, 100).value(), key);
    EXPECT_EQ(store_->Head(key).value().bytes, static_cast<int64_t>(key.size()));
    EXPECT_THAT(Keys(key), ::testing::Contains(key));
  }
  EXPECT_EQ(Keys("").size(), keys.size());
  for (const std::string& key : keys) EXPECT_TRUE(store_->Delete(key).ok());
  EXPECT_THAT(Keys(""), ElementsAre());
}

TEST_F(MotoTest, FilesGoUpInOneRequestOrInPartsAndComeBackTheSame) {
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{kPartBytes}, size_t{kPartBytes + 1}, size_t{2 * kPartBytes + 7}}) {
    const std::string content = SomeBytes(bytes);
    ASSERT_TRUE(WriteFileAtomically(Path("from"), content).ok());
    const ExpectedContent expected{static_cast<int64_t>(bytes), Sha256(content)};
    const absl::Status written = store_->PutFile("a file+1=ü", Path("from"), expected);
    ASSERT_TRUE(written.ok()) << bytes << ": " << written;
    const absl::Status read = store_->GetToFile("a file+1=ü", Path("to"), 1 << 30, expected);
    ASSERT_TRUE(read.ok()) << bytes << ": " << read;
    EXPECT_EQ(FileSha256(Path("to")).value(), expected.sha256);
  }
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("from", "to"));
}

TEST_F(MotoTest, AFileInPartsThatIsNotWhatItShouldBeIsNotThere) {
  ASSERT_TRUE(WriteFileAtomically(Path("from"), SomeBytes(kPartBytes + 1)).ok());
  EXPECT_EQ(store_->PutFile("x", Path("from"), {.sha256 = Sha256("other")}).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(ObjectExists(store_.get(), "x").value());
}

TEST_F(MotoTest, ADownloadThatIsNotWhatItShouldBeLeavesNothing) {
  ASSERT_TRUE(store_->Put("x", "abc").ok());
  EXPECT_EQ(store_->GetToFile("x", Path("to"), 10, {.sha256 = Sha256("abd")}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->GetToFile("x", Path("to"), 10, {.bytes = 2}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->GetToFile("x", Path("to"), 10, {.bytes = 4}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->GetToFile("x", Path("to"), 2, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Get("x", 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre());
}

TEST_F(MotoTest, ListsGoOverSeveralPagesUpToTheirBound) {
  for (int i = 0; i < 1003; ++i) ASSERT_TRUE(store_->Put("many/" + std::to_string(i), "").ok());
  EXPECT_EQ(Keys("many/").size(), 1003u);
  EXPECT_THAT(Keys("many/100"), ElementsAre("many/100", "many/1000", "many/1001", "many/1002"));
  EXPECT_EQ(store_->List("many/", 1002).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(MotoTest, AWrongSecretIsRefusedWithTheServicesWordAndWithoutTheSecret) {
  S3Options options = Options();
  options.keys.secret_access_key = "not/the+secret";
  ASSERT_TRUE(WriteFileAtomically(Path("from"), SomeBytes(kPartBytes + 1)).ok());
  const std::unique_ptr<ObjectStore> store = Store(options);
  for (const absl::Status& status :
       {store->Put("x", "abc"), store->Get("x", 10).status(), store->List("", 10).status(), store->Delete("x"),
        store->PutFile("x", Path("from"), {}), store->GetToFile("x", Path("to"), 10, {})}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("SignatureDoesNotMatch"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("AWS_SECRET_ACCESS_KEY"));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("not/the+secret")));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(options.keys.access_key_id)));
  }
  EXPECT_EQ(store->Head("x").status().code(), absl::StatusCode::kPermissionDenied);  // has no body, so no word
  EXPECT_THAT(Keys(""), ElementsAre());
  EXPECT_THAT(waits_.waits, ElementsAre());  // none is worth another try
}

TEST_F(MotoTest, AnUnknownKeyAndAPowerlessOneAreToldApart) {
  S3Options options = Options();
  options.keys.access_key_id = "AKIANOBODYKNOWSTHIS1";
  EXPECT_EQ(Store(options)->Put("x", "abc").code(), absl::StatusCode::kUnauthenticated);
  options.keys.access_key_id = Environment("SLUICE_TEST_S3_POWERLESS_KEY");
  options.keys.secret_access_key = Environment("SLUICE_TEST_S3_POWERLESS_SECRET");
  const absl::Status status = Store(options)->Put("x", "abc");
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("AccessDenied"));
}

TEST_F(MotoTest, TemporaryCredentialsSendTheirTokenSigned) {
  S3Options options = Options();
  options.keys.access_key_id = Environment("SLUICE_TEST_S3_ROLE_KEY");
  options.keys.secret_access_key = Environment("SLUICE_TEST_S3_ROLE_SECRET");
  options.keys.session_token = Environment("SLUICE_TEST_S3_ROLE_TOKEN");
  const std::unique_ptr<ObjectStore> store = Store(options);
  ASSERT_TRUE(WriteFileAtomically(Path("from"), SomeBytes(kPartBytes + 1)).ok());
  const absl::Status written = store->PutFile("x", Path("from"), {});
  EXPECT_TRUE(written.ok()) << written;
  EXPECT_EQ(store->Head("x").value().bytes, kPartBytes + 1);
  EXPECT_EQ(store->List("", 10).value().size(), 1u);

  options.keys.session_token += "x";
  const absl::Status refused = Store(options)->Put("x", "abc");
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(refused.message()), Not(HasSubstr(options.keys.session_token)));
}

TEST_F(MotoTest, AnUnknownBucketIsNotFound) {
  S3Options options = Options();
  options.location.bucket = "no-such-bucket";
  const std::unique_ptr<ObjectStore> store = Store(options);
  for (const absl::Status& status :
       {store->Put("x", "abc"), store->Get("x", 10).status(), store->List("", 10).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("NoSuchBucket"));
  }
}

TEST_F(MotoTest, TheUrlAndTheEnvironmentAreEnough) {
  const std::string url = "s3://" + Environment("SLUICE_TEST_S3_BUCKET") + "/whole?region=eu-west-1&endpoint=" +
                          EscapeForUrl(Environment("SLUICE_TEST_S3_ENDPOINT"), false);
  const std::unique_ptr<ObjectStore> store = OpenObjectStore(url, waits_.Options(), ProcessEnvironment()).value();
  ASSERT_TRUE(store->Put("x", "abc").ok());
  EXPECT_EQ(store->Get("x", 3).value(), "abc");
  EXPECT_EQ(store->name(), "s3://" + Environment("SLUICE_TEST_S3_BUCKET") + "/whole");
}

}  // namespace
}  // namespace sluice

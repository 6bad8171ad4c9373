#include "common/object_store/s3_location.h"

#include <map>
#include <string>

#include "common/object_store/open_object_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/object_store_options.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

EnvironmentFunction With(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  };
}

TEST(ParseS3UrlTest, ABucketAloneIsAmazons) {
  const S3Location location = ParseS3Url("s3://my-bucket", With({})).value();
  EXPECT_EQ(location.bucket, "my-bucket");
  EXPECT_EQ(location.prefix, "");
  EXPECT_EQ(location.region, "us-east-1");
  EXPECT_EQ(location.endpoint, "https://s3.us-east-1.amazonaws.com");
}

TEST(ParseS3UrlTest, TheUrlGoesBeforeTheEnvironment) {
  const EnvironmentFunction environment = With({{"AWS_REGION", "eu-west-1"},
                                                {"AWS_DEFAULT_REGION", "eu-west-2"},
                                                {"AWS_ENDPOINT_URL", "https://store.example:9000/"},
                                                {"AWS_CA_BUNDLE", "/etc/ca.pem"}});
  S3Location location = ParseS3Url("s3://bucket/a/b%20c/", environment).value();
  EXPECT_EQ(location.prefix, "a/b c");
  EXPECT_EQ(location.region, "eu-west-1");
  EXPECT_EQ(location.endpoint, "https://store.example:9000");
  EXPECT_EQ(location.ca_file, "/etc/ca.pem");
  location = ParseS3Url("s3://bucket?endpoint=http%3A%2F%2Flocalhost:1&region=here", environment).value();
  EXPECT_EQ(location.region, "here");
  EXPECT_EQ(location.endpoint, "http://localhost:1");
}

TEST(ParseS3UrlTest, WhatIsWrongIsSaidAndCredentialsAreNotRepeated) {
  for (const char* url :
       {"http://x", "s3://", "s3://UPPER", "s3://ab", "s3://id:pass-word@bucket/x", "s3://bucket?secret=pass-word",
        "s3://bucket?endpoint=ftp://host", "s3://bucket?endpoint=http://id:pass-word@host", "s3://bucket?region=a/b",
        "s3://bucket/../x", "s3://bucket/%", "s3://bucket/%0a", "s3://bucket//x"}) {
    const absl::Status status = ParseS3Url(url, With({})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << url;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("pass-word")));
  }
}

TEST(SigningKeysTest, TheMissingVariableIsNamed) {
  EXPECT_THAT(std::string(SigningKeysFromEnvironment("r", With({{"AWS_ACCESS_KEY_ID", "a"}})).status().message()),
              HasSubstr("AWS_SECRET_ACCESS_KEY"));
  const absl::Status status =
      SigningKeysFromEnvironment("r", With({{"AWS_ACCESS_KEY_ID", "a"}, {"AWS_SECRET_ACCESS_KEY", "pass-word\n"}}))
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("pass-word")));
}

TEST(RequestUrlTest, EverythingIsEscapedAsSignaturesWantIt) {
  const S3Location location{.bucket = "b", .endpoint = "http://h:1"};
  EXPECT_EQ(RequestUrl(location, "a b/ü+=~", {{"uploads", ""}, {"a", "x/y"}}),
            "http://h:1/b/a%20b/%C3%BC%2B%3D~?a=x%2Fy&uploads=");
}

TEST(OpenObjectStoreTest, TheSchemeChoosesTheStore) {
  FakeWaits waits;
  const auto open = [&waits](const char* url, std::map<std::string, std::string> variables) {
    return OpenObjectStore(url, waits.Options(), With(std::move(variables)));
  };
  EXPECT_EQ(open("/srv/objects/", {}).value()->name(), "/srv/objects");
  EXPECT_EQ(open("file:///srv/objects", {}).value()->name(), "/srv/objects");
  EXPECT_EQ(open("s3://bucket/x", {{"AWS_ACCESS_KEY_ID", "a"}, {"AWS_SECRET_ACCESS_KEY", "b"}}).value()->name(),
            "s3://bucket/x");
  EXPECT_EQ(open("s3://bucket/x", {}).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(open("gs://bucket", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(open("relative", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(CheckObjectStoreUrl("s3://bucket/x", With({})).ok());
  EXPECT_FALSE(CheckObjectStoreUrl("s3://bucket/x?y=z", With({})).ok());
}

}  // namespace
}  // namespace sluice

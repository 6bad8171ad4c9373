#include "common/object_store/s3_messages.h"

#include <string>

#include "common/status/exit_code.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(ParseListPageTest, KeysComeUnescapedWithTheirSizes) {
  const S3ListPage page = ParseListPage(R"(<?xml version="1.0" encoding="UTF-8"?>
    <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
    <Contents><Key>a&amp;b &lt;ü</Key><Size>5000000000</Size></Contents>
    <Contents><Key> x</Key><Size>0</Size></Contents>
    <NextContinuationToken>t=</NextContinuationToken></ListBucketResult>)")
                              .value();
  ASSERT_EQ(page.objects.size(), 2u);
  EXPECT_EQ(page.objects[0].key, "a&b <ü");
  EXPECT_EQ(page.objects[0].bytes, 5'000'000'000);
  EXPECT_EQ(page.objects[1].key, " x");
  EXPECT_EQ(page.next_token, "t=");
}

TEST(ParseListPageTest, WhatIsNoPageIsRefused) {
  for (const char* xml : {"", "x", "<ListBucketResult>", "<html/>", "<ListBucketResult><Contents/></ListBucketResult>",
                          "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
                          "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"}) {
    EXPECT_EQ(ParseListPage(xml).status().code(), absl::StatusCode::kDataLoss) << xml;
  }
}

TEST(ParseUploadIdTest, AnUploadHasAnId) {
  EXPECT_EQ(
      ParseUploadId("<InitiateMultipartUploadResult><UploadId>u+/</UploadId></InitiateMultipartUploadResult>").value(),
      "u+/");
  EXPECT_EQ(ParseUploadId("<InitiateMultipartUploadResult/>").status().code(), absl::StatusCode::kDataLoss);
}

TEST(ParseCompletedTest, OnlyTheResultItselfIsSuccess) {
  EXPECT_TRUE(ParseCompleted("<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>").ok());
  EXPECT_EQ(ParseCompleted("<Error><Code>InternalError</Code></Error>").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ParseCompleted("").code(), absl::StatusCode::kDataLoss);
}

TEST(CompleteUploadXmlTest, PartsAreNumberedFromOne) {
  EXPECT_THAT(CompleteUploadXml({"\"a\"", "<&>"}),
              HasSubstr("<Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>"
                        "<Part><PartNumber>2</PartNumber><ETag>&lt;&amp;&gt;</ETag></Part>"));
}

TEST(ErrorFromAnswerTest, ABodyThatIsNoErrorLeavesTheNumber) {
  EXPECT_EQ(ErrorFromAnswer(404, "<html>", "read 'x'"), absl::NotFoundError("cannot read 'x': HTTP 404"));
  EXPECT_EQ(ErrorFromAnswer(302, "", "read 'x'").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ExitCodeFor(ErrorFromAnswer(507, "", "write 'x'")), ExitCode::kNoSpace);
}

TEST(ErrorFromAnswerTest, AMessageIsShortenedAndHasNoControlCharacters) {
  const absl::Status status = ErrorFromAnswer(
      400, "<Error><Code>C</Code><Message>&#27;[2J" + std::string(10'000, 'x') + "</Message></Error>", "x");
  EXPECT_LT(status.message().size(), 400u);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\\x1b[2J"));
}

}  // namespace
}  // namespace sluice

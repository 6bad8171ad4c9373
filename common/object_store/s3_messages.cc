#include "common/object_store/s3_messages.h"

#include <cstring>
#include <pugixml.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr size_t kShownBytes = 300;

absl::Status BadAnswer(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the object store answered what is no ", what,
                                          "; is its endpoint that of an S3-compatible service?"));
}

// The document's element, which must have this name. Blank text counts: a key may be one space.
absl::StatusOr<pugi::xml_node> Root(absl::string_view xml, const char* name, pugi::xml_document* document) {
  const pugi::xml_parse_result parsed = document->load_buffer(
      xml.data(), xml.size(), pugi::parse_default | pugi::parse_ws_pcdata_single, pugi::encoding_utf8);
  const pugi::xml_node root = document->document_element();
  if (!parsed || std::strcmp(root.name(), name) != 0) return BadAnswer(name);
  return root;
}

struct ServiceError {
  std::string code;
  std::string message;
};

ServiceError ParseError(absl::string_view body) {
  pugi::xml_document document;
  const absl::StatusOr<pugi::xml_node> root = Root(body, "Error", &document);
  if (!root.ok()) return {};
  const auto shortened = [](const char* text) {
    return absl::CHexEscape(absl::string_view(text).substr(0, kShownBytes));
  };
  return {shortened(root->child_value("Code")), shortened(root->child_value("Message"))};
}

struct KnownCode {
  const char* code;
  absl::StatusCode status;
  const char* remedy;
};

// Where the code says more than the number, or a person can do something.
constexpr KnownCode kKnownCodes[] = {
    {"SignatureDoesNotMatch", absl::StatusCode::kPermissionDenied, "check AWS_SECRET_ACCESS_KEY"},
    {"AccessDenied", absl::StatusCode::kPermissionDenied, "the policy of these credentials does not allow it"},
    {"RequestTimeTooSkewed", absl::StatusCode::kPermissionDenied, "set this machine's clock"},
    {"InvalidAccessKeyId", absl::StatusCode::kUnauthenticated, "check AWS_ACCESS_KEY_ID"},
    {"ExpiredToken", absl::StatusCode::kUnauthenticated, "start this process with fresh credentials"},
    {"InvalidToken", absl::StatusCode::kUnauthenticated, "check AWS_SESSION_TOKEN"},
    {"TokenRefreshRequired", absl::StatusCode::kUnauthenticated, "start this process with fresh credentials"},
    {"AuthorizationHeaderMalformed", absl::StatusCode::kFailedPrecondition, "check the region"},
    {"PermanentRedirect", absl::StatusCode::kFailedPrecondition, "check the region and the endpoint"},
    {"NoSuchBucket", absl::StatusCode::kNotFound, "make the bucket, or name another"},
    {"NoSuchUpload", absl::StatusCode::kAborted, "the upload ended meanwhile"},
    {"RequestTimeout", absl::StatusCode::kUnavailable, ""},
    {"OperationAborted", absl::StatusCode::kUnavailable, ""},
    {"SlowDown", absl::StatusCode::kResourceExhausted, ""},
    {"BadDigest", absl::StatusCode::kDataLoss, "the bytes changed on their way"},
    {"XAmzContentSHA256Mismatch", absl::StatusCode::kDataLoss, "the bytes changed on their way"},
};

absl::StatusCode CodeOfNumber(int http_status) {
  switch (http_status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 408:
    case 409:
      return absl::StatusCode::kUnavailable;
    case 429:
      return absl::StatusCode::kResourceExhausted;
  }
  if (http_status / 100 == 5)
    return http_status == 501 ? absl::StatusCode::kUnimplemented : absl::StatusCode::kUnavailable;
  return http_status / 100 == 4 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kFailedPrecondition;
}

}  // namespace

absl::StatusOr<S3ListPage> ParseListPage(absl::string_view xml) {
  pugi::xml_document document;
  SLUICE_ASSIGN_OR_RETURN(const pugi::xml_node root, Root(xml, "ListBucketResult", &document));
  S3ListPage page;
  for (const pugi::xml_node entry : root.children("Contents")) {
    ObjectInfo object;
    object.key = entry.child_value("Key");
    if (object.key.empty() || !absl::SimpleAtoi(entry.child_value("Size"), &object.bytes) || object.bytes < 0) {
      return BadAnswer("ListBucketResult");
    }
    page.objects.push_back(std::move(object));
  }
  const std::string truncated = root.child_value("IsTruncated");
  page.next_token = root.child_value("NextContinuationToken");
  if (truncated == "true" && page.next_token.empty())
    return BadAnswer("ListBucketResult with a token of its next page");
  if (truncated != "true") page.next_token.clear();
  return page;
}

absl::StatusOr<std::string> ParseUploadId(absl::string_view xml) {
  pugi::xml_document document;
  SLUICE_ASSIGN_OR_RETURN(const pugi::xml_node root, Root(xml, "InitiateMultipartUploadResult", &document));
  std::string id = root.child_value("UploadId");
  if (id.empty()) return BadAnswer("InitiateMultipartUploadResult with an UploadId");
  return id;
}

absl::Status ParseCompleted(absl::string_view xml) {
  pugi::xml_document document;
  if (Root(xml, "CompleteMultipartUploadResult", &document).ok()) return absl::OkStatus();
  const ServiceError error = ParseError(xml);
  if (error.code.empty()) return BadAnswer("CompleteMultipartUploadResult");
  // Amazon's rule: such an answer is that of a server error, to be tried again.
  return ErrorFromAnswer(500, xml, "finish the upload");
}

std::string CompleteUploadXml(const std::vector<std::string>& etags) {
  std::string xml = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
  for (size_t i = 0; i < etags.size(); ++i) {
    const std::string etag = absl::StrReplaceAll(etags[i], {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
    absl::StrAppend(&xml, "<Part><PartNumber>", i + 1, "</PartNumber><ETag>", etag, "</ETag></Part>");
  }
  return xml + "</CompleteMultipartUpload>";
}

absl::Status ErrorFromAnswer(int http_status, absl::string_view body, absl::string_view doing) {
  const ServiceError error = ParseError(body);
  std::string message = absl::StrCat("cannot ", doing, ": HTTP ", http_status);
  if (!error.code.empty()) absl::StrAppend(&message, ", ", error.code);
  if (!error.message.empty()) absl::StrAppend(&message, " (", error.message, ")");
  if (http_status == 507 || absl::StrContains(error.code, "StorageFull")) {
    return NoSpaceError(absl::StrCat(message, "; free space in the object store"));
  }
  for (const KnownCode& known : kKnownCodes) {
    if (error.code != known.code) continue;
    return absl::Status(known.status, absl::StrCat(message, *known.remedy ? "; " : "", known.remedy));
  }
  return absl::Status(CodeOfNumber(http_status), message);
}

}  // namespace sluice

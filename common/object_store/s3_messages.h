// The XML that an S3-compatible service answers with, and the one document that it is sent. Foreign bytes: every parser
// takes any input and fails with DataLoss.
#ifndef SLUICE_COMMON_OBJECT_STORE_S3_MESSAGES_H_
#define SLUICE_COMMON_OBJECT_STORE_S3_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"

namespace sluice {

struct S3ListPage {
  std::vector<ObjectInfo> objects;  // whole keys
  std::string next_token;           // of the next page; empty: this was the last
};

// The answer to ListObjectsV2.
absl::StatusOr<S3ListPage> ParseListPage(absl::string_view xml);

// UploadId of the answer to CreateMultipartUpload.
absl::StatusOr<std::string> ParseUploadId(absl::string_view xml);

// OK if CompleteMultipartUpload did what it should; the answer's status 200 comes before the work and says nothing.
absl::Status ParseCompleted(absl::string_view xml);

// The body of CompleteMultipartUpload: parts are numbered from 1.
std::string CompleteUploadXml(const std::vector<std::string>& etags);

// The status for an answer that is not 2xx. `doing` begins the message: "read 's3://bucket/key'". Code and message of
// the service are taken from `body`, if it has them, and shortened.
absl::Status ErrorFromAnswer(int http_status, absl::string_view body, absl::string_view doing);

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_S3_MESSAGES_H_

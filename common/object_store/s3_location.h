// Where objects of an S3-compatible service lie, and the URLs of its requests.
#ifndef SLUICE_COMMON_OBJECT_STORE_S3_LOCATION_H_
#define SLUICE_COMMON_OBJECT_STORE_S3_LOCATION_H_

#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/http.h"

namespace sluice {

// The value of an environment variable, or "" if it is not set. The process's own: ProcessEnvironment().
using EnvironmentFunction = std::function<std::string(const std::string& name)>;
EnvironmentFunction ProcessEnvironment();

struct S3Location {
  std::string bucket;
  std::string prefix;    // of all keys; without slashes at its ends; may be empty
  std::string endpoint;  // "https://host" or "http://host:port"
  std::string region;
  std::string ca_file;  // of the authorities that vouch for the endpoint; empty: the system's
};

// s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME], values %-escaped where needed. What the URL leaves out comes from
// AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, else us-east-1 and Amazon's endpoint
// there. AWS_CA_BUNDLE names `ca_file`. InvalidArgument says what is wrong.
absl::StatusOr<S3Location> ParseS3Url(absl::string_view url, const EnvironmentFunction& environment);

// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Unauthenticated names the one that is missing.
absl::StatusOr<SigningKeys> SigningKeysFromEnvironment(const std::string& region,
                                                       const EnvironmentFunction& environment);

// %-escapes all but RFC 3986's unreserved characters, and '/' if `keep_slash`: as Signature Version 4 wants it.
std::string EscapeForUrl(absl::string_view text, bool keep_slash);

// "ENDPOINT/BUCKET[/KEY][?a=1&b=]": path style, keys of the query sorted and each with its '='. `key` is whole, with
// the location's prefix; empty for the bucket itself.
std::string RequestUrl(const S3Location& location, absl::string_view key,
                       const std::map<std::string, std::string>& query);

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_S3_LOCATION_H_

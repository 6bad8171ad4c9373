#include "common/object_store/open_object_store.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/object_store/local_object_store.h"
#include "common/object_store/s3_object_store.h"
#include "common/status/status.h"

namespace sluice {
namespace {

// The folder, or nothing for s3://. Of anything else the scheme alone is repeated: an URL may hold a password.
absl::StatusOr<std::optional<std::string>> LocalFolder(absl::string_view url) {
  if (absl::StartsWith(url, "s3://")) return std::optional<std::string>();
  absl::string_view path = url;
  absl::ConsumePrefix(&path, "file://");
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  if (absl::StartsWith(path, "/")) return std::optional<std::string>(std::string(path));
  const size_t scheme = url.find("://");
  return absl::InvalidArgumentError(
      absl::StrCat("an object store's place starts with s3://, file:/// or /, not with '",
                   scheme == absl::string_view::npos ? url.substr(0, 1) : url.substr(0, scheme + 3), "'"));
}

}  // namespace

absl::Status CheckObjectStoreUrl(absl::string_view url, const EnvironmentFunction& environment) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<std::string> folder, LocalFolder(url));
  return folder ? absl::OkStatus() : ParseS3Url(url, environment).status();
}

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenObjectStore(absl::string_view url, const TransferOptions& transfer,
                                                             const EnvironmentFunction& environment) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<std::string> folder, LocalFolder(url));
  if (folder) return std::make_unique<LocalObjectStore>(*folder, transfer.stopped);
  S3Options options{.transfer = transfer};
  SLUICE_ASSIGN_OR_RETURN(options.location, ParseS3Url(url, environment));
  SLUICE_ASSIGN_OR_RETURN(options.keys, SigningKeysFromEnvironment(options.location.region, environment));
  return std::make_unique<S3ObjectStore>(std::move(options));
}

}  // namespace sluice

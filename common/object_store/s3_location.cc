#include "common/object_store/s3_location.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/object_store/object_store.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr char kScheme[] = "s3://";
constexpr char kDefaultRegion[] = "us-east-1";
constexpr char kForm[] = "want s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME, all but the bucket optional";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

absl::StatusOr<std::string> Unescape(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
    if (high < 0 || low < 0) return absl::InvalidArgumentError(absl::StrCat("'", text, "' has a % without two digits"));
    plain += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return plain;
}

bool IsBucketName(absl::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-' && c != '.' && c != '_') return false;
  }
  return absl::ascii_isalnum(name.front()) && absl::ascii_isalnum(name.back());
}

// Letters, digits and '-': it becomes a part of the signature's scope.
bool IsRegionName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '-') return false;
  }
  return !name.empty() && name.size() <= 40;
}

absl::Status CheckEndpoint(absl::string_view endpoint) {
  absl::string_view rest = endpoint;
  const bool scheme = absl::ConsumePrefix(&rest, "https://") || absl::ConsumePrefix(&rest, "http://");
  bool host = !rest.empty();
  for (const char c : rest) {
    host = host && (absl::ascii_isalnum(c) || absl::StrContains(".-_:[]", absl::string_view(&c, 1)));
  }
  // Not echoed: it may hold a password before an '@'.
  if (!scheme || !host) {
    return absl::InvalidArgumentError(
        "the endpoint of the object store must be http:// or https:// with a host and perhaps a port, and nothing "
        "else");
  }
  return absl::OkStatus();
}

std::string FirstSet(const EnvironmentFunction& environment, const char* first, const char* second) {
  std::string value = environment(first);
  return value.empty() ? environment(second) : value;
}

absl::Status ReadQuery(absl::string_view query, S3Location* location) {
  for (absl::string_view pair : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(pair, absl::MaxSplits('=', 1));
    SLUICE_ASSIGN_OR_RETURN(std::string value, Unescape(parts.second));
    if (parts.first == "endpoint") {
      location->endpoint = std::move(value);
    } else if (parts.first == "region") {
      location->region = std::move(value);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("'", parts.first, "' is no setting of an object store's URL; ", kForm));
    }
  }
  return absl::OkStatus();
}

absl::Status FillFromEnvironment(const EnvironmentFunction& environment, S3Location* location) {
  if (location->region.empty()) location->region = FirstSet(environment, "AWS_REGION", "AWS_DEFAULT_REGION");
  if (location->region.empty()) location->region = kDefaultRegion;
  if (!IsRegionName(location->region)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", location->region, "' is no name of a region, want one such as '", kDefaultRegion, "'"));
  }
  if (location->endpoint.empty()) location->endpoint = FirstSet(environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
  if (location->endpoint.empty()) location->endpoint = absl::StrCat("https://s3.", location->region, ".amazonaws.com");
  location->endpoint = std::string(absl::StripSuffix(location->endpoint, "/"));
  location->ca_file = environment("AWS_CA_BUNDLE");
  return CheckEndpoint(location->endpoint);
}

}  // namespace

EnvironmentFunction ProcessEnvironment() {
  return [](const std::string& name) {
    const char* const value = std::getenv(name.c_str());
    return std::string(value == nullptr ? "" : value);
  };
}

absl::StatusOr<S3Location> ParseS3Url(absl::string_view url, const EnvironmentFunction& environment) {
  if (!absl::ConsumePrefix(&url, kScheme))
    return absl::InvalidArgumentError(absl::StrCat("no object store's URL; ", kForm));
  const std::pair<absl::string_view, absl::string_view> halves = absl::StrSplit(url, absl::MaxSplits('?', 1));
  const std::pair<absl::string_view, absl::string_view> place = absl::StrSplit(halves.first, absl::MaxSplits('/', 1));
  S3Location location;
  location.bucket = std::string(place.first);
  if (!IsBucketName(location.bucket)) {  // not echoed: somebody may have put keys before an '@'
    return absl::InvalidArgumentError(absl::StrCat(
        "the URL of the object store names no bucket: 3 to 63 of a-z, 0-9, '-' and '.'; keys do not belong there; ",
        kForm));
  }
  SLUICE_ASSIGN_OR_RETURN(location.prefix, Unescape(absl::StripSuffix(place.second, "/")));
  if (!location.prefix.empty()) SLUICE_RETURN_IF_ERROR(CheckKey(location.prefix));
  SLUICE_RETURN_IF_ERROR(ReadQuery(halves.second, &location));
  SLUICE_RETURN_IF_ERROR(FillFromEnvironment(environment, &location));
  return location;
}

absl::StatusOr<SigningKeys> SigningKeysFromEnvironment(const std::string& region,
                                                       const EnvironmentFunction& environment) {
  SigningKeys keys{.region = region,
                   .access_key_id = environment("AWS_ACCESS_KEY_ID"),
                   .secret_access_key = environment("AWS_SECRET_ACCESS_KEY"),
                   .session_token = environment("AWS_SESSION_TOKEN")};
  for (const auto& [name, value] : {std::pair<const char*, const std::string&>("AWS_ACCESS_KEY_ID", keys.access_key_id),
                                    {"AWS_SECRET_ACCESS_KEY", keys.secret_access_key}}) {
    if (value.empty()) {
      return absl::UnauthenticatedError(
          absl::StrCat("the object store needs credentials: set ", name, " in the environment of this process"));
    }
  }
  for (const std::string* value : {&keys.access_key_id, &keys.secret_access_key, &keys.session_token}) {
    for (const char c : *value) {
      if (!absl::ascii_isgraph(c)) {  // a line break from a file, most of all: it would end up in a header
        return absl::UnauthenticatedError(
            "an AWS_ variable with credentials holds a space, a line break or another character that none has");
      }
    }
  }
  return keys;
}

std::string EscapeForUrl(absl::string_view text, bool keep_slash) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string escaped;
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slash)) {
      escaped += c;
    } else {
      escaped += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return escaped;
}

std::string RequestUrl(const S3Location& location, absl::string_view key,
                       const std::map<std::string, std::string>& query) {
  std::string url = absl::StrCat(location.endpoint, "/", location.bucket);
  if (!key.empty()) absl::StrAppend(&url, "/", EscapeForUrl(key, true));
  // std::map sorts plain names; those of S3 need no escape, so their order is the same after it.
  char separator = '?';
  for (const auto& [name, value] : query) {
    absl::StrAppend(&url, std::string(1, separator), EscapeForUrl(name, false), "=", EscapeForUrl(value, false));
    separator = '&';
  }
  return url;
}

}  // namespace sluice

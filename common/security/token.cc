#include "common/security/token.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/security/certificate.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxSecretBytes = 256;
constexpr size_t kEntropyBytes = 32;
// Scanners of sources and logs know a secret of ours by it.
constexpr absl::string_view kPrefix = "sluice_";

std::vector<std::string> ScopeNames(const Scopes& scopes) {
  std::vector<std::string> names;
  if (scopes.submit) names.emplace_back("submit");
  if (scopes.read) names.emplace_back("read");
  if (scopes.admin) names.emplace_back("admin");
  return names;
}

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '@' || c == '-';
  });
}

bool IsDigest(absl::string_view digest) {
  return digest.size() == 64 && std::all_of(digest.begin(), digest.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

absl::StatusOr<TokenEntry> ParseEntry(absl::string_view line) {
  const nlohmann::json json = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (!json.is_object() || json.size() != 4) return absl::InvalidArgumentError("want an object of four keys");
  TokenEntry entry;
  std::string expires;
  std::vector<std::string> scopes;
  try {
    entry.holder.name = json.at("name").get<std::string>();
    entry.digest = json.at("sha256").get<std::string>();
    expires = json.at("expires").get<std::string>();
    scopes = json.at("scopes").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("want the keys name, sha256, scopes and expires");
  }
  if (!IsName(entry.holder.name))
    return absl::InvalidArgumentError("name: want letters, digits, '.', '_', '@' and '-'");
  if (!IsDigest(entry.digest)) return absl::InvalidArgumentError("sha256: want 64 hexadecimal digits in lower case");
  SLUICE_ASSIGN_OR_RETURN(entry.holder.scopes, ParseScopes(absl::StrJoin(scopes, ",")));
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, expires, &entry.expires, &error)) {
    return absl::InvalidArgumentError("expires: want a time as 2027-03-01T00:00:00Z");
  }
  return entry;
}

}  // namespace

absl::StatusOr<Scopes> ParseScopes(absl::string_view text) {
  Scopes scopes;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (word == "submit") {
      scopes.submit = true;
    } else if (word == "read") {
      scopes.read = true;
    } else if (word == "admin") {
      scopes.admin = true;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("scopes: want submit, read and admin, got '", word, "'"));
    }
  }
  if (scopes == Scopes()) return absl::InvalidArgumentError("scopes: want at least one of submit, read and admin");
  return scopes;
}

absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text, const std::string& path) {
  std::vector<TokenEntry> entries;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    absl::StatusOr<TokenEntry> entry = ParseEntry(line);
    if (!entry.ok()) {
      // Not the line itself: somebody may have put a secret there.
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", entry.status().message()));
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

std::string TokenLine(const TokenEntry& entry) {
  return nlohmann::ordered_json{{"name", entry.holder.name},
                                {"sha256", entry.digest},
                                {"scopes", ScopeNames(entry.holder.scopes)},
                                {"expires", CertificateTime(entry.expires)}}
      .dump();
}

absl::StatusOr<NewToken> MakeToken(absl::string_view entropy, TokenHolder holder, absl::Time expires, absl::Time now) {
  SLUICE_CHECK(entropy.size() == kEntropyBytes, "a token wants 32 bytes of entropy");
  if (!IsName(holder.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a name of 1 to ", kMaxNameBytes, " letters, digits, '.', '_', '@' and '-'"));
  }
  if (holder.scopes == Scopes()) return absl::InvalidArgumentError("want at least one scope of submit, read and admin");
  if (expires <= now) return absl::InvalidArgumentError("want a token that is not expired from the start");
  NewToken token;
  token.secret = absl::StrCat(kPrefix, absl::WebSafeBase64Escape(entropy));
  token.entry = {std::move(holder), Sha256(token.secret), expires};
  return token;
}

absl::Status AddToken(const std::string& path, const TokenEntry& entry) {
  std::string text;
  if (PathExists(path)) {
    SLUICE_ASSIGN_OR_RETURN(text, ReadFile(path, kMaxFileBytes));
    SLUICE_RETURN_IF_ERROR(ParseTokens(text, path).status());
    if (!text.empty() && text.back() != '\n') text += '\n';
  }
  return WriteFileAtomically(path, absl::StrCat(text, TokenLine(entry), "\n"));
}

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(std::string path, NowFunction wall) {
  std::unique_ptr<TokenFile> file(new TokenFile(std::move(path), std::move(wall)));
  const absl::Status read = file->Refresh();
  if (read.ok()) return file;
  return absl::InvalidArgumentError(absl::StrCat(
      "--tokens: ", read.message(), "; 'sluicectl token create NAME --tokens ", file->path_, "' makes such a file"));
}

absl::Status TokenFile::Refresh() {
  struct stat info = {};
  if (stat(path_.c_str(), &info) != 0) return absl::NotFoundError(absl::StrCat("cannot read '", path_, "'"));
  const Version version = {info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec, info.st_size, info.st_ino};
  MutexLock lock(&mutex_);
  if (version == version_) return absl::OkStatus();
  version_ = version;  // also if it is unfit: said once
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_, kMaxFileBytes));
  SLUICE_ASSIGN_OR_RETURN(entries_, ParseTokens(text, path_));
  return absl::OkStatus();
}

absl::StatusOr<TokenHolder> TokenFile::Find(absl::string_view secret) {
  if (const absl::Status read = Refresh(); !read.ok()) {
    LogWarning("the tokens of before stay valid", {{"error", read.message()}});
  }
  const std::string digest = Sha256(secret.substr(0, kMaxSecretBytes));
  const absl::Time now = wall_();
  MutexLock lock(&mutex_);
  const TokenEntry* found = nullptr;
  for (const TokenEntry& entry : entries_) {
    const bool same = CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    if (same && secret.size() <= kMaxSecretBytes) found = &entry;
  }
  if (found == nullptr) {
    return absl::UnauthenticatedError("the token is not known here; ask for one of 'sluicectl token create'");
  }
  if (now >= found->expires) {
    return absl::UnauthenticatedError(absl::StrCat("the token of ", found->holder.name, " expired at ",
                                                   CertificateTime(found->expires), "; ask for a new one"));
  }
  return found->holder;
}

}  // namespace sluice

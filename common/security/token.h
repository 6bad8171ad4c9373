// Tokens of people: secrets that open the job API without a certificate.
//
// The coordinator keeps digests alone, in a file of one JSON object a line, which people may edit:
//
//     {"name":"ada","sha256":"5e88...","scopes":["submit","read"],"expires":"2027-03-01T00:00:00Z"}
//
// A secret is 256 random bits, so that a fast digest is enough: nobody guesses it, and no list of passwords holds it.
// Empty lines and lines that begin with # are left out. A name may stand in several lines, as it does while a token is
// replaced; what a name has submitted stays its own. A line that is removed is a token that ended.
#ifndef SLUICE_COMMON_SECURITY_TOKEN_H_
#define SLUICE_COMMON_SECURITY_TOKEN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

// What its holder may do. Admin includes the others.
struct Scopes {
  bool submit = false;  // submit jobs, and all with the own ones
  bool read = false;    // see the jobs of others
  bool admin = false;   // everything, with the jobs of others too

  bool operator==(const Scopes&) const = default;
};

// "submit,read"; InvalidArgument for what is none of the three.
absl::StatusOr<Scopes> ParseScopes(absl::string_view text);

struct TokenHolder {
  std::string name;
  Scopes scopes;
};

// A line of the file.
struct TokenEntry {
  TokenHolder holder;
  std::string digest;  // SHA-256 of the secret, hexadecimal
  absl::Time expires;
};

// InvalidArgument, with the line's number, for what is no such file. `path` is for messages.
absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text, const std::string& path);
std::string TokenLine(const TokenEntry& entry);

struct NewToken {
  std::string secret;
  TokenEntry entry;
};
// A token of 32 bytes of `entropy`. InvalidArgument: the name is not 1 to 64 letters, digits, '.', '_', '@' and '-',
// there is no scope, or it would be expired at `now`.
absl::StatusOr<NewToken> MakeToken(absl::string_view entropy, TokenHolder holder, absl::Time expires, absl::Time now);
// Appends the entry to the file at `path`, which is made if it is not there.
absl::Status AddToken(const std::string& path, const TokenEntry& entry);

// The file of the coordinator, read again when it changes. Thread-safe.
class TokenFile {
 public:
  // InvalidArgument if it cannot be read. `wall` tells when tokens expire.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(std::string path, NowFunction wall);

  // Unauthenticated, without telling more than whoever holds the secret may know, if it opens nothing (any more). How
  // long this takes says nothing of the digests.
  absl::StatusOr<TokenHolder> Find(absl::string_view secret);

 private:
  struct Version {
    int64_t modified_ns = -1;
    int64_t bytes = -1;
    uint64_t inode = 0;
    bool operator==(const Version&) const = default;
  };

  TokenFile(std::string path, NowFunction wall) : path_(std::move(path)), wall_(std::move(wall)) {}
  // Takes the file if it has changed. What cannot be read is not taken: what was there stays valid.
  absl::Status Refresh();

  const std::string path_;
  const NowFunction wall_;
  Mutex mutex_;
  Version version_ ABSL_GUARDED_BY(mutex_);
  std::vector<TokenEntry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_TOKEN_H_

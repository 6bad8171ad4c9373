#include "client/cli/token_command.h"

#include <sys/random.h>

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/security/token.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice::client {
namespace {

constexpr double kMaxDays = 3660;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "sluicectl: %s\n", std::string(status.message()).c_str());
  return static_cast<int>(ExitCodeFor(status));
}

}  // namespace

absl::StatusOr<std::string> CreateToken(const TokenFlags& flags, absl::string_view entropy, absl::Time now) {
  if (!(flags.days > 0 && flags.days <= kMaxDays)) {
    return absl::InvalidArgumentError(absl::StrCat("--days: want more than 0 and at most ", kMaxDays));
  }
  TokenHolder holder;
  holder.name = flags.name;
  SLUICE_ASSIGN_OR_RETURN(holder.scopes, ParseScopes(flags.scopes));
  SLUICE_ASSIGN_OR_RETURN(const NewToken token,
                          MakeToken(entropy, std::move(holder), now + absl::Hours(24 * flags.days), now));
  SLUICE_RETURN_IF_ERROR(AddToken(flags.tokens, token.entry));
  return token.secret;
}

int TokenCommand(const TokenFlags& flags) {
  char entropy[32];
  if (getrandom(entropy, sizeof(entropy), 0) != static_cast<ssize_t>(sizeof(entropy))) {
    return Fail(absl::UnavailableError("the system gives no random bytes"));
  }
  const absl::StatusOr<std::string> secret = CreateToken(flags, {entropy, sizeof(entropy)}, absl::Now());
  if (!secret.ok()) return Fail(secret.status());
  std::printf("%s\n", secret->c_str());
  std::fprintf(
      stderr,
      "This is shown once. %s puts it into a file that nobody else may read, and names that with --token-file.\n",
      flags.name.c_str());
  return 0;
}

}  // namespace sluice::client

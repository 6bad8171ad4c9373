// `sluicectl token create`: a token for a person, made where the coordinator's file of tokens is.
#ifndef SLUICE_CLIENT_CLI_TOKEN_COMMAND_H_
#define SLUICE_CLIENT_CLI_TOKEN_COMMAND_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sluice::client {

struct TokenFlags {
  std::string name;
  std::string scopes = "submit";
  double days = 90;
  std::string tokens;  // the coordinator's --tokens
};

// Appends the token's digest to the file and returns the secret, which is nowhere else. `entropy` is 32 random bytes.
// InvalidArgument for what is no name, scope or file of tokens.
absl::StatusOr<std::string> CreateToken(const TokenFlags& flags, absl::string_view entropy, absl::Time now);

// The same with entropy of the system, for a person: the secret to standard output, what to do with it to standard
// error. Returns the process's exit code.
int TokenCommand(const TokenFlags& flags);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_TOKEN_COMMAND_H_

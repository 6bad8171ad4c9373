// Job specs as they lie in files, with the changes of the command line.
#ifndef SLUICE_CLIENT_CLI_SPEC_FILE_H_
#define SLUICE_CLIENT_CLI_SPEC_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/spec/spec.h"

namespace sluice::client {

struct LocalSpec {
  std::string text;  // as written, with the overrides as comments
  ResolvedSpec resolved;
};

// `path` "-": standard input. Errors as of ReadFile and ResolveSpec.
absl::StatusOr<LocalSpec> LoadSpec(const std::string& path, const std::vector<std::string>& overrides);

// Keys that have a value, sections not counted.
int CountKeys(const google::protobuf::Message& message);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_SPEC_FILE_H_

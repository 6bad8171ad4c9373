// What the schema of job specs says, for editors and for a first spec.
#ifndef SLUICE_CLIENT_CLI_SPEC_SCHEMA_H_
#define SLUICE_CLIENT_CLI_SPEC_SCHEMA_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sluice/v1/spec.pb.h"

namespace sluice::client {

// JSON Schema (draft 2020-12) of a job spec: types, ranges, values, defaults and what each key does. What hangs on
// several keys at once is left to `sluicectl validate`.
nlohmann::ordered_json SpecJsonSchema();

// A spec of this kind that is valid once the places in angle brackets are filled in: what must be given, and every key
// of its sections as a comment with its default. InvalidArgument: no such kind.
absl::StatusOr<std::string> FirstSpec(const std::string& kind);

// Every key that is set, by path, as YAML writes its value.
std::map<std::string, std::string> FlatSpec(const v1::JobSpec& spec);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_SPEC_SCHEMA_H_

// Job specs: YAML text to a JobSpec message and back. The schema is
// proto/sluice/v1/spec.proto with its field option `spec`; this code reads it
// by reflection, so a new key needs no line here. Every mistake is reported at
// once, each with its place, what was wanted and what came. Stateless and
// thread-safe.
#ifndef SLUICE_COMMON_SPEC_SPEC_H_
#define SLUICE_COMMON_SPEC_SPEC_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/yaml/yaml_tree.h"
#include "sluice/v1/spec.pb.h"

namespace sluice {

struct ResolvedSpec {
  v1::JobSpec given;      // what was written, nothing else
  v1::JobSpec effective;  // with the defaults of every section that the kind of
                          // job reads
  // Where each given key stands, by path ("rl.steps"). A key of `effective`
  // that is not here has its default.
  std::map<std::string, SpecPlace> places;
};

// Reads `yaml`; `file_name` is for messages. Each override is "rl.steps=50" and
// wins over the text. InvalidArgument: one line a mistake, in the order of the
// file, "job.yaml:3:5: rl.steps: want at least 0, got -1".
absl::StatusOr<ResolvedSpec> ResolveSpec(absl::string_view yaml, const std::string& file_name,
                                         absl::Span<const std::string> overrides = {});

// Checks a message that did not come from text (an RPC) by the same rules, and
// fills the defaults. Completing an effective spec changes nothing.
// InvalidArgument as above, without places.
absl::StatusOr<v1::JobSpec> CompleteSpec(const v1::JobSpec& given);

// YAML text of what is set in `spec`, in the order of the schema: ResolveSpec
// reads it back to the same message.
std::string SpecToYaml(const v1::JobSpec& spec);

// SHA-256 of the effective spec's YAML text, hexadecimal: equal for equal jobs
// however they were written.
std::string SpecDigest(const v1::JobSpec& effective);

// The same without the keys that may change when a job resumes (SpecKey::tunable_on_resume): two specs of one resume
// digest may share checkpoints.
std::string ResumeDigest(const v1::JobSpec& effective);

// One key of the schema, for `sluicectl config explain` and the reference page.
struct SpecKey {
  std::string path;  // "rl.gate.tau"
  bool is_section = false;
  std::string type;           // "whole number", "number", "text", "true or false", "one
                              // of a, b", "section"
  std::string default_value;  // as YAML; "" if there is none
  std::string range;          // "0 to 1"; "" if unbounded
  std::string unit;
  std::string doc;
  bool required = false;
  bool tunable_on_resume = false;
};

// Every key, in the order of the schema, a section before its keys.
std::vector<SpecKey> ExplainSpec();

}  // namespace sluice

#endif  // SLUICE_COMMON_SPEC_SPEC_H_

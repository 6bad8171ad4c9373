#include "learner/rpc/fork_spec.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "learner/rpc/admission.h"

namespace sluice::learner {
namespace {

// As the clients keep --set with the text that they submit.
constexpr char kSetLine[] = "# --set ";

// The overrides among the last lines of a spec as it was written.
std::vector<std::string> WrittenOverrides(const std::string& text) {
  std::vector<std::string> found;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::ConsumePrefix(&line, kSetLine)) found.emplace_back(line);
  }
  return found;
}

// Whether the text still means what the job was made with.
bool Means(const std::string& yaml, const std::vector<std::string>& overrides, const std::string& digest,
           const DataStore* data) {
  absl::StatusOr<ResolvedSpec> spec = ResolveSpec(yaml, "spec", overrides);
  if (!spec.ok() || !ResolvePushedData(data, &spec->given).ok()) return false;
  const absl::StatusOr<v1::JobSpec> effective = CompleteSpec(spec->given);
  return effective.ok() && SpecDigest(*effective) == digest;
}

}  // namespace

absl::StatusOr<v1::JobSpec> ForkSpec(const JobRecord& parent, const std::vector<std::string>& overrides,
                                     const std::string& model_path, const DataStore* data) {
  for (const std::string& one : overrides) {
    if (!absl::StartsWith(one, "model.") || absl::StartsWith(one, "model.value_head=")) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--set ", one,
        ": a fork begins with the model of the other job's checkpoint; submit a new job to begin with another"));
  }
  v1::JobSpec effective;
  if (!effective.ParseFromString(parent.spec)) {
    return absl::DataLossError(absl::StrCat("the spec of job ", parent.id, " cannot be read"));
  }
  std::string yaml = parent.spec_yaml;
  std::vector<std::string> all = WrittenOverrides(yaml);
  if (!Means(yaml, all, parent.spec_digest, data)) {
    yaml = SpecToYaml(effective);
    all.clear();
  }
  all.insert(all.end(), overrides.begin(), overrides.end());
  SLUICE_ASSIGN_OR_RETURN(ResolvedSpec changed, ResolveSpec(yaml, absl::StrCat("spec of ", parent.id), all));
  v1::ModelSpec model;
  model.set_path(model_path);
  if (changed.given.model().has_value_head()) model.set_value_head(changed.given.model().value_head());
  *changed.given.mutable_model() = model;
  return changed.given;
}

}  // namespace sluice::learner

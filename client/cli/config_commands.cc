// About job specs and releases.
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/spec_file.h"
#include "client/cli/spec_schema.h"
#include "common/file/file.h"
#include "common/spec/spec.h"
#include "common/spec/spec_fields.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/version/version.h"

namespace sluice::client {

int Commands::Explain(const std::string& path, bool markdown) {
  std::vector<SpecKey> keys;
  std::vector<std::string> all;
  for (const SpecKey& key : ExplainSpec()) {
    all.push_back(key.path);
    const bool below = absl::StartsWith(key.path, path + ".");
    if (path.empty() || key.path == path || below) keys.push_back(key);
  }
  if (keys.empty()) {
    const std::string nearest = NearestWord(path, all);
    return Fail(absl::InvalidArgumentError(absl::StrCat(
        "the job spec has no key '", path, "'",
        nearest.empty() ? "; 'sluicectl config explain' shows all" : absl::StrCat("; did you mean ", nearest, "?"))));
  }
  if (markdown) {
    Out(ExplainMarkdown(keys));
    return 0;
  }
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const SpecKey& key : keys) json.push_back(KeyJson(key));
  printer_.List("keys", json, "path", ExplainText(keys));
  return 0;
}

int Commands::Schema() {
  Out(SpecJsonSchema().dump(2) + "\n");
  return 0;
}

int Commands::InitConfig(const std::string& kind) {
  const absl::StatusOr<std::string> text = FirstSpec(kind);
  if (!text.ok()) return Fail(text.status());
  Out(*text);
  return 0;
}

absl::StatusOr<v1::JobSpec> Commands::SpecOf(const std::string& file_or_job) {
  if (file_or_job == "-" || PathExists(file_or_job)) {
    SLUICE_ASSIGN_OR_RETURN(const LocalSpec spec, LoadSpec(file_or_job, {}));
    return spec.resolved.effective;
  }
  const absl::StatusOr<std::string> id = client_->ResolveId(file_or_job);
  if (!id.ok()) {
    return Annotate(id.status(), absl::StrCat("'", file_or_job, "' is no file here"));
  }
  SLUICE_ASSIGN_OR_RETURN(const v1::DescribeResponse described, client_->Describe(*id));
  return described.spec();
}

int Commands::Diff(const std::string& a, const std::string& b) {
  const absl::StatusOr<v1::JobSpec> spec_a = SpecOf(a);
  if (!spec_a.ok()) return Fail(spec_a.status());
  const absl::StatusOr<v1::JobSpec> spec_b = SpecOf(b);
  if (!spec_b.ok()) return Fail(spec_b.status());
  const std::map<std::string, std::string> flat_a = FlatSpec(*spec_a), flat_b = FlatSpec(*spec_b);
  std::set<std::string> tunable;
  for (const SpecKey& key : ExplainSpec()) {
    if (key.tunable_on_resume) tunable.insert(key.path);
  }
  std::set<std::string> paths;
  for (const auto& [path, value] : flat_a) paths.insert(path);
  for (const auto& [path, value] : flat_b) paths.insert(path);
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> rows = {{"KEY", "A", "B", "ON RESUME"}};
  for (const std::string& path : paths) {
    const auto in_a = flat_a.find(path), in_b = flat_b.find(path);
    if (in_a != flat_a.end() && in_b != flat_b.end() && in_a->second == in_b->second) continue;
    const bool may_change = tunable.count(path) > 0 || path == "name";
    all.push_back({{"path", path},
                   {"a", in_a == flat_a.end() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(in_a->second)},
                   {"b", in_b == flat_b.end() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(in_b->second)},
                   {"tunable_on_resume", may_change}});
    rows.push_back({path, in_a == flat_a.end() ? "-" : in_a->second, in_b == flat_b.end() ? "-" : in_b->second,
                    may_change ? "may change" : "needs a fork"});
  }
  printer_.List("differences", all, "path", rows.size() > 1 ? Table(rows) : "");
  Talk(all.empty() ? "the effective specs are the same" : absl::StrCat(all.size(), " keys differ"));
  return all.empty() ? 0 : static_cast<int>(ExitCode::kFailed);
}

int Commands::Version(bool remote) {
  nlohmann::ordered_json versions = {{"sluicectl", std::string(ReleaseVersion())}};
  std::string text = absl::StrCat("sluicectl ", ReleaseVersion(), "\n");
  if (remote) {
    const absl::StatusOr<v1::ServerInfoResponse> info = client_->ServerInfo(false);
    if (!info.ok()) return Fail(info.status());
    versions["coordinator"] = info->version();
    absl::StrAppend(&text, "coordinator ", info->version(), "\n");
    for (const v1::MemberSummary& member : info->members()) {
      const std::string who =
          member.rank() < 0 ? "standby " + member.member_id() : absl::StrCat("rank ", member.rank());
      versions[who] = member.version();
      absl::StrAppend(&text, who, " ", member.version(), "\n");
    }
  }
  printer_.One(versions, "sluicectl", text);
  return 0;
}

}  // namespace sluice::client

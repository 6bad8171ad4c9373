#include "client/cli/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/console.h"
#include "common/progress/progress.h"
#include "common/spec/spec_fields.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

template <typename Enum>
std::string EnumName(const google::protobuf::EnumDescriptor* type, Enum value) {
  const google::protobuf::EnumValueDescriptor* known = type->FindValueByNumber(value);
  return known == nullptr ? absl::StrCat("unknown (", static_cast<int>(value), ")") : EnumText(*known);
}

std::string StepText(const v1::JobSummary& job) {
  if (job.total_steps() == 0) return job.step() == 0 ? "-" : absl::StrCat(job.step());
  return absl::StrCat(job.step(), "/", job.total_steps());
}

std::string TookText(const v1::JobSummary& job, absl::Time now) {
  if (!job.has_started()) return "-";
  return HumanDuration((job.has_ended() ? TimeOf(job.ended()) : now) - TimeOf(job.started()));
}

std::string Line(absl::string_view label, absl::string_view value) {
  return absl::StrFormat("%-16s %s\n", label, value);
}

std::string AtTime(const google::protobuf::Timestamp& time, const std::string& text) {
  return absl::StrCat(absl::FormatTime("%H:%M:%S ", TimeOf(time), absl::LocalTimeZone()), text);
}

std::string BalanceText(const v1::LedgerBalance& ledger) {
  return absl::StrCat(ledger.issued(), " issued = ", ledger.trained(), " trained + ", ledger.dropped(), " dropped + ",
                      ledger.failed(), " failed + ", ledger.cancelled(), " cancelled + ", ledger.open(), " open");
}

std::string CauseText(const v1::JobEvent& event) {
  const std::string time = absl::FormatTime(" (at %H:%M:%S)", TimeOf(event.time()), absl::LocalTimeZone());
  return absl::StrCat(event.has_log() ? event.log().text() : event.state().message(), time);
}

std::string DefaultText(const SpecKey& key) {
  if (key.required) return "required";
  if (key.is_section) return "";
  return key.default_value.empty() ? "none" : key.default_value;
}

std::string TypeAndRange(const SpecKey& key) {
  std::string text = key.type;
  if (!key.unit.empty()) absl::StrAppend(&text, " (", key.unit, ")");
  if (!key.range.empty()) absl::StrAppend(&text, ", ", key.range);
  return text;
}

}  // namespace

std::string StateText(v1::JobState state) { return EnumName(v1::JobState_descriptor(), state); }
std::string KindText(v1::JobKind kind) { return EnumName(v1::JobKind_descriptor(), kind); }

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED || state == v1::JOB_STATE_CANCELLED ||
         state == v1::JOB_STATE_HELD;
}

// Local time for people, UTC for programs.
std::string LocalTime(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", TimeOf(time), absl::LocalTimeZone());
}

ordered_json TimeJson(bool present, const google::protobuf::Timestamp& time) {
  if (!present) return nullptr;
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", TimeOf(time), absl::UTCTimeZone());
}

std::string CheckText(v1::PlanCheck::Result result) { return EnumName(v1::PlanCheck::Result_descriptor(), result); }

std::string NumberShown(double value) {
  if (!std::isfinite(value)) return absl::StrCat(value);
  return absl::StrFormat("%.4g", value);
}

ordered_json NumberJson(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

std::string StateLine(const v1::JobEvent& event) {
  const std::string state = StateText(event.state().state());
  const std::string& message = event.state().message();
  return AtTime(event.time(), message.empty() || message == state ? state : absl::StrCat(state, ": ", message));
}

std::string LogText(const v1::JobEvent& event) {
  const v1::LogLine& line = event.log();
  std::string prefix;
  if (!line.role().empty() && line.role() != "learner") {
    prefix = absl::StrCat(line.role(), line.source().empty() ? "" : " ", line.source(), ": ");
  }
  if (prefix.empty() && line.rank() > 0) prefix = absl::StrCat("rank ", line.rank(), ": ");
  if (line.level() != "info" && !line.level().empty()) absl::StrAppend(&prefix, line.level(), ": ");
  return AtTime(line.has_said() ? line.said() : event.time(), absl::StrCat(prefix, line.text()));
}

std::string EventText(const v1::JobEvent& event) {
  if (event.has_state()) return StateLine(event);
  if (event.has_log()) return LogText(event);
  return AtTime(event.time(), absl::StrCat("step ", event.metrics().step(), ": ", MetricsText(event.metrics())));
}

std::string JobTable(const v1::ListResponse& jobs, absl::Time now, bool wide, bool color) {
  std::vector<std::vector<std::string>> rows = {{"ID", "KIND", "STATE", "STEP", "SUBMITTED", "TOOK"}};
  if (wide) rows.back().insert(rows.back().end(), {"STARTED", "ENDED", "EXIT", "NAME"});
  rows.back().push_back("MESSAGE");
  for (const v1::JobSummary& job : jobs.jobs()) {
    const std::string state = StateText(job.state());
    rows.push_back({job.job_id(), KindText(job.kind()), color ? ColoredState(state) : state, StepText(job),
                    LocalTime(job.submitted()), TookText(job, now)});
    if (wide) {
      const std::vector<std::string> more = {job.has_started() ? LocalTime(job.started()) : "-",
                                             job.has_ended() ? LocalTime(job.ended()) : "-",
                                             IsTerminal(job.state()) ? absl::StrCat(job.exit_code()) : "-", job.name()};
      rows.back().insert(rows.back().end(), more.begin(), more.end());
    }
    rows.back().push_back(wide ? job.message() : job.message().substr(0, 100));
  }
  return Table(rows);
}

std::string RunningText(const v1::DescribeResponse& job, absl::Time now) {
  const v1::JobSummary& summary = job.summary();
  std::string text = absl::StrCat(summary.job_id(), "  ", KindText(summary.kind()), "  step ", StepText(summary));
  const absl::Duration spent = summary.has_started() ? now - TimeOf(summary.started()) : absl::ZeroDuration();
  if (summary.step() > 0 && spent > absl::ZeroDuration()) {
    const double a_step = absl::ToDoubleSeconds(spent) / static_cast<double>(summary.step());
    absl::StrAppendFormat(&text, "  %.2f s/step", a_step);
    if (summary.total_steps() > summary.step()) {
      const auto left = static_cast<double>(summary.total_steps() - summary.step());
      absl::StrAppend(&text, "  ", HumanDuration(absl::Seconds(left * a_step)), " left");
    }
  }
  text += "\n";
  v1::MetricsPoint point;
  *point.mutable_values() = job.metrics();
  if (!job.metrics().empty()) absl::StrAppend(&text, "  ", MetricsText(point), "\n");
  if (job.ledger().issued() != 0) absl::StrAppend(&text, "  groups ", BalanceText(job.ledger()), "\n");
  return text;
}

std::string DescribeText(const v1::DescribeResponse& job, absl::Time now) {
  const v1::JobSummary& summary = job.summary();
  std::string text =
      absl::StrCat(Line("job", summary.job_id()), Line("name", summary.name()), Line("kind", KindText(summary.kind())),
                   Line("state", StateText(summary.state())), Line("message", summary.message()));
  if (job.has_first_cause()) absl::StrAppend(&text, Line("first cause", CauseText(job.first_cause())));
  if (IsTerminal(summary.state())) absl::StrAppend(&text, Line("exit code", absl::StrCat(summary.exit_code())));
  const bool early = IsTerminal(summary.state()) && summary.state() != v1::JOB_STATE_SUCCEEDED;
  if (early || summary.state() == v1::JOB_STATE_PAUSED) {
    absl::StrAppend(&text, Line("go on", absl::StrCat("sluicectl resume ", summary.job_id(),
                                                      "   (other data or spec: sluicectl fork)")));
  }
  if (!job.wish().empty()) absl::StrAppend(&text, Line("asked for", absl::StrCat(job.wish(), ", at its next step")));
  if (!job.forked_from().empty()) {
    absl::StrAppend(&text, Line("forked from", absl::StrCat(job.forked_from(), " at ", job.fork_checkpoint())));
  }
  absl::StrAppend(&text, Line("step", StepText(summary)), Line("submitted", LocalTime(summary.submitted())));
  if (!job.owner().empty()) absl::StrAppend(&text, Line("owner", job.owner()));
  if (summary.has_started()) absl::StrAppend(&text, Line("started", LocalTime(summary.started())));
  if (summary.has_ended()) absl::StrAppend(&text, Line("ended", LocalTime(summary.ended())));
  absl::StrAppend(&text, Line("took", TookText(summary, now)), Line("run folder", job.run_folder()),
                  Line("last checkpoint", job.last_checkpoint().empty() ? "none" : job.last_checkpoint()),
                  Line("spec digest", job.spec_digest()));
  const std::map<std::string, std::string> digests(job.digests().begin(), job.digests().end());
  for (const auto& [name, digest] : digests) {
    if (name != "spec") absl::StrAppend(&text, Line(absl::StrCat(name, " digest"), digest));
  }
  if (!job.server_version().empty())
    absl::StrAppend(&text, Line("coordinator", absl::StrCat("release ", job.server_version())));
  if (job.epoch() != 0) absl::StrAppend(&text, Line("epoch", absl::StrCat(job.epoch())));
  if (job.policy_version() != 0) absl::StrAppend(&text, Line("policy version", absl::StrCat(job.policy_version())));
  const v1::LedgerBalance& ledger = job.ledger();
  if (ledger.issued() != 0) {
    absl::StrAppend(&text, Line("groups", BalanceText(ledger)));
  }
  for (const v1::MemberSummary& member : job.members()) {
    absl::StrAppend(&text, Line(absl::StrCat("rank ", member.rank()),
                                absl::StrFormat("%s at %s%s, %d actors, heard %.1f s ago%s", member.phase(),
                                                member.address(), member.host().empty() ? "" : " on " + member.host(),
                                                member.actors(), member.heartbeat_age_s(),
                                                member.version().empty() ? "" : ", release " + member.version())));
  }
  // Maps of protobuf have no order.
  const std::map<std::string, double> metrics(job.metrics().begin(), job.metrics().end());
  if (!metrics.empty()) absl::StrAppend(&text, "\nlatest metrics\n");
  for (const auto& [name, value] : metrics) absl::StrAppendFormat(&text, "  %-28s %s\n", name, NumberShown(value));
  const std::map<std::string, std::string> results(job.results().begin(), job.results().end());
  if (!results.empty()) absl::StrAppend(&text, "\nresults\n");
  for (const auto& [name, value] : results) absl::StrAppendFormat(&text, "  %-28s %s\n", name, value);
  absl::StrAppend(&text, "\neffective spec\n");
  absl::StrAppend(&text, "  ", absl::StrReplaceAll(SpecToYaml(job.spec()), {{"\n", "\n  "}}));
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string MetricsText(const v1::MetricsPoint& point) {
  // What one follows on one line; the rest is in metrics.jsonl, the report and `describe`.
  static constexpr const char* kHeadlines[] = {
      "loss/nll",       "loss/grpo",        "reward/mean",        "gate/open_rate",
      "staleness/mean", "validation/hr@10", "validation/ndcg@10", "validation/hallucination",
      "hr@10",          "ndcg@10",          "hallucination"};
  std::vector<std::string> parts;
  for (const char* name : kHeadlines) {
    const auto found = point.values().find(name);
    if (found != point.values().end()) parts.push_back(absl::StrCat(name, " ", NumberShown(found->second)));
  }
  if (!parts.empty()) return absl::StrJoin(parts, ", ");
  const std::map<std::string, double> values(point.values().begin(), point.values().end());
  return absl::StrJoin(values, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.first, " ", NumberShown(entry.second));
  });
}

ordered_json SummaryJson(const v1::JobSummary& summary) {
  return {{"job_id", summary.job_id()},
          {"name", summary.name()},
          {"kind", KindText(summary.kind())},
          {"state", StateText(summary.state())},
          {"submitted", TimeJson(summary.has_submitted(), summary.submitted())},
          {"started", TimeJson(summary.has_started(), summary.started())},
          {"ended", TimeJson(summary.has_ended(), summary.ended())},
          {"step", summary.step()},
          {"total_steps", summary.total_steps()},
          {"message", summary.message()},
          {"exit_code", IsTerminal(summary.state()) ? ordered_json(summary.exit_code()) : ordered_json(nullptr)}};
}

ordered_json MembersJson(const google::protobuf::RepeatedPtrField<v1::MemberSummary>& members) {
  ordered_json json = ordered_json::array();
  for (const v1::MemberSummary& member : members) {
    json.push_back({{"member_id", member.member_id()},
                    {"rank", member.rank()},
                    {"address", member.address()},
                    {"host", member.host()},
                    {"version", member.version()},
                    {"phase", member.phase()},
                    {"heartbeat_age_s", member.heartbeat_age_s()},
                    {"actors", member.actors()}});
  }
  return json;
}

ordered_json ServerJson(const v1::ServerInfoResponse& info) {
  return {{"version", info.version()},
          {"time", TimeJson(true, info.time())},
          {"host", info.host()},
          {"runs_folder", info.runs_folder()},
          {"data_folder", info.data_folder()},
          {"epoch", info.epoch()},
          {"ranks", info.ranks()},
          {"members", MembersJson(info.members())},
          {"group_reason", info.group_reason()},
          {"draining", info.draining()},
          {"queued", info.queued()},
          {"running", info.running()},
          {"paused", info.paused()},
          {"running_job", info.running_job()},
          {"free_bytes", info.free_bytes()},
          {"total_bytes", info.total_bytes()},
          {"shm_bytes", info.shm_bytes()}};
}

ordered_json DescribeJson(const v1::DescribeResponse& job) {
  ordered_json json = SummaryJson(job.summary());
  json["owner"] = job.owner().empty() ? ordered_json(nullptr) : ordered_json(job.owner());
  json["run_folder"] = job.run_folder();
  json["last_checkpoint"] = job.last_checkpoint();
  json["spec_digest"] = job.spec_digest();
  json["policy_version"] = job.policy_version();
  json["epoch"] = job.epoch();
  json["ledger"] = {{"issued", job.ledger().issued()},       {"trained", job.ledger().trained()},
                    {"dropped", job.ledger().dropped()},     {"failed", job.ledger().failed()},
                    {"cancelled", job.ledger().cancelled()}, {"open", job.ledger().open()},
                    {"frontier", job.ledger().frontier()}};
  json["metrics"] = ordered_json::object();
  const std::map<std::string, double> metrics(job.metrics().begin(), job.metrics().end());
  for (const auto& [name, value] : metrics) json["metrics"][name] = NumberJson(value);
  json["results"] = ordered_json::object();
  const std::map<std::string, std::string> results(job.results().begin(), job.results().end());
  for (const auto& [name, value] : results) json["results"][name] = value;
  json["members"] = MembersJson(job.members());
  json["first_cause"] = job.has_first_cause() ? EventJson(job.first_cause()) : ordered_json(nullptr);
  json["wish"] = job.wish().empty() ? ordered_json(nullptr) : ordered_json(job.wish());
  json["forked_from"] = job.forked_from().empty() ? ordered_json(nullptr) : ordered_json(job.forked_from());
  json["fork_checkpoint"] = job.fork_checkpoint().empty() ? ordered_json(nullptr) : ordered_json(job.fork_checkpoint());
  json["digests"] = ordered_json::object();
  const std::map<std::string, std::string> digests(job.digests().begin(), job.digests().end());
  for (const auto& [name, digest] : digests) json["digests"][name] = digest;
  json["server_version"] = job.server_version();
  json["spec_yaml"] = SpecToYaml(job.spec());
  return json;
}

ordered_json EventJson(const v1::JobEvent& event) {
  ordered_json json = {{"sequence", event.sequence()}, {"time", TimeJson(true, event.time())}};
  if (event.has_state()) {
    json["state"] = StateText(event.state().state());
    json["message"] = event.state().message();
    if (IsTerminal(event.state().state())) json["exit_code"] = event.state().exit_code();
  } else if (event.has_metrics()) {
    json["step"] = event.metrics().step();
    json["total_steps"] = event.metrics().total_steps();
    json["metrics"] = ordered_json::object();
    const std::map<std::string, double> values(event.metrics().values().begin(), event.metrics().values().end());
    for (const auto& [name, value] : values) json["metrics"][name] = NumberJson(value);
  } else {
    json["level"] = event.log().level();
    json["text"] = event.log().text();
    json["role"] = event.log().role().empty() ? "learner" : event.log().role();
    json["rank"] = event.log().rank();
    if (!event.log().source().empty()) json["source"] = event.log().source();
    if (event.log().has_said()) json["said"] = TimeJson(true, event.log().said());
    if (event.log().cause() != v1::LogLine::CAUSE_UNSPECIFIED) {
      json["cause"] = event.log().cause() == v1::LogLine::CAUSE_OWN ? "own" : "peer";
    }
  }
  return json;
}

ordered_json KeyJson(const SpecKey& key) {
  return {{"path", key.path},
          {"type", key.type},
          {"default", key.default_value.empty() ? ordered_json(nullptr) : ordered_json(key.default_value)},
          {"range", key.range.empty() ? ordered_json(nullptr) : ordered_json(key.range)},
          {"unit", key.unit.empty() ? ordered_json(nullptr) : ordered_json(key.unit)},
          {"required", key.required},
          {"tunable_on_resume", key.tunable_on_resume},
          {"doc", key.doc}};
}

std::string ExplainText(const std::vector<SpecKey>& keys) {
  std::string text;
  for (const SpecKey& key : keys) {
    if (key.is_section) {
      absl::StrAppend(&text, text.empty() ? "" : "\n", key.path, ":\n    ", key.doc, "\n");
      continue;
    }
    absl::StrAppend(&text, key.path, "  [", key.required ? "" : "default ", DefaultText(key), "]\n    ", key.doc,
                    "\n    ", TypeAndRange(key), key.tunable_on_resume ? "; may change when a job resumes" : "", "\n");
  }
  return text;
}

std::string ExplainMarkdown(const std::vector<SpecKey>& keys) {
  constexpr char kHead[] = "\n| key | type | default | effect |\n| --- | --- | --- | --- |\n";
  const auto section_of = [](const std::string& path) {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos ? std::string() : path.substr(0, dot);
  };
  // Keys of a section together, though a section's own sections stand between them in the schema.
  std::vector<std::string> sections = {""};
  for (const SpecKey& key : keys) {
    if (key.is_section) sections.push_back(key.path);
  }
  std::string text = "# Job spec\n";
  for (const std::string& section : sections) {
    for (const SpecKey& key : keys) {
      if (key.path == section) absl::StrAppend(&text, "\n## ", section, "\n\n", key.doc, "\n");
    }
    std::string rows;
    for (const SpecKey& key : keys) {
      if (key.is_section || section_of(key.path) != section) continue;
      absl::StrAppend(&rows, "| `", key.path, "` | ", TypeAndRange(key), " | ", DefaultText(key), " | ",
                      absl::StrReplaceAll(key.doc, {{"|", "\\|"}}), " |\n");
    }
    if (!rows.empty()) absl::StrAppend(&text, kHead, rows);
  }
  return text;
}

}  // namespace sluice::client

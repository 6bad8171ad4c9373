#include "client/cli/commands.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/format.h"
#include "client/cli/plan_job.h"
#include "common/file/file.h"
#include "common/progress/progress.h"
#include "common/spec/spec.h"
#include "common/spec/spec_fields.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"

namespace sluice::client {
namespace {

std::string RandomId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

absl::StatusOr<std::string> ReadSpecText(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxSpecBytes);
  std::string text;
  char buffer[4096];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), stdin)) {
    text.append(buffer, got);
    if (static_cast<int64_t>(text.size()) > kMaxSpecBytes) break;  // refused by its size later
  }
  return text;
}

struct LocalSpec {
  std::string text;  // as written, with the overrides as comments
  ResolvedSpec resolved;
};

absl::StatusOr<LocalSpec> LoadSpec(const std::string& path, const std::vector<std::string>& overrides) {
  LocalSpec spec;
  SLUICE_ASSIGN_OR_RETURN(spec.text, ReadSpecText(path));
  SLUICE_ASSIGN_OR_RETURN(spec.resolved, ResolveSpec(spec.text, path == "-" ? "standard input" : path, overrides));
  if (!overrides.empty() && !absl::EndsWith(spec.text, "\n")) spec.text += "\n";
  for (const std::string& assignment : overrides) absl::StrAppend(&spec.text, "# --set ", assignment, "\n");
  return spec;
}

// Keys that have a value, sections not counted.
int CountKeys(const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> present;
  message.GetReflection()->ListFields(message, &present);
  int count = 0;
  for (const auto* field : present) {
    count += IsSection(*field) ? CountKeys(message.GetReflection()->GetMessage(message, field)) : 1;
  }
  return count;
}

std::string ValidText(const std::string& path, const LocalSpec& spec, size_t overrides) {
  const int given = CountKeys(spec.resolved.given);
  const int all = CountKeys(spec.resolved.effective);
  return absl::StrCat(path, ": valid; ", given, " keys given",
                      overrides == 0 ? "" : absl::StrCat(", ", overrides, " by --set"), ", ", all - given,
                      " defaults; digest ", SpecDigest(spec.resolved.effective).substr(0, 12));
}

std::string EventLine(const v1::JobEvent& event, const std::string& text) {
  return absl::StrCat(absl::FormatTime("%H:%M:%S ", TimeOf(event.time()), absl::LocalTimeZone()), text);
}

std::string StateLine(const v1::JobEvent& event) {
  const std::string state = StateText(event.state().state());
  return EventLine(event, event.state().message().empty() || event.state().message() == state
                              ? state
                              : absl::StrCat(state, ": ", event.state().message()));
}

std::string LogText(const v1::JobEvent& event) {
  const std::string& level = event.log().level();
  return EventLine(event,
                   absl::StrCat(level == "info" || level.empty() ? "" : absl::StrCat(level, ": "), event.log().text()));
}

}  // namespace

void Commands::Out(const std::string& text) const {
  std::fwrite(text.data(), 1, text.size(), console_.out);
  std::fflush(console_.out);
}

void Commands::Talk(const std::string& text) const {
  std::fprintf(console_.err, "%s\n", text.c_str());
  std::fflush(console_.err);
}

int Commands::Fail(const absl::Status& status) const {
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    Talk(absl::StrCat(absl::StrContains(status.message(), "\n") ? "" : "sluicectl: ", line));
  }
  // Whatever was not found was named on the command line.
  if (status.code() == absl::StatusCode::kNotFound) return static_cast<int>(ExitCode::kUsage);
  return static_cast<int>(ExitCodeFor(status));
}

int Commands::Validate(const std::string& spec_path, const std::vector<std::string>& overrides) {
  const absl::StatusOr<LocalSpec> spec = LoadSpec(spec_path, overrides);
  if (!spec.ok()) return Fail(spec.status());
  if (console_.format == OutputFormat::kTable) {
    Talk(ValidText(spec_path, *spec, overrides.size()));
  } else {
    Out(nlohmann::ordered_json{{"valid", true}, {"spec_digest", SpecDigest(spec->resolved.effective)}}.dump() + "\n");
  }
  return 0;
}

int Commands::Submit(const SubmitFlags& flags) {
  const absl::StatusOr<LocalSpec> spec = LoadSpec(flags.spec_path, flags.overrides);
  if (!spec.ok()) return Fail(spec.status());
  Talk(ValidText(flags.spec_path, *spec, flags.overrides.size()));
  if (flags.dry_run) {
    const std::string yaml = SpecToYaml(spec->resolved.effective);
    nlohmann::ordered_json plan = PlanJob(spec->resolved.effective, flags.ranks, flags.threads);
    if (console_.format == OutputFormat::kTable) {
      Out(yaml + PlanText(plan));
    } else {
      const nlohmann::ordered_json all = {
          {"spec_digest", SpecDigest(spec->resolved.effective)}, {"spec_yaml", yaml}, {"plan", std::move(plan)}};
      Out(all.dump(console_.format == OutputFormat::kJson ? 2 : -1) + "\n");
    }
    Talk("dry run: nothing was submitted; above are the spec with its defaults, and its plan");
    return 0;
  }
  v1::SubmitRequest request;
  request.set_request_id(flags.request_id.empty() ? RandomId() : flags.request_id);
  *request.mutable_spec() = spec->resolved.given;
  request.set_spec_yaml(spec->text);
  const absl::StatusOr<v1::SubmitResponse> submitted = client_->Submit(request);
  if (!submitted.ok()) return Fail(submitted.status());
  const std::string& id = submitted->job_id();
  if (console_.format == OutputFormat::kTable) {
    Out(id + "\n");
  } else {
    Out(nlohmann::ordered_json{{"job_id", id}, {"existed", submitted->existed()}}.dump() + "\n");
  }
  Talk(submitted->existed() ? "this request was submitted before; it is the same job" : "submitted");
  if (flags.watch) return WatchResolved(id, 0);
  Talk(absl::StrCat("  follow   sluicectl watch ", id, "\n  details  sluicectl describe ", id,
                    "\n  stop     sluicectl cancel ", id, "   (saves a checkpoint first)"));
  return 0;
}

int Commands::List(int limit) {
  const absl::StatusOr<v1::ListResponse> jobs = client_->List(limit);
  if (!jobs.ok()) return Fail(jobs.status());
  if (console_.format == OutputFormat::kTable) {
    if (jobs->jobs_size() == 0) {
      Talk("no jobs yet; 'sluicectl submit FILE' makes one");
    } else {
      Out(JobTable(*jobs, absl::Now()));
    }
    return 0;
  }
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const v1::JobSummary& job : jobs->jobs()) {
    if (console_.format == OutputFormat::kJsonl) Out(SummaryJson(job).dump() + "\n");
    all.push_back(SummaryJson(job));
  }
  if (console_.format == OutputFormat::kJson) Out(nlohmann::ordered_json{{"jobs", all}}.dump(2) + "\n");
  return 0;
}

int Commands::Describe(const std::string& job) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  const absl::StatusOr<v1::DescribeResponse> described = client_->Describe(*id);
  if (!described.ok()) return Fail(described.status());
  if (console_.format == OutputFormat::kTable) {
    Out(DescribeText(*described, absl::Now()));
  } else {
    Out(DescribeJson(*described).dump(console_.format == OutputFormat::kJson ? 2 : -1) + "\n");
  }
  return 0;
}

int Commands::Cancel(const std::string& job) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  const absl::Status status = client_->Cancel(*id);
  if (!status.ok()) return Fail(status);
  Talk(absl::StrCat(*id, ": cancelling; a running job ends at its next step, with a checkpoint"));
  return 0;
}

int Commands::Resume(const std::string& job) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  const absl::StatusOr<v1::ResumeResponse> resumed = client_->Resume(*id);
  if (!resumed.ok()) return Fail(resumed.status());
  Talk(absl::StrCat(
      *id, ": waits for the group, and goes on from ",
      resumed->last_checkpoint().empty() ? "the start, since it has no checkpoint" : resumed->last_checkpoint(),
      ". Follow it with: sluicectl watch ", *id));
  return 0;
}

int Commands::Detached(const std::string& job_id, uint64_t sequence) {
  Talk(absl::StrCat("\ndetached; the job goes on. Follow it again with: sluicectl watch ", job_id, " --after ",
                    sequence));
  return kDetached;
}

int Commands::Watch(const std::string& job, uint64_t after) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  return WatchResolved(*id, after);
}

int Commands::WatchResolved(const std::string& job_id, uint64_t after) {
  uint64_t sequence = after;
  int exit_code = 0;
  absl::Time event_time = absl::Now();
  // Progress runs by the events' own times, so that rates are right also when an old story is told again.
  ProgressPrinter::Options options;
  options.terminal = console_.terminal;
  ProgressPrinter progress(
      console_.out, [&event_time] { return event_time; }, options);
  const auto on_event = [&](const v1::JobEvent& event) {
    event_time = TimeOf(event.time());
    if (event.has_state() && IsTerminal(event.state().state())) exit_code = event.state().exit_code();
    const bool missed = sequence > 0 && event.sequence() > sequence + 1;
    if (missed) Talk(absl::StrCat(event.sequence() - sequence - 1, " older events are no longer kept"));
    sequence = event.sequence();
    if (console_.format != OutputFormat::kTable) return Out(EventJson(event).dump() + "\n");
    if (event.has_state()) {
      progress.Print(StateLine(event));
    } else if (event.has_log()) {
      progress.Print(LogText(event));
    } else {
      progress.Update("step", "steps", static_cast<int64_t>(event.metrics().step()),
                      static_cast<int64_t>(event.metrics().total_steps()), MetricsText(event.metrics()));
    }
  };
  const auto on_contact = [this](const absl::Status& status) {
    Talk(status.ok() ? "the coordinator is back" : "lost the coordinator; trying again (the job goes on)");
  };
  const absl::Status status = client_->Watch(job_id, {after, false}, stop_, on_event, on_contact);
  if (stop_) return Detached(job_id, sequence);
  if (!status.ok()) return Fail(status);
  // Resumed behind the last event: the outcome is in the description.
  if (sequence == after) {
    const absl::StatusOr<v1::DescribeResponse> described = client_->Describe(job_id);
    if (!described.ok()) return Fail(described.status());
    exit_code = described->summary().exit_code();
    Talk(absl::StrCat(job_id, " has ended: ", StateText(described->summary().state()), ", ",
                      described->summary().message()));
  }
  return exit_code;
}

int Commands::Logs(const std::string& job, bool follow) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  uint64_t sequence = 0;
  const auto on_event = [&](const v1::JobEvent& event) {
    sequence = event.sequence();
    if (event.has_metrics()) return;
    if (console_.format != OutputFormat::kTable) return Out(EventJson(event).dump() + "\n");
    Out((event.has_state() ? StateLine(event) : LogText(event)) + "\n");
  };
  const auto on_contact = [this](const absl::Status& status) {
    Talk(status.ok() ? "the coordinator is back" : "lost the coordinator; trying again");
  };
  const absl::Status status = client_->Watch(*id, {0, !follow}, stop_, on_event, on_contact);
  if (stop_) return Detached(*id, sequence);
  return status.ok() ? 0 : Fail(status);
}

int Commands::Wait(const std::string& job, absl::Duration timeout) {
  const absl::StatusOr<std::string> id = client_->ResolveId(job);
  if (!id.ok()) return Fail(id.status());
  std::optional<v1::JobEvent> last;
  std::atomic<bool> stop{false};
  std::atomic<bool> timed_out{false};
  Notification ended;
  const absl::Time until = MonotonicNow() + timeout;
  Thread timer = StartThread("wait-timer", [&] {
    while (!ended.WaitFor(absl::Milliseconds(50))) {
      timed_out = MonotonicNow() >= until;
      stop = timed_out || stop_;
    }
  });
  const absl::Status status = client_->Watch(
      *id, {}, stop,
      [&last](const v1::JobEvent& event) {
        if (event.has_state()) last = event;
      },
      [](const absl::Status&) {});
  ended.Notify();
  timer.Join();
  if (stop_) return Detached(*id, last ? last->sequence() : 0);
  if (timed_out) return Fail(absl::DeadlineExceededError(absl::StrCat(*id, " has not ended in time; it goes on")));
  if (!status.ok()) return Fail(status);
  if (!last) return Fail(absl::DataLossError(absl::StrCat("the coordinator no longer knows how ", *id, " ended")));
  if (console_.format == OutputFormat::kTable) {
    Out(StateLine(*last) + "\n");
  } else {
    Out(EventJson(*last).dump() + "\n");
  }
  return last->state().exit_code();
}

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
  } else if (console_.format == OutputFormat::kTable) {
    Out(ExplainText(keys));
  } else {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const SpecKey& key : keys) {
      if (console_.format == OutputFormat::kJsonl) Out(KeyJson(key).dump() + "\n");
      json.push_back(KeyJson(key));
    }
    if (console_.format == OutputFormat::kJson) Out(json.dump(2) + "\n");
  }
  return 0;
}

int ExecBeside(const std::string& name, const std::vector<std::string>& arguments) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  std::string program = name;
  if (length > 0) {
    const std::string path(self, static_cast<size_t>(length));
    program = absl::StrCat(path.substr(0, path.rfind('/')), "/", name);
  }
  std::vector<char*> argv = {program.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  std::fprintf(stderr, "sluicectl: cannot run %s: %s; it is installed beside sluicectl\n", program.c_str(),
               std::strerror(errno));
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace sluice::client

// Following jobs: their story, lines, measurements, ends, and the screen of all.
#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/log_filter.h"
#include "common/progress/progress.h"
#include "common/status/status.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

constexpr absl::Duration kRedraw = absl::Seconds(2);
constexpr int kShownJobs = 15;

std::string Line(const ordered_json& json) {
  return WithSchema(json).dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

int Commands::Detached(const std::string& job_id, uint64_t sequence) {
  Talk(absl::StrCat("\ndetached; the job goes on. Follow it again with: sluicectl watch ", job_id, " --after ",
                    sequence));
  return kDetached;
}

int Commands::Watch(const std::string& job, uint64_t after) {
  return WithJob(
      job, [&](const std::string& id) { return WatchResolved(id, after, console().out, console().out_terminal); });
}

int Commands::WatchResolved(const std::string& job_id, uint64_t after, std::FILE* story, bool terminal) {
  uint64_t sequence = after;
  int exit_code = 0;
  absl::Time event_time = absl::Now();
  const bool quiet = story == console().err && console().quiet;
  // Progress runs by the events' own times, so that rates are right also when an old story is told again.
  ProgressPrinter::Options options;
  options.terminal = terminal;
  ProgressPrinter progress(
      story, [&event_time] { return event_time; }, options);
  const auto on_event = [&](const v1::JobEvent& event) {
    event_time = TimeOf(event.time());
    if (event.has_state() && IsTerminal(event.state().state())) exit_code = event.state().exit_code();
    const bool missed = sequence > 0 && event.sequence() > sequence + 1;
    if (missed) Talk(absl::StrCat(event.sequence() - sequence - 1, " older events are no longer kept"));
    sequence = event.sequence();
    if (!console().for_people()) {
      // Of `submit --watch` the id is the data, and the story goes where talk goes.
      if (story == console().out) Out(Line(EventJson(event)));
      return;
    }
    if (quiet) return;
    if (event.has_state()) {
      progress.Print(StateLine(event));
      if (event.state().state() == v1::JOB_STATE_PAUSED) {
        Talk(absl::StrCat("paused; it goes on after: sluicectl resume ", job_id));
      }
    } else if (event.has_log()) {
      progress.Print(LogText(event));
    } else {
      progress.Update("step", "steps", static_cast<int64_t>(event.metrics().step()),
                      static_cast<int64_t>(event.metrics().total_steps()), MetricsText(event.metrics()));
    }
  };
  const auto on_contact = [this](const absl::Status& status) {
    Talk(status.ok() ? "the coordinator is back; what was missed follows"
                     : "lost the coordinator; trying again (the job goes on)");
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

int Commands::Logs(const std::string& job, const LogFlags& flags) {
  const absl::StatusOr<LogFilter> filter = LogFilter::Create(flags, absl::Now());
  if (!filter.ok()) return Fail(filter.status());
  return WithJob(job, [&](const std::string& id) {
    uint64_t sequence = 0;
    const auto print = [this](const v1::JobEvent& event) {
      if (!console().for_people()) return Out(Line(EventJson(event)));
      Out((event.has_state() ? StateLine(event) : LogText(event)) + "\n");
    };
    // With --tail the last lines of what is there come first; what comes later is printed as it comes.
    std::deque<v1::JobEvent> last;
    const auto on_past = [&](const v1::JobEvent& event) {
      sequence = event.sequence();
      if (!filter->Shows(event)) return;
      if (flags.tail < 0) return print(event);
      last.push_back(event);
      if (static_cast<int>(last.size()) > flags.tail) last.pop_front();
    };
    const auto on_contact = [this](const absl::Status& status) {
      Talk(status.ok() ? "the coordinator is back" : "lost the coordinator; trying again");
    };
    absl::Status status = client_->Watch(id, {0, true}, stop_, on_past, on_contact);
    for (const v1::JobEvent& event : last) print(event);
    if (status.ok() && flags.follow) {
      status = client_->Watch(
          id, {sequence, false}, stop_,
          [&](const v1::JobEvent& event) {
            sequence = event.sequence();
            if (filter->Shows(event)) print(event);
          },
          on_contact);
      if (status.ok()) Talk(absl::StrCat("the job has ended; all of it again: sluicectl logs ", id));
    }
    if (stop_) return Detached(id, sequence);
    return status.ok() ? 0 : Fail(status);
  });
}

int Commands::Events(const std::string& job, uint64_t after, bool follow) {
  return WithJob(job, [&](const std::string& id) {
    uint64_t sequence = after;
    ordered_json all = ordered_json::array();
    const bool stream = console().for_people() || console().format == OutputFormat::kJsonl;
    const auto on_event = [&](const v1::JobEvent& event) {
      sequence = event.sequence();
      if (!stream) {
        all.push_back(EventJson(event));
      } else if (console().for_people()) {
        Out(absl::StrFormat("%6d  %s\n", event.sequence(), EventText(event)));
      } else {
        Out(Line(EventJson(event)));
      }
    };
    const auto on_contact = [this](const absl::Status& status) {
      Talk(status.ok() ? "the coordinator is back" : "lost the coordinator; trying again");
    };
    const absl::Status status = client_->Watch(id, {after, !follow}, stop_, on_event, on_contact);
    if (!stream) printer_.List("events", all, "sequence", "");
    if (stop_) return Detached(id, sequence);
    return status.ok() ? 0 : Fail(status);
  });
}

int Commands::Metrics(const MetricsFlags& flags) {
  return WithJob(flags.job, [&](const std::string& id) {
    const std::set<std::string> wanted(flags.names.begin(), flags.names.end());
    struct Latest {
      uint64_t step = 0;
      double value = 0;
    };
    std::map<std::string, Latest> latest;
    std::vector<ordered_json> rows;
    uint64_t sequence = 0;
    // With --follow a row is printed as it comes; a document has to wait for its end.
    const bool stream = flags.follow && (console().for_people() || console().format == OutputFormat::kJsonl);
    const auto on_event = [&](const v1::JobEvent& event) {
      sequence = event.sequence();
      if (!event.has_metrics()) return;
      ordered_json row = {{"step", event.metrics().step()}};
      const std::map<std::string, double> values(event.metrics().values().begin(), event.metrics().values().end());
      for (const auto& [name, value] : values) {
        if (!wanted.empty() && wanted.count(name) == 0) continue;
        row[name] = NumberJson(value);
        latest[name] = {event.metrics().step(), value};
      }
      if (row.size() == 1) return;
      if (!stream) {
        if (flags.last) rows.clear();
        return rows.push_back(std::move(row));
      }
      if (!console().for_people()) return Out(Line(row));
      std::string text = absl::StrFormat("%6d ", event.metrics().step());
      for (const auto& [name, value] : values) {
        if (wanted.empty() || wanted.count(name) > 0) absl::StrAppend(&text, " ", name, "=", NumberShown(value));
      }
      Out(text + "\n");
    };
    const auto on_contact = [this](const absl::Status& status) {
      Talk(status.ok() ? "the coordinator is back" : "lost the coordinator; trying again");
    };
    const absl::Status status = client_->Watch(id, {0, !flags.follow}, stop_, on_event, on_contact);
    if (stop_) return Detached(id, sequence);
    if (!status.ok()) return Fail(status);
    for (const std::string& name : flags.names) {
      if (latest.count(name) > 0) continue;
      std::vector<std::string> known;
      for (const auto& [one, value] : latest) known.push_back(one);
      return Fail(absl::NotFoundError(
          absl::StrCat(id, " has no metric '", name, "' so far; 'sluicectl metrics ", id, "' shows what it has")));
    }
    if (stream) return 0;
    if (console().format == OutputFormat::kName) {
      for (const auto& [name, value] : latest) Out(name + "\n");
      return 0;
    }
    std::vector<std::vector<std::string>> table;
    if (flags.names.empty()) {
      table.push_back({"METRIC", "STEP", "LATEST"});
      for (const auto& [name, value] : latest) {
        table.push_back({name, absl::StrCat(value.step), NumberShown(value.value)});
      }
    } else {
      table.push_back({"STEP"});
      table.back().insert(table.back().end(), flags.names.begin(), flags.names.end());
      for (const ordered_json& row : rows) {
        table.push_back({absl::StrCat(row.at("step").get<uint64_t>())});
        for (const std::string& name : flags.names) {
          const auto cell = row.find(name);
          table.back().push_back(cell == row.end() || cell->is_null() ? "-" : NumberShown(cell->get<double>()));
        }
      }
    }
    printer_.List("metrics", rows, "step", table.size() > 1 ? Table(table) : "");
    if (latest.empty()) Talk(absl::StrCat(id, " has reported no metric yet"));
    return 0;
  });
}

int Commands::Wait(const std::string& job, absl::Duration timeout) {
  return WithJob(job, [&](const std::string& id) {
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
        id, {}, stop,
        [&](const v1::JobEvent& event) {
          if (!event.has_state()) return;
          last = event;
          if (event.state().state() == v1::JOB_STATE_PAUSED) {
            Talk(absl::StrCat(id, " is paused; it goes on after: sluicectl resume ", id));
          }
        },
        [](const absl::Status&) {});
    ended.Notify();
    timer.Join();
    if (stop_) return Detached(id, last ? last->sequence() : 0);
    if (timed_out) return Fail(absl::DeadlineExceededError(absl::StrCat(id, " has not ended in time; it goes on")));
    if (!status.ok()) return Fail(status);
    if (!last) return Fail(absl::DataLossError(absl::StrCat("the coordinator no longer knows how ", id, " ended")));
    printer_.One(EventJson(*last), "state", StateLine(*last) + "\n");
    return last->state().exit_code();
  });
}

std::string Commands::TopText() {
  const absl::StatusOr<v1::ServerInfoResponse> info = client_->ServerInfo(false);
  if (!info.ok()) return absl::StrCat(std::string(info.status().message()), "\n");
  const absl::StatusOr<v1::ListResponse> jobs = client_->List(kShownJobs);
  if (!jobs.ok()) return absl::StrCat(std::string(jobs.status().message()), "\n");
  std::string text = absl::StrFormat("%s  release %s  epoch %d  %d running, %d queued, %d paused%s\n",
                                     client_->options().server, info->version(), info->epoch(), info->running(),
                                     info->queued(), info->paused(), info->draining() ? "  DRAINING" : "");
  if (info->epoch() == 0) absl::StrAppend(&text, "no learner group: ", info->group_reason(), "\n");
  if (!info->running_job().empty()) {
    const absl::StatusOr<v1::DescribeResponse> job = client_->Describe(info->running_job());
    if (job.ok()) absl::StrAppend(&text, "\n", RunningText(*job, absl::Now()));
  }
  if (info->members_size() > 0) {
    std::vector<std::vector<std::string>> rows = {{"RANK", "HOST", "ADDRESS", "ACTORS", "HEARD", "PHASE"}};
    for (const v1::MemberSummary& member : info->members()) {
      rows.push_back({member.rank() < 0 ? "standby" : absl::StrCat(member.rank()), member.host(), member.address(),
                      absl::StrCat(member.actors()), absl::StrFormat("%.1f s ago", member.heartbeat_age_s()),
                      member.phase()});
    }
    absl::StrAppend(&text, "\n", Table(rows));
  }
  if (jobs->jobs_size() > 0) absl::StrAppend(&text, "\n", JobTable(*jobs, absl::Now(), false, console().color));
  return text;
}

int Commands::Top() {
  if (!console().for_people()) {
    const absl::StatusOr<v1::ServerInfoResponse> info = client_->ServerInfo(false);
    if (!info.ok()) return Fail(info.status());
    const absl::StatusOr<v1::ListResponse> jobs = client_->List(kShownJobs);
    if (!jobs.ok()) return Fail(jobs.status());
    ordered_json document = ServerJson(*info);
    document["jobs"] = ordered_json::array();
    for (const v1::JobSummary& job : jobs->jobs()) document["jobs"].push_back(SummaryJson(job));
    printer_.One(document, "running_job", "");
    return 0;
  }
  if (!console().out_terminal) {
    // Once, and an error is an error.
    const absl::StatusOr<v1::ServerInfoResponse> info = client_->ServerInfo(false);
    if (!info.ok()) return Fail(info.status());
    Out(TopText());
    return 0;
  }
  while (!stop_) {
    Out(absl::StrCat("\033[H\033[2J", TopText(), "\nctrl-C ends\n"));
    const absl::Time next = MonotonicNow() + kRedraw;
    while (!stop_ && MonotonicNow() < next) absl::SleepFor(absl::Milliseconds(50));
  }
  return 0;
}

}  // namespace sluice::client

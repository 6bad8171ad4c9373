#include "learner/job/job_store.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/failpoint/failpoint.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int kSchemaVersion = 2;
// Reports and step reservations are remembered this long, to recognise a repeated call.
constexpr int kRememberedReports = 512;
constexpr int kRememberedSteps = 128;

constexpr char kSchema[] = R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE jobs(
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL, kind INTEGER NOT NULL, spec BLOB NOT NULL, spec_yaml TEXT NOT NULL, spec_digest TEXT NOT NULL,
  state TEXT NOT NULL, cancel_requested INTEGER NOT NULL DEFAULT 0,
  submitted_us INTEGER NOT NULL, started_us INTEGER NOT NULL DEFAULT 0, ended_us INTEGER NOT NULL DEFAULT 0,
  message TEXT NOT NULL DEFAULT '', exit_code INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER NOT NULL DEFAULT 0,
  run_folder TEXT NOT NULL, last_checkpoint TEXT NOT NULL DEFAULT '',
  policy_version INTEGER NOT NULL DEFAULT 0, ordinals INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0,
  lost_groups INTEGER NOT NULL DEFAULT 0, balance TEXT NOT NULL DEFAULT '',
  last_sequence INTEGER NOT NULL DEFAULT 0);
CREATE INDEX jobs_by_state ON jobs(state, number);
CREATE TABLE events(job TEXT NOT NULL, sequence INTEGER NOT NULL, time_us INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(job, sequence)) WITHOUT ROWID;
CREATE TABLE reports(number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, report_id TEXT NOT NULL,
  UNIQUE(job, report_id));
CREATE TABLE reservations(job TEXT NOT NULL, step INTEGER NOT NULL, epoch INTEGER NOT NULL, first INTEGER NOT NULL,
  count INTEGER NOT NULL, PRIMARY KEY(job, step)) WITHOUT ROWID;
CREATE TABLE results(job TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(job, name)) WITHOUT ROWID;
CREATE TABLE metrics(job TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY(job, name)) WITHOUT ROWID;
)";

// What each format has more than the one before, from the first on.
constexpr char kSecondFormat[] = R"(
ALTER TABLE jobs ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN fork_checkpoint TEXT NOT NULL DEFAULT '';
)";
// Beside the jobs, so that a release without owners can still read the store. By request and not by job: a claim is on
// the disk before its job is.
constexpr char kOwners[] =
    "CREATE TABLE IF NOT EXISTS owners(request_id TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID";

constexpr char kColumns[] =
    "id, request_id, name, kind, spec_digest, state, cancel_requested, submitted_us, started_us, ended_us, message, "
    "exit_code, step, total_steps, run_folder, last_checkpoint, policy_version, ordinals, epoch, lost_groups, balance, "
    "forked_from, fork_checkpoint";

constexpr JobState kStates[] = {JobState::kQueued, JobState::kRunning,   JobState::kPaused, JobState::kSucceeded,
                                JobState::kFailed, JobState::kCancelled, JobState::kHeld};

std::string StateText(JobState state) { return std::string(JobStateName(state)); }

absl::StatusOr<JobState> ReadState(const std::string& text) {
  for (const JobState state : kStates) {
    if (text == StateText(state)) return state;
  }
  return absl::DataLossError(absl::StrCat("job store holds the unknown state \"", text, "\""));
}

int64_t Micros(absl::Time time) { return time == absl::InfinitePast() ? 0 : absl::ToUnixMicros(time); }
absl::Time FromMicros(int64_t micros) { return micros == 0 ? absl::InfinitePast() : absl::FromUnixMicros(micros); }

std::string BalanceText(const LedgerBalance& balance) {
  return nlohmann::json::array({balance.issued, balance.trained, balance.dropped, balance.failed, balance.cancelled,
                                balance.open, balance.frontier})
      .dump();
}

LedgerBalance ReadBalance(const std::string& text) {
  LedgerBalance balance;
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_array() || json.size() != 7) return balance;  // "" until a rank reports one
  uint64_t* const fields[] = {&balance.issued,    &balance.trained, &balance.dropped, &balance.failed,
                              &balance.cancelled, &balance.open,    &balance.frontier};
  for (size_t i = 0; i < json.size(); ++i) *fields[i] = json[i].get<uint64_t>();
  return balance;
}

// Not-a-number and infinities have no JSON; they are kept as null and read back as not-a-number.
nlohmann::json BodyOf(const JobEvent& event) {
  nlohmann::json body;
  if (const auto* state = std::get_if<StateChanged>(&event.what)) {
    body = {{"state", StateText(state->state)}, {"message", state->message}, {"exit_code", state->exit_code}};
  } else if (const auto* point = std::get_if<MetricsPoint>(&event.what)) {
    body = {{"step", point->step}, {"total_steps", point->total_steps}, {"values", point->values}};
  } else {
    const auto& line = std::get<LogLine>(event.what);
    body = {{"level", line.level},
            {"text", line.text},
            {"role", line.role},
            {"rank", line.rank},
            {"cause", static_cast<int>(line.cause)}};
    if (!line.source.empty()) body["source"] = line.source;
    if (line.said) body["said_us"] = absl::ToUnixMicros(*line.said);
  }
  return body;
}

std::string DumpJson(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::Status ReadBody(const std::string& text, JobEvent* event) {
  const nlohmann::json body = nlohmann::json::parse(text, nullptr, false);
  try {
    if (body.contains("state")) {
      StateChanged state;
      SLUICE_ASSIGN_OR_RETURN(state.state, ReadState(body.at("state").get<std::string>()));
      state.message = body.at("message").get<std::string>();
      state.exit_code = body.at("exit_code").get<int>();
      event->what = std::move(state);
    } else if (body.contains("values")) {
      MetricsPoint point{body.at("step").get<uint64_t>(), body.at("total_steps").get<uint64_t>(), {}};
      for (const auto& [name, value] : body.at("values").items()) {
        point.values[name] = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
      }
      event->what = std::move(point);
    } else {
      LogLine line{body.at("level").get<std::string>(), body.at("text").get<std::string>()};
      // Absent from what older versions wrote: those were lines of the first rank.
      line.role = body.value("role", line.role);
      line.rank = body.value("rank", line.rank);
      line.source = body.value("source", line.source);
      if (body.contains("said_us")) line.said = absl::FromUnixMicros(body.at("said_us").get<int64_t>());
      const int cause = body.value("cause", 0);
      if (cause == static_cast<int>(LineCause::kOwn) || cause == static_cast<int>(LineCause::kPeer)) {
        line.cause = static_cast<LineCause>(cause);
      }
      event->what = std::move(line);
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("job store holds an event that cannot be read: ", error.what()));
  }
  return absl::OkStatus();
}

absl::StatusOr<JobRecord> ReadRecord(const SqliteQuery& row) {
  JobRecord job;
  job.id = row.Text(0);
  job.request_id = row.Text(1);
  job.name = row.Text(2);
  job.kind = static_cast<int>(row.Int(3));
  job.spec_digest = row.Text(4);
  SLUICE_ASSIGN_OR_RETURN(job.state, ReadState(row.Text(5)));
  job.wish = row.Int(6) == 1 ? JobWish::kCancel : row.Int(6) == 2 ? JobWish::kPause : JobWish::kNone;
  job.submitted = FromMicros(row.Int(7));
  job.started = FromMicros(row.Int(8));
  job.ended = FromMicros(row.Int(9));
  job.message = row.Text(10);
  job.exit_code = static_cast<int>(row.Int(11));
  job.step = row.Uint(12);
  job.total_steps = row.Uint(13);
  job.run_folder = row.Text(14);
  job.last_checkpoint = row.Text(15);
  job.policy_version = row.Uint(16);
  job.ordinals = row.Uint(17);
  job.epoch = row.Uint(18);
  job.lost_groups = static_cast<int>(row.Int(19));
  job.balance = ReadBalance(row.Text(20));
  job.forked_from = row.Text(21);
  job.fork_checkpoint = row.Text(22);
  return job;
}

absl::StatusOr<std::vector<JobRecord>> ReadAll(SqliteQuery query) {
  std::vector<JobRecord> jobs;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return jobs;
    SLUICE_ASSIGN_OR_RETURN(JobRecord job, ReadRecord(query));
    jobs.push_back(std::move(job));
  }
}

absl::Status CheckEpoch(const JobRecord& job, uint64_t epoch) {
  if (job.epoch == epoch) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("job ", job.id, " runs in epoch ", job.epoch, ", not in ", epoch, "; join again"));
}

// One pair of failpoints an input, around the transaction that takes it. Without failpoints the branches are the same.
// NOLINTBEGIN(bugprone-branch-clone)
absl::Status BeforeTransition(JobInput input) {
  switch (input) {
    case JobInput::kAssign:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_assign");
    case JobInput::kCancel:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_cancel");
    case JobInput::kResume:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_resume");
    case JobInput::kPreempt:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_preempt");
    case JobInput::kSucceed:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_succeed");
    case JobInput::kFail:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_fail");
    case JobInput::kCancelled:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_cancelled");
    case JobInput::kHold:
      return SLUICE_FAILPOINT_STATUS("coordinator/before_hold");
    case JobInput::kKill:  // nothing stands between a wish and its transaction but what the others have
    case JobInput::kPause:
      break;
  }
  return absl::OkStatus();
}

absl::Status AfterTransition(JobInput input) {
  switch (input) {
    case JobInput::kAssign:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_assign");
    case JobInput::kCancel:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_cancel");
    case JobInput::kResume:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_resume");
    case JobInput::kPreempt:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_preempt");
    case JobInput::kSucceed:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_succeed");
    case JobInput::kFail:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_fail");
    case JobInput::kCancelled:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_cancelled");
    case JobInput::kHold:
      return SLUICE_FAILPOINT_STATUS("coordinator/after_hold");
    case JobInput::kKill:
    case JobInput::kPause:
      break;
  }
  return absl::OkStatus();
}
// NOLINTEND(bugprone-branch-clone)

// "My run #3" -> "my-run-3": safe as a folder's name.
std::string Slug(const std::string& name) {
  std::string slug;
  for (const char c : name) {
    const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
    if (absl::ascii_isalnum(static_cast<unsigned char>(lower))) {
      slug += lower;
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
    if (slug.size() == 24) break;
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  return slug.empty() ? "job" : slug;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path, JobStoreOptions options) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> database, SqliteDatabase::Open(path, options.max_bytes));
  std::unique_ptr<JobStore> store(new JobStore(std::move(database), std::move(options)));
  SLUICE_RETURN_IF_ERROR(store->Migrate());
  SLUICE_RETURN_IF_ERROR(store->AddOwners());
  return store;
}

absl::Status JobStore::Migrate() {
  MutexLock lock(&mutex_);
  int64_t version = 0;
  {
    SqliteQuery query = database_->Query("PRAGMA user_version");
    SLUICE_RETURN_IF_ERROR(query.Next().status());
    version = query.Int(0);
  }
  if (version == kSchemaVersion) return absl::OkStatus();
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the job store has format ", version,
                                                      ", this version reads formats up to ", kSchemaVersion,
                                                      "; start the version that wrote it"));
  }
  return database_->Transaction([this, version]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (version < 1) SLUICE_RETURN_IF_ERROR(database_->Execute(kSchema));
    if (version < 2) SLUICE_RETURN_IF_ERROR(database_->Execute(kSecondFormat));
    return database_->Execute(absl::StrCat("PRAGMA user_version=", kSchemaVersion));
  });
}

absl::Status JobStore::AddOwners() {
  MutexLock lock(&mutex_);
  return database_->Execute(kOwners);
}

absl::StatusOr<std::string> JobStore::ClaimRequest(const std::string& request_id, const std::string& owner) {
  MutexLock lock(&mutex_);
  std::string claimed = owner;
  SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
    {
      SqliteQuery query = database_->Query("SELECT owner FROM owners WHERE request_id = ?");
      SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(request_id).Next());
      if (found) {
        claimed = query.Text(0);
        return absl::OkStatus();
      }
    }
    {
      SqliteQuery query = database_->Query("SELECT 1 FROM jobs WHERE request_id = ?");
      SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(request_id).Next());
      if (found) {
        claimed.clear();
        return absl::OkStatus();
      }
    }
    return database_->Query("INSERT INTO owners(request_id, owner) VALUES(?, ?)").Bind(request_id).Bind(owner).Run();
  }));
  return claimed;
}

absl::StatusOr<std::string> JobStore::Owner(const std::string& job_id) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query(
      "SELECT coalesce(owners.owner, '') FROM jobs LEFT JOIN owners ON owners.request_id = jobs.request_id WHERE "
      "jobs.id = ?");
  SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job_id).Next());
  if (!found) return absl::NotFoundError(absl::StrCat("there is no job ", job_id));
  return query.Text(0);
}

absl::StatusOr<std::string> JobStore::NewIdLocked(const NewJob& job, absl::Time now) {
  // Not a plain count: the run folder of another store's job must not be taken for this one's.
  const std::string digest = Sha256(absl::StrCat(job.request_id, "\n", Micros(now), "\n", job.spec_digest));
  for (size_t digits = 6; digits <= digest.size(); ++digits) {
    std::string id = absl::StrCat(Slug(job.name), "-", digest.substr(0, digits));
    SqliteQuery query = database_->Query("SELECT 1 FROM jobs WHERE id = ?");
    SLUICE_ASSIGN_OR_RETURN(const bool taken, query.Bind(id).Next());
    if (!taken) return id;
  }
  return absl::InternalError("two submissions have the same digest");
}

absl::StatusOr<JobStore::Submission> JobStore::Submit(const NewJob& job, absl::Time now) {
  Submission submission;
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/before_submit"));
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
      {
        SqliteQuery query = database_->Query("SELECT id, spec_digest FROM jobs WHERE request_id = ?");
        SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job.request_id).Next());
        if (found && query.Text(1) != job.spec_digest) {
          return absl::AlreadyExistsError(absl::StrCat("request id ", job.request_id, " already names job ",
                                                       query.Text(0),
                                                       ", which has another spec; choose a new request id"));
        }
        if (found) {
          submission = {query.Text(0), true};
          return absl::OkStatus();
        }
      }
      {
        SqliteQuery query = database_->Query("SELECT count(*) FROM jobs WHERE state = 'queued'");
        SLUICE_RETURN_IF_ERROR(query.Next().status());
        if (query.Int(0) >= options_.max_queued) {
          return absl::ResourceExhaustedError(
              absl::StrCat(query.Int(0), " jobs wait already; cancel some, or submit when some have ended"));
        }
      }
      SLUICE_ASSIGN_OR_RETURN(submission.job_id, NewIdLocked(job, now));
      SqliteQuery insert = database_->Query(
          "INSERT INTO jobs(id, request_id, name, kind, spec, spec_yaml, spec_digest, state, submitted_us, message, "
          "run_folder, forked_from, fork_checkpoint) "
          "VALUES(?, ?, ?, ?, ?, ?, ?, 'queued', ?, 'waits for the learner group', ?, ?, ?)");
      insert.Bind(submission.job_id).Bind(job.request_id).Bind(job.name).Bind(job.kind);
      insert.BindBlob(job.spec).Bind(job.spec_yaml).Bind(job.spec_digest).Bind(Micros(now));
      insert.Bind(JoinPath(options_.runs_folder, submission.job_id));
      SLUICE_RETURN_IF_ERROR(insert.Bind(job.forked_from).Bind(job.fork_checkpoint).Run());
      const std::string words = job.forked_from.empty() ? "submitted" : absl::StrCat("forked from ", job.forked_from);
      return AppendEventLocked(submission.job_id, {0, now, StateChanged{JobState::kQueued, words, 0}});
    }));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/after_submit"));
  if (!submission.existed) Tell(submission.job_id);
  return submission;
}

absl::StatusOr<JobRecord> JobStore::GetLocked(const std::string& job_id) {
  SqliteQuery query = database_->Query(absl::StrCat("SELECT ", kColumns, ", spec, spec_yaml FROM jobs WHERE id = ?"));
  SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job_id).Next());
  if (!found) return absl::NotFoundError(absl::StrCat("there is no job ", job_id));
  SLUICE_ASSIGN_OR_RETURN(JobRecord job, ReadRecord(query));
  job.spec = query.Text(23);
  job.spec_yaml = query.Text(24);
  return job;
}

absl::StatusOr<JobRecord> JobStore::Get(const std::string& job_id) {
  MutexLock lock(&mutex_);
  return GetLocked(job_id);
}

absl::StatusOr<JobRecord> JobStore::FindRequest(const std::string& request_id) {
  MutexLock lock(&mutex_);
  std::string job_id;
  {
    SqliteQuery query = database_->Query("SELECT id FROM jobs WHERE request_id = ?");
    SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(request_id).Next());
    if (!found) return absl::NotFoundError(absl::StrCat("no job has the request id ", request_id));
    job_id = query.Text(0);
  }
  return GetLocked(job_id);
}

absl::StatusOr<std::vector<JobRecord>> JobStore::List(int limit) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query(absl::StrCat("SELECT ", kColumns, " FROM jobs ORDER BY number DESC LIMIT ?"));
  query.Bind(limit);
  return ReadAll(std::move(query));
}

absl::StatusOr<std::vector<JobRecord>> JobStore::Unfinished() {
  MutexLock lock(&mutex_);
  return ReadAll(database_->Query(
      absl::StrCat("SELECT ", kColumns, " FROM jobs WHERE state IN ('queued', 'running') ORDER BY number")));
}

absl::StatusOr<std::vector<JobRecord>> JobStore::Paused() {
  MutexLock lock(&mutex_);
  return ReadAll(
      database_->Query(absl::StrCat("SELECT ", kColumns, " FROM jobs WHERE state = 'paused' ORDER BY number")));
}

absl::Status JobStore::AppendEventLocked(const std::string& job_id, const JobEvent& event) {
  uint64_t sequence = 0;
  {
    SqliteQuery query =
        database_->Query("UPDATE jobs SET last_sequence = last_sequence + 1 WHERE id = ? RETURNING last_sequence");
    SLUICE_RETURN_IF_ERROR(query.Bind(job_id).Next().status());
    sequence = query.Uint(0);
  }
  SLUICE_RETURN_IF_ERROR(database_->Query("INSERT INTO events(job, sequence, time_us, body) VALUES(?, ?, ?, ?)")
                             .Bind(job_id)
                             .Bind(sequence)
                             .Bind(Micros(event.time))
                             .Bind(DumpJson(BodyOf(event)))
                             .Run());
  if (sequence <= options_.max_events_per_job) return absl::OkStatus();
  return database_->Query("DELETE FROM events WHERE job = ? AND sequence <= ?")
      .Bind(job_id)
      .Bind(sequence - options_.max_events_per_job)
      .Run();
}

absl::StatusOr<JobRecord> JobStore::TransitionLocked(const std::string& job_id, JobInput input,
                                                     const std::string& message, int exit_code, absl::Time now,
                                                     uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, GetLocked(job_id));
  const JobTransition transition = Decide(job.state, job.wish, input);
  if (!transition.allowed) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job_id, ": ", transition.reason));
  }
  if (!transition.changed) return job;
  const std::string words = message.empty() ? transition.reason : message;
  const bool assigned = input == JobInput::kAssign;
  const bool ended = IsTerminal(transition.state);
  const int lost_groups = input == JobInput::kResume ? 0 : job.lost_groups;
  SLUICE_RETURN_IF_ERROR(
      database_
          ->Query("UPDATE jobs SET state = ?, cancel_requested = ?, message = ?, exit_code = ?, started_us = ?, "
                  "ended_us = ?, epoch = ?, lost_groups = ? WHERE id = ?")
          .Bind(StateText(transition.state))
          .Bind(static_cast<int>(transition.wish))
          .Bind(words)
          .Bind(ended ? exit_code : 0)
          .Bind(assigned && job.started == absl::InfinitePast() ? Micros(now) : Micros(job.started))
          .Bind(ended ? Micros(now) : int64_t{0})
          .Bind(assigned ? epoch : job.epoch)
          .Bind(assigned && job.state == JobState::kRunning ? lost_groups + 1 : lost_groups)
          .Bind(job_id)
          .Run());
  SLUICE_RETURN_IF_ERROR(
      AppendEventLocked(job_id, {0, now, StateChanged{transition.state, words, ended ? exit_code : 0}}));
  return GetLocked(job_id);
}

absl::StatusOr<JobRecord> JobStore::Apply(const std::string& job_id, JobInput input, const std::string& message,
                                          int exit_code, absl::Time now) {
  SLUICE_CHECK(input != JobInput::kAssign, "use Assign, which knows the epoch");
  SLUICE_RETURN_IF_ERROR(BeforeTransition(input));
  absl::StatusOr<JobRecord> job = absl::InternalError("not run");
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      job = TransitionLocked(job_id, input, message, exit_code, now, 0);
      return job.status();
    }));
  }
  SLUICE_RETURN_IF_ERROR(AfterTransition(input));
  Tell(job_id);
  return job;
}

absl::StatusOr<JobRecord> JobStore::Assign(const std::string& job_id, uint64_t epoch, const std::string& message,
                                           absl::Time now) {
  SLUICE_RETURN_IF_ERROR(BeforeTransition(JobInput::kAssign));
  absl::StatusOr<JobRecord> job = absl::InternalError("not run");
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      job = TransitionLocked(job_id, JobInput::kAssign, message, 0, now, epoch);
      return job.status();
    }));
  }
  SLUICE_RETURN_IF_ERROR(AfterTransition(JobInput::kAssign));
  Tell(job_id);
  return job;
}

absl::Status JobStore::ApplyReportLocked(const JobRecord& job, const JobReport& report, absl::Time now) {
  SLUICE_RETURN_IF_ERROR(database_->Query("INSERT OR IGNORE INTO reports(job, report_id) VALUES(?, ?)")
                             .Bind(job.id)
                             .Bind(report.report_id)
                             .Run());
  if (database_->Changes() == 0) return absl::OkStatus();  // applied before
  SLUICE_RETURN_IF_ERROR(
      database_
          ->Query("DELETE FROM reports WHERE job = ? AND number <= (SELECT max(number) FROM reports WHERE job = ?) - ?")
          .Bind(job.id)
          .Bind(job.id)
          .Bind(kRememberedReports)
          .Run());
  uint64_t step = job.step;
  uint64_t total_steps = job.total_steps;
  for (const MetricsPoint& point : report.metrics) {
    step = std::max(step, point.step);
    if (point.total_steps != 0) total_steps = point.total_steps;
    SLUICE_RETURN_IF_ERROR(AppendEventLocked(job.id, {0, now, point}));
    for (const auto& [name, value] : point.values) {
      SLUICE_RETURN_IF_ERROR(database_->Query("INSERT OR REPLACE INTO metrics(job, name, value) VALUES(?, ?, ?)")
                                 .Bind(job.id)
                                 .Bind(name)
                                 .Bind(value)
                                 .Run());
    }
  }
  for (const LogLine& line : report.logs) SLUICE_RETURN_IF_ERROR(AppendEventLocked(job.id, {0, now, line}));
  for (const auto& [name, value] : report.results) {
    SLUICE_RETURN_IF_ERROR(database_->Query("INSERT OR REPLACE INTO results(job, name, value) VALUES(?, ?, ?)")
                               .Bind(job.id)
                               .Bind(name)
                               .Bind(value)
                               .Run());
  }
  return database_
      ->Query(
          "UPDATE jobs SET step = ?, total_steps = ?, last_checkpoint = ?, policy_version = max(policy_version, ?), "
          "balance = ?, lost_groups = ? WHERE id = ?")
      .Bind(step)
      .Bind(total_steps)
      .Bind(report.last_checkpoint.empty() ? job.last_checkpoint : report.last_checkpoint)
      .Bind(report.policy_version)
      .Bind(BalanceText(report.has_balance ? report.balance : job.balance))
      .Bind(step > job.step ? 0 : job.lost_groups)
      .Bind(job.id)
      .Run();
}

absl::StatusOr<bool> JobStore::Report(const std::string& job_id, const JobReport& report, absl::Time now) {
  bool cancel_requested = false;
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/before_report"));
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const JobRecord job, GetLocked(job_id));
      SLUICE_RETURN_IF_ERROR(CheckEpoch(job, report.epoch));
      // What comes after the end (of a kill, say) belongs to nobody's story.
      if (IsTerminal(job.state)) {
        return absl::AbortedError(absl::StrCat("job ", job_id, " has ended as ", JobStateName(job.state)));
      }
      cancel_requested = job.wish == JobWish::kCancel;
      return ApplyReportLocked(job, report, now);
    }));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/after_report"));
  Tell(job_id);
  return cancel_requested;
}

absl::Status JobStore::Append(const std::string& job_id, const LogLine& line, absl::Time now) {
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
      SLUICE_RETURN_IF_ERROR(GetLocked(job_id).status());
      return AppendEventLocked(job_id, {0, now, line});
    }));
  }
  Tell(job_id);
  return absl::OkStatus();
}

absl::Status JobStore::Delete(const std::string& job_id) {
  MutexLock lock(&mutex_);
  return database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const JobRecord job, GetLocked(job_id));
    if (!IsTerminal(job.state)) {
      return absl::FailedPreconditionError(absl::StrCat("job ", job_id, " is ", JobStateName(job.state),
                                                        "; only a job that has ended can be deleted: cancel it first"));
    }
    for (const char* table : {"events", "reports", "reservations", "results", "metrics"}) {
      SLUICE_RETURN_IF_ERROR(
          database_->Query(absl::StrCat("DELETE FROM ", table, " WHERE job = ?")).Bind(job_id).Run());
    }
    return database_->Query("DELETE FROM jobs WHERE id = ?").Bind(job_id).Run();
  });
}

absl::StatusOr<int> JobStore::CountForksOf(const std::string& checkpoint) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query("SELECT count(*) FROM jobs WHERE fork_checkpoint = ?");
  SLUICE_RETURN_IF_ERROR(query.Bind(checkpoint).Next().status());
  return static_cast<int>(query.Int(0));
}

absl::StatusOr<std::vector<JobEvent>> JobStore::LastEvents(const std::string& job_id, int limit) {
  uint64_t last = 0;
  {
    MutexLock lock(&mutex_);
    SqliteQuery query = database_->Query("SELECT last_sequence FROM jobs WHERE id = ?");
    SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job_id).Next());
    if (!found) return absl::NotFoundError(absl::StrCat("there is no job ", job_id));
    last = query.Uint(0);
  }
  const uint64_t wanted = static_cast<uint64_t>(std::max(0, limit));
  return Events(job_id, last > wanted ? last - wanted : 0, limit);
}

absl::StatusOr<std::vector<JobEvent>> JobStore::Events(const std::string& job_id, uint64_t sequence, int limit) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query(
      "SELECT sequence, time_us, body FROM events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?");
  // A sequence beyond what SQLite's signed numbers hold is beyond any event.
  const uint64_t largest = std::numeric_limits<int64_t>::max();
  query.Bind(job_id).Bind(std::min(sequence, largest)).Bind(limit);
  std::vector<JobEvent> events;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return events;
    JobEvent event;
    event.sequence = query.Uint(0);
    event.time = FromMicros(query.Int(1));
    SLUICE_RETURN_IF_ERROR(ReadBody(query.Text(2), &event));
    events.push_back(std::move(event));
  }
}

absl::StatusOr<std::map<std::string, double>> JobStore::LatestMetrics(const std::string& job_id) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query("SELECT name, value FROM metrics WHERE job = ? AND value IS NOT NULL");
  query.Bind(job_id);
  std::map<std::string, double> metrics;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return metrics;
    metrics[query.Text(0)] = query.Double(1);
  }
}

absl::StatusOr<std::map<std::string, std::string>> JobStore::Results(const std::string& job_id) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query("SELECT name, value FROM results WHERE job = ?");
  query.Bind(job_id);
  std::map<std::string, std::string> results;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return results;
    results[query.Text(0)] = query.Text(1);
  }
}

absl::StatusOr<uint64_t> JobStore::ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after) {
  if (after >= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat("a version after ", after, " is out of range"));
  }
  uint64_t version = 0;
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/before_version"));
  MutexLock lock(&mutex_);
  SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const JobRecord job, GetLocked(job_id));
    SLUICE_RETURN_IF_ERROR(CheckEpoch(job, epoch));
    version = std::max(job.policy_version, after) + 1;
    return database_->Query("UPDATE jobs SET policy_version = ? WHERE id = ?").Bind(version).Bind(job_id).Run();
  }));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/after_version"));
  return version;
}

absl::Status JobStore::ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                                       uint64_t count) {
  constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();
  if (first > kLargest || count > kLargest - first || step > kLargest) {
    return absl::InvalidArgumentError(
        absl::StrCat("ordinals ", first, " + ", count, " of step ", step, " are out of range"));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/before_ordinals"));
  MutexLock lock(&mutex_);
  SLUICE_RETURN_IF_ERROR(database_->Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const JobRecord job, GetLocked(job_id));
    SLUICE_RETURN_IF_ERROR(CheckEpoch(job, epoch));
    {
      SqliteQuery query = database_->Query("SELECT epoch, first, count FROM reservations WHERE job = ? AND step = ?");
      SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job_id).Bind(step).Next());
      // An older epoch's reservation of the step is void: its group was lost before the step was kept.
      if (found && query.Uint(0) == epoch) {
        if (query.Uint(1) == first && query.Uint(2) == count) return absl::OkStatus();
        return absl::FailedPreconditionError(absl::StrCat(
            "step ", step, " of job ", job_id, " already has ordinals ", query.Uint(1), " + ", query.Uint(2),
            " in epoch ", epoch, ", got ", first, " + ", count, "; the ranks disagree about the step"));
      }
    }
    SLUICE_RETURN_IF_ERROR(
        database_->Query("INSERT OR REPLACE INTO reservations(job, step, epoch, first, count) VALUES(?, ?, ?, ?, ?)")
            .Bind(job_id)
            .Bind(step)
            .Bind(epoch)
            .Bind(first)
            .Bind(count)
            .Run());
    SLUICE_RETURN_IF_ERROR(database_->Query("DELETE FROM reservations WHERE job = ? AND step < ?")
                               .Bind(job_id)
                               .Bind(static_cast<int64_t>(step) - kRememberedSteps)
                               .Run());
    return database_->Query("UPDATE jobs SET ordinals = max(ordinals, ?) WHERE id = ?")
        .Bind(first + count)
        .Bind(job_id)
        .Run();
  }));
  return SLUICE_FAILPOINT_STATUS("coordinator/after_ordinals");
}

absl::StatusOr<std::optional<StepReservation>> JobStore::ReservationOf(const std::string& job_id, uint64_t step) {
  MutexLock lock(&mutex_);
  SqliteQuery query = database_->Query("SELECT epoch, first, count FROM reservations WHERE job = ? AND step = ?");
  SLUICE_ASSIGN_OR_RETURN(const bool found, query.Bind(job_id).Bind(step).Next());
  if (!found) return std::nullopt;
  return StepReservation{query.Uint(0), query.Uint(1), query.Uint(2)};
}

absl::StatusOr<StoredGroup> JobStore::LatestGroupLocked() {
  SqliteQuery query = database_->Query("SELECT value FROM meta WHERE key = 'group'");
  SLUICE_ASSIGN_OR_RETURN(const bool found, query.Next());
  if (!found) return StoredGroup();
  try {
    const nlohmann::json json = nlohmann::json::parse(query.Text(0));
    StoredGroup group;
    group.epoch = json.at("epoch").get<uint64_t>();
    for (const nlohmann::json& member : json.at("members")) {
      group.members.push_back({member.at("id"), member.at("address"), member.at("host")});
    }
    return group;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("job store holds a group that cannot be read: ", error.what()));
  }
}

absl::Status JobStore::StoreGroupLocked(const StoredGroup& group) {
  nlohmann::json json = {{"epoch", group.epoch}, {"members", nlohmann::json::array()}};
  for (const StoredMember& member : group.members) {
    json["members"].push_back({{"id", member.id}, {"address", member.address}, {"host", member.host}});
  }
  return database_->Query("INSERT OR REPLACE INTO meta(key, value) VALUES('group', ?)").Bind(DumpJson(json)).Run();
}

absl::StatusOr<StoredGroup> JobStore::LatestGroup() {
  MutexLock lock(&mutex_);
  return LatestGroupLocked();
}

absl::StatusOr<uint64_t> JobStore::ReserveEpoch(const std::vector<StoredMember>& members) {
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/before_epoch"));
  MutexLock lock(&mutex_);
  SLUICE_ASSIGN_OR_RETURN(const StoredGroup latest, LatestGroupLocked());
  SLUICE_RETURN_IF_ERROR(StoreGroupLocked({latest.epoch + 1, members}));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("coordinator/after_epoch"));
  return latest.epoch + 1;
}

absl::Status JobStore::ForgetGroup() {
  MutexLock lock(&mutex_);
  SLUICE_ASSIGN_OR_RETURN(const StoredGroup latest, LatestGroupLocked());
  return StoreGroupLocked({latest.epoch, {}});
}

}  // namespace sluice::learner

// The durable book of jobs: one SQLite file. What a method returned is on the disk, also after a power cut.
//
// It keeps what must outlive the coordinator: specs, states, events, the numbers that are never reused (epochs,
// policy versions, ordinals) and the latest group. Thread-safe; calls are serialized, since one connection is.
// Errors as in sqlite.h; NotFound for an unknown job.
#ifndef SLUICE_LEARNER_JOB_JOB_STORE_H_
#define SLUICE_LEARNER_JOB_JOB_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "learner/job/job.h"
#include "learner/job/sqlite.h"

namespace sluice::learner {

struct JobStoreOptions {
  // Runs live in this folder, each in one named by its job's id.
  std::string runs_folder = "runs";
  // The oldest events of a job are forgotten beyond this number.
  uint64_t max_events_per_job = 20000;
  // Submissions are refused (ResourceExhausted) while so many jobs wait.
  int max_queued = 1000;
  // Bound on the file's size; beyond it writes fail as on a full disk.
  int64_t max_bytes = int64_t{8} << 30;
};

// The ordinals [first, first + count) of a step, issued in an epoch.
struct StepReservation {
  uint64_t epoch = 0;
  uint64_t first = 0;
  uint64_t count = 0;
};

struct NewJob {
  std::string request_id;
  std::string name;
  int kind = 0;
  std::string spec;
  std::string spec_yaml;
  std::string spec_digest;
  std::string forked_from;      // id; empty: no fork
  std::string fork_checkpoint;  // folder of the checkpoint's copy
};

// What ranks report of a running job; applied whole or not at all.
struct JobReport {
  std::string report_id;  // the same id is applied once
  uint64_t epoch = 0;     // of the reporting rank
  std::vector<MetricsPoint> metrics;
  std::vector<LogLine> logs;
  std::map<std::string, std::string> results;
  std::string last_checkpoint;  // empty: unchanged
  uint64_t policy_version = 0;  // 0: unchanged
  bool has_balance = false;
  LedgerBalance balance;
};

struct StoredMember {
  std::string id;
  std::string address;
  std::string host;
};

// The members of the latest epoch, rank by rank.
struct StoredGroup {
  uint64_t epoch = 0;                 // 0: there was none yet
  std::vector<StoredMember> members;  // empty: the group was lost since
};

class JobStore {
 public:
  // FailedPrecondition: the file was written by a newer version.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path, JobStoreOptions options);

  // Called with a job's id after each change of it, from the changing thread, without a lock. Set before use.
  void SetListener(std::function<void(const std::string& job_id)> listener) { listener_ = std::move(listener); }

  struct Submission {
    std::string job_id;
    bool existed = false;
  };
  // AlreadyExists: the request id was used for another spec.
  absl::StatusOr<Submission> Submit(const NewJob& job, absl::Time now);

  // Notes that `owner` submits, or has submitted, under this request id, and returns who does: the first who claimed
  // it, or nobody ("") if a job came under it without a claim.
  absl::StatusOr<std::string> ClaimRequest(const std::string& request_id, const std::string& owner);
  // Who submitted the job; "": nobody said.
  absl::StatusOr<std::string> Owner(const std::string& job_id);

  absl::StatusOr<JobRecord> Get(const std::string& job_id);
  // The job that this request made; NotFound.
  absl::StatusOr<JobRecord> FindRequest(const std::string& request_id);
  absl::StatusOr<std::vector<JobRecord>> List(int limit);  // newest first, without spec and spec_yaml
  // Queued and running jobs, oldest first, without spec and spec_yaml.
  absl::StatusOr<std::vector<JobRecord>> Unfinished();
  absl::StatusOr<std::vector<JobRecord>> Paused();  // in the same way

  // Applies `input` by the state machine, with its event. FailedPrecondition if it is refused.
  absl::StatusOr<JobRecord> Apply(const std::string& job_id, JobInput input, const std::string& message, int exit_code,
                                  absl::Time now);
  // kAssign in `epoch`: also counts the groups that were lost without a step forward.
  absl::StatusOr<JobRecord> Assign(const std::string& job_id, uint64_t epoch, const std::string& message,
                                   absl::Time now);

  // A line of the coordinator's own about the job.
  absl::Status Append(const std::string& job_id, const LogLine& line, absl::Time now);
  // Forgets an ended job and all about it, its request id too; no file is touched. FailedPrecondition: it has not
  // ended.
  absl::Status Delete(const std::string& job_id);
  // Jobs that began with this copy of a checkpoint.
  absl::StatusOr<int> CountForksOf(const std::string& checkpoint);

  // Returns whether the job's end is asked for. Aborted: the job has been assigned in a later epoch, or has ended.
  absl::StatusOr<bool> Report(const std::string& job_id, const JobReport& report, absl::Time now);

  // Events after `sequence`, at most `limit`. The first may be later than sequence + 1, if older ones are forgotten.
  absl::StatusOr<std::vector<JobEvent>> Events(const std::string& job_id, uint64_t sequence, int limit);
  // The latest `limit` of them, oldest first.
  absl::StatusOr<std::vector<JobEvent>> LastEvents(const std::string& job_id, int limit);
  absl::StatusOr<std::map<std::string, double>> LatestMetrics(const std::string& job_id);
  absl::StatusOr<std::map<std::string, std::string>> Results(const std::string& job_id);

  // Numbers that are never given out twice, over restarts too.
  // Aborted: the job has been assigned in a later epoch.
  // Greater than `after`, too: a store that was restored from a copy may be behind a checkpoint of the job.
  absl::StatusOr<uint64_t> ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after = 0);
  // Notes that step `step` of `epoch` issues ordinals [first, first + count). Idempotent; FailedPrecondition if the
  // same step was reserved with another range in this epoch.
  absl::Status ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                               uint64_t count);
  // What ReserveOrdinals noted of a step; nullopt: nothing, or it is one of long ago.
  absl::StatusOr<std::optional<StepReservation>> ReservationOf(const std::string& job_id, uint64_t step);
  // The next epoch, with its members.
  absl::StatusOr<uint64_t> ReserveEpoch(const std::vector<StoredMember>& members);
  absl::StatusOr<StoredGroup> LatestGroup();
  // The latest group is lost: its epoch must not be taken up again.
  absl::Status ForgetGroup();

 private:
  JobStore(std::unique_ptr<SqliteDatabase> database, JobStoreOptions options)
      : options_(std::move(options)), database_(std::move(database)) {}

  absl::Status Migrate();
  absl::Status AddOwners();
  absl::StatusOr<JobRecord> GetLocked(const std::string& job_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<JobRecord> TransitionLocked(const std::string& job_id, JobInput input, const std::string& message,
                                             int exit_code, absl::Time now, uint64_t epoch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AppendEventLocked(const std::string& job_id, const JobEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ApplyReportLocked(const JobRecord& job, const JobReport& report, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<StoredGroup> LatestGroupLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StoreGroupLocked(const StoredGroup& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::string> NewIdLocked(const NewJob& job, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const std::string& job_id) const {
    if (listener_) listener_(job_id);
  }

  const JobStoreOptions options_;
  std::function<void(const std::string&)> listener_;
  // Held over file writes on purpose: the order of calls is the order of commits.
  Mutex mutex_;
  const std::unique_ptr<SqliteDatabase> database_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_JOB_JOB_STORE_H_

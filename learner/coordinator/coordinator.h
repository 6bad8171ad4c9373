// The coordinator: forms the group of learner ranks, gives it one job after the other, and keeps the numbers that are
// never used twice. No gRPC here: learner/rpc translates.
//
// A member lives as long as its heartbeats renew its lease. The group keeps its epoch as long as every rank of it
// lives; otherwise the next one forms from who is there, under the next epoch, and takes the running job up from its
// checkpoint. The coordinator's own restart is no reason for a new epoch: the latest group is in the job store, and
// its members get twice a lease's time to be heard again while a job runs.
//
// Thread-safe. One lock, held over job store writes on purpose: no answer may tell of an epoch, an assignment or an
// outcome that is not on the disk yet.
#ifndef SLUICE_LEARNER_COORDINATOR_COORDINATOR_H_
#define SLUICE_LEARNER_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/sync/memory_kv_store.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "learner/coordinator/membership.h"
#include "learner/job/job_store.h"

namespace sluice::learner {

struct CoordinatorOptions {
  // Ranks of the group. Members beyond them stand by.
  int ranks = 1;
  absl::Duration heartbeat_interval = absl::Milliseconds(500);
  // Without a heartbeat for this long a member is out. Several intervals, so that one lost message is nothing.
  absl::Duration lease = absl::Seconds(5);
  int max_members = 256;
  // A job whose group was lost this often without one step in between fails: it is likely the cause.
  int max_lost_groups = 5;

  absl::Status Validate() const;
};

struct Heartbeat {
  std::string member_id;
  std::string phase;
  uint32_t actors = 0;
  uint32_t waiting_blocks = 0;
  uint64_t step = 0;
  bool leaving = false;
  LedgerBalance balance;
};

// What a member is told.
struct GroupView {
  uint64_t epoch = 0;  // 0: no group, or not in it
  int rank = -1;
  int world_size = 0;
  std::shared_ptr<const JobRecord> job;  // null: nothing to do
  JobWish wish = JobWish::kNone;
  bool drain = false;
  bool release_actor = false;  // once: another rank has more need of one of this rank's actors
};

struct CoordinatorSnapshot {
  uint64_t epoch = 0;  // 0: no group
  std::string job_id;  // running; empty: none
  std::string reason;  // of the latest decision about the group
  bool drain = false;
  absl::Time now;
  std::vector<Member> members;  // the group rank by rank, then who stands by
  int world_size = 0;
};

class Coordinator {
 public:
  // `store` outlives the coordinator. `now` must not jump when a clock is set; `wall` is for people.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(CoordinatorOptions options, JobStore* store,
                                                             NowFunction now, NowFunction wall);

  // For members.
  // ResourceExhausted beyond max_members. Idempotent by id.
  absl::Status Join(const std::string& member_id, const std::string& address, const std::string& host,
                    const std::string& version = "");
  // Aborted: unknown member, join again.
  absl::StatusOr<GroupView> Beat(const Heartbeat& heartbeat);
  void Leave(const std::string& member_id, const std::string& reason);
  // Returns whether the job's end is asked for. Aborted: the epoch is over.
  absl::StatusOr<bool> Report(const std::string& job_id, const JobReport& report);
  // The job's outcome; kPreempt gives it back to the queue. Aborted: the epoch is over, or another job runs.
  absl::Status Finish(const std::string& job_id, uint64_t epoch, JobInput outcome, const std::string& message,
                      int exit_code);
  // A version above all that were given out and above `after`, the one that the caller has. Asked again for what comes
  // after the same one, as when the answer was lost, it gives the same answer: a gap would count as staleness.
  absl::StatusOr<uint64_t> ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after = 0);
  absl::Status ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                               uint64_t count);

  // For actors: the address of the rank to work for. Unavailable: there is no group yet.
  absl::StatusOr<std::string> AttachActor(const std::string& actor_id, const std::vector<std::string>& avoid);

  // For clients.
  absl::StatusOr<JobStore::Submission> Submit(const NewJob& job);
  absl::Status Cancel(const std::string& job_id);
  // The job stops after a checkpoint and waits for Resume, over restarts too. FailedPrecondition: it has ended, or is
  // being cancelled.
  absl::Status Pause(const std::string& job_id);
  // The job ends as cancelled now; its ranks abandon it, and no checkpoint is waited for.
  absl::Status Kill(const std::string& job_id);
  // A job that failed, was held, cancelled or paused waits for the group again, and goes on from its last checkpoint.
  // Nothing happens to one that has not ended, but that a pause that was asked for is withdrawn. FailedPrecondition: it
  // succeeded, or is being cancelled.
  absl::Status Resume(const std::string& job_id);

  // Ends leases that ran out. Called often (several times a heartbeat interval) by whoever owns the coordinator.
  void Tick();
  // From now on no job is assigned, and the running one is asked to stop after a checkpoint.
  void Drain();
  bool Drained() const;  // Drain was called and no job runs

  CoordinatorSnapshot Snapshot() const;
  MemoryKvStore* kv() { return &kv_; }
  JobStore* store() { return store_; }
  const CoordinatorOptions& options() const { return options_; }

 private:
  Coordinator(CoordinatorOptions options, JobStore* store, NowFunction now, NowFunction wall);

  absl::Status Restore();
  absl::Status RefreshLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FormLocked(const GroupDecision& decision) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same members under the next epoch.
  absl::Status FormAgainLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AssignLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A job waits in the store. If it cannot be assigned now, the next tick tries again.
  void QueueChangedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeUpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether this member is to send an actor away now.
  bool ReleasesActorLocked(const std::string& member_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Actors of a member, those included that are on their way to it.
  uint32_t ActorsLocked(Member* member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Notes the wish; without a group it has its outcome at once, in the words of `alone`.
  absl::Status Stop(const std::string& job_id, JobInput wish, JobInput outcome, const std::string& alone,
                    int exit_code);
  // The group has no job any more.
  void TakeAwayLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A line among those of the running job, if there is one.
  void TellLocked(const std::string& level, const std::string& text, LineCause cause)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellGoneLocked(const Member& member, const std::string& what, LineCause cause)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Member* FindLocked(const std::string& member_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  GroupView ViewLocked(const std::string& member_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CoordinatorOptions options_;
  JobStore* const store_;
  const NowFunction now_;
  const NowFunction wall_;
  MemoryKvStore kv_;

  // A version that was given out.
  struct Reservation {
    std::string job_id;
    uint64_t epoch = 0;
    uint64_t after = 0;
    uint64_t version = 0;
  };

  mutable Mutex mutex_;
  std::vector<Member> members_ ABSL_GUARDED_BY(mutex_);     // in the order they joined
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;              // 0: no group
  std::vector<std::string> group_ ABSL_GUARDED_BY(mutex_);  // ids, rank by rank
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const JobRecord> job_ ABSL_GUARDED_BY(mutex_);  // running
  JobWish wish_ ABSL_GUARDED_BY(mutex_) = JobWish::kNone;         // of job_
  bool queue_changed_ ABSL_GUARDED_BY(mutex_) = true;
  Reservation reservation_ ABSL_GUARDED_BY(mutex_);  // the last one; a restart forgets it
  bool drain_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time last_tick_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_release_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_COORDINATOR_COORDINATOR_H_

// A rank's side of the coordinator: joins, keeps its lease alive, learns its place and its job, and reaches the
// rendezvous store and the reservations. Works through restarts of the coordinator: while it is away the last view
// stands, and calls that must succeed are retried within their budget.
#ifndef SLUICE_LEARNER_RPC_MEMBER_CLIENT_H_
#define SLUICE_LEARNER_RPC_MEMBER_CLIENT_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/sync/kv_store.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "common/time/retry.h"
#include "learner/ledger/group_source.h"
#include "sluice/v1/member.grpc.pb.h"

namespace sluice::learner {

struct MemberClientOptions {
  std::string member_id;  // random, new with each process
  std::string address;    // where actors reach this rank
  std::string host;
  // Budget of reservations, outcomes and the rendezvous store: as long as a coordinator may take to restart.
  RetryOptions retry{.total_timeout = absl::Minutes(2)};
  // Finds better words for why the coordinator does not answer, for the log; may be empty.
  std::function<absl::Status(const absl::Status&)> explain;
};

// A job as assigned to this rank.
struct AssignedJob {
  std::string id;
  v1::JobSpec spec;  // effective
  std::string spec_yaml;
  std::string run_folder;
};

// What this rank knows of its place.
struct RankView {
  uint64_t generation = 0;  // grows with every change of the fields below
  uint64_t epoch = 0;       // 0: no group, or this rank stands by
  int rank = -1;
  int world_size = 0;
  std::shared_ptr<const AssignedJob> job;  // null: nothing to do
  bool cancel_requested = false;
  bool pause_requested = false;  // stop after a checkpoint and give the job back
  bool drain = false;
};

// Thread-safe.
class MemberClient {
 public:
  MemberClient(std::shared_ptr<grpc::Channel> channel, MemberClientOptions options);
  ~MemberClient() { Stop(); }

  // Starts the heartbeats.
  void Start();
  // Ends them and every wait and retry. Idempotent. The coordinator notices when the lease ends; say Leave first to
  // be replaced at once.
  void Stop();
  void Leave(const std::string& reason);
  // Tells the coordinator that this rank takes no job after the one that it has. Returns once it knows, or after
  // `timeout`; every later heartbeat says so too.
  void AnnounceLeaving(absl::Duration timeout);

  // What the heartbeats tell of this rank.
  void SetPhase(const std::string& phase);
  void SetProgress(uint64_t step, const LedgerBalance& balance);
  // Asked before each heartbeat, from the heartbeat's thread: actors of this rank, and lease blocks that wait for one.
  struct RolloutLoad {
    int actors = 0;
    int waiting_blocks = 0;
  };
  void SetLoad(std::function<RolloutLoad()> load);
  // Called from the heartbeat's thread when another rank has more need of one of this rank's actors.
  void SetReleaseActor(std::function<void()> release);

  RankView view() const;
  // Waits until the view is newer than `generation`, for `timeout` at most, or Stop.
  RankView WaitForChange(uint64_t generation, absl::Duration timeout);

  // The coordinator's rendezvous store. Set and Get are retried; Add too, so it may count twice after a lost answer:
  // use it for what tolerates that, as the users of a rendezvous do.
  KvStore* kv() { return &kv_; }

  // Aborted: the epoch is over.
  absl::StatusOr<uint64_t> ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after = 0);
  absl::Status ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                               uint64_t count);
  // The job's outcome, from rank 0, after its reporter has flushed: OK is success, a status made by PreemptedError
  // gives the job back to the queue, the others end it by their exit code. Aborted: the epoch is over.
  absl::Status Finish(const std::string& job_id, uint64_t epoch, const absl::Status& outcome);

  // One report; JobReporter calls it. Returns whether the job's end is asked for.
  absl::StatusOr<bool> SendReport(const v1::JobReport& report, absl::Duration timeout);

  // How long a silent member is still taken for a living one, as the coordinator said at the last join.
  absl::Duration lease() const;

  const std::string& member_id() const { return options_.member_id; }
  // One exchange: a join if needed, then a heartbeat. Returns the wait until the next. For tests and the loop.
  absl::Duration RunOnce();

 private:
  class RemoteStore : public KvStore {
   public:
    explicit RemoteStore(MemberClient* client) : client_(client) {}
    absl::Status Set(const std::string& key, const std::string& value) override;
    absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override;
    absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;

   private:
    MemberClient* const client_;
  };

  absl::Status Join();
  absl::Status Beat();
  void Take(const v1::View& message);
  // Sleeps unless stopped meanwhile; `until_beat`: or until a heartbeat is wanted at once. False: stopped.
  bool Wait(absl::Duration duration, bool until_beat = false);
  absl::Status Retry(const std::function<absl::Status(absl::Duration)>& call);

  const MemberClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::MemberService::Stub> stub_;
  RemoteStore kv_{this};

  mutable Mutex mutex_;
  CondVar changed_;
  RankView view_ ABSL_GUARDED_BY(mutex_);
  v1::MemberHeartbeat heartbeat_ ABSL_GUARDED_BY(mutex_);
  std::function<RolloutLoad()> load_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> release_actor_ ABSL_GUARDED_BY(mutex_);
  absl::Duration lease_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(5);
  absl::Duration interval_ ABSL_GUARDED_BY(mutex_) = absl::Milliseconds(500);
  bool joined_ ABSL_GUARDED_BY(mutex_) = false;
  bool reachable_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool beat_now_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_known_ ABSL_GUARDED_BY(mutex_) = false;  // a heartbeat that says so was answered
  std::atomic<uint64_t> retries_{0};
  Thread thread_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_MEMBER_CLIENT_H_

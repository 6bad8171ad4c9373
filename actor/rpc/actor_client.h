// The actor's life: find a rank, attach, keep the policy current, work on leases, come back when the rank goes away,
// and leave cleanly when told to.
//
// Three threads: Run reads the stream; "actor-fetch" pulls weights and catalogs while sampling goes on; "actor-work"
// executes leases one after the other, and is the only one to touch the policy's tensors.
#ifndef SLUICE_ACTOR_RPC_ACTOR_CLIENT_H_
#define SLUICE_ACTOR_RPC_ACTOR_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "actor/journal/journal.h"
#include "actor/rollout/job_backoff.h"
#include "actor/rollout/lease_block.h"
#include "actor/rpc/peer_policies.h"
#include "actor/rpc/policy_fetcher.h"
#include "actor/rpc/policy_loader.h"
#include "actor/rpc/weight_receiver.h"
#include "actor/rpc/work_session.h"
#include "common/job_lines/job_lines.h"
#include "common/log/log.h"
#include "common/metrics/blocked.h"
#include "common/metrics/metrics.h"
#include "common/rpc/credentials.h"
#include "common/sync/bounded_queue.h"
#include "common/sync/mutex.h"
#include "common/sync/notification.h"
#include "common/time/clock.h"
#include "common/time/retry.h"

namespace sluice::actor {

struct ActorClientOptions {
  std::string actor_id;  // unique among living actors
  std::string software_version;
  // One of the two: whom to ask for a rank, or the rank itself ("host:port").
  std::string coordinator;
  std::string learner;
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  // False: jobs that ask for scores are not worked on.
  bool has_rewards = true;
  // Leases wanted at once: one in work, the others on their way meanwhile.
  uint32_t leases = 2;
  absl::Duration heartbeat = absl::Seconds(1);
  // After Drain: time for the lease in hand; then it is given back.
  absl::Duration drain_timeout = absl::Seconds(25);
  // Backoff between attempts to attach. They go on until Drain; the totals are not used.
  RetryOptions reconnect;
  NowFunction now;
  NowFunction wall = WallClock();  // of lines for a job's log
  Metrics* metrics = nullptr;      // optional; must outlive the client
  Blocked* on_lease = nullptr;     // counts the time without a lease; may be null; outlives the client
  Journal* journal = nullptr;      // optional; must outlive the client
  // Serves the active version to other actors, which reach it at `peer_address` ("host:port"). Null: this actor is a
  // leaf of the tree. Must outlive the client.
  PeerPolicies* peers = nullptr;
  std::string peer_address;
  // The library over which weights may come by a broadcast ("gloo", "nccl"), and how. Empty: they are fetched.
  std::string weight_group;
  MakeWeightReceiver make_receiver;
  // Called when nobody waits for the lease in hand any more, from any thread and maybe more than once: what Execute
  // waits for is to be cut short. May be empty.
  std::function<void()> on_give_up;
  // Called when the actor attaches to a rank and when it loses it. May be empty.
  std::function<void(bool)> on_attached;
};

class ActorClient {
 public:
  // Executes a block; RolloutWorker::Execute.
  using Execute = std::function<absl::StatusOr<std::vector<PromptOutcome>>(const JobContext&, const LeaseBlock&)>;

  // `loader` must outlive the client.
  ActorClient(ActorClientOptions options, PolicyLoader* loader, Execute execute);
  ~ActorClient();

  // Works until Drain; then OK. Returns earlier only for what trying again cannot help: FailedPrecondition (another
  // protocol), InvalidArgument, Unimplemented, PermissionDenied, Unauthenticated.
  absl::Status Run();

  // Leave: no new leases, the one in hand is finished or given back. Returns at once. Thread-safe, idempotent.
  void Drain(const std::string& reason);

  // For whoever waits inside Execute: false if `delay` was cut short because the lease in hand is given up.
  bool WaitUnlessGivenUp(absl::Duration delay) { return !give_up_.WaitFor(delay); }

 private:
  // Gives the lease in hand up.
  void GiveUp();

  // What the rank asks for of the offered version. Handled one after the other; the latest replaces one that waits.
  struct Order {
    enum class Kind { kOffer, kTransfer, kCommit, kBroadcast } kind = Kind::kOffer;
    uint64_t version = 0;
    std::string source;        // kTransfer
    GroupPlace place;          // kBroadcast
    uint64_t chunk_bytes = 0;  // kBroadcast
    absl::Duration timeout;    // kBroadcast
    uint64_t number = 0;       // of the order; set by Ask
  };
  // What the present session has told.
  struct Assignment {
    std::shared_ptr<WorkSession> session;
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<WeightReceiver> receiver;  // null: weights are fetched
    std::shared_ptr<const JobContext> job;     // null: none open
    std::optional<v1::PolicyOffer> offer;      // the latest
    Order order;                               // if there is an offer
    bool job_ended = false;                    // the rank said so; else it may yet say which job is open
  };
  struct Work {
    std::shared_ptr<WorkSession> session;
    uint64_t generation = 0;
    std::shared_ptr<const JobContext> job;
    LeaseBlock block;
  };
  // What the loader holds, known to the fetching thread alone.
  struct Loaded {
    std::optional<JobContext> job;
    std::shared_ptr<const Trie> trie;
    uint64_t version = 0;
    std::string checksum;
    // Whole and hashed in the shadow copy, not committed yet; 0: none.
    uint64_t shadow = 0;
    std::string shadow_checksum;
  };
  struct Series;  // metrics
  // Weight groups that are of no use any more, and are told so once the lock that is declared after this is released.
  struct GivenUp {
    std::shared_ptr<WeightReceiver> receiver;
    uint64_t epoch = 0;
    ~GivenUp() {
      if (receiver != nullptr && epoch > 0) receiver->Abort(epoch);
    }
  };

  // Writes a line of this process's log, and has the rank told for the log of the job that a field names.
  void Tell(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields);

  absl::StatusOr<std::string> FindRank();
  absl::Status Attend(const std::string& address);
  absl::Status Receive(const std::shared_ptr<WorkSession>& session, const v1::RankMessage& message);
  absl::Status OnWelcome(const v1::Welcome& proto);
  absl::Status OnLease(const std::shared_ptr<WorkSession>& session, const v1::Lease& proto);
  v1::Heartbeat Beat(const std::shared_ptr<WorkSession>& session, const std::string& address);
  void MarkAttached(const std::string& address);
  bool Stale(uint64_t generation) const;

  void FetchLoop();
  // The next thing to fetch, or nothing. Blocks until there is one or the client stops.
  bool AwaitFetch(Assignment* assignment, uint64_t* generation, uint64_t* orders);
  // Brings the loader to what `assignment` asks for and reports Ready. Statuses are those of the fetch and the loader.
  absl::Status Follow(const Assignment& assignment, uint64_t generation);
  // The parts of it, and the answers to the rank (rollout.proto). All of them with an offer.
  absl::Status TakeOffer(const Assignment& assignment);
  absl::Status FetchShadow(const Assignment& assignment, uint64_t generation, bool* peer_failed);
  absl::Status TransferAsTold(const Assignment& assignment, uint64_t generation);
  absl::Status ReceiveBroadcast(const Assignment& assignment, uint64_t generation);
  absl::Status CommitShadow(const Assignment& assignment);
  void SendVerified(const Assignment& assignment, const std::string& checksum, bool peer_failed);
  void SendFailed(const Assignment& assignment, absl::string_view reason);
  void SendReady(const Assignment& assignment, uint64_t generation);
  // From a peer, in one try. False: it did not come, or was something else.
  bool FetchFromPeer(const Assignment& assignment, absl::Span<char> shadow, const std::function<bool()>& wanted);
  void ForgetLoaded();
  // A newer version may be one that the loader has passed: it takes rising ones only, and starts afresh for another
  // rank that is behind.
  absl::Status MakeRoom(const Assignment& assignment);
  // The shadow copy to transfer into, anew: an order may come again, and a rank of an earlier release asks for room and
  // transfer at once.
  absl::StatusOr<absl::Span<char>> BeginTransfer(const Assignment& assignment);
  // Replaces the order that waits; a broadcast that was told before it and is not over goes to `given_up`.
  void Ask(Order order, GivenUp* given_up) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The groups of this session: the one that is used, `idle` ones too.
  void GiveUpGroup(bool idle, GivenUp* given_up) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Prepare(const Assignment& assignment, uint64_t generation);

  void WorkLoop();
  absl::Status DoWork(const Work& work);
  // Says when a lease comes back without scores, and why, and when they are there again. Of the working thread.
  void TellScores(const Work& work, const std::vector<PromptOutcome>& outcomes);
  void GiveBackAll(const Work& work, const std::string& reason);

  const ActorClientOptions options_;
  PolicyLoader* const loader_;
  const Execute execute_;
  std::unique_ptr<Series> series_;
  JobLines lines_;
  FailureLog score_failures_;  // leases without scores; of the working thread
  Random random_;
  PolicyFetcher fetcher_;
  PolicyFetcher peer_fetcher_;
  Loaded loaded_;
  std::string avoid_;                  // the rank that failed last; of Run's thread
  std::atomic<bool> attached_{false};  // in this session

  Notification stopping_;  // no more attaching, fetching or waiting
  Notification give_up_;   // the lease in hand is given back
  BoundedQueue<Work> work_{64};

  mutable Mutex mutex_;
  CondVar fetch_changed_;
  Assignment assignment_ ABSL_GUARDED_BY(mutex_);
  // Rises with every session, job and end of a job: what belongs to an older one is void.
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t orders_ ABSL_GUARDED_BY(mutex_) = 0;       // so far
  uint64_t group_epoch_ ABSL_GUARDED_BY(mutex_) = 0;  // the latest that the rank of this session has told; 0: none
  bool receiving_ ABSL_GUARDED_BY(mutex_) = false;    // the broadcast in it is not over
  // What the fetching thread has dealt with.
  uint64_t followed_generation_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t followed_orders_ ABSL_GUARDED_BY(mutex_) = 0;
  bool credited_ ABSL_GUARDED_BY(mutex_) = false;  // in this generation
  uint64_t ready_version_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t in_hand_ ABSL_GUARDED_BY(mutex_) = 0;  // prompts of the block in work
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time drain_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_ACTOR_CLIENT_H_

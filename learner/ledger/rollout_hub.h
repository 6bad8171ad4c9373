// Where a learner rank meets its actors: leases out, results in, and the training loop on the other side.
//
// One hub lives as long as the process; jobs come and go in it, one at a time, and actors stay attached between them.
// The books are Ledger's; the hub adds threads, actors, credits of actors, versions and the checks of results.
//
// An actor's way: Attach -> (Welcome, offer) -> OnReady(version) -> OnCredit -> leases. Nothing is leased to an actor
// before it has verified a version; what lies between an offer and Ready is Publication's. Synchronous jobs (staleness
// 0) lease under exactly the latest published version; asynchronous ones to any actor that holds at least the version
// that was the latest when the block was issued, so a group is at most S versions behind when it is trained, by the
// pacing of Issue.
//
// Scores that are missing or doubtful (RewardWatch) slow the leases down or stop them; groups without scores wait to be
// tried again for as long as the job says, then come without (design.md 4; reference/peers.md 5.6).
//
// Thread-safe. Every call returns at once, except Wait and TakeDecoded. Sinks are called without the lock, one message
// of an actor after the other.
#ifndef SLUICE_LEARNER_LEDGER_ROLLOUT_HUB_H_
#define SLUICE_LEARNER_LEDGER_ROLLOUT_HUB_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "learner/ledger/decode_board.h"
#include "learner/ledger/eval_source.h"
#include "learner/ledger/group_source.h"
#include "learner/ledger/ledger.h"
#include "learner/ledger/rank_message.h"
#include "learner/ledger/reward_watch.h"
#include "learner/publish/policy_snapshot.h"
#include "learner/publish/publication.h"
#include "learner/publish/weight_sender.h"

namespace sluice::learner {

class RolloutHub : public GroupSource, public EvalSource {
 public:
  struct Options {
    NowFunction now;
    Metrics* metrics = nullptr;          // optional; must outlive the hub
    SnapshotStore* snapshots = nullptr;  // optional; must outlive the hub
    // An actor beats every second; one that is silent for this long is sent away and its leases go back.
    absl::Duration actor_timeout = absl::Seconds(30);
    // How versions get to the actors. With a quorum, Wait holds a step back until so many hold the latest version.
    PublicationOptions publication;
    // Broadcasts in the weight group, if `publication.group` names one; must outlive the hub.
    WeightSender* sender = nullptr;
  };

  explicit RolloutHub(Options options);
  ~RolloutHub() override;

  // --- The job ----------------------------------------------------------------------------------------------
  // Opens a job with an empty ledger and welcomes the attached actors. FailedPrecondition: a job is open;
  // InvalidArgument: settings that cannot work.
  absl::Status StartJob(HubJob job);
  // Sends one actor away with ResourceExhausted, so that it looks for another rank: one without a lease if there is
  // one. False: there is none at all.
  bool ReleaseActor();
  // Blocks of the open job, to sample or to evaluate, that wait for an actor.
  int blocks_for_actors() const;

  // Tells the actors; what is still open stays open in the ledger, which remains readable until the next StartJob.
  void EndJob();
  // Ends all actors' streams, e.g. with Unavailable when the rank drains or Aborted when the epoch changed.
  void DisconnectActors(const absl::Status& status);

  // --- GroupSource ------------------------------------------------------------------------------------------
  absl::Status Issue(uint64_t step, std::vector<Prompt> prompts) override;
  absl::StatusOr<std::vector<TakenGroup>> Wait(uint64_t step, absl::Duration patience) override;
  absl::Status Commit(uint64_t step, absl::Span<const Verdict> verdicts) override;
  void CancelOpen() override;
  void Publish(std::shared_ptr<const PolicySnapshot> snapshot) override;
  LedgerBalance Balance() const override;
  std::string Snapshot() const override;
  absl::Status Restore(const std::string& snapshot) override;
  int num_actors() const override;
  std::vector<std::string> TakeRewardNews() override;
  std::string RewardTrouble() const override;
  void Stop() override;

  // --- EvalSource -------------------------------------------------------------------------------------------
  absl::Status OpenDecode(const DecodeCall& call) override;
  void AddBlock(uint64_t block, std::vector<Prompt> prompts) override;
  int waiting_blocks() const override;
  std::optional<uint64_t> TakeForRank() override;
  absl::StatusOr<std::vector<DecodedBlock>> TakeDecoded(absl::Duration limit) override;
  void CloseDecode() override;

  // --- Actors -----------------------------------------------------------------------------------------------
  // Names one attachment; an actor that attaches again gets another one, and calls for the old one do nothing.
  using ActorHandle = uint64_t;

  // An actor that is attached under the same id is sent away with Aborted: it is the same one, come back.
  // `scores_alone`: it takes leases that only score. InvalidArgument: no id, or a longer one than 128 bytes.
  absl::StatusOr<ActorHandle> Attach(const std::string& actor_id, std::shared_ptr<ActorSink> sink,
                                     bool scores_alone = true, WeightTraits weights = {});
  // The stream is over: leases go back.
  void Detach(ActorHandle handle);
  // What Publication is told, of the open job alone.
  void OnPrepared(ActorHandle handle, const std::string& job_id, uint64_t policy_version);
  void OnVerified(ActorHandle handle, const std::string& job_id, uint64_t policy_version, const std::string& checksum,
                  bool peer_failed);
  // `group_epoch`: of the weight group in which it did not get the version; 0: it was fetching.
  void OnTransferFailed(ActorHandle handle, const std::string& job_id, uint64_t policy_version,
                        uint64_t group_epoch = 0);
  void OnReady(ActorHandle handle, const std::string& job_id, uint64_t policy_version);
  // What the sender says of the broadcast of a version in the weight group of `group_epoch`.
  void OnBroadcast(uint64_t group_epoch, uint64_t policy_version, bool ok);
  void OnCredit(ActorHandle handle, uint32_t leases);
  // Answers with an Ack to the actor's sink.
  void OnResult(ActorHandle handle, ActorResult result);
  void OnHeartbeat(ActorHandle handle, uint32_t open_groups, uint64_t policy_version);
  // No more leases; those it holds stay until it answers or detaches.
  void OnDraining(ActorHandle handle);

  // Ends leases past their deadline and sends silent actors away. Every call above does so too; a process calls this
  // once a second.
  void Tick();

  // The ledger's own full check, for checkpoints and tests.
  absl::Status CheckLedger() const;

 private:
  struct Actor {
    ActorHandle handle = 0;
    std::string id;
    std::shared_ptr<ActorSink> sink;
    absl::Time last_seen;
    uint64_t ready_version = 0;  // Publication's active version; 0: none
    uint32_t credits = 0;
    bool draining = false;
    bool scores_alone = false;
    bool staged = false;
    std::deque<RankMessage> outbox;
    std::optional<absl::Status> close;  // after the outbox
    bool delivering = false;
    bool broken = false;
  };

  // The canary on its way: scores of groups that were scored before.
  struct CanaryLease {
    uint64_t lease_id = 0;
    std::string actor;
    absl::Time deadline;
  };

  struct Series;  // metrics
  class Delivery;

  void SendLocked(const std::shared_ptr<Actor>& actor, RankMessage message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseLocked(const std::shared_ptr<Actor>& actor, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveLocked(ActorHandle handle, const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The living attachment, with its last sign of life set; null if it is over.
  std::shared_ptr<Actor> SeenLocked(ActorHandle handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GreetLocked(const std::shared_ptr<Actor>& actor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends what Publication has ordered, and counts what it has counted.
  void FollowPublicationLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing is published any more.
  void ResetPublicationLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // An actor says something of the weights of the open job: `take` hands it to Publication.
  void TakeWeightNews(ActorHandle handle, const std::string& job_id, absl::FunctionRef<void(Actor&, absl::Time)> take);
  // Whether a lease or an actor came to its end.
  bool TickLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leases what waits to actors with credit, round by round; then brings the metrics up to date.
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool GrantLocked(const std::shared_ptr<Actor>& actor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leases the canary if it is due and somebody can take it.
  void SendCanaryLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // It comes back from nobody; canary_ has a value.
  void LoseCanaryLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether one more group to be scored may go out.
  bool MayRolloutLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives up on scores that were waited for long enough. Returns whether any group was closed.
  bool CloseUnscoredLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetGaugesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetPublicationGaugesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AckMessage TakeInLocked(const Actor& actor, ActorResult result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AckMessage TakeGroupLocked(const Actor& actor, ScoredGroup group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AckMessage TakeCanaryLocked(const Actor& actor, ScoredGroup group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AckMessage TakeDecodedLocked(const Actor& actor, DecodedPrompt decoded) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AckMessage TakeAbandonedLocked(const Actor& actor, const AbandonedPrompt& abandoned)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountRefusalLocked(const AckMessage& ack) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string DescribeWaitLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One round of a blocking call: how long until something may have changed by itself.
  void WaitForChangeLocked(absl::Duration limit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Delivers the outboxes. Without the lock.
  void Deliver();
  void DeliverToSender();
  void TellOfPause();

  const Options options_;
  std::unique_ptr<Series> series_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<const HubJob> job_ ABSL_GUARDED_BY(mutex_);  // null: none open
  std::unique_ptr<Ledger> ledger_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<DecodeBoard> decode_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<RewardWatch> rewards_ ABSL_GUARDED_BY(mutex_);           // null: the job needs no scores
  absl::Time last_scored_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // when a group with scores came last
  std::optional<CanaryLease> canary_ ABSL_GUARDED_BY(mutex_);
  ActorHandle canary_actor_ ABSL_GUARDED_BY(mutex_) = 0;        // who had the last one
  std::optional<OfferMessage> latest_ ABSL_GUARDED_BY(mutex_);  // of the open job
  Publication publication_ ABSL_GUARDED_BY(mutex_);
  // To the sender: an order to send, or the epoch up to which groups are dead.
  std::deque<std::variant<BroadcastOrder, uint64_t>> sender_outbox_ ABSL_GUARDED_BY(mutex_);
  bool delivering_to_sender_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t pauses_told_ ABSL_GUARDED_BY(mutex_) = 0;  // of the open job's broadcasts
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<ActorHandle, std::shared_ptr<Actor>> actors_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Actor>> dirty_ ABSL_GUARDED_BY(mutex_);        // with something to deliver
  absl::Time silence_check_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // nobody can be silent for too long before
  ActorHandle next_handle_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t next_lease_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_ROLLOUT_HUB_H_

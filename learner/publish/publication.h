// How a policy version gets to the actors of one learner rank: who is asked to make room, who fetches from whom, who
// has proven what it holds, who may swap. Decisions without clocks, threads, sockets or tensors: RolloutHub owns one,
// hands it what actors say, and sends out the orders that it leaves behind.
//
//   rank                               actor
//   PREPARE (length, checksums)   ->                   make room for a shadow copy
//                                 <-   Prepared
//   TRANSFER (from whom)          ->                   fetch, while the version before goes on sampling
//                                 <-   Verified (the hash of what the actor holds)
//   COMMIT                        ->                   swap between two blocks
//                                 <-   Ready (the active version)
//
// An actor in one of the states below may hold an older version at the same time: that one goes on serving, within the
// staleness bound, which is the ledger's to watch.
//
//   JOINING          attached; nothing has been published yet
//   SYNCING          on its way to a version: one of the lines above
//   READY            its active version is the latest one
//   PENDING_WEIGHTS  left out: it missed a deadline or failed. It is asked again, and whatever it says late still
//   counts DRAINING         wants no more of anything
//
// Rules, which the explorer in publication_explore_test.cc holds against every order of events of a small world:
//   - No version is active before the actor's own hash of it was the published one.
//   - Neither the published version nor any actor's active one ever falls. A version above the wanted one will do.
//   - No wait without end: every state that waits has a deadline, after which it asks again or does without.
//
// Earlier releases of the actor know none of this: they are told of a version by an offer, fetch it from the rank, and
// their Ready stands for everything (`staged` false).
//
// Fan-out: a rank that has more actors than `branching` sends a version to so many of them at most, and has the others
// fetch it from an actor that holds it already and listens (`peer_address`). Whoever cannot be served so, or for whom
// it goes wrong, fetches from the rank.
//
// The tree grows by itself, from holder to holder as they are found, because actors come, go and differ in speed: a
// tree that is drawn in advance waits for the slowest of each level.
//
// The weight group is the fast path beside this: the rank (its rank 0) and those of its actors that speak the same
// library (ranks 1, 2, ...) have a communicator of their own, and one broadcast in it brings a version to all of them.
// A version has one round at most. It begins when all actors that were attached when the version was published have
// made room, or have had the time for it, with those that have; whoever comes later fetches, and is in the next round.
// A group lives as long as its members stay the same and nothing goes wrong; another one has another epoch, which only
// rises. When a round fails (the broadcast, a member, a deadline) the members that have no proof of the version fetch
// it as if there were no group, and after `group_failures` such rounds in a row no version has a round for
// `group_pause`. Verify and commit know nothing of all this.
#ifndef SLUICE_LEARNER_PUBLISH_PUBLICATION_H_
#define SLUICE_LEARNER_PUBLISH_PUBLICATION_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/types/group_place.h"

namespace sluice::learner {

enum class WeightState { kJoining, kPendingWeights, kSyncing, kReady, kDraining };
inline constexpr int kNumWeightStates = 5;
// "joining", "pending_weights", ...
absl::string_view WeightStateName(WeightState state);

// What is timed, from the order to the answer, of each actor; kQuorum from Publish until the quorum holds the version.
enum class PublishPhase { kPrepare, kTransfer, kCommit, kQuorum };
inline constexpr int kNumPublishPhases = 4;
absl::string_view PublishPhaseName(PublishPhase phase);

// Why an actor did not get a version as planned: nobody else could have sent it; nobody was free in time; the actor
// that should have sent it did not, or sent something else: the rank sent it each time. Or the broadcast was not over
// in time, or failed, or brought something else: the actor fetches it.
enum class FallbackReason { kNoPeer, kLate, kPeerFailed, kGroupLate, kGroupFailed };
inline constexpr int kNumFallbackReasons = 5;
absl::string_view FallbackReasonName(FallbackReason reason);

struct PublicationOptions {
  // Actors of this rank that must hold a version before the learner trains on. 0: it never waits, and whoever is slow
  // works with the version before.
  int min_actors = 0;
  // Actors that the rank sends one version to; further ones fetch from those that hold it. 0: it sends to all.
  int branching = 4;
  // For the answer to PREPARE. Short: it costs an allocation, and whoever misses it is only left out of this version.
  absl::Duration prepare_timeout = absl::Seconds(2);
  // For somebody to fetch from to be free.
  absl::Duration source_timeout = absl::Seconds(30);
  // From TRANSFER to Verified. Actors have a limit of their own, above this one.
  absl::Duration transfer_timeout = absl::Minutes(2);
  absl::Duration commit_timeout = absl::Seconds(10);
  // After a deadline or a failure, before the actor is asked again.
  absl::Duration retry_after = absl::Seconds(5);
  // The same for an actor that was told to fetch and has not answered: asked again, it would begin anew.
  absl::Duration transfer_retry_after = absl::Minutes(10);

  // The library of the rank's weight group ("gloo", "nccl"); empty: there is none, and everybody fetches.
  std::string group;
  // Actors of a group at most; further ones fetch. Every member is connected with every other one (Gloo).
  int group_members = 64;
  // From PolicyBroadcast to Verified, with the forming of a new group. What is not there then is fetched.
  absl::Duration group_timeout = absl::Seconds(20);
  // The payload is broadcast in pieces of so many bytes, a multiple of 4: large ones are faster, and each takes so much
  // memory of a GPU on both sides.
  uint64_t group_chunk_bytes = 64 << 20;
  // After so many rounds in a row that failed, each of which costs its actors up to group_timeout, there is none for
  // group_pause.
  int group_failures = 3;
  absl::Duration group_pause = absl::Minutes(5);

  // InvalidArgument names the field.
  absl::Status Validate() const;
};

// What an actor can do, from its greeting.
struct WeightTraits {
  bool staged = false;       // speaks PREPARE to COMMIT
  std::string peer_address;  // "host:port" where other actors fetch from it; empty: it does not listen
  std::string group;         // library over which it can be in a weight group; empty: none
};

struct PublicationOrder {
  enum class Kind { kPrepare, kTransfer, kCommit, kBroadcast };
  uint64_t actor = 0;
  Kind kind = Kind::kPrepare;
  uint64_t version = 0;
  std::string source;  // kTransfer: address to fetch from; empty: the rank
  GroupPlace place;    // kBroadcast
};

// To the rank's own sender.
struct GroupOrder {
  enum class Kind {
    kSend,   // broadcast the version as rank 0 of the group, and tell OnBroadcast
    kAbort,  // the group is dead, and all before it: whatever is under way in it ends
  };
  Kind kind = Kind::kSend;
  uint64_t version = 0;  // kSend
  GroupPlace place;      // kAbort: the epoch alone
};

// Since the job began.
struct PublicationCounts {
  std::array<uint64_t, kNumFallbackReasons> fallbacks{};
  uint64_t left_out = 0;    // deadlines missed
  uint64_t mismatches = 0;  // reported hashes that were not the published one
  uint64_t from_rank = 0;   // transfers that the rank was named for
  uint64_t from_peer = 0;
  uint64_t from_group = 0;  // transfers by a broadcast
  uint64_t groups = 0;      // weight groups formed
  uint64_t pauses = 0;      // times that broadcasts were given up for a while
};

// Actors are named by the caller's handles, one an attachment. Copyable. Not thread-safe.
class Publication {
 public:
  explicit Publication(PublicationOptions options);

  // A job begins or ends: nothing is published, nobody holds anything.
  void Reset();

  void Join(uint64_t actor, WeightTraits traits, absl::Time now);
  void Leave(uint64_t actor, absl::Time now);
  void Drain(uint64_t actor, absl::Time now);

  // A new version, above all before it.
  void Publish(uint64_t version, const std::string& checksum, absl::Time now);

  // What actors say. Whatever is not expected changes nothing.
  void OnPrepared(uint64_t actor, uint64_t version, absl::Time now);
  // `checksum`: what the actor computed over the bytes that it holds. `peer_failed`: it had to take them from the rank,
  // as the actor that it was sent to did not deliver.
  void OnVerified(uint64_t actor, uint64_t version, const std::string& checksum, bool peer_failed, absl::Time now);
  // It could not fetch, or has nothing to commit.
  void OnFailed(uint64_t actor, uint64_t version, absl::Time now);
  // It did not get the version in the group of `epoch`.
  void OnMemberFailed(uint64_t actor, uint64_t version, uint64_t epoch, absl::Time now);
  void OnReady(uint64_t actor, uint64_t version, absl::Time now);
  // What the rank's sender says of the broadcast of `version` in the group of `epoch`.
  void OnBroadcast(uint64_t epoch, uint64_t version, bool ok, absl::Time now);

  // Deadlines. Cheap before NextDeadline().
  void Tick(absl::Time now);
  absl::Time NextDeadline() const { return std::min({next_deadline_, round_.deadline, gather_until_}); }

  // What is to be sent, in order; what was timed. Each is told once.
  std::vector<PublicationOrder> TakeOrders();
  std::vector<GroupOrder> TakeGroupOrders();
  std::vector<std::pair<PublishPhase, absl::Duration>> TakeTimes();

  uint64_t latest() const { return latest_; }  // 0: none yet
  // The version that an actor may be given leases under; 0: none.
  uint64_t ActiveVersion(uint64_t actor) const;
  WeightState StateOf(uint64_t actor) const;
  int CountIn(WeightState state) const { return in_state_[static_cast<size_t>(state)]; }
  // Actors that hold the latest version, draining ones not counted.
  int committed() const { return committed_; }
  bool QuorumCommitted() const { return latest_ == 0 || committed_ >= options_.min_actors; }
  const PublicationOptions& options() const { return options_; }
  const PublicationCounts& counts() const { return counts_; }
  // Whether versions have no round for now, as too many failed.
  bool GroupPaused(absl::Time now) const { return now < paused_until_; }

  // All that decides what happens next, times relative to `now`: two that read alike behave alike.
  std::string Fingerprint(absl::Time now) const;

 private:
  enum class Phase {
    kIdle,      // nothing is under way; late: until it is asked again
    kOffered,   // an earlier release; only Ready comes
    kPrepare,   // PREPARE is out
    kRound,     // prepared; the round has not begun
    kSource,    // prepared; nobody to fetch from yet
    kTransfer,  // TRANSFER is out, or the actor is in the round
    kCommit,    // COMMIT is out
  };

  struct Actor {
    WeightTraits traits;
    WeightState state = WeightState::kJoining;
    Phase phase = Phase::kIdle;
    bool late = false;       // the phase's deadline has passed; `deadline` is when to ask again
    uint64_t target = 0;     // the version of the phase
    std::string checksum;    // of target
    uint64_t verified = 0;   // the highest version whose hash came and was right
    uint64_t active = 0;     // what it samples with
    uint64_t source = 0;     // kTransfer: the actor that sends; 0: the rank
    int serving = 0;         // actors that fetch from this one
    uint64_t failed_at = 0;  // the version that this one did not deliver to another actor
    bool invited = false;    // to the round of the latest version
    bool in_round = false;   // kTransfer by a broadcast
    bool silent = false;     // missed the last deadline of a round or PREPARE, and has said nothing since
    absl::Time since;        // of the phase
    absl::Time deadline = absl::InfiniteFuture();
  };

  void SetState(Actor& actor, WeightState state);
  void Enter(Actor& actor, Phase phase, absl::Time now, absl::Duration limit);
  void Begin(uint64_t handle, Actor& actor, absl::Time now);
  void Transfer(uint64_t handle, Actor& actor, uint64_t source, absl::Time now);
  // Left out until it answers or is asked again.
  void LeaveOut(Actor& actor, absl::Time now, absl::Duration retry_after);
  void ReleaseSource(Actor& actor);
  void Time(PublishPhase phase, const Actor& actor, absl::Time now);
  bool Holds(const Actor& actor) const { return latest_ != 0 && actor.active == latest_; }
  // Whether an actor listens and has not failed to send the latest version before.
  bool MaySend(const Actor& actor) const;
  // Names sources for those that wait, as far as there are any.
  void AssignSources(absl::Time now);
  void AssignSource(uint64_t handle, Actor& actor, absl::Time now);
  // Whether the actor can be in a weight group of this rank.
  bool MayJoinGroup(const Actor& actor) const;
  // Whether the round of the latest version is to wait for an actor.
  bool RoundAwaits(const Actor& actor) const;
  // Begins the round, if it is its time; then names sources.
  void Proceed(absl::Time now);
  void BeginRound(absl::Time now);
  // Sets the time for the round of the latest version to begin, if it may.
  void Gather(absl::Time now);
  // The round is over: whoever has not proven its version fetches it.
  void FailRound(FallbackReason reason, absl::Time now);
  // A member does not get the version in it, or has left.
  void FailMember(uint64_t handle, Actor& actor, absl::Time now);
  void EndRound(bool ok, absl::Time now);
  // Ends the round if all its members and the sender have done their part.
  void CheckRound(absl::Time now);
  void DropGroup();
  // Leaves the round, and fetches unless it drains.
  void FallBack(uint64_t handle, Actor& actor, FallbackReason reason, absl::Time now);

  // An actor begins, or ceases, to count for the quorum.
  void CountCommitted(int by, absl::Time now);

  // The weight group of the last round; epoch 0: none. Members in the order of their ranks, which begin at 1.
  struct Group {
    uint64_t epoch = 0;
    std::vector<uint64_t> members;
  };
  // The round under way; version 0: none.
  struct Round {
    uint64_t version = 0;
    bool sent = false;     // the sender has done its part
    bool damaged = false;  // somebody received something else
    absl::Time deadline = absl::InfiniteFuture();
  };

  PublicationOptions options_;
  std::map<uint64_t, Actor> actors_;
  Group group_;
  Round round_;
  uint64_t last_group_epoch_ = 0;                     // over all jobs: epochs are never used twice
  bool gathering_ = false;                            // the latest version has its round before it
  absl::Time gather_until_ = absl::InfiniteFuture();  // then it begins without those who have not prepared
  int failed_rounds_ = 0;                             // in a row
  absl::Time paused_until_ = absl::InfinitePast();
  uint64_t first_ = 0;
  uint64_t latest_ = 0;
  std::string checksum_;
  absl::Time published_at_;
  bool quorum_timed_ = true;
  int rank_sends_ = 0;  // transfers of the latest version from the rank that were planned, not fallen back to
  int committed_ = 0;
  int waiting_ = 0;  // actors in kSource
  std::array<int, kNumWeightStates> in_state_{};
  absl::Time next_deadline_ = absl::InfiniteFuture();
  std::vector<PublicationOrder> orders_;
  std::vector<GroupOrder> group_orders_;
  std::vector<std::pair<PublishPhase, absl::Duration>> times_;
  PublicationCounts counts_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_PUBLISH_PUBLICATION_H_

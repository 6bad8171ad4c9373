#include "learner/ledger/rollout_hub.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/ledger/check_result.h"

namespace sluice::learner {
namespace {

// Sets lease seeds apart from all other uses of the job's seed.
constexpr uint64_t kLeaseSeedLabel = 0x6c65617365;  // "lease"

// More leases wanted at once than any actor can use is a client gone wrong, not a wish.
constexpr uint32_t kMaxCredits = 256;

// Before a group without scores is tried again, while nothing says that it is in vain.
constexpr absl::Duration kRetryAfter = absl::Seconds(1);
// A group without scores is tried so often before it is given up while others are scored.
constexpr int kTriesBesideOthers = 2;

// Injected clocks move without waking anybody, so blocking calls look again at least this often.
constexpr absl::Duration kMaxNap = absl::Milliseconds(100);

RewardWatchOptions WatchOptionsOf(const RewardOptions& reward) {
  const RewardHealthSettings& from = reward.health;
  RewardWatchOptions options;
  options.head = reward.head;
  options.follow_versions = from.on_new_version == NewRankerVersion::kFollow;
  options.canary_interval = absl::Seconds(from.canary_s);
  RewardHealthOptions& health = options.health;
  health.window = absl::Seconds(from.window_s);
  health.silence = absl::Seconds(from.silence_s);
  health.brownout_share = from.brownout_share;
  health.outage_share = from.outage_share;
  health.slow = absl::Seconds(from.slow_s.value_or(reward.deadline_s / 2));
  health.first_backoff = absl::Seconds(from.probe_s);
  health.max_backoff = absl::Seconds(from.probe_max_s);
  health.successes = from.successes;
  health.ramp_steps = from.ramp_steps;
  return options;
}

const char* RefusalOf(Receipt receipt) {
  switch (receipt) {
    case Receipt::kDuplicate:
      return "duplicate";
    case Receipt::kLate:
      return "late";
    default:
      return "unknown";
  }
}

}  // namespace

struct RolloutHub::Series {
  explicit Series(Metrics* metrics) {
    if (metrics == nullptr) return;
    static constexpr const char* kStates[] = {"issued", "trained", "dropped", "failed", "cancelled"};
    for (size_t i = 0; i < groups.size(); ++i) {
      groups[i] = metrics->AddCounter("sluice_groups_total", "Groups that entered a state of the ledger.",
                                      {{"state", kStates[i]}});
    }
    open = metrics->AddGauge("sluice_groups_open", "Groups issued and not terminal.");
    parked = metrics->AddGauge("sluice_groups_parked", "Groups with an outcome that no step has committed yet.");
    unscored =
        metrics->AddGauge("sluice_groups_unscored", "Groups that came without scores and wait to be tried again.");
    for (int state = 0; state < kNumRewardStates; ++state) {
      const MetricLabels labels = {{"state", std::string(RewardStateName(static_cast<RewardState>(state)))}};
      reward_states[static_cast<size_t>(state)] =
          metrics->AddGauge("sluice_learner_reward_state",
                            "1 for the state of the open job's scores; 0 for the others, and without a job.", labels);
      reward_moves[static_cast<size_t>(state)] = metrics->AddCounter(
          "sluice_learner_reward_transitions_total", "Times that a state of scores was entered.", labels);
    }
    imbalance =
        metrics->AddGauge("sluice_ledger_imbalance",
                          "issued - (trained + dropped + failed + cancelled + open); 0 unless the books are wrong.");
    frontier = metrics->AddGauge("sluice_frontier_ordinal", "Lowest ordinal of this rank that is not terminal.");
    ahead = metrics->AddGauge("sluice_ordinals_ahead_of_frontier", "Terminal ordinals above the frontier.");
    credits = metrics->AddGauge("sluice_credits_available", "Leases that attached actors wait for.");
    leases = metrics->AddGauge("sluice_leases_open", "Leases out with actors.");
    waiting = metrics->AddGauge("sluice_lease_blocks_waiting", "Blocks that wait for an actor.");
    attached = metrics->AddGauge("sluice_actors", "Actors by state.", {{"state", "attached"}});
    ready = metrics->AddGauge("sluice_actors", "Actors by state.", {{"state", "ready"}});
    for (int state = 0; state < kNumWeightStates; ++state) {
      weight_states[static_cast<size_t>(state)] =
          metrics->AddGauge("sluice_actor_weight_states", "Attached actors by what they hold of the published weights.",
                            {{"state", std::string(WeightStateName(static_cast<WeightState>(state)))}});
    }
    for (int phase = 0; phase < kNumPublishPhases; ++phase) {
      publish_phases[static_cast<size_t>(phase)] = metrics->AddHistogram(
          "sluice_publish_phase_seconds",
          "From what the rank asks of an actor to its answer; quorum: from publication until the quorum has committed.",
          {0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100},
          {{"phase", std::string(PublishPhaseName(static_cast<PublishPhase>(phase)))}});
    }
    for (int reason = 0; reason < kNumFallbackReasons; ++reason) {
      fallbacks[static_cast<size_t>(reason)] = metrics->AddCounter(
          "sluice_publish_fallbacks_total", "Versions that an actor did not get in the way that was meant, by reason.",
          {{"reason", std::string(FallbackReasonName(static_cast<FallbackReason>(reason)))}});
    }
    left_out = metrics->AddCounter("sluice_publish_left_out_total",
                                   "Deadlines of a publication that an actor missed; it is asked again.");
    mismatches = metrics->AddCounter("sluice_publish_mismatches_total",
                                     "Hashes of what an actor holds that were not the published one.");
    from_rank = metrics->AddCounter("sluice_publish_transfers_total", "Transfers of a version by who was to send it.",
                                    {{"source", "rank"}});
    from_peer = metrics->AddCounter("sluice_publish_transfers_total", "Transfers of a version by who was to send it.",
                                    {{"source", "peer"}});
    from_group = metrics->AddCounter("sluice_publish_transfers_total", "Transfers of a version by who was to send it.",
                                     {{"source", "group"}});
    groups_formed = metrics->AddCounter(
        "sluice_publish_groups_total", "Weight groups of this rank and its actors that were formed, one a membership.");
    group_pauses = metrics->AddCounter("sluice_publish_group_pauses_total",
                                       "Times that so many broadcasts failed in a row that none is tried for a while.");
    group_paused = metrics->AddGauge("sluice_publish_group_paused",
                                     "1 while no version is broadcast, as too many broadcasts failed in a row.");
    version = metrics->AddGauge("sluice_published_policy_version", "The latest published policy version.");
    version_lag = metrics->AddGauge("sluice_actor_version_lag_max",
                                    "Published version minus the lowest version that a ready actor holds.");
    expired = metrics->AddCounter("sluice_lease_expired_total", "Leases that ran past their deadline.");
    returned = metrics->AddCounter("sluice_lease_returned_total", "Leases given back because their actor left.");
    accepted =
        metrics->AddCounter("sluice_deliveries_total", "Results by what became of them.", {{"outcome", "accepted"}});
    duplicates =
        metrics->AddCounter("sluice_duplicate_deliveries_total", "Results of ordinals that already had their outcome.");
    for (const char* reason : {"late", "unknown", "job", "epoch", "stale_version", "invalid", "abandoned"}) {
      refused[reason] =
          metrics->AddCounter("sluice_deliveries_total", "Results by what became of them.", {{"outcome", reason}});
    }
  }

  std::array<Counter*, 5> groups{};
  std::array<uint64_t, 5> counted{};  // what `groups` holds of the present job
  std::array<Gauge*, kNumRewardStates> reward_states{};
  std::array<Counter*, kNumRewardStates> reward_moves{};
  std::array<uint64_t, kNumRewardStates> moves_counted{};  // what `reward_moves` holds of the present job
  Gauge* unscored = nullptr;
  Gauge* open = nullptr;
  Gauge* parked = nullptr;
  Gauge* imbalance = nullptr;
  Gauge* frontier = nullptr;
  Gauge* ahead = nullptr;
  Gauge* credits = nullptr;
  Gauge* leases = nullptr;
  Gauge* waiting = nullptr;
  Gauge* attached = nullptr;
  Gauge* ready = nullptr;
  Gauge* version = nullptr;
  Gauge* version_lag = nullptr;
  std::array<Gauge*, kNumWeightStates> weight_states{};
  std::array<Histogram*, kNumPublishPhases> publish_phases{};
  std::array<Counter*, kNumFallbackReasons> fallbacks{};
  Counter* left_out = nullptr;
  Counter* mismatches = nullptr;
  Counter* from_rank = nullptr;
  Counter* from_peer = nullptr;
  Counter* from_group = nullptr;
  Counter* groups_formed = nullptr;
  Counter* group_pauses = nullptr;
  Gauge* group_paused = nullptr;
  PublicationCounts publication_counted;  // what the counters hold of the present job
  Counter* expired = nullptr;
  Counter* returned = nullptr;
  Counter* accepted = nullptr;
  Counter* duplicates = nullptr;
  std::map<std::string, Counter*> refused;
};

// Delivers what a call has left in the outboxes, once the lock that is declared after it is released.
class RolloutHub::Delivery {
 public:
  explicit Delivery(RolloutHub* hub) : hub_(hub) {}
  ~Delivery() { hub_->Deliver(); }

 private:
  RolloutHub* const hub_;
};

RolloutHub::RolloutHub(Options options)
    : options_(std::move(options)),
      series_(std::make_unique<Series>(options_.metrics)),
      publication_(options_.publication) {}

RolloutHub::~RolloutHub() = default;

// ------------------------------------------------------------------------------------------------------- job

absl::Status RolloutHub::StartJob(HubJob job) {
  const RlOptions& rl = job.options;
  LedgerOptions options;
  options.lease_groups = rl.lease_groups;
  options.lease_deadline = absl::Seconds(rl.lease_deadline_s);
  options.max_attempts = rl.max_attempts;
  options.whole_blocks = job.synchronous();
  options.max_open = static_cast<uint64_t>(rl.staleness + 1) * static_cast<uint64_t>(job.groups_per_step);
  SLUICE_RETURN_IF_ERROR(options.Validate());
  if (job.levels < 1) return absl::InvalidArgumentError(absl::StrCat("levels: want >= 1, got ", job.levels));
  const RewardWatchOptions watch = WatchOptionsOf(rl.reward);
  if (const absl::Status status = watch.health.Validate(); job.scored() && !status.ok()) {
    return Annotate(status, "rl.reward.health");
  }
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (job_ != nullptr) return absl::FailedPreconditionError(absl::StrCat("job ", job_->job_id, " is still open"));
  job_ = std::make_shared<const HubJob>(std::move(job));
  ledger_ = std::make_unique<Ledger>(options);
  rewards_ = job_->scored() ? std::make_unique<RewardWatch>(watch, options_.now()) : nullptr;
  canary_.reset();
  ResetPublicationLocked();
  stopped_ = false;
  series_->counted = {};
  series_->moves_counted = {};
  for (const auto& [handle, actor] : actors_) GreetLocked(actor);
  PumpLocked();
  return absl::OkStatus();
}

void RolloutHub::EndJob() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (job_ == nullptr) return;
  for (const auto& [handle, actor] : actors_) {
    ledger_->ReturnLeases(actor->id, "the job ended");
    actor->ready_version = 0;
    actor->credits = 0;
    SendLocked(actor, JobEndedMessage{job_->job_id});
  }
  rewards_.reset();
  canary_.reset();
  job_.reset();
  ResetPublicationLocked();
  stopped_ = true;
  PumpLocked();
  changed_.NotifyAll();
}

void RolloutHub::DisconnectActors(const absl::Status& status) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  while (!actors_.empty()) {
    CloseLocked(actors_.begin()->second, status);
    RemoveLocked(actors_.begin()->first, "the rank closed the actor's stream");
  }
  PumpLocked();
}

bool RolloutHub::ReleaseActor() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  std::shared_ptr<Actor> chosen;
  for (const auto& [handle, actor] : actors_) {
    if (actor->draining) continue;  // it leaves by itself
    const bool busy = (ledger_ != nullptr && ledger_->HoldsLease(actor->id)) ||
                      (decode_ != nullptr && decode_->HoldsLease(actor->id));
    if (chosen == nullptr || !busy) chosen = actor;
    if (!busy) break;
  }
  if (chosen == nullptr) return false;
  CloseLocked(chosen, absl::ResourceExhaustedError("another rank has more need of actors"));
  RemoveLocked(chosen->handle, "its actor was sent to another rank");
  PumpLocked();
  changed_.NotifyAll();
  return true;
}

int RolloutHub::blocks_for_actors() const {
  MutexLock lock(&mutex_);
  if (job_ == nullptr) return 0;
  return static_cast<int>(ledger_->waiting_blocks()) + (decode_ == nullptr ? 0 : decode_->fresh());
}

// ----------------------------------------------------------------------------------------------- GroupSource

absl::Status RolloutHub::Issue(uint64_t step, std::vector<Prompt> prompts) {
  absl::Status status;
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (job_ == nullptr) return absl::FailedPreconditionError("no job is open");
  status = ledger_->Issue(step, std::move(prompts), latest_.has_value() ? latest_->policy_version : 1, options_.now());
  TickLocked();
  PumpLocked();
  return status;
}

std::string RolloutHub::DescribeWaitLocked() const {
  int ready = 0;
  for (const auto& [handle, actor] : actors_) ready += actor->ready_version > 0 ? 1 : 0;
  std::string text = absl::StrCat(actors_.size(), " actors attached, ", ready, " of them with a verified policy");
  if (!publication_.QuorumCommitted()) {
    absl::StrAppend(&text, "; ", publication_.committed(), " hold version ", publication_.latest(), ", want ",
                    publication_.options().min_actors, " (--min-actors)");
  }
  return text;
}

void RolloutHub::WaitForChangeLocked(absl::Duration limit) {
  const absl::Duration nap = std::max(absl::Milliseconds(1), std::min(limit, kMaxNap));
  changed_.WaitFor(&mutex_, nap);
}

absl::StatusOr<std::vector<TakenGroup>> RolloutHub::Wait(uint64_t step, absl::Duration patience) {
  absl::Time last_progress = options_.now();
  std::optional<std::pair<uint64_t, int>> progress;
  while (true) {
    const Delivery delivery(this);
    MutexLock lock(&mutex_);
    if (stopped_) return absl::CancelledError("stopped while waiting for groups");
    if (ledger_ == nullptr) return absl::FailedPreconditionError("no job is open");
    TickLocked();
    PumpLocked();
    if (!ledger_->StepOpen(step)) return absl::FailedPreconditionError(absl::StrCat("step ", step, " is not open"));
    if (ledger_->StepReady(step) && publication_.QuorumCommitted()) return ledger_->Take(step);
    const absl::Time now = options_.now();
    const std::pair<uint64_t, int> now_at(ledger_->outcomes(), publication_.committed());
    if (progress != now_at) {
      progress = now_at;
      last_progress = now;
    }
    if (now - last_progress >= patience) {
      return absl::UnavailableError(absl::StrCat("no group of step ", step, " came for ",
                                                 absl::FormatDuration(patience), ": ", DescribeWaitLocked()));
    }
    const absl::Time wake = std::min({ledger_->NextDeadline(), publication_.NextDeadline(), last_progress + patience});
    if (dirty_.empty()) WaitForChangeLocked(wake - now);
  }
}

absl::Status RolloutHub::Commit(uint64_t step, absl::Span<const Verdict> verdicts) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (ledger_ == nullptr) return absl::FailedPreconditionError("no job is open");
  absl::Status status = ledger_->Commit(step, verdicts);
  if (status.ok() && rewards_ != nullptr) rewards_->OnStep();
  PumpLocked();
  return status;
}

void RolloutHub::CancelOpen() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (ledger_ != nullptr) ledger_->CancelOpen();
  PumpLocked();
  changed_.NotifyAll();
}

void RolloutHub::Publish(std::shared_ptr<const PolicySnapshot> snapshot) {
  OfferMessage offer;
  offer.policy_version = snapshot->version;
  offer.payload_bytes = snapshot->payload.size();
  offer.checksum = snapshot->checksum;
  offer.chunks = std::shared_ptr<const ChunkTable>(snapshot, &snapshot->chunks);
  {
    MutexLock lock(&mutex_);
    if (job_ == nullptr) return;
    offer.job_id = job_->job_id;
    SLUICE_CHECK(!latest_.has_value() || offer.policy_version > latest_->policy_version,
                 absl::StrCat("policy version ", offer.policy_version, " after ", latest_->policy_version));
  }
  // Kept before it is offered: an actor may ask at once.
  if (options_.snapshots != nullptr) options_.snapshots->Put(offer.job_id, std::move(snapshot));
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (job_ == nullptr || job_->job_id != offer.job_id) return;
  latest_ = std::move(offer);
  publication_.Publish(latest_->policy_version, latest_->checksum, options_.now());
  FollowPublicationLocked();
  PumpLocked();
}

LedgerBalance RolloutHub::Balance() const {
  MutexLock lock(&mutex_);
  return ledger_ == nullptr ? LedgerBalance() : ledger_->Balance();
}

std::string RolloutHub::Snapshot() const {
  MutexLock lock(&mutex_);
  return ledger_ == nullptr ? Ledger(LedgerOptions()).Snapshot() : ledger_->Snapshot();
}

absl::Status RolloutHub::Restore(const std::string& snapshot) {
  MutexLock lock(&mutex_);
  if (job_ == nullptr) return absl::FailedPreconditionError("no job is open");
  absl::Status status = ledger_->Restore(snapshot);
  const LedgerBalance balance = ledger_->Balance();
  // What the restored books already counted was counted by an earlier process.
  series_->counted = {balance.issued, balance.trained, balance.dropped, balance.failed, balance.cancelled};
  PumpLocked();
  return status;
}

int RolloutHub::num_actors() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(actors_.size());
}

std::vector<std::string> RolloutHub::TakeRewardNews() {
  MutexLock lock(&mutex_);
  return rewards_ == nullptr ? std::vector<std::string>() : rewards_->TakeNews();
}

std::string RolloutHub::RewardTrouble() const {
  MutexLock lock(&mutex_);
  return rewards_ == nullptr ? "" : rewards_->Trouble();
}

void RolloutHub::Stop() {
  MutexLock lock(&mutex_);
  stopped_ = true;
  changed_.NotifyAll();
}

// ------------------------------------------------------------------------------------------------ EvalSource

absl::Status RolloutHub::OpenDecode(const DecodeCall& call) {
  if (call.constrained_beams < 0 || call.unconstrained_beams < 0 ||
      call.constrained_beams + call.unconstrained_beams < 1) {
    return absl::InvalidArgumentError(absl::StrCat("want a positive number of beams, got ", call.constrained_beams,
                                                   " constrained and ", call.unconstrained_beams, " unconstrained"));
  }
  MutexLock lock(&mutex_);
  if (job_ == nullptr) return absl::FailedPreconditionError("no job is open");
  const uint64_t published = latest_.has_value() ? latest_->policy_version : 0;
  if (call.policy_version != published || published == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("want beams of policy version ", call.policy_version, ", published is ", published));
  }
  if (decode_ != nullptr) return absl::FailedPreconditionError("another evaluation is in progress");
  decode_ = std::make_unique<DecodeBoard>(call, absl::Seconds(job_->options.lease_deadline_s));
  return absl::OkStatus();
}

void RolloutHub::AddBlock(uint64_t block, std::vector<Prompt> prompts) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  SLUICE_CHECK(decode_ != nullptr, "an evaluation is open");
  decode_->Add(block, std::move(prompts));
  TickLocked();
  PumpLocked();
}

int RolloutHub::waiting_blocks() const {
  MutexLock lock(&mutex_);
  return decode_ == nullptr ? 0 : decode_->waiting();
}

std::optional<uint64_t> RolloutHub::TakeForRank() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  SLUICE_CHECK(decode_ != nullptr, "an evaluation is open");
  TickLocked();
  PumpLocked();
  return decode_->TakeForRank();
}

absl::StatusOr<std::vector<DecodedBlock>> RolloutHub::TakeDecoded(absl::Duration limit) {
  const absl::Time until = options_.now() + limit;
  while (true) {
    const Delivery delivery(this);
    MutexLock lock(&mutex_);
    SLUICE_CHECK(decode_ != nullptr, "an evaluation is open");
    if (stopped_) return absl::CancelledError("stopped while waiting for beams");
    TickLocked();
    PumpLocked();
    const absl::Time now = options_.now();
    if (decode_->HasNews() || now >= until) return decode_->TakeDecoded();
    if (dirty_.empty()) WaitForChangeLocked(std::min(decode_->NextDeadline(), until) - now);
  }
}

void RolloutHub::CloseDecode() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  decode_.reset();
  PumpLocked();
}

// ---------------------------------------------------------------------------------------------------- actors

absl::StatusOr<RolloutHub::ActorHandle> RolloutHub::Attach(const std::string& actor_id, std::shared_ptr<ActorSink> sink,
                                                           bool scores_alone, WeightTraits weights) {
  if (actor_id.empty() || actor_id.size() > 128) {
    return absl::InvalidArgumentError(absl::StrCat("actor_id: want 1 to 128 bytes, got ", actor_id.size()));
  }
  ActorHandle handle = 0;
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  TickLocked();
  for (const auto& [old_handle, old] : actors_) {
    if (old->id != actor_id) continue;
    CloseLocked(old, absl::AbortedError(absl::StrCat("actor ", actor_id, " attached again")));
    RemoveLocked(old_handle, "its actor attached again");
    break;
  }
  handle = next_handle_++;
  auto actor = std::make_shared<Actor>();
  actor->handle = handle;
  actor->id = actor_id;
  actor->sink = std::move(sink);
  actor->scores_alone = scores_alone;
  actor->staged = weights.staged;
  actor->last_seen = options_.now();
  actors_.emplace(handle, actor);
  GreetLocked(actor);
  publication_.Join(handle, std::move(weights), options_.now());
  FollowPublicationLocked();
  PumpLocked();
  changed_.NotifyAll();
  return handle;
}

void RolloutHub::Detach(ActorHandle handle) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  RemoveLocked(handle, "its actor left");
  PumpLocked();
  changed_.NotifyAll();
}

void RolloutHub::TakeWeightNews(ActorHandle handle, const std::string& job_id,
                                absl::FunctionRef<void(Actor&, absl::Time)> take) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  TickLocked();
  const std::shared_ptr<Actor> actor = SeenLocked(handle);
  if (actor != nullptr && job_ != nullptr && job_id == job_->job_id) {
    take(*actor, options_.now());
    FollowPublicationLocked();
  }
  PumpLocked();
}

void RolloutHub::OnPrepared(ActorHandle handle, const std::string& job_id, uint64_t policy_version) {
  TakeWeightNews(handle, job_id, [&](Actor&, absl::Time now) {
    mutex_.AssertHeld();
    publication_.OnPrepared(handle, policy_version, now);
  });
}

void RolloutHub::OnVerified(ActorHandle handle, const std::string& job_id, uint64_t policy_version,
                            const std::string& checksum, bool peer_failed) {
  TakeWeightNews(handle, job_id, [&](Actor&, absl::Time now) {
    mutex_.AssertHeld();
    publication_.OnVerified(handle, policy_version, checksum, peer_failed, now);
  });
}

void RolloutHub::OnTransferFailed(ActorHandle handle, const std::string& job_id, uint64_t policy_version,
                                  uint64_t group_epoch) {
  TakeWeightNews(handle, job_id, [&](Actor&, absl::Time now) {
    mutex_.AssertHeld();
    if (group_epoch > 0) {
      publication_.OnMemberFailed(handle, policy_version, group_epoch, now);
    } else {
      publication_.OnFailed(handle, policy_version, now);
    }
  });
}

void RolloutHub::OnReady(ActorHandle handle, const std::string& job_id, uint64_t policy_version) {
  TakeWeightNews(handle, job_id, [&](Actor& actor, absl::Time now) {
    mutex_.AssertHeld();
    const int committed = publication_.committed();
    publication_.OnReady(handle, policy_version, now);
    actor.ready_version = publication_.ActiveVersion(handle);
    if (publication_.committed() != committed) changed_.NotifyAll();  // the quorum
  });
}

void RolloutHub::OnBroadcast(uint64_t group_epoch, uint64_t policy_version, bool ok) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  TickLocked();
  publication_.OnBroadcast(group_epoch, policy_version, ok, options_.now());
  FollowPublicationLocked();
  PumpLocked();
}

void RolloutHub::OnCredit(ActorHandle handle, uint32_t leases) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  TickLocked();
  if (const std::shared_ptr<Actor> actor = SeenLocked(handle); actor != nullptr) {
    actor->credits = std::min(kMaxCredits, actor->credits + std::min(kMaxCredits, leases));
  }
  PumpLocked();
}

void RolloutHub::OnResult(ActorHandle handle, ActorResult result) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  // The result first: one that came just before its deadline was noticed to have passed is still good.
  if (const std::shared_ptr<Actor> actor = SeenLocked(handle); actor != nullptr) {
    AckMessage ack = TakeInLocked(*actor, std::move(result));
    CountRefusalLocked(ack);
    SendLocked(actor, std::move(ack));
  }
  TickLocked();
  PumpLocked();
  changed_.NotifyAll();
}

void RolloutHub::OnHeartbeat(ActorHandle handle, uint32_t /*open_groups*/, uint64_t /*policy_version*/) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  SeenLocked(handle);
  // Of hundreds of idle actors each says this once a second: it must cost next to nothing.
  if (TickLocked()) PumpLocked();
}

void RolloutHub::OnDraining(ActorHandle handle) {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  if (const std::shared_ptr<Actor> actor = SeenLocked(handle); actor != nullptr) {
    actor->draining = true;
    actor->credits = 0;
    publication_.Drain(handle, options_.now());
    FollowPublicationLocked();
  }
  TickLocked();
  PumpLocked();
}

void RolloutHub::Tick() {
  const Delivery delivery(this);
  MutexLock lock(&mutex_);
  TickLocked();
  PumpLocked();
}

absl::Status RolloutHub::CheckLedger() const {
  MutexLock lock(&mutex_);
  return ledger_ == nullptr ? absl::OkStatus() : ledger_->Check();
}

// --------------------------------------------------------------------------------------------------- results

AckMessage RolloutHub::TakeInLocked(const Actor& actor, ActorResult result) {
  AckMessage ack;
  std::visit(
      [&ack](const auto& outcome) {
        ack.ordinal = outcome.ordinal;
        if constexpr (requires { outcome.attempt; }) ack.attempt = outcome.attempt;
      },
      result.outcome);
  if (job_ == nullptr || result.job_id != job_->job_id) {
    ack.reason = "job";
    return ack;
  }
  if (result.epoch != job_->epoch) {
    ack.reason = "epoch";
    return ack;
  }
  if (auto* group = std::get_if<ScoredGroup>(&result.outcome)) return TakeGroupLocked(actor, std::move(*group));
  if (auto* decoded = std::get_if<DecodedPrompt>(&result.outcome)) return TakeDecodedLocked(actor, std::move(*decoded));
  return TakeAbandonedLocked(actor, std::get<AbandonedPrompt>(result.outcome));
}

AckMessage RolloutHub::TakeCanaryLocked(const Actor& actor, ScoredGroup group) {
  AckMessage ack{group.ordinal, group.attempt, false, "late"};
  if (canary_->actor != actor.id) return ack;
  ack.accepted = true;
  ack.reason.clear();
  if (!rewards_->TakeCanary(std::move(group), options_.now())) return ack;
  canary_.reset();
  // Nobody knows since when: what came after the last canary in range is not believed either.
  if (const RewardHealth& health = rewards_->health(); !health.trusted()) {
    ledger_->VoidScores(rewards_->good_until(), health.cause());
  }
  return ack;
}

AckMessage RolloutHub::TakeGroupLocked(const Actor& actor, ScoredGroup group) {
  // Lease ids are never used twice, so at most one of the books knows this one.
  if (canary_.has_value() && group.lease_id == canary_->lease_id) return TakeCanaryLocked(actor, std::move(group));
  AckMessage ack{group.ordinal, group.attempt, false, ""};
  Receipt receipt = ledger_->Judge(group.ordinal, group.attempt, group.lease_id);
  if (receipt == Receipt::kAccepted && ledger_->LeaseActor(group.lease_id) != actor.id) receipt = Receipt::kLate;
  if (receipt != Receipt::kAccepted) {
    ack.reason = RefusalOf(receipt);
    return ack;
  }
  VersionWindow window;
  window.wanted = ledger_->LeasePolicyVersion(group.lease_id);
  window.exact = job_->synchronous();
  window.latest = latest_.has_value() ? latest_->policy_version : 0;
  if (const absl::Status status = CheckVersion(group.behavior_version, window); !status.ok()) {
    ack.reason = absl::StrCat("stale_version: ", status.message());
  } else if (const absl::Status whole = CheckGroup(group, ledger_->PromptOf(group.ordinal), *job_); !whole.ok()) {
    ack.reason = absl::StrCat("invalid: ", whole.message());
  }
  if (!ack.reason.empty()) {
    // The attempt is spent: let another actor try instead of waiting for the deadline.
    ledger_->Abandon(group.ordinal, group.attempt, group.lease_id, ack.reason, /*bad_data=*/false);
    return ack;
  }
  ack.accepted = true;
  if (rewards_ == nullptr) {
    ledger_->Complete(std::move(group));
    return ack;
  }
  const absl::Time now = options_.now();
  // The actor reports a group's share of the one call for its block.
  const double groups = static_cast<double>(ledger_->LeaseGroups(group.lease_id));
  rewards_->Inspect(ledger_->PromptOf(group.ordinal), absl::Seconds(group.score_seconds * groups), now, &group);
  const bool another_try_may_help =
      group.score_status == ScoreStatus::kUnavailable || group.score_status == ScoreStatus::kInvalid;
  if (group.score_status == ScoreStatus::kOk) last_scored_ = now;
  // While others get their scores it is the group, not the ranker: an item that takes too long must not hold up the
  // job.
  const std::optional<Ledger::PutBacks> before = ledger_->PutBacksOf(group.ordinal);
  const bool is_the_group = before.has_value() && before->times >= kTriesBesideOthers && last_scored_ > before->since;
  if (another_try_may_help && !is_the_group && job_->options.reward.park_s > 0) {
    ledger_->PutBack(std::move(group), now,
                     now + std::min(kRetryAfter, absl::Seconds(job_->options.reward.park_s / 4)));
  } else {
    ledger_->Complete(std::move(group), now);
  }
  return ack;
}

AckMessage RolloutHub::TakeDecodedLocked(const Actor& actor, DecodedPrompt decoded) {
  AckMessage ack{decoded.ordinal, 1, false, "late"};
  if (decode_ == nullptr) return ack;
  if (const Receipt receipt = decode_->Judge(actor.id, decoded.lease_id, decoded.ordinal);
      receipt != Receipt::kAccepted) {
    ack.reason = RefusalOf(receipt);
    return ack;
  }
  const DecodeCall& call = decode_->call();
  const VersionWindow window{call.policy_version, /*exact=*/true, 0};
  if (const absl::Status status = CheckVersion(decoded.behavior_version, window); !status.ok()) {
    ack.reason = absl::StrCat("stale_version: ", status.message());
  } else if (const absl::Status whole = CheckDecoded(decoded, call.constrained_beams, call.unconstrained_beams, *job_);
             !whole.ok()) {
    ack.reason = absl::StrCat("invalid: ", whole.message());
  } else {
    ack.accepted = true;
    ack.reason.clear();
  }
  if (!ack.accepted) {
    decode_->GiveBack(decoded.lease_id);
    return ack;
  }
  decode_->Answer(std::move(decoded));
  return ack;
}

AckMessage RolloutHub::TakeAbandonedLocked(const Actor& actor, const AbandonedPrompt& abandoned) {
  AckMessage ack{abandoned.ordinal, abandoned.attempt, false, ""};
  if (canary_.has_value() && abandoned.lease_id == canary_->lease_id) {
    if (canary_->actor == actor.id) LoseCanaryLocked();
    ack.accepted = true;
    ack.reason = "abandoned";
    return ack;
  }
  // Lease ids are never used twice, so at most one of the books knows this one.
  if (decode_ != nullptr && decode_->Judge(actor.id, abandoned.lease_id, abandoned.ordinal) == Receipt::kAccepted) {
    // Whatever the reason: the rank decodes the block itself, and says so if the record is bad.
    decode_->GiveBack(abandoned.lease_id);
    ack.accepted = true;
    ack.reason = "abandoned";
    return ack;
  }
  Receipt receipt = ledger_->Judge(abandoned.ordinal, abandoned.attempt, abandoned.lease_id);
  if (receipt == Receipt::kAccepted && ledger_->LeaseActor(abandoned.lease_id) != actor.id) receipt = Receipt::kLate;
  if (receipt != Receipt::kAccepted) {
    ack.reason = RefusalOf(receipt);
    return ack;
  }
  ledger_->Abandon(abandoned.ordinal, abandoned.attempt, abandoned.lease_id,
                   absl::StrCat("actor ", actor.id, " gave it back: ", abandoned.reason), abandoned.bad_data);
  ack.accepted = true;
  ack.reason = "abandoned";
  return ack;
}

void RolloutHub::CountRefusalLocked(const AckMessage& ack) {
  if (series_->accepted == nullptr) return;
  if (ack.accepted && ack.reason.empty()) {
    series_->accepted->Increment();
  } else if (ack.reason == "duplicate") {
    series_->duplicates->Increment();
  } else if (auto found = series_->refused.find(ack.reason.substr(0, ack.reason.find(':')));
             found != series_->refused.end()) {
    found->second->Increment();
  }
}

// ------------------------------------------------------------------------------------------------- internals

std::shared_ptr<RolloutHub::Actor> RolloutHub::SeenLocked(ActorHandle handle) {
  auto found = actors_.find(handle);
  if (found == actors_.end()) return nullptr;
  found->second->last_seen = options_.now();
  return found->second;
}

void RolloutHub::SendLocked(const std::shared_ptr<Actor>& actor, RankMessage message) {
  if (actor->broken || actor->close.has_value()) return;
  if (actor->outbox.empty()) dirty_.push_back(actor);
  actor->outbox.push_back(std::move(message));
}

void RolloutHub::CloseLocked(const std::shared_ptr<Actor>& actor, const absl::Status& status) {
  if (actor->close.has_value()) return;
  if (actor->outbox.empty()) dirty_.push_back(actor);
  actor->close = status;
}

void RolloutHub::RemoveLocked(ActorHandle handle, const std::string& why) {
  auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  const std::string id = found->second->id;
  actors_.erase(found);
  publication_.Leave(handle, options_.now());
  FollowPublicationLocked();
  int returned = ledger_ == nullptr ? 0 : ledger_->ReturnLeases(id, why);
  if (decode_ != nullptr) returned += decode_->ReturnLeases(id);
  if (canary_.has_value() && canary_->actor == id) LoseCanaryLocked();
  if (returned > 0 && series_->returned != nullptr) series_->returned->Increment(returned);
}

void RolloutHub::GreetLocked(const std::shared_ptr<Actor>& actor) {
  if (job_ == nullptr) return;
  actor->ready_version = 0;
  SendLocked(actor, WelcomeMessage{job_});
}

void RolloutHub::FollowPublicationLocked() {
  for (PublicationOrder& order : publication_.TakeOrders()) {
    const auto found = actors_.find(order.actor);
    if (found == actors_.end() || job_ == nullptr || !latest_.has_value()) continue;
    const std::shared_ptr<Actor>& actor = found->second;
    switch (order.kind) {
      case PublicationOrder::Kind::kPrepare: {
        OfferMessage offer = *latest_;
        offer.staged = actor->staged;
        SendLocked(actor, std::move(offer));
        break;
      }
      case PublicationOrder::Kind::kTransfer:
        SendLocked(actor, TransferMessage{job_->job_id, order.version, std::move(order.source)});
        break;
      case PublicationOrder::Kind::kBroadcast:
        SendLocked(actor, BroadcastMessage{job_->job_id, order.version, order.place,
                                           options_.publication.group_chunk_bytes, options_.publication.group_timeout});
        break;
      case PublicationOrder::Kind::kCommit:
        SendLocked(actor, CommitMessage{job_->job_id, order.version});
        break;
    }
  }
  for (const GroupOrder& order : publication_.TakeGroupOrders()) {
    if (order.kind == GroupOrder::Kind::kAbort) {
      sender_outbox_.emplace_back(order.place.epoch);
    } else if (job_ != nullptr) {
      sender_outbox_.emplace_back(BroadcastOrder{job_->job_id, order.version, order.place,
                                                 options_.publication.group_chunk_bytes,
                                                 options_.publication.group_timeout});
    }
  }
  for (const auto& [phase, duration] : publication_.TakeTimes()) {
    Histogram* const times = series_->publish_phases[static_cast<size_t>(phase)];
    if (times != nullptr) times->Observe(absl::ToDoubleSeconds(duration));
  }
}

void RolloutHub::ResetPublicationLocked() {
  latest_.reset();
  publication_.Reset();
  series_->publication_counted = {};
  pauses_told_ = 0;
  FollowPublicationLocked();
}

bool RolloutHub::TickLocked() {
  const absl::Time now = options_.now();
  int expired = 0;
  if (ledger_ != nullptr) expired += ledger_->Expire(now);
  if (decode_ != nullptr) expired += decode_->Expire(now);
  if (rewards_ != nullptr) rewards_->Tick(now);
  if (publication_.NextDeadline() <= now) {
    publication_.Tick(now);
    FollowPublicationLocked();
  }
  if (canary_.has_value() && canary_->deadline <= now) {
    LoseCanaryLocked();
    ++expired;
  }
  if (expired > 0) {
    if (series_->expired != nullptr) series_->expired->Increment(expired);
    changed_.NotifyAll();
  }
  if (now < silence_check_) return expired > 0;
  // Signs of life only come later, so nobody falls silent before the one who was heard of least lately can.
  absl::Time longest_ago = now;
  std::vector<std::shared_ptr<Actor>> silent;
  for (const auto& [handle, actor] : actors_) {
    if (now - actor->last_seen >= options_.actor_timeout) {
      silent.push_back(actor);
    } else {
      longest_ago = std::min(longest_ago, actor->last_seen);
    }
  }
  silence_check_ = longest_ago + options_.actor_timeout;
  for (const std::shared_ptr<Actor>& actor : silent) {
    CloseLocked(actor, absl::UnavailableError(absl::StrCat("nothing was heard of actor ", actor->id, " for ",
                                                           absl::FormatDuration(options_.actor_timeout))));
    RemoveLocked(actor->handle, "its actor fell silent");
    changed_.NotifyAll();
  }
  return expired > 0 || !silent.empty();
}

bool RolloutHub::GrantLocked(const std::shared_ptr<Actor>& actor) {
  if (job_ == nullptr || !latest_.has_value() || actor->draining || actor->credits == 0 || actor->ready_version == 0) {
    return false;
  }
  const absl::Time now = options_.now();
  const bool up_to_date = actor->ready_version == latest_->policy_version;
  // Evaluation first: the training loop stands still for it.
  std::optional<BlockLease> block;
  LeaseMessage lease;
  if (decode_ != nullptr && actor->ready_version == decode_->call().policy_version) {
    block = decode_->Lease(actor->id, next_lease_id_, now);
    lease.kind = LeaseKind::kDecode;
    lease.exact_version = true;
    lease.constrained_beams = decode_->call().constrained_beams;
    lease.unconstrained_beams = decode_->call().unconstrained_beams;
  }
  if (!block.has_value() && (up_to_date || !job_->synchronous()) && MayRolloutLocked()) {
    block = ledger_->Lease(actor->id, actor->ready_version, next_lease_id_, now);
    lease.kind = LeaseKind::kRollout;
    lease.exact_version = job_->synchronous();
    lease.constrained_beams = 0;
    lease.unconstrained_beams = 0;
  }
  if (!block.has_value()) return false;
  ++next_lease_id_;
  --actor->credits;
  lease.job_id = job_->job_id;
  lease.epoch = job_->epoch;
  lease.lease_id = block->lease_id;
  lease.policy_version = block->policy_version;
  lease.deadline = block->deadline - now;
  // Synchronous: whoever works on the block, whenever, draws the same. Asynchronous: another attempt is another draw.
  lease.seed = job_->synchronous() ? DeriveSeed(job_->seed, {kLeaseSeedLabel, block->block})
                                   : DeriveSeed(job_->seed, {kLeaseSeedLabel, block->block, block->attempt});
  lease.prompts = std::move(block->prompts);
  SendLocked(actor, std::move(lease));
  return true;
}

bool RolloutHub::MayRolloutLocked() const {
  if (rewards_ == nullptr) return true;
  const int window = (job_->options.staleness + 1) * job_->groups_per_step;
  const int full = (window + job_->options.lease_groups - 1) / job_->options.lease_groups;
  return ledger_->live_leases() < static_cast<uint64_t>(rewards_->health().MaxLeases(full));
}

void RolloutHub::SendCanaryLocked() {
  if (rewards_ == nullptr || canary_.has_value() || !latest_.has_value()) return;
  const auto can_take = [](const auto& entry) {
    const Actor& actor = *entry.second;
    return actor.scores_alone && !actor.draining && actor.credits > 0 && actor.ready_version > 0;
  };
  // In turn: they may ask different reward servers.
  auto found = std::find_if(actors_.upper_bound(canary_actor_), actors_.end(), can_take);
  if (found == actors_.end()) found = std::find_if(actors_.begin(), actors_.end(), can_take);
  if (found == actors_.end()) return;
  const absl::Time now = options_.now();
  LeaseMessage lease;
  lease.prompts = rewards_->NextCanary(now);
  if (lease.prompts.empty()) return;
  const std::shared_ptr<Actor>& actor = found->second;
  --actor->credits;
  lease.job_id = job_->job_id;
  lease.epoch = job_->epoch;
  lease.lease_id = next_lease_id_++;
  lease.kind = LeaseKind::kScore;
  lease.policy_version = actor->ready_version;
  lease.deadline = absl::Seconds(job_->options.lease_deadline_s);
  canary_actor_ = found->first;
  canary_ = CanaryLease{lease.lease_id, actor->id, now + lease.deadline};
  SendLocked(actor, std::move(lease));
}

void RolloutHub::LoseCanaryLocked() {
  rewards_->LoseCanary(options_.now());
  canary_.reset();
}

bool RolloutHub::CloseUnscoredLocked() {
  if (rewards_ == nullptr || ledger_ == nullptr) return false;
  return ledger_->CloseWaiting(options_.now(), absl::Seconds(job_->options.reward.park_s),
                               rewards_->health().outage_since()) > 0;
}

void RolloutHub::PumpLocked() {
  SendCanaryLocked();
  const auto waiting = [this] {
    mutex_.AssertHeld();
    return (ledger_ != nullptr && ledger_->waiting_blocks() > 0) || (decode_ != nullptr && decode_->fresh() > 0);
  };
  bool granted = true;
  while (granted && waiting()) {
    granted = false;
    for (const auto& [handle, actor] : actors_) granted |= GrantLocked(actor);
  }
  // After the leases: the one group that probes must not be closed before it goes out.
  if (CloseUnscoredLocked()) changed_.NotifyAll();
  if (options_.metrics != nullptr) SetGaugesLocked();
}

void RolloutHub::SetGaugesLocked() {
  uint32_t credits = 0;
  int ready = 0;
  uint64_t lag = 0;
  const uint64_t latest = latest_.has_value() ? latest_->policy_version : 0;
  for (const auto& [handle, actor] : actors_) {
    credits += actor->credits;
    if (actor->ready_version == 0) continue;
    ++ready;
    lag = std::max(lag, latest - actor->ready_version);
  }
  series_->credits->Set(credits);
  series_->attached->Set(static_cast<double>(actors_.size()));
  series_->ready->Set(ready);
  series_->version->Set(static_cast<double>(latest));
  series_->version_lag->Set(static_cast<double>(lag));
  SetPublicationGaugesLocked();
  if (ledger_ == nullptr) return;
  const LedgerBalance balance = ledger_->Balance();
  const std::array<uint64_t, 5> counts = {balance.issued, balance.trained, balance.dropped, balance.failed,
                                          balance.cancelled};
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > series_->counted[i]) {
      series_->groups[i]->Increment(static_cast<double>(counts[i] - series_->counted[i]));
    }
    series_->counted[i] = counts[i];
  }
  series_->open->Set(static_cast<double>(balance.open));
  series_->parked->Set(static_cast<double>(ledger_->parked()));
  series_->unscored->Set(static_cast<double>(ledger_->unscored()));
  for (size_t i = 0; i < series_->reward_states.size(); ++i) {
    const bool is_in = rewards_ != nullptr && static_cast<size_t>(rewards_->health().state()) == i;
    series_->reward_states[i]->Set(is_in ? 1 : 0);
    if (rewards_ == nullptr) continue;
    const uint64_t entered = rewards_->entered()[i];
    series_->reward_moves[i]->Increment(static_cast<double>(entered - series_->moves_counted[i]));
    series_->moves_counted[i] = entered;
  }
  series_->frontier->Set(static_cast<double>(balance.frontier));
  series_->ahead->Set(static_cast<double>(ledger_->ahead_of_frontier()));
  const int evaluated = decode_ == nullptr ? 0 : decode_->live_leases();
  series_->leases->Set(static_cast<double>(ledger_->live_leases()) + evaluated);
  const int to_evaluate = decode_ == nullptr ? 0 : decode_->fresh();
  series_->waiting->Set(static_cast<double>(ledger_->waiting_blocks()) + to_evaluate);
  const uint64_t ended = balance.trained + balance.dropped + balance.failed + balance.cancelled;
  series_->imbalance->Set(static_cast<double>(balance.issued) - static_cast<double>(ended + balance.open));
}

void RolloutHub::SetPublicationGaugesLocked() {
  for (int state = 0; state < kNumWeightStates; ++state) {
    series_->weight_states[static_cast<size_t>(state)]->Set(publication_.CountIn(static_cast<WeightState>(state)));
  }
  series_->group_paused->Set(publication_.GroupPaused(options_.now()) ? 1 : 0);
  const auto add = [](Counter* counter, uint64_t now, uint64_t* counted) {
    if (now > *counted) counter->Increment(static_cast<double>(now - *counted));
    *counted = now;
  };
  const PublicationCounts& now = publication_.counts();
  PublicationCounts& counted = series_->publication_counted;
  for (size_t reason = 0; reason < now.fallbacks.size(); ++reason) {
    add(series_->fallbacks[reason], now.fallbacks[reason], &counted.fallbacks[reason]);
  }
  add(series_->left_out, now.left_out, &counted.left_out);
  add(series_->mismatches, now.mismatches, &counted.mismatches);
  add(series_->from_rank, now.from_rank, &counted.from_rank);
  add(series_->from_peer, now.from_peer, &counted.from_peer);
  add(series_->from_group, now.from_group, &counted.from_group);
  add(series_->groups_formed, now.groups, &counted.groups);
  add(series_->group_pauses, now.pauses, &counted.pauses);
}

void RolloutHub::DeliverToSender() {
  while (options_.sender != nullptr) {
    std::variant<BroadcastOrder, uint64_t> order;
    {
      MutexLock lock(&mutex_);
      // Whoever delivers already takes what is new, so that an abort does not overtake what it is to end.
      if (delivering_to_sender_ || sender_outbox_.empty()) return;
      delivering_to_sender_ = true;
      order = std::move(sender_outbox_.front());
      sender_outbox_.pop_front();
    }
    if (auto* const send = std::get_if<BroadcastOrder>(&order)) {
      options_.sender->Send(std::move(*send));
    } else {
      options_.sender->Abort(std::get<uint64_t>(order));
    }
    MutexLock lock(&mutex_);
    delivering_to_sender_ = false;
  }
}

void RolloutHub::TellOfPause() {
  {
    MutexLock lock(&mutex_);
    if (publication_.counts().pauses <= pauses_told_) return;
    pauses_told_ = publication_.counts().pauses;
  }
  LogWarning("broadcasts of weights fail; actors fetch them instead for a while",
             {{"failures", options_.publication.group_failures},
              {"seconds", absl::ToDoubleSeconds(options_.publication.group_pause)}});
}

void RolloutHub::Deliver() {
  DeliverToSender();
  TellOfPause();
  while (true) {
    std::shared_ptr<Actor> actor;
    std::deque<RankMessage> batch;
    std::optional<absl::Status> close;
    {
      MutexLock lock(&mutex_);
      // Whoever delivers to an actor already takes what is new, so that one actor's messages stay in order.
      auto found = std::find_if(dirty_.begin(), dirty_.end(), [](const auto& dirty) { return !dirty->delivering; });
      if (found == dirty_.end()) return;
      actor = *found;
      dirty_.erase(found);
      actor->delivering = true;
      batch.swap(actor->outbox);
      close = actor->close;
    }
    bool sent = true;
    for (const RankMessage& message : batch) {
      sent = sent && actor->sink->Send(message);
    }
    if (!sent && !close.has_value()) close = absl::ResourceExhaustedError("the actor does not read its messages");
    if (close.has_value()) actor->sink->Close(*close);
    {
      MutexLock lock(&mutex_);
      actor->delivering = false;
      if (!sent) {
        actor->broken = true;
        RemoveLocked(actor->handle, "its actor does not read its messages");
      }
    }
  }
}

}  // namespace sluice::learner

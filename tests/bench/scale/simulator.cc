#include "tests/bench/scale/simulator.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/coordinator/membership.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/objective/judge.h"
#include "learner/publish/policy_store.h"
#include "tests/bench/scale/event_queue.h"
#include "tests/bench/scale/fair_link.h"

namespace sluice::scale {
namespace {

using learner::GroupPlan;
using learner::HubJob;
using learner::LeaseMessage;
using learner::OfferMessage;
using learner::PolicyStore;
using learner::RankMessage;
using learner::RolloutHub;
using learner::TakenGroup;
using learner::Verdict;

constexpr char kJob[] = "scale";
constexpr char kCatalog[] = "scripted";
constexpr int kLevels = 3;

// Streams of random numbers, one for each use.
enum Stream : uint64_t { kSampling = 1, kScoring, kTraining, kDeaths, kGroups };

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// One visitor for reading, writing and naming every key of the spec.
template <typename Spec, typename Visit>
void ForEachKey(Spec& s, Visit visit) {
  visit("seed", s.seed);
  visit("actors", s.actors);
  visit("rankers", s.rankers);
  visit("ranks", s.ranks);
  visit("steps", s.steps);
  visit("warmup_steps", s.warmup_steps);
  visit("groups_per_step", s.groups_per_step);
  visit("lease_groups", s.lease_groups);
  visit("group_size", s.group_size);
  visit("staleness", s.staleness);
  visit("actor_credits", s.actor_credits);
  visit("max_attempts", s.max_attempts);
  visit("lease_deadline_s", s.lease_deadline_s);
  visit("lease_s", s.lease_s);
  visit("prompt_s", s.prompt_s);
  visit("score_call_s", s.score_call_s);
  visit("score_group_s", s.score_group_s);
  visit("take_in_s", s.take_in_s);
  visit("judge_s", s.judge_s);
  visit("train_s", s.train_s);
  visit("update_s", s.update_s);
  visit("jitter", s.jitter);
  visit("weight_bytes", s.weight_bytes);
  visit("gradient_bytes", s.gradient_bytes);
  visit("encode_bandwidth", s.encode_bandwidth);
  visit("verify_bandwidth", s.verify_bandwidth);
  visit("rank_bandwidth", s.rank_bandwidth);
  visit("actor_bandwidth", s.actor_bandwidth);
  visit("reduce_bandwidth", s.reduce_bandwidth);
  visit("round_trip_s", s.round_trip_s);
  visit("fan_out", s.fan_out);
  visit("chunk_bytes", s.chunk_bytes);
  visit("actor_mtbf_s", s.actor_mtbf_s);
  visit("actor_restart_s", s.actor_restart_s);
  visit("virtual_limit_s", s.virtual_limit_s);
}

double SampleSeconds(const ScaleSpec& spec, size_t prompts) {
  return spec.lease_s + static_cast<double>(prompts) * spec.prompt_s;
}
double ScoreSeconds(const ScaleSpec& spec, size_t prompts) {
  return spec.score_call_s + static_cast<double>(prompts) * spec.score_group_s;
}
// One rank's part of a step, the all-reduce apart.
double TrainSeconds(const ScaleSpec& spec, size_t groups) {
  return spec.update_s + static_cast<double>(groups) * (spec.judge_s + spec.train_s);
}
double EncodeSeconds(const ScaleSpec& spec) { return spec.weight_bytes / spec.encode_bandwidth; }
double VerifySeconds(const ScaleSpec& spec) { return spec.weight_bytes / spec.verify_bandwidth; }
// Actors of the rank that has most of them.
int ActorsOfRank(const ScaleSpec& spec) { return (spec.actors + spec.ranks - 1) / spec.ranks; }

class Simulation {
 public:
  explicit Simulation(const ScaleSpec& spec) : spec_(spec) {}
  absl::StatusOr<ScaleResult> Run();

 private:
  struct Rank {
    std::unique_ptr<PolicyStore> store;
    std::unique_ptr<RolloutHub> hub;
    std::unique_ptr<FairLink> link;
    double intake_free = 0;                        // when its serial intake is idle again
    std::map<uint64_t, uint64_t> came;             // step -> results that came, doubles included
    std::optional<std::vector<TakenGroup>> taken;  // of the present step
    std::vector<int> actors;                       // by place in the tree
  };

  struct Actor {
    int index = 0;
    int rank = -1;      // -1: not attached
    uint64_t life = 0;  // events of an earlier life do nothing
    RolloutHub::ActorHandle handle = 0;
    bool credited = false;
    std::deque<LeaseMessage> leases;
    bool working = false;
    uint64_t offered = 0;    // the latest offer
    uint64_t followed = 0;   // the last offer that it acted on
    uint64_t fetching = 0;   // version under way, 0: none
    uint64_t receiving = 0;  // the latest version of which bytes came
    uint64_t received = 0;   // the latest version that came whole
    uint64_t loaded = 0;     // the version it samples under
    double fetch_started = 0;
    std::unique_ptr<FairLink> link;  // towards its children of the tree
    // Children that look again when this actor's transfer begins, or ends.
    std::vector<std::function<void()>> waiting;
  };

  class Sink : public learner::ActorSink {
   public:
    Sink(Simulation* simulation, int actor, uint64_t life) : simulation_(simulation), actor_(actor), life_(life) {}
    bool Send(const RankMessage& message) override {
      simulation_->Deliver(actor_, life_, message);
      return true;
    }
    void Close(const absl::Status& /*status*/) override {}

   private:
    Simulation* const simulation_;
    const int actor_;
    const uint64_t life_;
  };

  struct Call {  // to the rankers
    double seconds = 0;
    std::function<void()> done;
  };

  double Noise(Stream stream) {
    if (spec_.jitter <= 0) return 1;
    const double variance = std::log1p(spec_.jitter * spec_.jitter);
    return std::exp(std::sqrt(variance) * randoms_.at(stream).Normal() - variance / 2);
  }
  double half_trip() const { return spec_.round_trip_s / 2; }
  void Fail(const absl::Status& status) {
    if (failure_.ok() && !status.ok()) failure_ = status;
  }
  // A call into a rank's real books, its CPU time counted.
  template <typename F>
  auto Timed(F call) {
    const double began = CpuSeconds();
    struct Stop {
      double began;
      double* sum;
      ~Stop() { *sum += CpuSeconds() - began; }
    } stop{began, &hub_cpu_};
    return call();
  }
  // `seconds` from now on, as far as it lies in the measured time.
  void Count(double* sum, double seconds) const {
    if (measuring_since_.has_value()) *sum += seconds;
  }

  // Actors.
  void Attach(int index);
  void Die(int index, uint64_t life);
  void ScheduleDeath(const Actor& actor);
  void Deliver(int index, uint64_t life, const RankMessage& message);
  void Receive(Actor* actor, const RankMessage& message);
  void Work(Actor* actor);
  void Score(Actor* actor, std::shared_ptr<LeaseMessage> lease, uint64_t version);
  void StartCalls();
  void SendResults(Actor* actor, const LeaseMessage& lease, uint64_t version);
  ScoredGroup MakeGroup(const LeaseMessage& lease, size_t index, uint64_t version);

  // Weights.
  void Fetch(Actor* actor);
  Actor* ParentOf(const Actor& actor);
  // Runs `look` for this life of the actor when its parent's transfer moved on, a chunk's time later.
  void LookAgain(Actor* actor, Actor* parent, std::function<void()> look);
  void Wake(Actor* actor);
  void BeginTransfer(Actor* actor, uint64_t version);
  void TransferDone(Actor* actor, uint64_t version);
  void EndTransfer(Actor* actor, uint64_t version);
  void Loaded(Actor* actor, uint64_t version);

  // Learner.
  absl::Status Open();
  absl::Status Publish();
  absl::Status IssueAhead();
  void Tick();
  void LookForGroups(Rank* rank);
  void TrainIfReady();
  absl::Status Commit();
  ScaleResult Collect();

  const ScaleSpec spec_;
  EventQueue events_;
  absl::Status failure_;
  std::map<Stream, Random> randoms_;
  std::vector<Rank> ranks_;
  std::vector<Actor> actors_;
  std::deque<Call> calls_;
  int free_rankers_ = 0;
  learner::RlOptions options_;

  uint64_t step_ = 0;
  uint64_t issued_steps_ = 0;
  uint64_t version_ = 0;
  bool training_ = false;
  bool done_ = false;

  std::optional<double> measuring_since_;
  double hub_cpu_ = 0;
  double sampling_ = 0, scoring_ = 0, ranking_ = 0, training_time_ = 0, intake_ = 0, links_before_ = 0;
  double fetch_sum_ = 0;
  ScaleResult result_;
};

// ---------------------------------------------------------------------------------------------------- actors

void Simulation::Attach(int index) {
  Actor& actor = actors_[index];
  std::vector<uint32_t> counts;
  std::vector<std::string> addresses;
  for (const Rank& rank : ranks_) {
    counts.push_back(static_cast<uint32_t>(rank.hub->num_actors()));
    addresses.push_back(absl::StrCat("rank-", addresses.size()));
  }
  actor.rank = learner::ChooseRank(counts, addresses, {}).rank;
  std::vector<int>& places = ranks_[actor.rank].actors;
  if (std::find(places.begin(), places.end(), index) == places.end()) places.push_back(index);
  const auto handle = Timed([&] {
    return ranks_[actor.rank].hub->Attach(
        absl::StrCat("actor-", index), std::make_shared<Sink>(this, index, actor.life),
        /*scores_alone=*/false);  // by random scores a canary would find a sick ranker
  });
  if (!handle.ok()) return Fail(handle.status());
  actor.handle = *handle;
  ScheduleDeath(actor);
}

void Simulation::ScheduleDeath(const Actor& actor) {
  if (spec_.actor_mtbf_s <= 0) return;
  const double after = -spec_.actor_mtbf_s * std::log1p(-randoms_.at(kDeaths).Uniform());
  events_.After(after, [this, index = actor.index, life = actor.life] { Die(index, life); });
}

void Simulation::Die(int index, uint64_t life) {
  Actor& actor = actors_[index];
  if (actor.life != life || done_) return;
  ++result_.actor_deaths;
  ++actor.life;
  Rank& rank = ranks_[actor.rank];
  Timed([&] { rank.hub->Detach(actor.handle); });
  actor.rank = -1;
  actor.leases.clear();
  actor.credited = actor.working = false;
  actor.offered = actor.followed = actor.fetching = actor.receiving = actor.received = actor.loaded = 0;
  Wake(&actor);  // who waited for its weights turns to the rank
  events_.After(spec_.actor_restart_s, [this, index] { Attach(index); });
}

void Simulation::Deliver(int index, uint64_t life, const RankMessage& message) {
  events_.After(half_trip(), [this, index, life, message] {
    if (actors_[index].life == life) Receive(&actors_[index], message);
  });
}

void Simulation::Receive(Actor* actor, const RankMessage& message) {
  if (const auto* offer = std::get_if<OfferMessage>(&message)) {
    actor->offered = offer->policy_version;
    Fetch(actor);
  } else if (const auto* lease = std::get_if<LeaseMessage>(&message)) {
    ++result_.leases;
    actor->leases.push_back(*lease);
    Work(actor);
  } else if (const auto* ack = std::get_if<learner::AckMessage>(&message)) {
    if (!ack->accepted) ++result_.refused;
  }
}

void Simulation::Work(Actor* actor) {
  if (actor->working || actor->leases.empty()) return;
  auto lease = std::make_shared<LeaseMessage>(std::move(actor->leases.front()));
  actor->leases.pop_front();
  actor->working = true;
  // The policy is taken once a lease; a newer one that comes meanwhile serves the next.
  const uint64_t version = actor->loaded;
  const double seconds = SampleSeconds(spec_, lease->prompts.size()) * Noise(kSampling);
  Count(&sampling_, seconds);
  events_.After(seconds, [this, actor, lease = std::move(lease), version, life = actor->life] {
    if (actor->life == life) Score(actor, lease, version);
  });
}

void Simulation::Score(Actor* actor, std::shared_ptr<LeaseMessage> lease, uint64_t version) {
  const double asked = events_.now();
  const double seconds = ScoreSeconds(spec_, lease->prompts.size()) * Noise(kScoring);
  auto done = [this, actor, lease, version, asked, life = actor->life] {
    events_.After(half_trip(), [this, actor, lease, version, asked, life] {
      if (actor->life != life) return;
      Count(&scoring_, events_.now() - asked);
      SendResults(actor, *lease, version);
      actor->working = false;
      Work(actor);
    });
  };
  events_.After(half_trip(), [this, call = Call{seconds, std::move(done)}] {
    calls_.push_back(call);
    StartCalls();
  });
}

void Simulation::StartCalls() {
  while (free_rankers_ > 0 && !calls_.empty()) {
    Call call = std::move(calls_.front());
    calls_.pop_front();
    --free_rankers_;
    Count(&ranking_, call.seconds);
    events_.After(call.seconds, [this, done = std::move(call.done)] {
      ++free_rankers_;
      done();
      StartCalls();
    });
  }
}

ScoredGroup Simulation::MakeGroup(const LeaseMessage& lease, size_t index, uint64_t version) {
  const Prompt& prompt = lease.prompts[index];
  ScoredGroup group;
  group.ordinal = prompt.ordinal;
  group.attempt = prompt.attempt;
  group.lease_id = lease.lease_id;
  group.behavior_version = version;
  group.catalog_version = kCatalog;
  group.completions.resize(static_cast<size_t>(spec_.group_size));
  Random random(DeriveSeed(spec_.seed, {kGroups, prompt.ordinal}));
  learner::RlOptions& options = options_;
  ScoreHead head;
  head.name = options.reward.head;
  const int32_t first = static_cast<int32_t>(random.Below(1 << 20));
  for (size_t i = 0; i < group.completions.size(); ++i) {
    Completion& completion = group.completions[i];
    completion.leaf = first + static_cast<int32_t>(i);
    completion.tokens.assign(kLevels, completion.leaf);
    completion.log_probs_full.assign(kLevels, -1.0f - static_cast<float>(i) / 16);
    completion.log_probs_trie = completion.log_probs_full;
    head.completion_scores.push_back(static_cast<float>(random.Uniform()));
  }
  head.target_score = static_cast<float>(random.Uniform());
  for (int m = 0; m < options.gate.negatives; ++m) {
    group.negative_leaves.push_back((1 << 21) + m);
    head.negative_scores.push_back(static_cast<float>(random.Uniform()) / 8);
  }
  group.target_log_probs_full.assign(kLevels, -2.0f);
  group.target_log_probs_trie.assign(kLevels, -1.5f);
  group.score_status = ScoreStatus::kOk;
  group.ranker_version = "scripted";
  group.heads.push_back(std::move(head));
  return group;
}

void Simulation::SendResults(Actor* actor, const LeaseMessage& lease, uint64_t version) {
  auto results = std::make_shared<std::vector<learner::ActorResult>>();
  for (size_t i = 0; i < lease.prompts.size(); ++i) {
    results->push_back({lease.job_id, lease.epoch, MakeGroup(lease, i, version)});
  }
  Rank& rank = ranks_[actor->rank];
  std::vector<uint64_t> steps;
  for (const Prompt& prompt : lease.prompts) {
    steps.push_back(prompt.ordinal / static_cast<uint64_t>(spec_.groups_per_step));
  }
  // One message after the other through the rank's intake, behind what is there already.
  const double seconds = spec_.take_in_s * static_cast<double>(results->size());
  rank.intake_free = std::max(rank.intake_free, events_.now() + half_trip()) + seconds;
  Count(&intake_, seconds);
  events_.At(rank.intake_free, [this, &rank, results, steps = std::move(steps), handle = actor->handle] {
    if (done_) return;
    Timed([&] {
      for (learner::ActorResult& result : *results) rank.hub->OnResult(handle, std::move(result));
      rank.hub->OnCredit(handle, 1);
    });
    for (const uint64_t step : steps) ++rank.came[step];
    // A look goes over all actors: only when the step's last group may have come.
    if (rank.came[step_] * ranks_.size() >= static_cast<uint64_t>(spec_.groups_per_step)) LookForGroups(&rank);
  });
}

// --------------------------------------------------------------------------------------------------- weights

void Simulation::Fetch(Actor* actor) {
  if (actor->fetching != 0 || actor->offered == actor->followed) return;
  const uint64_t version = actor->followed = actor->offered;
  // What is no longer kept was overtaken, and the offer of a newer version is under way.
  if (!ranks_[actor->rank].store->Find(kJob, version).ok()) {
    ++result_.fetches_too_late;
    return;
  }
  actor->fetching = version;
  actor->fetch_started = events_.now();
  BeginTransfer(actor, version);
}

Simulation::Actor* Simulation::ParentOf(const Actor& actor) {
  if (spec_.fan_out == 0) return nullptr;
  const std::vector<int>& places = ranks_[actor.rank].actors;
  const size_t place = static_cast<size_t>(std::find(places.begin(), places.end(), actor.index) - places.begin());
  const size_t fan_out = static_cast<size_t>(spec_.fan_out);
  if (place < fan_out) return nullptr;  // the rank itself
  Actor* const parent = &actors_[places[place / fan_out - 1]];
  return parent->rank == actor.rank ? parent : nullptr;
}

void Simulation::LookAgain(Actor* actor, Actor* parent, std::function<void()> look) {
  parent->waiting.push_back([this, actor, look = std::move(look), life = actor->life] {
    events_.After(spec_.chunk_bytes / spec_.actor_bandwidth, [actor, look, life] {
      if (actor->life == life) look();
    });
  });
}

void Simulation::Wake(Actor* actor) {
  for (auto& wake : std::exchange(actor->waiting, {})) wake();
}

void Simulation::BeginTransfer(Actor* actor, uint64_t version) {
  Actor* const parent = ParentOf(*actor);
  if (parent != nullptr && parent->receiving < version) {
    return LookAgain(actor, parent, [this, actor, version] { BeginTransfer(actor, version); });
  }
  actor->receiving = version;
  Wake(actor);
  FairLink& link = parent == nullptr ? *ranks_[actor->rank].link : *parent->link;
  link.Start(spec_.weight_bytes, [this, actor, version, life = actor->life] {
    if (actor->life == life) TransferDone(actor, version);
  });
}

void Simulation::TransferDone(Actor* actor, uint64_t version) {
  // Chunks are passed on as they come: the last one leaves the parent after it has come there.
  Actor* const parent = ParentOf(*actor);
  if (parent != nullptr && parent->fetching >= version && parent->received < version) {
    return LookAgain(actor, parent, [this, actor, version] { TransferDone(actor, version); });
  }
  actor->received = version;
  Wake(actor);
  EndTransfer(actor, version);
}

void Simulation::EndTransfer(Actor* actor, uint64_t version) {
  events_.After(VerifySeconds(spec_), [this, actor, version, life = actor->life] {
    if (actor->life == life) Loaded(actor, version);
  });
}

void Simulation::Loaded(Actor* actor, uint64_t version) {
  actor->loaded = version;
  actor->fetching = 0;
  const double seconds = events_.now() - actor->fetch_started;
  ++result_.fetches;
  fetch_sum_ += seconds;
  result_.fetch_seconds_max = std::max(result_.fetch_seconds_max, seconds);
  const bool first = !std::exchange(actor->credited, true);
  events_.After(half_trip(), [this, actor, version, first, life = actor->life] {
    if (actor->life != life || done_) return;
    RolloutHub& hub = *ranks_[actor->rank].hub;
    Timed([&] {
      hub.OnReady(actor->handle, kJob, version);
      if (first) hub.OnCredit(actor->handle, static_cast<uint32_t>(spec_.actor_credits));
    });
  });
  Fetch(actor);
}

// --------------------------------------------------------------------------------------------------- learner

absl::Status Simulation::Open() {
  options_.steps = spec_.steps;
  options_.groups_per_step = spec_.groups_per_step;
  options_.group_size = spec_.group_size;
  options_.staleness = spec_.staleness;
  options_.lease_groups = spec_.lease_groups;
  options_.lease_deadline_s = spec_.lease_deadline_s;
  options_.max_attempts = spec_.max_attempts;
  HubJob job;
  job.job_id = kJob;
  job.epoch = 1;
  job.seed = spec_.seed;
  job.catalog_version = kCatalog;
  job.levels = kLevels;
  job.options = options_;
  job.groups_per_step = spec_.groups_per_step / spec_.ranks;
  ranks_.resize(static_cast<size_t>(spec_.ranks));
  for (Rank& rank : ranks_) {
    rank.store = std::make_unique<PolicyStore>();
    rank.link = std::make_unique<FairLink>(&events_, spec_.rank_bandwidth, spec_.actor_bandwidth);
    RolloutHub::Options options;
    options.now = [this] { return events_.time(); };
    options.snapshots = rank.store.get();
    options.actor_timeout = absl::InfiniteDuration();  // no heartbeats here
    rank.hub = std::make_unique<RolloutHub>(std::move(options));
    SLUICE_RETURN_IF_ERROR(rank.hub->StartJob(job));
  }
  for (const Stream stream : {kSampling, kScoring, kTraining, kDeaths, kGroups}) {
    randoms_.emplace(stream, Random(spec_.seed, stream));
  }
  free_rankers_ = spec_.rankers;
  actors_.resize(static_cast<size_t>(spec_.actors));
  for (int i = 0; i < spec_.actors; ++i) {
    actors_[i].index = i;
    actors_[i].link = std::make_unique<FairLink>(&events_, spec_.actor_bandwidth, spec_.actor_bandwidth);
    Attach(i);
  }
  SLUICE_RETURN_IF_ERROR(Publish());
  SLUICE_RETURN_IF_ERROR(IssueAhead());
  events_.After(1, [this] { Tick(); });
  return absl::OkStatus();
}

absl::Status Simulation::Publish() {
  ++version_;
  ++result_.versions;
  const std::vector<float> weights = {static_cast<float>(version_)};
  const auto snapshot = learner::MakeSnapshot(version_, weights);
  for (Rank& rank : ranks_) Timed([&] { rank.hub->Publish(snapshot); });
  return absl::OkStatus();
}

absl::Status Simulation::IssueAhead() {
  // Past the last measured step too, so that the end is no quieter than the middle; what is open then is cancelled.
  const uint64_t window_end = step_ + 1 + static_cast<uint64_t>(spec_.staleness);
  const uint64_t groups = static_cast<uint64_t>(spec_.groups_per_step);
  const uint64_t slice = groups / static_cast<uint64_t>(spec_.ranks);
  for (; issued_steps_ < window_end; ++issued_steps_) {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      std::vector<Prompt> prompts(slice);
      for (uint64_t i = 0; i < slice; ++i) {
        prompts[i].ordinal = issued_steps_ * groups + r * slice + i;
        prompts[i].user = 0;
        prompts[i].target = 0;
      }
      SLUICE_RETURN_IF_ERROR(Timed([&] { return ranks_[r].hub->Issue(issued_steps_, std::move(prompts)); }));
    }
  }
  return absl::OkStatus();
}

void Simulation::Tick() {
  if (done_) return;
  for (Rank& rank : ranks_) {
    Timed([&] { rank.hub->Tick(); });
    LookForGroups(&rank);
  }
  events_.After(1, [this] { Tick(); });
}

void Simulation::LookForGroups(Rank* rank) {
  if (rank->taken.has_value() || training_ || done_ || !failure_.ok()) return;
  // Waiting without patience is a look.
  absl::StatusOr<std::vector<TakenGroup>> taken = Timed([&] { return rank->hub->Wait(step_, absl::ZeroDuration()); });
  if (absl::IsUnavailable(taken.status())) return;
  if (!taken.ok()) return Fail(taken.status());
  rank->taken = *std::move(taken);
  TrainIfReady();
}

void Simulation::TrainIfReady() {
  for (const Rank& rank : ranks_) {
    if (!rank.taken.has_value()) return;
  }
  training_ = true;
  double slowest = 0;
  for (const Rank& rank : ranks_) {
    slowest = std::max(slowest, TrainSeconds(spec_, rank.taken->size()) * Noise(kTraining));
  }
  const double seconds = slowest +
                         ReduceSeconds(spec_.gradient_bytes, spec_.ranks, spec_.reduce_bandwidth, spec_.round_trip_s) +
                         EncodeSeconds(spec_);
  Count(&training_time_, seconds);
  events_.After(seconds, [this] { Fail(Commit()); });
}

absl::Status Simulation::Commit() {
  learner::JudgeContext context;
  context.learner_version = version_;
  context.catalog_version = kCatalog;
  context.levels = kLevels;
  for (Rank& rank : ranks_) {
    const std::vector<TakenGroup> groups = *std::exchange(rank.taken, std::nullopt);
    std::vector<Verdict> verdicts;
    for (const TakenGroup& one : groups) {
      SLUICE_ASSIGN_OR_RETURN(const GroupPlan plan,
                              learner::Judge({one.prompt.ordinal, one.group ? &*one.group : nullptr, one.prompt.target},
                                             options_, context));
      if (one.group.has_value()) ++result_.staleness[plan.staleness];
      if (plan.verdict.reason == learner::GateReason::kStale) ++result_.stale_closed;
      if (plan.verdict.reason == learner::GateReason::kUnsampled) ++result_.unsampled;
      verdicts.push_back({one.prompt.ordinal, learner::TerminalState::kTrained,
                          std::string(learner::GateReasonName(plan.verdict.reason))});
    }
    SLUICE_RETURN_IF_ERROR(Timed([&] { return rank.hub->Commit(step_, verdicts); }));
  }
  for (Rank& rank : ranks_) rank.came.erase(step_);
  ++step_;
  training_ = false;
  SLUICE_RETURN_IF_ERROR(Publish());
  if (step_ == static_cast<uint64_t>(spec_.warmup_steps)) {
    measuring_since_ = events_.now();
    for (const Rank& rank : ranks_) links_before_ += rank.link->busy_seconds();
  }
  if (step_ == static_cast<uint64_t>(spec_.steps)) {
    done_ = true;
    return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(IssueAhead());
  for (Rank& rank : ranks_) LookForGroups(&rank);
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------------------ the run

ScaleResult Simulation::Collect() {
  const double seconds = events_.now() - measuring_since_.value_or(0);
  const double steps = spec_.steps - spec_.warmup_steps;
  result_.step_s = seconds / steps;
  result_.groups_per_s = steps * spec_.groups_per_step / seconds;
  uint64_t groups = 0;
  double sum = 0;
  for (const auto& [behind, count] : result_.staleness) {
    groups += count;
    sum += static_cast<double>(behind) * static_cast<double>(count);
  }
  result_.staleness_mean = groups > 0 ? sum / static_cast<double>(groups) : 0;
  double links = -links_before_;
  for (const Rank& rank : ranks_) links += rank.link->busy_seconds();
  result_.actor_sampling = sampling_ / seconds / spec_.actors;
  result_.actor_scoring = scoring_ / seconds / spec_.actors;
  result_.ranker_busy = ranking_ / seconds / spec_.rankers;
  result_.rank_training = training_time_ / seconds;
  result_.rank_intake = intake_ / seconds / spec_.ranks;
  result_.link_busy = links / seconds / spec_.ranks;
  result_.fetch_seconds_mean = result_.fetches > 0 ? fetch_sum_ / static_cast<double>(result_.fetches) : 0;
  result_.hub_cpu_s_per_group = hub_cpu_ / (static_cast<double>(spec_.steps) * spec_.groups_per_step);
  result_.bounds = AnalyticBounds(spec_);
  return std::move(result_);
}

absl::StatusOr<ScaleResult> Simulation::Run() {
  SLUICE_RETURN_IF_ERROR(spec_.Validate());
  SLUICE_RETURN_IF_ERROR(Open());
  if (spec_.warmup_steps == 0) measuring_since_ = 0;
  while (!done_ && failure_.ok()) {
    if (events_.now() > spec_.virtual_limit_s) {
      return absl::DeadlineExceededError(absl::StrCat("step ", step_, " of ", spec_.steps, " was not done after ",
                                                      spec_.virtual_limit_s, " virtual seconds"));
    }
    SLUICE_CHECK(events_.Step(), "a simulation that is not done has something to come");
  }
  SLUICE_RETURN_IF_ERROR(failure_);
  learner::LedgerBalance total;
  for (Rank& rank : ranks_) {
    SLUICE_RETURN_IF_ERROR(rank.hub->CheckLedger());
    rank.hub->CancelOpen();
    SLUICE_RETURN_IF_ERROR(rank.hub->CheckLedger());
    const learner::LedgerBalance balance = rank.hub->Balance();
    total.issued += balance.issued;
    total.trained += balance.trained;
    total.dropped += balance.dropped;
    total.failed += balance.failed;
    total.cancelled += balance.cancelled;
    total.open += balance.open;
    total.frontier = std::max(total.frontier, balance.frontier);
  }
  const uint64_t wanted = static_cast<uint64_t>(spec_.steps) * static_cast<uint64_t>(spec_.groups_per_step);
  if (!total.Holds() || total.open != 0 || total.trained != wanted) {
    return absl::InternalError(absl::StrCat("want ", wanted, " trained and none open, got issued ", total.issued,
                                            ", trained ", total.trained, ", cancelled ", total.cancelled, ", open ",
                                            total.open));
  }
  result_.balance = total;
  return Collect();
}

}  // namespace

absl::Status ScaleSpec::Validate() const {
  absl::Status status;
  const auto want = [&status](bool holds, const std::string& what) {
    if (status.ok() && !holds) status = absl::InvalidArgumentError("want " + what);
  };
  want(actors >= 1 && actors <= 100000, absl::StrCat("1 to 100000 actors, got ", actors));
  want(rankers >= 1, absl::StrCat("at least 1 ranker, got ", rankers));
  want(ranks >= 1 && ranks <= actors, absl::StrCat("1 to ", actors, " ranks, each with an actor, got ", ranks));
  want(warmup_steps >= 0 && warmup_steps < steps,
       absl::StrCat("fewer warmup_steps than steps, got ", warmup_steps, " of ", steps));
  want(lease_groups >= 1, absl::StrCat("lease_groups of at least 1, got ", lease_groups));
  want(groups_per_step >= 1 && lease_groups >= 1 && groups_per_step % (ranks * lease_groups) == 0,
       absl::StrCat("groups_per_step as a multiple of ranks times lease_groups, got ", groups_per_step));
  want(group_size >= 2 && group_size <= 1024, absl::StrCat("group_size of 2 to 1024, got ", group_size));
  want(staleness >= 0 && staleness <= 64, absl::StrCat("staleness of 0 to 64, got ", staleness));
  want(actor_credits >= 1 && actor_credits <= 256, absl::StrCat("actor_credits of 1 to 256, got ", actor_credits));
  want(fan_out >= 0, absl::StrCat("fan_out of at least 0, got ", fan_out));
  ForEachKey(*this, [&want](const char* name, const auto& value) {
    want(static_cast<double>(value) >= 0 && std::isfinite(static_cast<double>(value)),
         absl::StrCat(name, " finite and not negative, got ", value));
  });
  for (const double bandwidth :
       {encode_bandwidth, verify_bandwidth, rank_bandwidth, actor_bandwidth, reduce_bandwidth}) {
    want(bandwidth > 0, "bandwidths above 0");
  }
  want(prompt_s + lease_s > 0, "a lease that takes time: prompt_s or lease_s above 0");
  return status;
}

absl::StatusOr<ScaleSpec> ScaleSpec::FromJson(const nlohmann::json& json) {
  ScaleSpec spec;
  nlohmann::json left = json;
  try {
    ForEachKey(spec, [&left](const char* name, auto& value) {
      if (auto found = left.find(name); found != left.end()) {
        value = found->get<std::decay_t<decltype(value)>>();
        left.erase(found);
      }
    });
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a spec: ", error.what()));
  }
  if (!left.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no key of a spec: '", left.begin().key(), "'"));
  }
  SLUICE_RETURN_IF_ERROR(spec.Validate());
  return spec;
}

nlohmann::ordered_json ScaleSpec::ToJson() const {
  nlohmann::ordered_json json;
  ForEachKey(*this, [&json](const char* name, const auto& value) { json[name] = value; });
  return json;
}

double ReduceSeconds(double bytes, int ranks, double bandwidth, double round_trip_s) {
  if (ranks < 2) return 0;
  return 2.0 * (ranks - 1) / ranks * bytes / bandwidth + 2.0 * (ranks - 1) * round_trip_s / 2;
}

double FanOutSeconds(const ScaleSpec& spec) {
  const int actors = ActorsOfRank(spec);
  const double bytes = spec.weight_bytes;
  if (spec.fan_out == 0 || actors <= spec.fan_out) {
    return bytes / std::min(spec.rank_bandwidth / actors, spec.actor_bandwidth) + VerifySeconds(spec);
  }
  const double k = spec.fan_out;
  // Every node sends k copies: the slowest of them sets the pace, and each level adds a chunk's time twice, on its way
  // in and at its end.
  const double rate = std::min({spec.rank_bandwidth / k, spec.actor_bandwidth / k, spec.actor_bandwidth});
  int depth = 0;
  double reached = 0, level = 1;
  while (reached < actors) {
    level *= k;
    reached += level;
    ++depth;
  }
  return bytes / rate + (depth - 1) * spec.chunk_bytes / spec.actor_bandwidth + VerifySeconds(spec);
}

Bounds AnalyticBounds(const ScaleSpec& spec) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double n = spec.lease_groups;
  const double sampled = SampleSeconds(spec, static_cast<size_t>(spec.lease_groups));
  const double scored = ScoreSeconds(spec, static_cast<size_t>(spec.lease_groups));
  const double lease = sampled + spec.round_trip_s + scored;
  const double slice = static_cast<double>(spec.groups_per_step) / spec.ranks;
  const double step = TrainSeconds(spec, static_cast<size_t>(slice)) +
                      ReduceSeconds(spec.gradient_bytes, spec.ranks, spec.reduce_bandwidth, spec.round_trip_s) +
                      EncodeSeconds(spec);
  Bounds bounds;
  bounds.actors = spec.actors * n / lease;
  bounds.rankers = scored > 0 ? spec.rankers * n / scored : kInfinity;
  bounds.intake = spec.take_in_s > 0 ? spec.ranks / spec.take_in_s : kInfinity;
  bounds.train = step > 0 ? spec.groups_per_step / step : kInfinity;
  // The way of a step: offer, weights, ready, lease; its turns of leases at the busiest rank if nothing else is open;
  // results in; training.
  const double actors = spec.actors / spec.ranks;
  const double turns = spec.staleness == 0 ? std::ceil(slice / n / actors) : 1;
  const double way = spec.round_trip_s / 2 + FanOutSeconds(spec) + spec.round_trip_s + turns * lease +
                     spec.round_trip_s / 2 + n * spec.take_in_s + step;
  bounds.window = (spec.staleness + 1) * spec.groups_per_step / way;
  return bounds;
}

double Bounds::lowest() const { return std::min({actors, rankers, intake, train, window}); }

std::string Bounds::name_of_lowest() const {
  const double least = lowest();
  if (least == actors) return "actors";
  if (least == rankers) return "rankers";
  if (least == intake) return "intake";
  if (least == train) return "train";
  return "window";
}

nlohmann::ordered_json ScaleResult::ToJson(bool with_timing) const {
  nlohmann::ordered_json behind = nlohmann::ordered_json::object();
  for (const auto& [versions, groups] : staleness) behind[std::to_string(versions)] = groups;
  nlohmann::ordered_json json = {{"groups_per_s", groups_per_s},
                                 {"step_s", step_s},
                                 {"staleness", behind},
                                 {"staleness_mean", staleness_mean},
                                 {"stale_closed", stale_closed},
                                 {"unsampled", unsampled},
                                 {"utilisation",
                                  {{"actor_sampling", actor_sampling},
                                   {"actor_scoring", actor_scoring},
                                   {"ranker", ranker_busy},
                                   {"rank_training", rank_training},
                                   {"rank_intake", rank_intake},
                                   {"rank_link", link_busy}}},
                                 {"weights",
                                  {{"versions", versions},
                                   {"fetches", fetches},
                                   {"fetches_too_late", fetches_too_late},
                                   {"fetch_s_mean", fetch_seconds_mean},
                                   {"fetch_s_max", fetch_seconds_max}}},
                                 {"leases", leases},
                                 {"refused_results", refused},
                                 {"actor_deaths", actor_deaths},
                                 {"ledger",
                                  {{"issued", balance.issued},
                                   {"trained", balance.trained},
                                   {"dropped", balance.dropped},
                                   {"failed", balance.failed},
                                   {"cancelled", balance.cancelled},
                                   {"open", balance.open}}},
                                 {"bounds",
                                  {{"actors", bounds.actors},
                                   {"rankers", bounds.rankers},
                                   {"intake", bounds.intake},
                                   {"train", bounds.train},
                                   {"window", bounds.window},
                                   {"lowest", bounds.name_of_lowest()}}}};
  if (with_timing) json["hub_cpu_us_per_group"] = 1e6 * hub_cpu_s_per_group;
  return json;
}

absl::StatusOr<ScaleResult> Simulate(const ScaleSpec& spec) { return Simulation(spec).Run(); }

}  // namespace sluice::scale

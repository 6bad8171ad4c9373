#include "actor/rpc/actor_client.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/rollout/check_scores.h"
#include "actor/rpc/rollout_convert.h"
#include "common/failpoint/failpoint.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/rendezvous.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "common/sync/thread.h"
#include "common/transfer/transfer.h"
#include "common/types/score_status_name.h"
#include "sluice/v1/member.grpc.pb.h"

namespace sluice::actor {
namespace {

// Trying the same again cannot help.
bool IsFinal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
}

uint64_t SeedOf(const std::string& actor_id) { return std::hash<std::string>()(actor_id); }

constexpr char kJobField[] = "job";

// As rollout.proto says.
constexpr size_t kLinesPerBeat = 20;

// Of a fetch from another actor.
constexpr absl::Duration kPeerTimeout = absl::Minutes(2);

std::vector<double> TimeBuckets() { return {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100}; }

// What is wrong with TLS, if that is why `address` cannot be reached. Still a status that is tried again: certificates
// are mended while actors wait.
absl::Status Explain(const absl::Status& status, const Credentials& credentials, const std::string& address,
                     RoleSet server) {
  return absl::Status(status.code(), credentials.Explain(status, address, server).message());
}

}  // namespace

struct ActorClient::Series {
  explicit Series(Metrics* metrics) {
    if (metrics == nullptr) return;
    attached = metrics->AddGauge("sluice_actor_attached", "1 while attached to a learner rank.");
    version = metrics->AddGauge("sluice_policy_version", "The policy version that blocks are sampled with.");
    sessions = metrics->AddCounter("sluice_actor_sessions_total", "Streams opened to learner ranks.");
    groups = metrics->AddCounter("sluice_groups_sampled_total", "Groups sampled.");
    tokens = metrics->AddCounter("sluice_sample_tokens_total", "Tokens of sampled completions.");
    decoded = metrics->AddCounter("sluice_prompts_decoded_total", "Prompts decoded for evaluation.");
    busy = metrics->AddCounter("sluice_actor_busy_seconds_total", "Time spent executing leases.");
    block = metrics->AddHistogram("sluice_lease_block_seconds", "Time to execute one lease block.", TimeBuckets());
    transfer = metrics->AddHistogram("sluice_weight_phase_seconds", "Time of one phase of a weight update.",
                                     TimeBuckets(), {{"phase", "transfer"}});
    commit = metrics->AddHistogram("sluice_weight_phase_seconds", "Time of one phase of a weight update.",
                                   TimeBuckets(), {{"phase", "commit"}});
    broadcast_bytes =
        metrics->AddCounter("sluice_weight_broadcast_bytes_total", "Bytes of weights received by a broadcast.");
    peer_fallbacks = metrics->AddCounter("sluice_peer_fallbacks_total",
                                         "Versions that another actor did not deliver, and the rank did.");
    for (const char* outcome : {"done", "failed", "returned", "void"}) {
      leases[outcome] =
          metrics->AddCounter("sluice_leases_total", "Leases by what became of them.", {{"outcome", outcome}});
    }
    for (const ScoreStatus status : {ScoreStatus::kOk, ScoreStatus::kUnavailable, ScoreStatus::kInvalid,
                                     ScoreStatus::kRejected, ScoreStatus::kNotAsked}) {
      scores[status] = metrics->AddCounter("sluice_reward_status_total", "Groups by the status of their scores.",
                                           {{"status", std::string(ScoreStatusName(status))}});
    }
    refused = metrics->AddCounter("sluice_results_refused_total", "Results that the learner did not take.");
  }

  void Lease(const char* outcome) {
    if (auto found = leases.find(outcome); found != leases.end()) found->second->Increment();
  }

  void Outcomes(LeaseKind kind, const std::vector<PromptOutcome>& outcomes, double seconds) {
    if (groups == nullptr) return;
    busy->Increment(seconds);
    block->Observe(seconds);
    for (const PromptOutcome& outcome : outcomes) {
      if (std::holds_alternative<DecodedPrompt>(outcome.result)) decoded->Increment();
      const auto* group = std::get_if<ScoredGroup>(&outcome.result);
      if (group == nullptr) continue;
      if (kind == LeaseKind::kRollout) groups->Increment();  // the canary's are scored alone
      for (const Completion& completion : group->completions) {
        tokens->Increment(static_cast<double>(completion.tokens.size()));
      }
      scores[group->score_status]->Increment();
    }
  }

  Gauge* attached = nullptr;
  Gauge* version = nullptr;
  Counter* sessions = nullptr;
  Counter* groups = nullptr;
  Counter* tokens = nullptr;
  Counter* decoded = nullptr;
  Counter* busy = nullptr;
  Histogram* block = nullptr;
  Histogram* transfer = nullptr;
  Histogram* commit = nullptr;
  Counter* refused = nullptr;
  Counter* peer_fallbacks = nullptr;
  Counter* broadcast_bytes = nullptr;
  std::map<std::string, Counter*> leases;
  std::map<ScoreStatus, Counter*> scores;
};

ActorClient::ActorClient(ActorClientOptions options, PolicyLoader* loader, Execute execute)
    : options_(std::move(options)),
      loader_(loader),
      execute_(std::move(execute)),
      series_(std::make_unique<Series>(options_.metrics)),
      lines_({}, options_.now),
      random_(SeedOf(options_.actor_id)),
      fetcher_([this] {
        PolicyFetcher::Options fetch;
        fetch.now = options_.now;
        fetch.wait = [this](absl::Duration delay) { return !stopping_.WaitFor(delay); };
        fetch.metrics = options_.metrics;
        fetch.seed = DeriveSeed(SeedOf(options_.actor_id), {1});
        return fetch;
      }()),
      peer_fetcher_([this] {
        PolicyFetcher::Options fetch;
        // One try, as the rank has the version too; time enough for a payload of 16 GiB at 140 MB/s.
        fetch.retry = {.attempt_timeout = kPeerTimeout, .total_timeout = kPeerTimeout};
        fetch.now = options_.now;
        fetch.wait = [](absl::Duration) { return false; };
        fetch.metrics = options_.metrics;
        return fetch;
      }()) {}

ActorClient::~ActorClient() = default;

void ActorClient::Tell(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  JobLine line;
  line.level = level == LogLevel::kError ? "error" : level == LogLevel::kWarning ? "warning" : "info";
  line.text = std::string(message);
  line.time = options_.wall();
  const char* between = ": ";
  for (const LogField& field : fields) {
    if (field.name() == kJobField) {
      line.job_id = field.text();
    } else {
      absl::StrAppend(&line.text, std::exchange(between, ", "), field.name(), "=", field.text());
    }
  }
  lines_.Tell(std::move(line));
  Log(level, message, fields);
}

// ------------------------------------------------------------------------------------------------- attaching

absl::Status ActorClient::Run() {
  Thread fetch = StartThread("actor-fetch", [this] { FetchLoop(); });
  Thread work = StartThread("actor-work", [this] { WorkLoop(); });
  absl::Status final_status;
  int failures = 0;
  while (!stopping_.HasBeenNotified()) {
    const absl::StatusOr<std::string> address = FindRank();
    absl::Status status = address.status();
    if (address.ok()) {
      status = Attend(*address);
      // A session that this actor cancelled itself, as its weights did not come, is a failure too.
      if (attached_ && !absl::IsCancelled(status)) failures = 0;
      // Sent away is not lost: some other rank needs this actor more.
      avoid_ = attached_ && !absl::IsResourceExhausted(status) ? "" : *address;
    }
    if (stopping_.HasBeenNotified()) break;
    if (IsFinal(status)) {
      final_status = status;
      break;
    }
    const absl::Duration delay = BackoffDelay(options_.reconnect, ++failures, random_.Uniform());
    // At tries 1, 2, 4, 8, ...: an actor may wait for a long time.
    if ((failures & (failures - 1)) == 0) {
      LogWarning("not attached to a learner rank",
                 {{"error", status.ok() ? "the rank ended the stream" : status.message()},
                  {"tries", failures},
                  {"retry_in_s", absl::ToDoubleSeconds(delay)}});
    }
    stopping_.WaitFor(delay);
  }
  if (!final_status.ok()) GiveUp();
  stopping_.Notify();
  work_.Close();
  {
    MutexLock lock(&mutex_);
    fetch_changed_.NotifyAll();
  }
  work.Join();
  fetch.Join();
  return final_status;
}

absl::StatusOr<std::string> ActorClient::FindRank() {
  if (!options_.learner.empty()) return options_.learner;
  const RoleSet coordinator = {Role::kCoordinator};
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                          MakeChannel(options_.coordinator, options_.credentials, coordinator));
  const auto stub = v1::MemberService::NewStub(channel);
  grpc::ClientContext context;
  SetDeadline(&context, options_.reconnect.attempt_timeout);
  v1::AttachActorRequest request;
  request.set_actor_id(options_.actor_id);
  if (!avoid_.empty()) request.add_avoid(avoid_);
  avoid_.clear();  // not for ever: it may be the only one
  v1::AttachActorResponse response;
  const absl::Status status = FromGrpc(stub->AttachActor(&context, request, &response));
  if (!status.ok()) {
    return Annotate(Explain(status, *options_.credentials, options_.coordinator, coordinator),
                    absl::StrCat("the coordinator at ", options_.coordinator));
  }
  SLUICE_RETURN_IF_ERROR(CheckAddress("the rank's address", response.address()));
  return response.address();
}

absl::Status ActorClient::Attend(const std::string& address) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                          MakeChannel(address, options_.credentials, {Role::kRank}));
  const auto session = std::make_shared<WorkSession>(
      channel, WorkSession::Options{.actor_id = options_.actor_id,
                                    .software_version = options_.software_version,
                                    .peer_address = options_.peers != nullptr ? options_.peer_address : "",
                                    .weight_group = options_.weight_group,
                                    .heartbeat = options_.heartbeat});
  std::shared_ptr<WeightReceiver> receiver;
  if (options_.make_receiver) receiver = options_.make_receiver(std::make_shared<RendezvousClient>(channel));
  {
    MutexLock lock(&mutex_);
    if (draining_) return absl::OkStatus();
    assignment_ = Assignment{.session = session, .channel = channel, .receiver = std::move(receiver)};
    ++generation_;
    group_epoch_ = 0;
    receiving_ = false;
  }
  attached_ = false;
  if (series_->sessions != nullptr) series_->sessions->Increment();
  absl::Status status = session->Run([this, &session, &address] { return Beat(session, address); },
                                     [this, &session, &address](const v1::RankMessage& message) {
                                       MarkAttached(address);
                                       return Receive(session, message);
                                     });
  {
    GivenUp given_up;
    MutexLock lock(&mutex_);
    GiveUpGroup(/*idle=*/true, &given_up);
    assignment_ = Assignment();
    ++generation_;
    credited_ = false;
    fetch_changed_.NotifyAll();
  }
  if (attached_ && options_.on_attached) options_.on_attached(false);
  if (series_->attached != nullptr) series_->attached->Set(0);
  if (status.ok()) return status;
  if (!attached_) status = Explain(status, *options_.credentials, address, {Role::kRank});
  return Annotate(status, absl::StrCat("the rank at ", address));
}

void ActorClient::MarkAttached(const std::string& address) {
  if (attached_.exchange(true)) return;
  LogInfo("attached to a learner rank", {{"address", address}, {"actor", options_.actor_id}});
  if (series_->attached != nullptr) series_->attached->Set(1);
  if (options_.on_attached) options_.on_attached(true);
}

v1::Heartbeat ActorClient::Beat(const std::shared_ptr<WorkSession>& session, const std::string& address) {
  MarkAttached(address);
  v1::Heartbeat beat;
  bool give_up = false;
  std::string job;
  {
    MutexLock lock(&mutex_);
    if (assignment_.job != nullptr) job = assignment_.job->job_id;
    if (in_hand_ > 0) beat.set_open_groups(in_hand_);
    beat.set_policy_version(ready_version_);
    give_up = draining_ && options_.now() >= drain_deadline_;
  }
  if (give_up) {
    Tell(LogLevel::kWarning, "the lease in hand is given back: no time left to finish it", {{kJobField, job}});
    GiveUp();
    session->FinishSending();  // the rank takes back what is open when the stream ends
  }
  if (!job.empty()) {
    for (const JobLine& line : lines_.Take(job, kLinesPerBeat)) *beat.add_lines() = ToProto(line);
  }
  return beat;
}

void ActorClient::GiveUp() {
  give_up_.Notify();
  if (options_.on_give_up) options_.on_give_up();
}

void ActorClient::Drain(const std::string& reason) {
  std::shared_ptr<WorkSession> session;
  std::string job;
  {
    MutexLock lock(&mutex_);
    if (draining_) return;
    draining_ = true;
    drain_deadline_ = options_.now() + options_.drain_timeout;
    session = assignment_.session;
    if (assignment_.job != nullptr) job = assignment_.job->job_id;
    fetch_changed_.NotifyAll();
  }
  Tell(LogLevel::kInfo, "draining", {{kJobField, job}, {"reason", reason}});
  if (session != nullptr) {
    v1::ActorMessage message;
    message.mutable_draining()->set_reason(reason);
    session->Send(std::move(message));
  }
  stopping_.Notify();
  work_.Close();
  GivenUp given_up;
  MutexLock lock(&mutex_);
  GiveUpGroup(/*idle=*/true, &given_up);
  fetch_changed_.NotifyAll();
}

// ------------------------------------------------------------------------------------------------- receiving

absl::Status ActorClient::Receive(const std::shared_ptr<WorkSession>& session, const v1::RankMessage& message) {
  switch (message.message_case()) {
    case v1::RankMessage::kWelcome:
      return OnWelcome(message.welcome());
    case v1::RankMessage::kPolicyOffer: {
      GivenUp given_up;
      MutexLock lock(&mutex_);
      if (assignment_.job != nullptr && assignment_.job->job_id == message.policy_offer().job_id()) {
        assignment_.offer = message.policy_offer();
        Ask({.kind = Order::Kind::kOffer, .version = message.policy_offer().policy_version()}, &given_up);
      }
      return absl::OkStatus();
    }
    case v1::RankMessage::kPolicyTransfer: {
      const v1::PolicyTransfer& transfer = message.policy_transfer();
      GivenUp given_up;
      MutexLock lock(&mutex_);
      if (assignment_.offer.has_value() && assignment_.offer->job_id() == transfer.job_id()) {
        Ask({.kind = Order::Kind::kTransfer, .version = transfer.policy_version(), .source = transfer.source()},
            &given_up);
      }
      return absl::OkStatus();
    }
    case v1::RankMessage::kPolicyBroadcast: {
      const v1::PolicyBroadcast& broadcast = message.policy_broadcast();
      Order order = {.kind = Order::Kind::kBroadcast, .version = broadcast.policy_version()};
      order.place = {broadcast.group_epoch(), static_cast<int>(broadcast.group_rank()),
                     static_cast<int>(broadcast.world_size())};
      order.chunk_bytes = broadcast.chunk_bytes();
      order.timeout = absl::Seconds(broadcast.timeout_s());
      GivenUp given_up;
      MutexLock lock(&mutex_);
      if (assignment_.offer.has_value() && assignment_.offer->job_id() == broadcast.job_id()) {
        Ask(std::move(order), &given_up);
      }
      return absl::OkStatus();
    }
    case v1::RankMessage::kPolicyCommit: {
      const v1::PolicyCommit& commit = message.policy_commit();
      GivenUp given_up;
      MutexLock lock(&mutex_);
      if (assignment_.offer.has_value() && assignment_.offer->job_id() == commit.job_id()) {
        Ask({.kind = Order::Kind::kCommit, .version = commit.policy_version()}, &given_up);
      }
      return absl::OkStatus();
    }
    case v1::RankMessage::kLease:
      return OnLease(session, message.lease());
    case v1::RankMessage::kAck:
      if (options_.journal != nullptr) {
        options_.journal->Answered(message.ack().ordinal(), message.ack().attempt(), message.ack().accepted(),
                                   message.ack().reason());
      }
      if (!message.ack().accepted()) {
        if (series_->refused != nullptr) series_->refused->Increment();
        Log(LogLevel::kDebug, "a result was refused",
            {{"ordinal", static_cast<uint64_t>(message.ack().ordinal())}, {"reason", message.ack().reason()}});
      }
      return absl::OkStatus();
    case v1::RankMessage::kJobEnded: {
      GivenUp given_up;
      MutexLock lock(&mutex_);
      GiveUpGroup(/*idle=*/true, &given_up);
      assignment_.job = nullptr;
      assignment_.job_ended = true;
      assignment_.offer.reset();
      ++generation_;
      credited_ = false;
      fetch_changed_.NotifyAll();
      return absl::OkStatus();
    }
    default:
      return absl::OkStatus();  // of a later minor version
  }
}

void ActorClient::Ask(Order order, GivenUp* given_up) {
  GiveUpGroup(/*idle=*/false, given_up);
  if (order.kind == Order::Kind::kBroadcast) {
    group_epoch_ = order.place.epoch;
    receiving_ = true;
  }
  assignment_.order = std::move(order);
  assignment_.order.number = ++orders_;
  fetch_changed_.NotifyAll();
}

void ActorClient::GiveUpGroup(bool idle, GivenUp* given_up) {
  if (!std::exchange(receiving_, false) && !idle) return;
  given_up->receiver = assignment_.receiver;
  given_up->epoch = group_epoch_;
}

absl::Status ActorClient::OnWelcome(const v1::Welcome& proto) {
  SLUICE_ASSIGN_OR_RETURN(JobContext job, FromProto(proto));
  const auto context = std::make_shared<const JobContext>(std::move(job));
  {
    GivenUp given_up;
    MutexLock lock(&mutex_);
    GiveUpGroup(/*idle=*/true, &given_up);
    assignment_.job = context;
    assignment_.job_ended = false;
    assignment_.offer.reset();
    ++generation_;
    credited_ = false;
    fetch_changed_.NotifyAll();
  }
  // Behind the change, or a beat for the job before would forget the line.
  Tell(LogLevel::kInfo, "working for a job",
       {{kJobField, context->job_id}, {"epoch", static_cast<uint64_t>(context->epoch)}});
  return absl::OkStatus();
}

absl::Status ActorClient::OnLease(const std::shared_ptr<WorkSession>& session, const v1::Lease& proto) {
  SLUICE_ASSIGN_OR_RETURN(LeaseBlock block, FromProto(proto, options_.now()));
  Work work;
  work.session = session;
  work.block = std::move(block);
  {
    MutexLock lock(&mutex_);
    if (assignment_.job == nullptr || assignment_.job->job_id != work.block.job_id ||
        assignment_.job->epoch != work.block.epoch) {
      return absl::OkStatus();  // of a job that has just ended
    }
    work.generation = generation_;
    work.job = assignment_.job;
  }
  if (options_.journal != nullptr) options_.journal->Leased(work.block);
  SLUICE_FAILPOINT("actor/lease_received");
  Work unwanted = work;
  if (work_.TryPush(std::move(work))) return absl::OkStatus();
  // Draining, or more leases than were asked for.
  GiveBackAll(unwanted, "the actor takes no more leases");
  return absl::OkStatus();
}

bool ActorClient::Stale(uint64_t generation) const {
  MutexLock lock(&mutex_);
  return generation != generation_;
}

// -------------------------------------------------------------------------------------------------- fetching

bool ActorClient::AwaitFetch(Assignment* assignment, uint64_t* generation, uint64_t* orders) {
  MutexLock lock(&mutex_);
  while (!stopping_.HasBeenNotified()) {
    if (generation_ != followed_generation_ || orders_ != followed_orders_) {
      *assignment = assignment_;
      *generation = generation_;
      *orders = orders_;
      return true;
    }
    fetch_changed_.Wait(&mutex_);
  }
  return false;
}

void ActorClient::FetchLoop() {
  Random random(DeriveSeed(SeedOf(options_.actor_id), {3}));
  JobBackoff backoff;
  FailureLog fetches;
  Assignment assignment;
  uint64_t generation = 0;
  uint64_t orders = 0;
  std::shared_ptr<const JobContext> welcomed;
  while (AwaitFetch(&assignment, &generation, &orders)) {
    const std::string job = assignment.job == nullptr ? "" : assignment.job->job_id;
    // A welcome is a job's begin, also of one that is resumed: what was in the way may be gone.
    if (std::exchange(welcomed, assignment.job) != assignment.job) backoff.Succeeded();
    // A wait counts from the begin of the try that failed.
    const absl::Time begin = options_.now();
    // Otherwise the rank asks again, as it does of everybody who does not answer.
    const bool may_try = job.empty() || backoff.MayTry(job, begin);
    const absl::Status status = may_try ? Follow(assignment, generation) : absl::OkStatus();
    {
      MutexLock lock(&mutex_);
      followed_generation_ = generation;
      followed_orders_ = orders;
      if (generation != generation_) continue;  // whatever went wrong, it no longer matters
    }
    if (!may_try) continue;
    if (status.ok() && assignment.offer.has_value() && loaded_.version == assignment.offer->policy_version()) {
      backoff.Succeeded();
      fetches.Reset();
    }
    // NotFound: a newer version was published meanwhile, and its offer is under way.
    if (status.ok() || absl::IsNotFound(status) || absl::IsCancelled(status)) continue;
    if (IsFinal(status)) {
      // Not this actor's to solve, but the next job may be another.
      const JobBackoff::Verdict verdict = backoff.Failed(job, status.message(), begin, random.Uniform());
      if (!verdict.tell) continue;
      Tell(LogLevel::kError, "this actor cannot work on the job",
           {{kJobField, job},
            {"error", status.message()},
            {"tries", verdict.failures},
            {"next_try_in_s", absl::ToDoubleSeconds(verdict.delay)}});
    } else {
      if (fetches.Note(job, status.message())) {
        Tell(LogLevel::kWarning, "weights or catalog could not be fetched",
             {{kJobField, job}, {"error", status.message()}, {"tries", fetches.failures()}});
      }
      assignment.session->Cancel();  // start over, perhaps with another rank
    }
  }
}

absl::Status ActorClient::Prepare(const Assignment& assignment, uint64_t generation) {
  const JobContext& job = *assignment.job;
  if (job.reward.enabled && !options_.has_rewards) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job.job_id, " asks ranker ", job.reward.ranker,
                                                      " for scores; start the actor with --reward HOST:PORT"));
  }
  if (loaded_.job.has_value() && loaded_.job->job_id == job.job_id &&
      loaded_.job->model_config_json == job.model_config_json && loaded_.job->catalog_version == job.catalog_version) {
    loaded_.job = job;
    return absl::OkStatus();
  }
  ForgetLoaded();
  if (loaded_.trie == nullptr || loaded_.trie->version() != job.catalog_version) {
    SLUICE_ASSIGN_OR_RETURN(
        loaded_.trie, fetcher_.FetchCatalog(assignment.channel, job.job_id, job.catalog_version, [this, generation] {
          return !stopping_.HasBeenNotified() && !Stale(generation);
        }));
  }
  SLUICE_RETURN_IF_ERROR(loader_->SetJob(job.model_config_json, loaded_.trie));
  loaded_.job = job;
  return absl::OkStatus();
}

void ActorClient::ForgetLoaded() {
  if (options_.peers != nullptr) options_.peers->Clear();
  loaded_.job.reset();
  loaded_.version = loaded_.shadow = 0;
}

absl::Status ActorClient::Follow(const Assignment& assignment, uint64_t generation) {
  if (assignment.job == nullptr) {
    // Between sessions, and before the rank has greeted, the policy stays: it may well run the same job.
    if (assignment.job_ended && loaded_.job.has_value()) {
      ForgetLoaded();
      loader_->EndJob();
    }
    return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(Prepare(assignment, generation));
  if (!assignment.offer.has_value()) return absl::OkStatus();
  const v1::PolicyOffer& offer = *assignment.offer;
  const bool active = loaded_.version == offer.policy_version() && loaded_.checksum == offer.checksum();
  if (!offer.staged()) {
    bool peer_failed = false;
    if (!active) {
      SLUICE_RETURN_IF_ERROR(FetchShadow(assignment, generation, &peer_failed));
      SLUICE_RETURN_IF_ERROR(CommitShadow(assignment));
    }
    SendReady(assignment, generation);
    return absl::OkStatus();
  }
  if (assignment.order.version != offer.policy_version()) {
    SendFailed(assignment, "another version was offered since");
    return absl::OkStatus();
  }
  const bool held = loaded_.shadow == offer.policy_version() && loaded_.shadow_checksum == offer.checksum();
  switch (assignment.order.kind) {
    case Order::Kind::kOffer:
    case Order::Kind::kTransfer:
    case Order::Kind::kBroadcast:
      if (active || held) {
        SendVerified(assignment, active ? loaded_.checksum : loaded_.shadow_checksum, false);
        return absl::OkStatus();
      }
      if (assignment.order.kind == Order::Kind::kOffer) return TakeOffer(assignment);
      return assignment.order.kind == Order::Kind::kTransfer ? TransferAsTold(assignment, generation)
                                                             : ReceiveBroadcast(assignment, generation);
    case Order::Kind::kCommit:
      break;
  }
  if (!active && !held) {
    SendFailed(assignment, "nothing is verified that could be committed");
    return absl::OkStatus();
  }
  if (!active) SLUICE_RETURN_IF_ERROR(CommitShadow(assignment));
  SendReady(assignment, generation);
  return absl::OkStatus();
}

absl::Status ActorClient::MakeRoom(const Assignment& assignment) {
  loaded_.shadow = 0;
  if (loaded_.version < assignment.offer->policy_version()) return absl::OkStatus();
  if (options_.peers != nullptr) options_.peers->Clear();
  loaded_.version = 0;
  return loader_->SetJob(assignment.job->model_config_json, loaded_.trie);
}

absl::StatusOr<absl::Span<char>> ActorClient::BeginTransfer(const Assignment& assignment) {
  SLUICE_RETURN_IF_ERROR(MakeRoom(assignment));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("actor/before_transfer"));
  return loader_->Stage(assignment.offer->payload_bytes());
}

absl::Status ActorClient::TakeOffer(const Assignment& assignment) {
  const v1::PolicyOffer& offer = *assignment.offer;
  SLUICE_RETURN_IF_ERROR(MakeRoom(assignment));
  SLUICE_RETURN_IF_ERROR(loader_->Stage(offer.payload_bytes()).status());
  v1::ActorMessage message;
  message.mutable_prepared()->set_job_id(offer.job_id());
  message.mutable_prepared()->set_policy_version(offer.policy_version());
  assignment.session->Send(std::move(message));
  return absl::OkStatus();
}

absl::Status ActorClient::FetchShadow(const Assignment& assignment, uint64_t generation, bool* peer_failed) {
  const v1::PolicyOffer& offer = *assignment.offer;
  const absl::Time begin = options_.now();
  SLUICE_ASSIGN_OR_RETURN(const absl::Span<char> shadow, BeginTransfer(assignment));
  const auto wanted = [this, generation] { return !stopping_.HasBeenNotified() && !Stale(generation); };
  const bool from_peer = !assignment.order.source.empty();
  if (!from_peer || !FetchFromPeer(assignment, shadow, wanted)) {
    *peer_failed = from_peer;
    SLUICE_RETURN_IF_ERROR(fetcher_.FetchPolicy(assignment.channel, offer, shadow, wanted));
  }
  // The fetcher has hashed what lies there, and it is the offer's.
  loaded_.shadow = offer.policy_version();
  loaded_.shadow_checksum = offer.checksum();
  if (series_->transfer != nullptr) series_->transfer->Observe(absl::ToDoubleSeconds(options_.now() - begin));
  return absl::OkStatus();
}

bool ActorClient::FetchFromPeer(const Assignment& assignment, absl::Span<char> shadow,
                                const std::function<bool()>& wanted) {
  const auto fetch = [&]() -> absl::Status {
    const std::string& source = assignment.order.source;
    SLUICE_RETURN_IF_ERROR(CheckAddress("the peer's address", source));
    SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                            MakeChannel(source, options_.credentials, {Role::kActor}));
    return peer_fetcher_.FetchPolicy(channel, *assignment.offer, shadow, wanted);
  };
  const absl::Status status = fetch();
  if (status.ok()) return true;
  if (!wanted()) return false;
  Tell(LogLevel::kWarning, "another actor did not deliver the weights; the rank will",
       {{kJobField, assignment.job->job_id},
        {"actor_address", assignment.order.source},
        {"version", assignment.order.version},
        {"error", status.message()}});
  if (series_->peer_fallbacks != nullptr) series_->peer_fallbacks->Increment();
  return false;
}

absl::Status ActorClient::TransferAsTold(const Assignment& assignment, uint64_t generation) {
  bool peer_failed = false;
  const absl::Status status = FetchShadow(assignment, generation, &peer_failed);
  if (absl::IsNotFound(status)) {
    SendFailed(assignment, status.message());  // a newer version was published meanwhile
    return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(status);
  SendVerified(assignment, loaded_.shadow_checksum, peer_failed);
  return absl::OkStatus();
}

absl::Status ActorClient::ReceiveBroadcast(const Assignment& assignment, uint64_t generation) {
  const v1::PolicyOffer& offer = *assignment.offer;
  const Order& order = assignment.order;
  const absl::Time begin = options_.now();
  SLUICE_ASSIGN_OR_RETURN(const absl::Span<char> shadow, BeginTransfer(assignment));
  const auto receive = [&]() -> absl::Status {
    if (assignment.receiver == nullptr) return absl::FailedPreconditionError("this actor is in no weight group");
    const bool member = order.place.epoch > 0 && order.place.rank > 0 && order.place.rank < order.place.world_size;
    if (!member || order.timeout <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError("the rank names no place in a weight group");
    }
    return assignment.receiver->Receive(order.place, shadow, order.chunk_bytes, order.timeout);
  };
  const absl::Status status = receive();
  bool wanted = false;
  {
    MutexLock lock(&mutex_);
    wanted = generation == generation_ && order.number == orders_;
    if (wanted) receiving_ = false;
  }
  if (!status.ok()) {
    // What was told since is the rank's answer already: it fails a broadcast for all.
    if (!wanted || stopping_.HasBeenNotified()) return absl::OkStatus();
    Tell(LogLevel::kWarning, "weights did not come by the broadcast; they will be fetched",
         {{kJobField, assignment.job->job_id},
          {"version", order.version},
          {"group_epoch", order.place.epoch},
          {"error", status.message()}});
    SendFailed(assignment, status.message());
    return absl::OkStatus();
  }
  // That it came proves nothing.
  const std::string checksum = PayloadChecksum({shadow.data(), shadow.size()});
  if (checksum == offer.checksum()) {
    loaded_.shadow = offer.policy_version();
    loaded_.shadow_checksum = checksum;
  }
  if (series_->transfer != nullptr) {
    series_->transfer->Observe(absl::ToDoubleSeconds(options_.now() - begin));
    series_->broadcast_bytes->Increment(static_cast<double>(shadow.size()));
  }
  SendVerified(assignment, checksum, false);
  return absl::OkStatus();
}

absl::Status ActorClient::CommitShadow(const Assignment& assignment) {
  const absl::Time begin = options_.now();
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("actor/before_swap"));
  SLUICE_RETURN_IF_ERROR(loader_->Commit(loaded_.shadow));
  loaded_.version = std::exchange(loaded_.shadow, 0);
  loaded_.checksum = std::move(loaded_.shadow_checksum);
  if (series_->version != nullptr) {
    series_->version->Set(static_cast<double>(loaded_.version));
    series_->commit->Observe(absl::ToDoubleSeconds(options_.now() - begin));
  }
  const v1::PolicyOffer& offer = *assignment.offer;
  Log(LogLevel::kDebug, "policy verified", {{"version", loaded_.version}, {"bytes", offer.payload_bytes()}});
  if (options_.peers == nullptr) return absl::OkStatus();
  HeldWeights held = loader_->Active();
  if (held.bytes.empty()) return absl::OkStatus();
  auto checksums = std::make_shared<ChunkTable>();
  checksums->chunk_bytes = offer.chunk_bytes();
  checksums->checksums.assign(offer.chunk_checksums().begin(), offer.chunk_checksums().end());
  options_.peers->Put(offer.job_id(), loaded_.version, {std::move(held.owner), held.bytes, std::move(checksums)});
  return absl::OkStatus();
}

void ActorClient::SendVerified(const Assignment& assignment, const std::string& checksum, bool peer_failed) {
  v1::ActorMessage message;
  v1::Verified* verified = message.mutable_verified();
  verified->set_job_id(assignment.offer->job_id());
  verified->set_policy_version(assignment.offer->policy_version());
  verified->set_checksum(checksum);
  verified->set_peer_failed(peer_failed);
  assignment.session->Send(std::move(message));
}

void ActorClient::SendFailed(const Assignment& assignment, absl::string_view reason) {
  v1::ActorMessage message;
  v1::TransferFailed* failed = message.mutable_transfer_failed();
  failed->set_job_id(assignment.offer->job_id());
  failed->set_policy_version(assignment.order.version);
  failed->set_reason(std::string(reason));
  if (assignment.order.kind == Order::Kind::kBroadcast) failed->set_group_epoch(assignment.order.place.epoch);
  assignment.session->Send(std::move(message));
}

void ActorClient::SendReady(const Assignment& assignment, uint64_t generation) {
  bool first = false;
  {
    MutexLock lock(&mutex_);
    if (generation != generation_) return;
    first = !std::exchange(credited_, true);
    ready_version_ = loaded_.version;
  }
  v1::ActorMessage message;
  message.mutable_ready()->set_job_id(assignment.job->job_id);
  message.mutable_ready()->set_policy_version(loaded_.version);
  assignment.session->Send(message);
  if (first) {
    message.mutable_credit()->set_leases(options_.leases);
    assignment.session->Send(message);
  }
}

// --------------------------------------------------------------------------------------------------- working

void ActorClient::GiveBackAll(const Work& work, const std::string& reason) {
  series_->Lease("returned");
  if (options_.journal != nullptr) options_.journal->GaveBack(work.block, reason);
  for (size_t i = 0; i < work.block.prompts.size(); ++i) {
    if (!work.session->Send(GiveBack(work.block, i, reason))) return;
  }
}

void ActorClient::WorkLoop() {
  Random random(DeriveSeed(SeedOf(options_.actor_id), {2}));
  int failures = 0;
  const auto next = [this] {
    const Blocked::Wait wait(options_.on_lease);
    return work_.Pop();
  };
  while (std::optional<Work> work = next()) {
    if (Stale(work->generation)) {
      series_->Lease("void");
      continue;
    }
    bool draining = false;
    {
      MutexLock lock(&mutex_);
      draining = draining_;
      in_hand_ = draining ? 0 : static_cast<uint32_t>(work->block.prompts.size());
    }
    if (draining) {
      GiveBackAll(*work, "the actor drains");
      continue;
    }
    const absl::Status status = DoWork(*work);
    {
      MutexLock lock(&mutex_);
      in_hand_ = 0;
      draining = draining_;
    }
    failures = status.ok() ? 0 : failures + 1;
    if (failures > 0) {
      Tell(LogLevel::kWarning, "a lease failed",
           {{kJobField, work->job->job_id},
            {"lease", static_cast<uint64_t>(work->block.lease_id)},
            {"error", status.message()}});
      GiveBackAll(*work, std::string(status.message()));
      // A broken actor must not burn every group's attempts.
      stopping_.WaitFor(BackoffDelay(options_.reconnect, failures, random.Uniform()));
    }
    v1::ActorMessage credit;
    credit.mutable_credit()->set_leases(1);
    if (!draining && !Stale(work->generation)) work->session->Send(std::move(credit));
  }
  // The queue closes when the actor leaves: everything is said.
  std::shared_ptr<WorkSession> session;
  {
    MutexLock lock(&mutex_);
    session = assignment_.session;
  }
  if (session != nullptr) session->FinishSending();
}

void ActorClient::TellScores(const Work& work, const std::vector<PromptOutcome>& outcomes) {
  uint64_t asked = 0, without = 0;
  const std::string* error = nullptr;
  for (const PromptOutcome& outcome : outcomes) {
    const auto* group = std::get_if<ScoredGroup>(&outcome.result);
    if (group == nullptr || group->score_status == ScoreStatus::kNotAsked) continue;
    ++asked;
    if (group->score_status == ScoreStatus::kOk) continue;
    ++without;
    if (error == nullptr) error = &group->score_error;
  }
  if (asked == 0) return;
  const std::string& job = work.job->job_id;
  if (without == 0) {
    if (score_failures_.failures() > 0 && score_failures_.job() == job) {
      Tell(LogLevel::kInfo, "scores are there again",
           {{kJobField, job}, {"leases_without", score_failures_.failures()}});
    }
    score_failures_.Reset();
    return;
  }
  if (!score_failures_.Note(job, *error)) return;
  Tell(LogLevel::kWarning, "groups of a lease came back without scores",
       {{kJobField, job},
        {"groups", without},
        {"of", asked},
        {"error", *error},
        {"leases", score_failures_.failures()}});
}

absl::Status ActorClient::DoWork(const Work& work) {
  const absl::Time begin = options_.now();
  absl::StatusOr<std::vector<PromptOutcome>> outcomes = execute_(*work.job, work.block);
  const double seconds = absl::ToDoubleSeconds(options_.now() - begin);
  if (!outcomes.ok()) {
    series_->Lease("failed");
    return outcomes.status();
  }
  TellScores(work, *outcomes);
  series_->Lease("done");
  series_->Outcomes(work.block.kind, *outcomes, seconds);
  if (options_.journal != nullptr) {
    options_.journal->Scored(work.block, *outcomes);
    options_.journal->SendingResults(work.block, *outcomes);
  }
  SLUICE_FAILPOINT("actor/before_send");
  for (const PromptOutcome& outcome : *outcomes) {
    if (!work.session->Send(ToProto(work.block, outcome))) break;  // the rank has leased them anew by now
  }
  SLUICE_FAILPOINT("actor/after_send");
  return absl::OkStatus();
}

}  // namespace sluice::actor

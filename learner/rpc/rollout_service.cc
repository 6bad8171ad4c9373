#include "learner/rpc/rollout_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_sender.h"
#include "common/status/status.h"
#include "learner/rpc/rollout_convert.h"

namespace sluice::learner {
namespace {

constexpr char kProtocol[] = "1";
constexpr int kMaxLines = 20;  // of a heartbeat

// One attached actor. Deletes itself when the stream is done.
class WorkReactor : public grpc::ServerBidiReactor<v1::ActorMessage, v1::RankMessage> {
 public:
  WorkReactor(RolloutHub* hub, JobLines* lines) : hub_(hub), lines_(lines), link_(std::make_shared<Link>(this)) {
    StartRead(&incoming_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      // The actor said WritesDone, or the stream broke.
      Detach();
      link_->Close(absl::OkStatus());
      return;
    }
    if (const absl::Status status = Handle(incoming_); !status.ok()) {
      Detach();
      link_->sender.Abort(status);
      return;
    }
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override { link_->sender.OnWriteDone(ok); }

  void OnCancel() override { link_->sender.Abort(absl::CancelledError("the actor cancelled the stream")); }

  void OnDone() override {
    Detach();
    delete this;
  }

 private:
  // What the hub keeps of this stream. It may outlive the reactor: the sender does not touch a stream that is over.
  struct Link : public ActorSink {
    explicit Link(WorkReactor* reactor)
        : sender(
              {}, [reactor](const v1::RankMessage* message) { reactor->StartWrite(message); },
              [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); }) {}
    bool Send(const RankMessage& message) override { return sender.Send(ToProto(message)); }
    void Close(const absl::Status& status) override { sender.Close(status); }

    StreamSender<v1::RankMessage> sender;
  };

  void Detach() {
    if (handle_.has_value()) hub_->Detach(*handle_);
    handle_.reset();
  }

  absl::Status Handle(const v1::ActorMessage& message) {
    if (message.has_hello()) return Greet(message.hello());
    if (!handle_.has_value()) return absl::InvalidArgumentError("the first message of the stream must be Hello");
    switch (message.message_case()) {
      case v1::ActorMessage::kReady:
        hub_->OnReady(*handle_, message.ready().job_id(), message.ready().policy_version());
        return absl::OkStatus();
      case v1::ActorMessage::kPrepared:
        hub_->OnPrepared(*handle_, message.prepared().job_id(), message.prepared().policy_version());
        return absl::OkStatus();
      case v1::ActorMessage::kVerified:
        hub_->OnVerified(*handle_, message.verified().job_id(), message.verified().policy_version(),
                         message.verified().checksum(), message.verified().peer_failed());
        return absl::OkStatus();
      case v1::ActorMessage::kTransferFailed:
        LogInfo("an actor could not take a version",
                {{"actor", actor_id_},
                 {"version", static_cast<uint64_t>(message.transfer_failed().policy_version())},
                 {"reason", message.transfer_failed().reason()}});
        hub_->OnTransferFailed(*handle_, message.transfer_failed().job_id(), message.transfer_failed().policy_version(),
                               message.transfer_failed().group_epoch());
        return absl::OkStatus();
      case v1::ActorMessage::kCredit:
        hub_->OnCredit(*handle_, message.credit().leases());
        return absl::OkStatus();
      case v1::ActorMessage::kResult: {
        absl::StatusOr<ActorResult> result = FromProto(message.result());
        if (!result.ok()) return result.status();
        hub_->OnResult(*handle_, *std::move(result));
        return absl::OkStatus();
      }
      case v1::ActorMessage::kHeartbeat:
        hub_->OnHeartbeat(*handle_, message.heartbeat().open_groups(), message.heartbeat().policy_version());
        for (int i = 0; lines_ != nullptr && i < std::min(message.heartbeat().lines_size(), kMaxLines); ++i) {
          lines_->Tell(FromProto(message.heartbeat().lines(i), actor_id_));
        }
        return absl::OkStatus();
      case v1::ActorMessage::kDraining:
        LogInfo("an actor drains", {{"actor", actor_id_}, {"reason", message.draining().reason()}});
        hub_->OnDraining(*handle_);
        return absl::OkStatus();
      default:
        // A later minor version may say more than this one understands.
        return absl::OkStatus();
    }
  }

  absl::Status Greet(const v1::Hello& hello) {
    if (handle_.has_value()) return absl::InvalidArgumentError("a second Hello on one stream");
    if (hello.protocol() != kProtocol) {
      return absl::FailedPreconditionError(absl::StrCat("this rank speaks protocol ", kProtocol, ", the actor '",
                                                        hello.protocol(), "'; run the same release on both"));
    }
    actor_id_ = hello.actor_id();
    WeightTraits weights;
    weights.staged = hello.staged_weights();
    weights.group = hello.weight_group();
    if (!hello.peer_address().empty()) {
      SLUICE_RETURN_IF_ERROR(CheckAddress("Hello.peer_address", hello.peer_address()));
      weights.peer_address = hello.peer_address();
    }
    absl::StatusOr<RolloutHub::ActorHandle> handle =
        hub_->Attach(actor_id_, link_, hello.scores_alone(), std::move(weights));
    if (!handle.ok()) return handle.status();
    handle_ = *handle;
    LogInfo("an actor attached", {{"actor", actor_id_},
                                  {"version", hello.software_version()},
                                  {"weights", hello.weight_group().empty() ? "grpc" : hello.weight_group()}});
    return absl::OkStatus();
  }

  RolloutHub* const hub_;
  JobLines* const lines_;
  const std::shared_ptr<Link> link_;
  // Reads are one at a time and OnDone comes after the last, so these need no lock.
  v1::ActorMessage incoming_;
  std::optional<RolloutHub::ActorHandle> handle_;
  std::string actor_id_;
};

}  // namespace

GrpcRolloutService::GrpcRolloutService(RolloutHub* hub, JobLines* lines) : hub_(hub), lines_(lines) {
  ticker_ = StartThread("hub-tick", [this] {
    while (!stopping_.WaitFor(absl::Seconds(1))) hub_->Tick();
  });
}

GrpcRolloutService::~GrpcRolloutService() {
  stopping_.Notify();
  ticker_.Join();
}

grpc::ServerBidiReactor<v1::ActorMessage, v1::RankMessage>* GrpcRolloutService::Work(
    grpc::CallbackServerContext* /*context*/) {
  return new WorkReactor(hub_, lines_);
}

}  // namespace sluice::learner

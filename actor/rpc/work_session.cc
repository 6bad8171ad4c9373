#include "actor/rpc/work_session.h"

#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "common/rpc/status.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"

namespace sluice::actor {

WorkSession::WorkSession(std::shared_ptr<grpc::Channel> channel, Options options)
    : options_(std::move(options)), stub_(v1::RolloutService::NewStub(std::move(channel))) {}

void WorkSession::Write(Stream* stream, const std::function<v1::Heartbeat()>& beat) {
  v1::ActorMessage message;
  message.mutable_hello()->set_actor_id(options_.actor_id);
  message.mutable_hello()->set_protocol("1");
  message.mutable_hello()->set_software_version(options_.software_version);
  message.mutable_hello()->set_scores_alone(true);
  message.mutable_hello()->set_staged_weights(true);
  message.mutable_hello()->set_peer_address(options_.peer_address);
  message.mutable_hello()->set_weight_group(options_.weight_group);
  bool open = stream->Write(message);
  absl::Time next_beat = MonotonicNow() + options_.heartbeat;
  while (open) {
    if (MonotonicNow() >= next_beat) {
      message.Clear();
      *message.mutable_heartbeat() = beat();
      open = stream->Write(message);
      next_beat = MonotonicNow() + options_.heartbeat;
      continue;
    }
    std::optional<v1::ActorMessage> next = outgoing_.PopFor(next_beat - MonotonicNow());
    if (next.has_value()) {
      // What is followed at once by more goes with it: the results of a block leave in one packet, not in eight.
      grpc::WriteOptions options;
      if (outgoing_.size() > 0) options.set_buffer_hint();
      open = stream->Write(*next, options);
    } else if (outgoing_.closed() && outgoing_.size() == 0) {
      break;
    }
  }
  outgoing_.Close();  // whoever still wants to send learns that it is over
  if (open) stream->WritesDone();
  if (!ended_.WaitFor(options_.goodbye)) context_.TryCancel();
}

absl::Status WorkSession::Run(const std::function<v1::Heartbeat()>& beat,
                              const std::function<absl::Status(const v1::RankMessage&)>& receive) {
  const std::unique_ptr<Stream> stream = stub_->Work(&context_);
  Thread writer = StartThread("session-write", [&] { Write(stream.get(), beat); });
  absl::Status error;
  v1::RankMessage message;
  while (error.ok() && stream->Read(&message)) error = receive(message);
  if (!error.ok()) context_.TryCancel();
  outgoing_.Close();
  ended_.Notify();
  writer.Join();
  const absl::Status end = FromGrpc(stream->Finish());
  return error.ok() ? end : error;
}

}  // namespace sluice::actor

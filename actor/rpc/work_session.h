// One RolloutService.Work stream, from Hello to its end: a bounded queue of messages to send, a writer thread that also
// beats, and a reader that hands on what comes.
#ifndef SLUICE_ACTOR_RPC_WORK_SESSION_H_
#define SLUICE_ACTOR_RPC_WORK_SESSION_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/sync/bounded_queue.h"
#include "common/sync/notification.h"
#include "sluice/v1/rollout.grpc.pb.h"

namespace sluice::actor {

// Send, FinishSending and Cancel may be called from any thread; Run once, from one.
class WorkSession {
 public:
  struct Options {
    std::string actor_id;
    std::string software_version;
    std::string peer_address;  // of Hello
    std::string weight_group;  // of Hello
    absl::Duration heartbeat = absl::Seconds(1);
    // How long the rank may take to end the stream after the actor has said everything.
    absl::Duration goodbye = absl::Seconds(5);
  };

  WorkSession(std::shared_ptr<grpc::Channel> channel, Options options);

  // Queues a message. Waits while the queue is full: a slow learner slows its actors. False: the session is over.
  bool Send(v1::ActorMessage message) { return outgoing_.Push(std::move(message)); }
  // No more messages after those queued; the stream then ends well.
  void FinishSending() { outgoing_.Close(); }
  // Ends the stream now.
  void Cancel() { context_.TryCancel(); }

  // Connects, says Hello, beats with what `beat` returns, hands every message to `receive`, until the stream is over;
  // returns its status. An error of `receive` cancels the stream and is returned.
  absl::Status Run(const std::function<v1::Heartbeat()>& beat,
                   const std::function<absl::Status(const v1::RankMessage&)>& receive);

 private:
  using Stream = grpc::ClientReaderWriter<v1::ActorMessage, v1::RankMessage>;
  void Write(Stream* stream, const std::function<v1::Heartbeat()>& beat);

  const Options options_;
  const std::unique_ptr<v1::RolloutService::Stub> stub_;
  grpc::ClientContext context_;
  BoundedQueue<v1::ActorMessage> outgoing_{256};
  Notification ended_;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_WORK_SESSION_H_

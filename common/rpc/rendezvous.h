// RendezvousService of rendezvous.proto: a KvStore of one process served to others, and their end of it.
#ifndef SLUICE_COMMON_RPC_RENDEZVOUS_H_
#define SLUICE_COMMON_RPC_RENDEZVOUS_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>

#include "common/sync/kv_store.h"
#include "common/time/clock.h"
#include "sluice/v1/rendezvous.grpc.pb.h"

namespace sluice {

// Answers with the store's statuses. Thread-safe.
class RendezvousService : public v1::RendezvousService::Service {
 public:
  // The store must outlive the service, and the server that serves it; its bounds are the service's.
  explicit RendezvousService(KvStore* store) : store_(store) {}

  grpc::Status Set(grpc::ServerContext* context, const v1::RendezvousSetRequest* request,
                   v1::RendezvousSetResponse* response) override;
  grpc::Status Get(grpc::ServerContext* context, const v1::RendezvousGetRequest* request,
                   v1::RendezvousGetResponse* response) override;
  grpc::Status Add(grpc::ServerContext* context, const v1::RendezvousAddRequest* request,
                   v1::RendezvousAddResponse* response) override;

 private:
  KvStore* const store_;
};

// Thread-safe. Nothing is retried but a wait that has time left: a group that does not form is formed anew, by another
// epoch. Statuses are the store's; DeadlineExceeded and Unavailable also the connection's.
class RendezvousClient : public KvStore {
 public:
  explicit RendezvousClient(const std::shared_ptr<grpc::Channel>& channel, NowFunction now = MonotonicClock());

  absl::Status Set(const std::string& key, const std::string& value) override;
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override;
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;

 private:
  const std::unique_ptr<v1::RendezvousService::Stub> stub_;
  const NowFunction now_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_RENDEZVOUS_H_

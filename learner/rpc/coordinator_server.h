// The coordinator as a process runs it: job store, coordinator, its two services, the clock that ends leases, metrics.
#ifndef SLUICE_LEARNER_RPC_COORDINATOR_SERVER_H_
#define SLUICE_LEARNER_RPC_COORDINATOR_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/rpc/server.h"
#include "common/security/audit_log.h"
#include "common/security/token.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "learner/coordinator/coordinator.h"
#include "learner/data/data_store.h"
#include "learner/job/job_store.h"
#include "learner/rpc/data_service.h"
#include "learner/rpc/guarded_job_service.h"
#include "learner/rpc/job_service.h"
#include "learner/rpc/member_service.h"

namespace sluice::learner {

struct CoordinatorServerOptions {
  std::string address = "127.0.0.1:7070";  // port 0 picks one
  std::string metrics_address;             // empty: none
  ServerSecurity security;
  std::string tokens_path;  // file of people's tokens (common/security/token.h); empty: none are asked for
  std::string audit_path;   // the audit log; empty: none
  std::string store_path = "jobs.db";
  JobStoreOptions store;
  CoordinatorOptions coordinator;
  std::string data_root;  // where pushed data lie; empty: none are taken
  uint64_t data_quota_bytes = uint64_t{64} << 30;
  std::string reward_address;  // asked before jobs are submitted; empty: not
};

class CoordinatorServer {
 public:
  // InvalidArgument: tokens would travel in the clear, as the address is beyond loopback and there is no TLS.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const CoordinatorServerOptions& options);
  // Stops at once: streams end with Unavailable, ranks go on and find the next coordinator.
  ~CoordinatorServer();

  const std::string& address() const { return server_->address(); }
  Coordinator* coordinator() { return coordinator_.get(); }
  // Asks the group to stop after a checkpoint and waits for it. DeadlineExceeded if it does not in time.
  absl::Status Drain(absl::Duration timeout);

 private:
  CoordinatorServer() = default;
  // The file of tokens and the audit log, and what they ask of the server.
  absl::Status OpenBooks(const CoordinatorServerOptions& options, ServerSecurity* security);
  void AddMetrics();

  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<DataStore> data_;  // null: none
  std::unique_ptr<TokenFile> tokens_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<JobService> jobs_;
  std::unique_ptr<GuardedJobService> guard_;
  std::unique_ptr<DataService> data_service_;
  std::unique_ptr<MemberService> members_;
  std::unique_ptr<RpcServer> server_;
  Notification stop_;
  Thread ticker_;
  Metrics metrics_;  // last: its page reads the others, so it closes first
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_COORDINATOR_SERVER_H_

// Pushed data over gRPC: bounds and checksums of messages, and the data store behind them.
#ifndef SLUICE_LEARNER_RPC_DATA_SERVICE_H_
#define SLUICE_LEARNER_RPC_DATA_SERVICE_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "learner/data/data_store.h"
#include "learner/job/job_store.h"
#include "sluice/v1/data.grpc.pb.h"

namespace sluice::learner {

// Thread-safe. Both outlive it.
class DataService final : public v1::DataService::Service {
 public:
  // `data`: null to refuse every call, with the remedy.
  // admit: whether the caller may call this method ("Put"); asked first.
  using Admit = std::function<absl::Status(grpc::ServerContextBase* context, absl::string_view method)>;
  DataService(DataStore* data, JobStore* jobs, Admit admit) : data_(data), jobs_(jobs), admit_(std::move(admit)) {}

  grpc::Status Begin(grpc::ServerContext* context, const v1::BeginPushRequest* request,
                     v1::BeginPushResponse* response) override;
  grpc::Status Put(grpc::ServerContext* context, const v1::PutRequest* request, v1::PutResponse* response) override;
  grpc::Status Commit(grpc::ServerContext* context, const v1::CommitPushRequest* request,
                      v1::CommitPushResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListDataRequest* request,
                    v1::ListDataResponse* response) override;
  grpc::Status Remove(grpc::ServerContext* context, const v1::RemoveDataRequest* request,
                      v1::RemoveDataResponse* response) override;

 private:
  absl::Status Open(grpc::ServerContext* context, absl::string_view method) const;

  DataStore* const data_;
  JobStore* const jobs_;
  const Admit admit_;
};

// FailedPrecondition, with the job's id, if a job that has not ended reads something at or below `folder`, or began
// with it. `but`: a job that is not looked at.
absl::Status CheckUnused(const std::string& folder, JobStore* jobs, const std::string& but = "");

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_DATA_SERVICE_H_

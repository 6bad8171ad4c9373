// A model behind the Open Inference Protocol, version 2, over gRPC: what Triton, KServe, MLServer and
// sluice.serve_ranker speak.
#ifndef SLUICE_REWARD_SERVER_RANKER_REMOTE_REMOTE_MODEL_H_
#define SLUICE_REWARD_SERVER_RANKER_REMOTE_REMOTE_MODEL_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/random/random.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "common/time/retry.h"
#include "inference/open_inference.grpc.pb.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"
#include "reward_server/ranker_mapping/mapping.h"
#include "reward_server/ranker_mapping/query_encoder.h"

namespace sluice::reward {

// What is injected. Both functions wait real time and return false where the caller is to give up; empty: sleeps.
struct RemoteModelTools {
  NowFunction now = MonotonicClock();
  WaitFunction wait;        // between the tries of a call, from any thread
  WaitFunction start_wait;  // until the server is ready, from the thread of Connect
  uint64_t seed = 0;        // of the delays between tries
};

// A failed call is tried again within its deadline where nothing was computed for it: the server is not there
// (Unavailable) or has no room (ResourceExhausted). Scoring changes nothing at the server, so that a call which died on
// the way may be repeated too. Thread-safe.
class RemoteModel : public TensorModel {
 public:
  // Waits up to mapping.remote.start for server and model to be ready, compares the model's metadata with the mapping,
  // and asks for one score; the version that answers is the one that later answers must have.
  // Unavailable, DeadlineExceeded: not ready in time. Cancelled: start_wait gave up. NotFound: no such model or
  // version. InvalidArgument: the mapping does not fit, by the key. FailedPrecondition, DataLoss: the answer is not
  // what was asked for.
  static absl::StatusOr<std::unique_ptr<RemoteModel>> Connect(const QueryEncoder& encoder,
                                                              const RemoteModelTools& tools);

  const std::string& version() const override { return version_; }
  // Waits for a free place of mapping.remote.calls. DeadlineExceeded, Unavailable, ...: as the server ended the call;
  // FailedPrecondition, DataLoss: the answer is of another model or version, or malformed.
  absl::StatusOr<std::vector<Tensor>> Run(std::vector<Tensor> inputs, absl::Time deadline) const override;

 private:
  RemoteModel(const RankerMapping& mapping, const RemoteModelTools& tools);

  absl::Status WaitUntilReady() const;
  absl::Status IsReady(absl::Duration timeout) const;
  absl::StatusOr<::inference::ModelMetadataResponse> Metadata() const;
  // A call until it succeeds, fails for good, or the time is over.
  absl::Status Retry(absl::Time deadline, const WaitFunction& wait,
                     const std::function<absl::Status(absl::Duration)>& call) const;
  absl::StatusOr<::inference::ModelInferResponse> Infer(::inference::ModelInferRequest request,
                                                        absl::Time deadline) const;
  bool Enter(absl::Time deadline) const;
  void Leave() const;

  const RankerMapping mapping_;
  const RemoteModelTools tools_;
  const std::unique_ptr<::inference::GRPCInferenceService::StubInterface> stub_;
  std::string model_version_;  // as every answer must have it; fixed once Connect is done
  bool name_version_ = false;  // whether requests name it
  std::string version_;
  mutable std::atomic<uint64_t> requests_{0};
  mutable Mutex mutex_;
  mutable CondVar left_;
  mutable int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_REMOTE_REMOTE_MODEL_H_

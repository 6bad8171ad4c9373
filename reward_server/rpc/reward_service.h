// RewardService over gRPC's callback API: checks a request, hands its groups to the batcher, and finishes when they
// are done. No handler computes or waits.
#ifndef SLUICE_REWARD_SERVER_RPC_REWARD_SERVICE_H_
#define SLUICE_REWARD_SERVER_RPC_REWARD_SERVICE_H_

#include <grpcpp/support/server_callback.h>

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/time/clock.h"
#include "reward_server/batch/batcher.h"
#include "reward_server/ranker/ranker_set.h"
#include "sluice/v1/reward.grpc.pb.h"

namespace sluice::reward {

// Trailer of a ResourceExhausted answer: whole milliseconds to wait before the next try.
inline constexpr char kRetryAfterTrailer[] = "retry_after_ms";
// For a call without a deadline of its own.
inline constexpr absl::Duration kDefaultDeadline = absl::Seconds(60);

// Thread-safe. Shut the gRPC server down before the batcher closes, so that calls in progress still get their answer.
class RewardServiceImpl final : public v1::RewardService::CallbackService {
 public:
  // Everything pointed to must outlive this object. `now` must be the batcher's clock. catalog_version: of the data
  // set that the rankers score.
  RewardServiceImpl(const RankerSet* rankers, std::string catalog_version, Batcher* batcher, NowFunction now,
                    Metrics* metrics);

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRankersRequest* request,
                                     v1::DescribeRankersResponse* response) override;

 private:
  class ScoreReactor;
  // Checks the request and submits it; the reactor's answer comes through the task. An error is the answer.
  absl::Status Begin(const v1::ScoreRequest& request, v1::ScoreResponse* response, ScoreReactor* reactor);
  void Count(const absl::Status& status, absl::Duration duration);

  const RankerSet* const rankers_;
  const std::string catalog_version_;
  Batcher* const batcher_;
  const NowFunction now_;
  std::map<absl::StatusCode, Counter*> requests_;  // by the codes that Score ends with; kUnknown: any other
  Histogram* duration_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RPC_REWARD_SERVICE_H_

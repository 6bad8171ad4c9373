// Pulls weights and catalogs from a learner rank by PolicyService, verified.
#ifndef SLUICE_ACTOR_RPC_POLICY_FETCHER_H_
#define SLUICE_ACTOR_RPC_POLICY_FETCHER_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/metrics/metrics.h"
#include "common/time/clock.h"
#include "common/time/retry.h"
#include "common/transfer/transfer.h"
#include "sluice/v1/policy.grpc.pb.h"
#include "sluice/v1/rollout.pb.h"

namespace sluice::actor {

// Both fetches resume after the last good chunk when a stream breaks or a chunk is damaged, within one time budget.
// Not thread-safe.
class PolicyFetcher {
 public:
  struct Options {
    RetryOptions retry = {.attempt_timeout = absl::Minutes(2), .total_timeout = absl::Minutes(10)};
    uint64_t max_payload_bytes = uint64_t{16} << 30;
    uint64_t max_catalog_bytes = uint64_t{4} << 30;
    NowFunction now;
    WaitFunction wait;
    Metrics* metrics = nullptr;  // optional; must outlive the fetcher
    uint64_t seed = 0;           // of the jitter
  };

  explicit PolicyFetcher(Options options);

  // Writes the payload of an offered version into `place`, which must have the offer's length; its checksum is the
  // offer's. After an error `place` holds anything. NotFound: no longer kept; Cancelled: `wanted` returned false, asked
  // between chunks; DataLoss: damaged on every try; InvalidArgument: an offer that cannot be verified, or does not fit.
  absl::Status FetchPolicy(const std::shared_ptr<grpc::Channel>& channel, const v1::PolicyOffer& offer,
                           absl::Span<char> place, const std::function<bool()>& wanted);
  // The job's trie; its version is the digest of its contents.
  absl::StatusOr<std::shared_ptr<const Trie>> FetchCatalog(const std::shared_ptr<grpc::Channel>& channel,
                                                           const std::string& job_id,
                                                           const std::string& catalog_version,
                                                           const std::function<bool()>& wanted);

 private:
  // Chunks as they come off the wire, so that their data is copied once, to where it belongs.
  using OpenStream =
      std::function<std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>>(grpc::ClientContext*, uint64_t offset)>;
  // Until the assembler is complete and verified.
  absl::Status Fetch(Assembler* assembler, const OpenStream& open, const std::function<bool()>& wanted);

  const Options options_;
  Random random_;
  Counter* bytes_ = nullptr;
  Counter* mismatches_ = nullptr;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_POLICY_FETCHER_H_

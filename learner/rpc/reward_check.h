// Asks a reward server whether a job could work with it: ready, the ranker there, the catalog the right one, and a
// small batch scored twice with the same finite numbers.
#ifndef SLUICE_LEARNER_RPC_REWARD_CHECK_H_
#define SLUICE_LEARNER_RPC_REWARD_CHECK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/credentials.h"

namespace sluice::learner {

struct RewardQuestion {
  std::string address;
  std::string ranker;           // empty: the first that is there
  std::string catalog_version;  // of the job's data set; empty: not known
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  absl::Duration timeout = absl::Seconds(5);
};

// A sentence about what is there. Unavailable: nobody answers; FailedPrecondition: it cannot serve the job, and why.
absl::StatusOr<std::string> CheckReward(const RewardQuestion& question);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_REWARD_CHECK_H_

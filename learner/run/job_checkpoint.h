// Checkpoints of a job as its ranks see them: rank 0 writes, the others send it their ledger shards; all resume from
// the one that rank 0 names. Collective calls, from the job's thread.
#ifndef SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_
#define SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/run/run_context.h"
#include "learner/run/run_folder.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {

class JobCheckpoints {
 public:
  // Both references must outlive this object.
  JobCheckpoints(const RunContext& context, const RunFolder& folder, std::string data_digest)
      : context_(context), folder_(folder), data_digest_(std::move(data_digest)) {}

  // Puts the newest checkpoint's parameters and moments back and returns its state; nullopt if there is none. DataLoss
  // if it is damaged, FailedPrecondition if spec or data changed.
  absl::StatusOr<std::optional<CheckpointState>> Resume(Policy* policy, AdamW* optimizer);

  // This rank's shard of the ledger that Resume found; all of them on rank 0 if the number of ranks changed.
  absl::Status RestoreLedger(GroupSource* source) const;

  // Writes one and prunes. `state` has step, version, seconds and numbers; the rest is filled in here. `source` may be
  // null for jobs without a ledger.
  absl::Status Save(CheckpointState state, const Policy& policy, const AdamW& optimizer, const GroupSource* source,
                    const LedgerBalance& balance);

 private:
  const RunContext& context_;
  const RunFolder& folder_;
  const std::string data_digest_;
  std::vector<std::string> ledgers_;  // as Resume found them
};

// The strings of all ranks, in rank order, on every rank. Collective.
absl::StatusOr<std::vector<std::string>> GatherStrings(Collective& collective, const std::string& mine);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_

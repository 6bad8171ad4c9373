// Checkpoints of a training job: one folder each, complete or absent.
//
//   step-00000120/
//     model/                 the policy in Hugging Face layout
//     optimizer.safetensors  AdamW's moments: "first", "second" [arena], metadata "steps"
//     state.json             step, policy version, time, numbers, digests, the spec
//     ledger-<rank>.json     rl: the ledger's shard of each rank
//     manifest.json          SHA-256 and size of every file above; written last
//
// Written under "<name>.tmp", every file and folder fsynced, then renamed: a folder without a manifest, or with
// another name, is what a killed process left and is ignored. The previous checkpoint stands until then.
#ifndef SLUICE_LEARNER_TRAIN_CHECKPOINT_H_
#define SLUICE_LEARNER_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/policy.h"
#include "learner/train/adamw.h"

namespace sluice::learner {

struct CheckpointState {
  uint64_t step = 0;                      // steps that are committed
  uint64_t policy_version = 0;            // published last
  double seconds = 0;                     // spent by the job so far
  std::map<std::string, double> numbers;  // counters of the job loop and its gates, by name
  std::string spec_yaml;                  // effective
  std::string spec_digest;
  std::string data_digest;
  std::vector<std::string> ledgers;  // by rank; empty for jobs without one
  at::Tensor reference;              // parameter arena of a reference policy that moved; undefined for jobs without one
};

// "step-00000120".
std::string CheckpointName(uint64_t step);

// Writes `parent`/CheckpointName(state.step), replacing one of that name. Returns its path. NoSpaceError and whatever
// else the file system says; then nothing new stands and nothing old is gone.
absl::StatusOr<std::string> WriteCheckpoint(const std::string& parent, const CheckpointState& state,
                                            const Policy& policy, const AdamW& optimizer);

// Paths of the complete checkpoints in `parent`, oldest first. An absent folder has none.
absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& parent);

// Verifies every file of the checkpoint against its manifest and reads its state. DataLoss names the file.
absl::StatusOr<CheckpointState> ReadCheckpointState(const std::string& path);

// Puts a verified checkpoint's parameters and moments back. InvalidArgument if they are of another policy.
absl::Status RestoreCheckpoint(const std::string& path, Policy* policy, AdamW* optimizer);

// FailedPrecondition, with the lines that differ, unless a job with this spec and data may resume from `state`.
absl::Status CheckResumable(const CheckpointState& state, const std::string& spec_yaml, const std::string& spec_digest,
                            const std::string& data_digest);

// Removes all but the newest `keep`, and what killed processes left.
absl::Status PruneCheckpoints(const std::string& parent, int keep);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_CHECKPOINT_H_

// Checkpoints of a training job: one folder each, complete or absent.
//
//   step-00000120/
//     model/                 the policy in Hugging Face layout
//     optimizer.safetensors  AdamW's moments: "first", "second" [arena], metadata "steps"
//     state.json             step, policy version, time, numbers, digests, the spec
//     ledger-<rank>.json     rl: the ledger's shard of each rank
//     manifest.json          SHA-256 and size of every file above; written last
//
// Written under "<name>.<epoch>.<number>.tmp", every file and folder fsynced, then renamed: a folder of another name is
// what a killed process left, and is ignored. One of this name without a manifest was damaged afterwards. The previous
// checkpoint stands until the rename.
//
// A writer may stop at any moment, and go on when others have taken over its job. Whoever takes over first lets the
// fences of all others refuse, then calls RemoveUnfinishedCheckpoints: a writer that had asked its fence before finds
// the folder gone that it wanted to rename, and one that asks later is refused.
#ifndef SLUICE_LEARNER_TRAIN_CHECKPOINT_H_
#define SLUICE_LEARNER_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/policy.h"
#include "learner/checkpoint_facts/checkpoint_facts.h"
#include "learner/train/adamw.h"

namespace sluice::learner {

struct CheckpointState : CheckpointFacts {
  at::Tensor reference;  // parameter arena of a reference policy that moved; undefined for jobs without one
};

// "step-00000120".
std::string CheckpointName(uint64_t step);

// What training changes.
struct TrainedArenas {
  at::Tensor parameters;
  at::Tensor first_moments;
  at::Tensor second_moments;
  int64_t steps = 0;  // of the optimizer
};

// The live arenas, which later steps change.
TrainedArenas ArenasOf(const Policy& policy, const AdamW& optimizer);

// Copies them into `copy`, in host memory; takes its tensors again if they have the right size, so that one copy made
// again and again costs no allocation.
void CopyArenas(const TrainedArenas& arenas, TrainedArenas* copy);

struct CheckpointFence {
  // Part of the temporary name: no writer of another epoch ever uses that.
  uint64_t epoch = 0;
  // Asked when everything is written, just before the checkpoint takes its name; an error leaves nothing new. Null: OK.
  std::function<absl::Status()> check;
};

// Writes `parent`/CheckpointName(state.step), replacing one of that name. Returns its path. NoSpaceError and whatever
// else the file system or the fence says, the fence first; then nothing new stands and nothing old is gone. Of the
// policy only its shape counts, which does not change: it may be trained meanwhile.
absl::StatusOr<std::string> WriteCheckpoint(const std::string& parent, const CheckpointState& state,
                                            const Policy& policy, const TrainedArenas& arenas,
                                            const CheckpointFence& fence = {});

// Paths of the checkpoints in `parent`, oldest first, whole or damaged. An absent folder has none.
absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& parent);

// Verifies every file of the checkpoint against its manifest and reads its state. DataLoss names the file, also if it
// is the manifest that is missing.
absl::StatusOr<CheckpointState> ReadCheckpointState(const std::string& path);

// Renames a damaged checkpoint so that it is no longer listed, and returns its new path. The one set aside before it is
// removed: one is kept to be looked at.
absl::StatusOr<std::string> SetCheckpointAside(const std::string& path);

// Puts a verified checkpoint's parameters and moments back. InvalidArgument if they are of another policy.
absl::Status RestoreCheckpoint(const std::string& path, Policy* policy, AdamW* optimizer);

// FailedPrecondition, with the lines that differ, unless a job with this spec and data may resume from a checkpoint of
// these `facts`.
absl::Status CheckResumable(const CheckpointFacts& facts, const std::string& spec_yaml, const std::string& spec_digest,
                            const std::string& data_digest);

// Removes what is being written, and what killed processes left, and makes sure of it: none of it takes its name any
// more once this returns, even if its writer goes on.
absl::Status RemoveUnfinishedCheckpoints(const std::string& parent);

// Removes all but the newest `keep` and the `keep_best` of the highest score (of equal ones the earlier), and what
// killed processes left.
absl::Status PruneCheckpoints(const std::string& parent, int keep, int keep_best);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_CHECKPOINT_H_

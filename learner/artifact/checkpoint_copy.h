// Finds a checkpoint for a fork, and keeps its policy aside, whatever becomes of the job that wrote it.
#ifndef SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_
#define SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::learner {

// The path of the newest whole checkpoint in a run's folder of checkpoints. What a job last reported need not be there
// any more: ranks that were told to stop may have saved, and pruned, once more. NotFound: there is none.
absl::StatusOr<std::string> NewestCheckpoint(const std::string& folder);

// Makes `to`/model of `checkpoint`/model: hard links where the file system has them (a checkpoint's files are never
// written again), else copies. Nothing happens if it is there. Aside, then renamed: `to` is whole or absent. NotFound:
// the checkpoint is not there, or was pruned meanwhile.
absl::Status CopyCheckpointModel(const std::string& checkpoint, const std::string& to);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_

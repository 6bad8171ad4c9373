// Keeps the policy of a checkpoint aside for a fork, whatever becomes of the job that wrote it.
#ifndef SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_
#define SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_

#include <string>

#include "absl/status/status.h"

namespace sluice::learner {

// Makes `to`/model of `checkpoint`/model: hard links where the file system has them (a checkpoint's files are never
// written again), else copies. Nothing happens if it is there. Aside, then renamed: `to` is whole or absent. NotFound:
// the checkpoint is not there, or was pruned meanwhile.
absl::Status CopyCheckpointModel(const std::string& checkpoint, const std::string& to);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_ARTIFACT_CHECKPOINT_COPY_H_

// The mark of a run folder, checkpoint.json: which epoch's first rank may write checkpoints there, and the step of the
// last one that was written.
//
// Whoever starts a job takes the mark. A rank that was stopped for a while, and goes on when others have taken its job,
// finds another epoch there and writes nothing. And a folder whose checkpoints have all gone is told from one that
// never had any.
//
// It is written aside under a name that has the epoch, looked at once more, and renamed. Whoever has taken the mark
// removes what others have aside: one that stopped after its look has nothing left to rename.
#ifndef SLUICE_LEARNER_RUN_CHECKPOINT_MARK_H_
#define SLUICE_LEARNER_RUN_CHECKPOINT_MARK_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::learner {

struct CheckpointMark {
  uint64_t epoch = 0;
  std::optional<uint64_t> step;  // none: no checkpoint was written yet
};

// nullopt without a file. DataLoss: it is not a mark.
absl::StatusOr<std::optional<CheckpointMark>> ReadCheckpointMark(const std::string& path);
// Makes the mark `epoch`'s and returns it, with the step that was there. Aborted: it is a later epoch's. Epoch 0, that
// of a run by itself, which holds the folder's lock, takes any.
absl::StatusOr<CheckpointMark> TakeCheckpointMark(const std::string& path, uint64_t epoch);
// Notes the step of the last checkpoint. Aborted unless the mark is `epoch`'s.
absl::Status AdvanceCheckpointMark(const std::string& path, uint64_t epoch, uint64_t step);
// Aborted unless the mark is `epoch`'s.
absl::Status CheckMarkEpoch(const std::string& path, uint64_t epoch);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_CHECKPOINT_MARK_H_

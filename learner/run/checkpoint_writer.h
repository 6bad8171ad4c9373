// Writes checkpoints on a thread of its own, from copies: training goes on meanwhile. One at a time.
#ifndef SLUICE_LEARNER_RUN_CHECKPOINT_WRITER_H_
#define SLUICE_LEARNER_RUN_CHECKPOINT_WRITER_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/model/policy.h"
#include "common/sync/thread.h"
#include "learner/train/adamw.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {

class CheckpointWriter {
 public:
  // Called when a checkpoint stands, with its path; on the writer's thread.
  using OnWritten = std::function<absl::Status(const std::string& path)>;

  CheckpointWriter(std::string parent, CheckpointFence fence) : parent_(std::move(parent)), fence_(std::move(fence)) {}
  // Waits for the write in progress.
  ~CheckpointWriter() = default;
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Copies what training changes, in host memory (three arenas, kept for the next time), and returns; the writing goes
  // on behind. Settle must have been called since the last Start. `policy` must outlive this object and keep its shape.
  // ResourceExhausted or Internal if the copy cannot be made; nothing is written then.
  absl::Status Start(CheckpointState state, const Policy& policy, const AdamW& optimizer, OnWritten on_written);

  // Waits for the write in progress and returns how it went; OK if there was none. The next Start may follow.
  absl::Status Settle();

 private:
  const std::string parent_;
  const CheckpointFence fence_;
  TrainedArenas copy_;
  absl::Status status_;  // the thread's, until it is joined
  Thread thread_;        // last: it joins before the rest goes
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_CHECKPOINT_WRITER_H_

// Checkpoints of a job as its ranks see them: rank 0 writes, the others send it their ledger shards and the lines of
// ordinals that ended; it reads, too, and hands what it read to them. Collective calls, from the job's thread.
#ifndef SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_
#define SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/ledger/terminal_table.h"
#include "learner/run/checkpoint_writer.h"
#include "learner/run/run_context.h"
#include "learner/run/run_folder.h"
#include "learner/run/run_mirror.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {

// What an rl job's checkpoint holds of its ledger, on this rank.
struct LedgerPart {
  const GroupSource* source = nullptr;  // null: a job without a ledger
  LedgerBalance balance;                // of all ranks
  std::string ended;                    // TerminalLine of what ended since the last checkpoint
};

class JobCheckpoints {
 public:
  // The references must outlive this object.
  JobCheckpoints(const RunContext& context, const RunFolder& folder, std::string data_digest);

  // Takes the run folder for this epoch, fetches what its mirror has and it lacks, puts the newest whole checkpoint's
  // parameters and moments back and returns its state; nullopt if the job never had one. A damaged one is set aside,
  // which the log says, and the one before it is taken. DataLoss if there were checkpoints and none is whole: a job
  // never starts from nothing in silence. The first rank reads; the others get what it has (learner/run/share_state),
  // and need no folder. FailedPrecondition if spec or data changed; Aborted if a later epoch has the folder; errors of
  // the mirror.
  absl::StatusOr<std::optional<CheckpointState>> Resume(Policy* policy, AdamW* optimizer);

  // This rank's shard of the ledger that Resume found; all of them on rank 0 if the number of ranks changed.
  absl::Status RestoreLedger(GroupSource* source) const;

  enum class Writing {
    kBehind,  // returns once a copy is made; how it went is told by the next call
    kNow,
  };
  // Writes one, copies it to the mirror, and prunes. A copy that failed is told in the log and fails nothing: the next
  // checkpoint takes its place. `state` has step, version, seconds, numbers and score; the rest is filled in here.
  // Returns, on every rank, an error of this write (kNow) or of the one before. `policy` must outlive this object.
  absl::Status Save(CheckpointState state, const Policy& policy, const AdamW& optimizer, const LedgerPart& ledger,
                    Writing writing);

 private:
  // Checkpoints that are not whole, newest first, and what is wrong with the newest.
  struct Damage {
    std::vector<std::string> paths;
    absl::Status error;
  };

  // Aborted if a later epoch has the folder.
  absl::Status CheckStillOurs() const;
  TableFence TableOfOurs() const;
  // Rank 0: takes the folder and returns the newest whole checkpoint's state.
  absl::StatusOr<std::optional<CheckpointState>> FindNewest();
  absl::StatusOr<std::optional<CheckpointState>> ResumeOnFirst(Policy* policy, AdamW* optimizer);
  // Of those that are in the folder now; `damage` gets the ones that were passed over.
  absl::StatusOr<std::optional<CheckpointState>> NewestWhole(Damage* damage) const;
  absl::Status SaveOnFirst(CheckpointState state, const Policy& policy, const AdamW& optimizer,
                           const LedgerBalance& balance, const std::string& ended, Writing writing);
  absl::Status SettleOnFirst();

  const RunContext& context_;
  const RunFolder& folder_;
  const uint64_t epoch_;
  const std::string data_digest_;
  std::vector<std::string> ledgers_;  // as Resume found them
  // Rank 0:
  std::unique_ptr<TerminalTable> table_;  // null until a job with a ledger saves or resumes
  std::unique_ptr<RunMirror> mirror_;     // null: none; the writer's while it writes
  CheckpointWriter writer_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_JOB_CHECKPOINT_H_

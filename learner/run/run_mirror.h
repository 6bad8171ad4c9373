// What a run folder needs to go on elsewhere, copied to an object store: its checkpoints, each with the ledger's
// terminal table beside it, and the metrics.
//
//   NAME/checkpoints/...   learner/mirror/checkpoint_mirror.h
//   NAME/metrics.jsonl     as it was at the newest checkpoint or a little later
//
// NAME is the run folder's own. Exports and records are not copied.
#ifndef SLUICE_LEARNER_RUN_RUN_MIRROR_H_
#define SLUICE_LEARNER_RUN_RUN_MIRROR_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"
#include "common/time/clock.h"
#include "learner/ledger/terminal_table.h"
#include "learner/mirror/checkpoint_mirror.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {

// Not thread-safe.
class RunMirror {
 public:
  // `url` as OpenObjectStore takes it, with the process's environment. Contacts nobody. InvalidArgument: a bad URL or
  // name; Unauthenticated: no credentials.
  static absl::StatusOr<std::unique_ptr<RunMirror>> Open(const std::string& url, const std::string& run_folder,
                                                         NowFunction now);

  struct Fetched {
    bool any = false;  // a checkpoint was brought
    std::string told;  // what people should know, in sentences; may be empty
  };
  // If the mirror has a checkpoint of a later step than `newer_than`, the newest whole one of the folder: brings it
  // there, with its table, and the metrics if there are none.
  absl::StatusOr<Fetched> Fetch(const RunFolder& folder, std::optional<uint64_t> newer_than);

  // Copies the metrics and the checkpoint with its table, then removes from the mirror all checkpoints but this one and
  // those of the folder: also newer ones, which are of a timeline that was abandoned. Asks `still_ours` before and
  // between, as an upload takes its time, and returns its error.
  absl::Status Send(const RunFolder& folder, const std::string& checkpoint, const std::optional<TableMark>& table,
                    const std::function<absl::Status()>& still_ours);

  std::string name() const { return checkpoints_.name(); }

 private:
  RunMirror(const std::shared_ptr<ObjectStore>& store, std::string name)
      : store_(store), checkpoints_(store, name + "/checkpoints"), name_(std::move(name)) {}

  std::string MetricsKey() const { return name_ + "/metrics.jsonl"; }

  const std::shared_ptr<ObjectStore> store_;
  CheckpointMirror checkpoints_;
  const std::string name_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_MIRROR_H_

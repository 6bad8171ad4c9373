// What a run folder needs to go on elsewhere, copied to an object store: its checkpoints, each with the ledger's
// terminal table beside it, the best policy that the newest one knows of, and the metrics.
//
//   NAME/checkpoints/...   learner/mirror/checkpoint_mirror.h
//   NAME/export/best/...   the same, with the step of the validation that found it the best
//   NAME/metrics.jsonl     as it was at the newest checkpoint or a little later
//
// NAME is the run folder's own. export/final and records are not copied: a job that goes on makes the first anew.
#ifndef SLUICE_LEARNER_RUN_RUN_MIRROR_H_
#define SLUICE_LEARNER_RUN_RUN_MIRROR_H_

#include <functional>
#include <map>
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
  // there, with its table, the best policy that it knows of, and the metrics if there are none.
  absl::StatusOr<Fetched> Fetch(const RunFolder& folder, std::optional<uint64_t> newer_than);

  // Holds export/best for the next Send, which may run beside a training that replaces it: links, no copies. `numbers`
  // are the checkpoint's. Nothing if they know of none or of another one, or if it was sent already.
  absl::Status HoldBest(const RunFolder& folder, const std::map<std::string, double>& numbers);

  // Copies the metrics, what HoldBest holds, and the checkpoint with its table, then removes from the mirror all
  // checkpoints but this one and those of the folder: also newer ones, which are of a timeline that was abandoned. Asks
  // `still_ours` before and between, as an upload takes its time, and returns its error. A best policy that cannot be
  // copied is an error too, but keeps nothing else from being.
  absl::Status Send(const RunFolder& folder, const std::string& checkpoint, const std::optional<TableMark>& table,
                    const std::function<absl::Status()>& still_ours);

  std::string name() const { return checkpoints_.name(); }

 private:
  RunMirror(const std::shared_ptr<ObjectStore>& store, std::string name)
      : store_(store),
        checkpoints_(store, name + "/checkpoints"),
        best_(store, name + "/export/best"),
        name_(std::move(name)) {}

  std::string MetricsKey() const { return name_ + "/metrics.jsonl"; }
  // Says in words how it went, if there is anything to say.
  absl::StatusOr<std::string> FetchBest(const RunFolder& folder, const std::string& checkpoint);
  absl::Status SendBest();

  const std::shared_ptr<ObjectStore> store_;
  CheckpointMirror checkpoints_;
  CheckpointMirror best_;
  const std::string name_;
  std::string held_;       // path of what HoldBest holds; its last part is the name in the mirror
  std::string best_sent_;  // the name of the last one
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_MIRROR_H_

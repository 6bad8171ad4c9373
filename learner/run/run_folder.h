// The folder of one run: where each thing lies, and the metrics file.
//
//   spec.yaml            effective spec
//   metrics.jsonl        one JSON object a line: {"step": n, "time_s": t, "name": value, ...}
//   tensorboard/         the same for TensorBoard, a file an attempt (learner/tensorboard/event_writer.h)
//   checkpoints/         step-NNNNNNNN folders; damaged-step-NNNNNNNN, the last that was found damaged
//   checkpoint.json      the epoch that may write checkpoints, and the step of the newest
//                        (learner/run/checkpoint_mark.h)
//   export/best          the model with the best validation, Hugging Face layout
//   export/best.json     {"step": n} of that validation; absent while export/best changes
//   export/final         the model after the last step
//   results.json         closing numbers and paths
//   contexts.csv         rl with held-out prompts: the cell of every user (learner/evaluate/context_file.h)
//   examples.json        what a few users were offered, first and last (learner/evaluate/example_file.h)
//   outcomes.csv         evaluate: what became of every user (learner/evaluate/outcome_file.h)
//   report.html          the report
//   ledger.csv           rl: what became of every ordinal, up to the last checkpoint (learner/ledger/terminal_table.h)
#ifndef SLUICE_LEARNER_RUN_RUN_FOLDER_H_
#define SLUICE_LEARNER_RUN_RUN_FOLDER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file/file.h"
#include "common/time/clock.h"
#include "learner/tensorboard/event_writer.h"

namespace sluice::learner {

// One line of metrics.jsonl.
struct MetricsRow {
  uint64_t step = 0;
  double time_s = 0;
  std::map<std::string, double> values;
};

class RunFolder {
 public:
  static constexpr char kContextsFile[] = "contexts.csv";
  static constexpr char kOutcomesFile[] = "outcomes.csv";
  static constexpr char kExamplesFile[] = "examples.json";

  // Makes the folder and its parts if they are missing. now: for a job that measures something: the time of what goes
  // to tensorboard/. Null: nothing goes there.
  static absl::StatusOr<std::unique_ptr<RunFolder>> Open(const std::string& path, NowFunction now = nullptr);

  const std::string& path() const { return path_; }
  std::string checkpoints() const { return JoinPath(path_, "checkpoints"); }
  std::string export_folder(const std::string& which) const { return JoinPath(JoinPath(path_, "export"), which); }
  std::string best_mark() const { return export_folder("best.json"); }
  std::string checkpoint_mark() const { return JoinPath(path_, "checkpoint.json"); }
  std::string metrics() const { return JoinPath(path_, "metrics.jsonl"); }
  std::string tensorboard() const { return JoinPath(path_, "tensorboard"); }
  std::string ledger() const { return JoinPath(path_, "ledger.csv"); }
  std::string report() const { return JoinPath(path_, "report.html"); }
  std::string results() const { return JoinPath(path_, "results.json"); }
  std::string contexts() const { return JoinPath(path_, kContextsFile); }
  std::string outcomes() const { return JoinPath(path_, kOutcomesFile); }
  std::string examples() const { return JoinPath(path_, kExamplesFile); }

  // To metrics.jsonl, which says how it went, and to tensorboard/. What goes wrong there ends the events of this
  // attempt and nothing else; TakeEventsProblem has it.
  absl::Status AppendMetrics(const MetricsRow& row);
  // Waits for the disk, before a checkpoint is written that counts on the lines so far.
  absl::Status SyncMetrics();
  // Why tensorboard/ gets nothing more, once; empty: it does, or that was said already.
  std::string TakeEventsProblem();
  // Every whole line so far; a torn last line of a killed process is left out.
  absl::StatusOr<std::vector<MetricsRow>> ReadMetrics() const;
  // The step of the validation that export/best is of; nullopt: it is not told.
  std::optional<uint64_t> BestStep() const;
  // Lets `change` change export/best to that of `step`.
  absl::Status ReplaceBest(uint64_t step, const std::function<absl::Status()>& change) const;
  // Drops lines of steps after `step`: they belong to a timeline that a resume abandons. Without a step, as when a job
  // starts from nothing where an earlier attempt left no checkpoint: all lines.
  absl::Status TruncateMetrics(std::optional<uint64_t> step);

 private:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}
  void Watch(const absl::Status& events);

  std::string path_;
  std::unique_ptr<AppendFile> metrics_;
  std::unique_ptr<EventWriter> events_;  // null: none, or none any more
  std::string events_problem_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_FOLDER_H_

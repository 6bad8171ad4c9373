// What a run folder has of single groups: the ledger's terminal table, the open ordinals of the last checkpoint, the
// recorded group. Reads little of folders of any size. Thread-safe; the run may go on meanwhile.
#ifndef SLUICE_LEARNER_TRACE_RUN_TRACE_H_
#define SLUICE_LEARNER_TRACE_RUN_TRACE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/ledger/terminal_table.h"
#include "learner/record/record_file.h"

namespace sluice::learner {

struct TracedGroup {
  uint64_t ordinal = 0;
  std::optional<TerminalRow> ended;          // none: it had not at the checkpoint
  std::optional<uint32_t> open_attempt;      // of one that was open at the checkpoint: its last
  std::optional<FoundGroups::Group> record;  // none: it is not recorded
};

struct RunTrace {
  std::string checkpoint;         // the newest whole one: "checkpoints/step-00000120"; empty: there is none
  uint64_t checkpoint_steps = 0;  // that were committed at it
  uint64_t issued = 0;            // every ordinal below was issued at it
  bool has_record = false;        // some group is recorded
  std::optional<uint64_t>
      record_end;              // the last recorded step that was seen; a later one than those asked for, or the end
  std::string record_problem;  // why the record was not looked through; empty: it was
  std::vector<TracedGroup> groups;  // as asked for
};

struct RunTraceOptions {
  // A larger record is not looked through, which takes a second a gigabyte or so.
  int64_t max_record_bytes = int64_t{4} << 30;
  // The table's digest is compared with the checkpoint's up to this length; a longer one is read where it is needed.
  uint64_t max_digested_bytes = uint64_t{64} << 20;
};

// DataLoss: checkpoint, table or record are damaged, where, and what to do.
absl::StatusOr<RunTrace> TraceRun(const std::string& run_folder, const std::vector<uint64_t>& ordinals,
                                  const RunTraceOptions& options = {});

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRACE_RUN_TRACE_H_

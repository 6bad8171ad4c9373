#include "learner/trace/run_trace.h"

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"
#include "learner/artifact/checkpoint_copy.h"
#include "learner/ledger/ledger_snapshot.h"

namespace sluice::learner {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxStateBytes = int64_t{64} << 20;
// As many ranks as a checkpoint may be of.
constexpr uint64_t kMaxLedgers = 1 << 16;
// A checkpoint that is pruned while it is read is followed by a newer one.
constexpr int kTries = 3;
constexpr char kRemedy[] =
    "; restore the run folder from a backup, or resume the job, which goes back to the last checkpoint that is whole";

struct Checkpoint {
  uint64_t steps = 0;
  TableMark table;  // 0 bytes: none
  uint64_t issued = 0;
  std::map<uint64_t, uint32_t> open;  // ordinal and last attempt
};

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("'", path, "' is damaged: ", what));
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& folder) {
  const std::string path = JoinPath(folder, "state.json");
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxStateBytes));
  const Json state = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object()) return Damaged(path, "not a JSON object");
  const auto number = [&](const Json& object, const char* key, uint64_t* value) -> absl::Status {
    const auto found = object.find(key);
    if (found == object.end()) return Damaged(path, absl::StrCat("there is no '", key, "'"));
    const absl::Status status = ReadWholeNumber(*found, absl::StrCat("'", key, "'"), value);
    return status.ok() ? status : Damaged(path, status.message());
  };
  Checkpoint checkpoint;
  uint64_t ledgers = 0;
  SLUICE_RETURN_IF_ERROR(number(state, "step", &checkpoint.steps));
  SLUICE_RETURN_IF_ERROR(number(state, "ledgers", &ledgers));
  if (ledgers > kMaxLedgers) return Damaged(path, absl::StrCat("it counts ", ledgers, " ledgers"));
  if (const auto table = state.find("table"); table != state.end()) {
    if (!table->is_object() || !table->contains("sha256") || !(*table)["sha256"].is_string()) {
      return Damaged(path, "'table': want bytes and sha256");
    }
    SLUICE_RETURN_IF_ERROR(number(*table, "bytes", &checkpoint.table.bytes));
    checkpoint.table.sha256 = (*table)["sha256"].get<std::string>();
  }
  for (uint64_t rank = 0; rank < ledgers; ++rank) {
    const std::string ledger_path = JoinPath(folder, absl::StrCat("ledger-", rank, ".json"));
    SLUICE_ASSIGN_OR_RETURN(const std::string shard, ReadFile(ledger_path, kMaxStateBytes));
    const absl::StatusOr<LedgerSnapshot> ledger = ParseLedgerSnapshot(shard);
    if (!ledger.ok()) return Damaged(ledger_path, ledger.status().message());
    checkpoint.issued += ledger->issued;
    checkpoint.open.insert(ledger->open.begin(), ledger->open.end());
  }
  return checkpoint;
}

// Name below the run folder and contents of the newest whole checkpoint; the name is empty if there is none.
absl::StatusOr<std::pair<std::string, Checkpoint>> NewestOf(const std::string& run_folder) {
  const std::string folder = JoinPath(run_folder, "checkpoints");
  for (int tries = 1;; ++tries) {
    if (!IsDirectory(folder)) return std::pair<std::string, Checkpoint>();
    const absl::StatusOr<std::string> newest = NewestCheckpoint(folder);
    if (absl::IsNotFound(newest.status())) return std::pair<std::string, Checkpoint>();
    if (!newest.ok()) return newest.status();
    absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(*newest);
    if (checkpoint.ok()) {
      return std::pair(absl::StrCat("checkpoints", newest->substr(newest->rfind('/'))), *std::move(checkpoint));
    }
    if (tries == kTries || !absl::IsNotFound(checkpoint.status())) return checkpoint.status();
  }
}

absl::Status ReadEnds(const std::string& run_folder, const TableMark& mark, const RunTraceOptions& options,
                      RunTrace* trace) {
  if (mark.bytes == 0) return absl::OkStatus();
  const std::string path = JoinPath(run_folder, "ledger.csv");
  if (!PathExists(path)) {
    return absl::DataLossError(absl::StrCat("the ledger's table '", path, "' is missing, and ", trace->checkpoint,
                                            " counts on ", mark.bytes, " bytes of it"));
  }
  if (mark.bytes <= options.max_digested_bytes) SLUICE_RETURN_IF_ERROR(TerminalTable::Verify(path, mark));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<TerminalTableReader> table,
                          TerminalTableReader::Open(path, mark.bytes));
  for (TracedGroup& group : trace->groups) {
    SLUICE_ASSIGN_OR_RETURN(group.ended, table->Find(group.ordinal));
  }
  return absl::OkStatus();
}

absl::Status ReadRecords(const std::string& run_folder, const std::vector<uint64_t>& ordinals,
                         const RunTraceOptions& options, RunTrace* trace) {
  absl::StatusOr<FoundGroups> found =
      FindGroups(run_folder, std::set<uint64_t>(ordinals.begin(), ordinals.end()), options.max_record_bytes);
  if (absl::IsNotFound(found.status())) return absl::OkStatus();
  trace->has_record = true;
  if (absl::IsResourceExhausted(found.status())) {
    trace->record_problem = std::string(found.status().message());
    return absl::OkStatus();
  }
  if (!found.ok()) return found.status();
  trace->record_end = found->last_step;
  for (TracedGroup& group : trace->groups) {
    const auto one = found->groups.find(group.ordinal);
    if (one != found->groups.end()) group.record = std::move(one->second);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunTrace> TraceRun(const std::string& run_folder, const std::vector<uint64_t>& ordinals,
                                  const RunTraceOptions& options) {
  RunTrace trace;
  for (const uint64_t ordinal : ordinals) trace.groups.emplace_back().ordinal = ordinal;
  auto newest = NewestOf(run_folder);
  absl::Status status = newest.status();
  if (status.ok()) {
    const Checkpoint& checkpoint = newest->second;
    trace.checkpoint = newest->first;
    trace.checkpoint_steps = checkpoint.steps;
    trace.issued = checkpoint.issued;
    for (TracedGroup& group : trace.groups) {
      const auto open = checkpoint.open.find(group.ordinal);
      if (open != checkpoint.open.end()) group.open_attempt = open->second;
    }
    status = ReadEnds(run_folder, checkpoint.table, options, &trace);
  }
  if (status.ok()) status = ReadRecords(run_folder, ordinals, options, &trace);
  if (absl::IsDataLoss(status)) return absl::DataLossError(absl::StrCat(status.message(), kRemedy));
  if (!status.ok()) return status;
  return trace;
}

}  // namespace sluice::learner

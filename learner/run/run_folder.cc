#include "learner/run/run_folder.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

std::string ToLine(const MetricsRow& row) {
  nlohmann::json line;
  line["step"] = row.step;
  line["time_s"] = row.time_s;
  for (const auto& [name, value] : row.values) {
    // JSON has no NaN: an absent key says "not measured".
    if (std::isfinite(value)) line[name] = value;
  }
  return line.dump();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunFolder>> RunFolder::Open(const std::string& path, NowFunction now) {
  std::unique_ptr<RunFolder> folder(new RunFolder(path));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder->checkpoints()));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(JoinPath(path, "export")));
  SLUICE_ASSIGN_OR_RETURN(folder->metrics_, AppendFile::Open(folder->metrics()));
  if (now != nullptr) folder->events_ = std::make_unique<EventWriter>(folder->tensorboard(), std::move(now));
  return folder;
}

absl::Status RunFolder::AppendMetrics(const MetricsRow& row) {
  SLUICE_RETURN_IF_ERROR(metrics_->Append(ToLine(row)));
  if (events_ != nullptr) Watch(events_->Append(row.step, row.values));
  return absl::OkStatus();
}

absl::Status RunFolder::SyncMetrics() {
  SLUICE_RETURN_IF_ERROR(metrics_->Sync());
  if (events_ != nullptr) Watch(events_->Sync());
  return absl::OkStatus();
}

std::string RunFolder::TakeEventsProblem() { return std::exchange(events_problem_, {}); }

void RunFolder::Watch(const absl::Status& events) {
  if (events.ok()) return;
  events_.reset();
  events_problem_ = absl::StrCat("TensorBoard gets nothing more of this attempt, the job and metrics.jsonl go on: ",
                                 events.message());
}

absl::StatusOr<std::vector<MetricsRow>> RunFolder::ReadMetrics() const {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(metrics()));
  std::vector<MetricsRow> rows;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const nlohmann::json parsed = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
    if (!parsed.is_object()) continue;
    MetricsRow row;
    for (const auto& [name, value] : parsed.items()) {
      if (!value.is_number()) continue;
      if (name == "step") {
        if (value.is_number_unsigned()) row.step = value.get<uint64_t>();
      } else if (name == "time_s") {
        row.time_s = value.get<double>();
      } else {
        row.values[name] = value.get<double>();
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::optional<uint64_t> RunFolder::BestStep() const {
  const absl::StatusOr<std::string> text = ReadFile(best_mark());
  if (!text.ok()) return std::nullopt;
  const nlohmann::json mark = nlohmann::json::parse(*text, nullptr, false);
  if (!mark.contains("step") || !mark["step"].is_number_unsigned()) return std::nullopt;
  return mark["step"].get<uint64_t>();
}

absl::Status RunFolder::ReplaceBest(uint64_t step, const std::function<absl::Status()>& change) const {
  SLUICE_RETURN_IF_ERROR(RemoveAll(best_mark()));
  SLUICE_RETURN_IF_ERROR(change());
  return WriteFileAtomically(best_mark(), nlohmann::json{{"step", step}}.dump() + "\n");
}

absl::Status RunFolder::TruncateMetrics(std::optional<uint64_t> step) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<MetricsRow> rows, ReadMetrics());
  std::string kept;
  for (const MetricsRow& row : rows) {
    if (step && row.step <= *step) absl::StrAppend(&kept, ToLine(row), "\n");
  }
  metrics_.reset();
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(metrics(), kept));
  SLUICE_ASSIGN_OR_RETURN(metrics_, AppendFile::Open(metrics()));
  if (events_ == nullptr) return absl::OkStatus();
  // A folder that came back from its mirror has its metrics and no events: they are written anew.
  const bool lost = !PathExists(tensorboard());
  Watch(events_->Restart(step));
  for (const MetricsRow& row : rows) {
    if (lost && events_ != nullptr && step && row.step <= *step) Watch(events_->Append(row.step, row.values));
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner

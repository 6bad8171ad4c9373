#include "learner/run/checkpoint_mark.h"

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int64_t kMaxBytes = 4096;
constexpr char kTemporary[] = ".tmp";

// A run by itself holds the folder's lock.
bool IsLater(const std::optional<CheckpointMark>& mark, uint64_t epoch) {
  return mark && mark->epoch > epoch && epoch > 0;
}

// Aside, then `check`, then renamed.
absl::Status Replace(const std::string& path, const CheckpointMark& mark, const std::function<absl::Status()>& check) {
  nlohmann::json document = {{"epoch", mark.epoch}};
  if (mark.step) document["step"] = *mark.step;
  const std::string aside = absl::StrCat(path, ".", mark.epoch, kTemporary);
  absl::Status status = WriteFileAtomically(aside, document.dump() + "\n");
  if (status.ok()) {
    const absl::Cleanup remove = [&aside] { RemoveAll(aside).IgnoreError(); };
    SLUICE_RETURN_IF_ERROR(check());
    status = RenamePath(aside, path);
  }
  // It is gone because another epoch has taken the mark meanwhile.
  if (absl::IsNotFound(status)) SLUICE_RETURN_IF_ERROR(check());
  return status;
}

absl::Status RemoveAsideOfOthers(const std::string& path, uint64_t epoch) {
  const std::filesystem::path mark(path);
  const std::string start = mark.filename().string() + ".";
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(mark.parent_path().string()));
  for (const std::string& name : names) {
    if (absl::StartsWith(name, start) && absl::EndsWith(name, kTemporary) &&
        !absl::StartsWith(name, absl::StrCat(start, epoch, kTemporary))) {
      SLUICE_RETURN_IF_ERROR(RemoveAll((mark.parent_path() / name).string()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<CheckpointMark>> ReadCheckpointMark(const std::string& path) {
  if (!PathExists(path)) return std::optional<CheckpointMark>();
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  const auto is_count = [&document](const char* key) {
    return document.contains(key) && document[key].is_number_unsigned();
  };
  if (!document.is_object() || !is_count("epoch") || (document.contains("step") && !is_count("step"))) {
    return absl::DataLossError(
        absl::StrCat("'", path, "' is damaged; remove it, and the job goes on from the newest checkpoint"));
  }
  CheckpointMark mark;
  mark.epoch = document["epoch"].get<uint64_t>();
  if (document.contains("step")) mark.step = document["step"].get<uint64_t>();
  return std::optional<CheckpointMark>(mark);
}

absl::Status CheckMarkEpoch(const std::string& path, uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointMark> mark, ReadCheckpointMark(path));
  if (mark && mark->epoch == epoch) return absl::OkStatus();
  return absl::AbortedError(
      mark ? absl::StrCat("epoch ", mark->epoch, " has taken over the job's run folder from epoch ", epoch)
           : absl::StrCat("'", path, "' is gone, which tells whose the run folder is"));
}

absl::StatusOr<CheckpointMark> TakeCheckpointMark(const std::string& path, uint64_t epoch) {
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointMark> found, ReadCheckpointMark(path));
    if (IsLater(found, epoch)) return CheckMarkEpoch(path, epoch);
    const CheckpointMark mark = {epoch, found ? found->step : std::nullopt};
    SLUICE_RETURN_IF_ERROR(Replace(path, mark, [&path, epoch]() -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointMark> now, ReadCheckpointMark(path));
      return IsLater(now, epoch) ? CheckMarkEpoch(path, epoch) : absl::OkStatus();
    }));
    SLUICE_RETURN_IF_ERROR(RemoveAsideOfOthers(path, epoch));
    // One of an earlier epoch may have renamed its own just before that went.
    if (CheckMarkEpoch(path, epoch).ok()) return mark;
  }
}

absl::Status AdvanceCheckpointMark(const std::string& path, uint64_t epoch, uint64_t step) {
  return Replace(path, {epoch, step}, [&path, epoch] { return CheckMarkEpoch(path, epoch); });
}

}  // namespace sluice::learner

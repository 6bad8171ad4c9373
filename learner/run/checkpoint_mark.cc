#include "learner/run/checkpoint_mark.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int64_t kMaxBytes = 4096;

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

absl::Status WriteCheckpointMark(const std::string& path, const CheckpointMark& mark) {
  nlohmann::json document = {{"epoch", mark.epoch}};
  if (mark.step) document["step"] = *mark.step;
  return WriteFileAtomically(path, document.dump() + "\n");
}

absl::Status CheckMarkEpoch(const std::string& path, uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointMark> mark, ReadCheckpointMark(path));
  if (mark && mark->epoch == epoch) return absl::OkStatus();
  return absl::AbortedError(
      mark ? absl::StrCat("epoch ", mark->epoch, " has taken over the job's run folder from epoch ", epoch)
           : absl::StrCat("'", path, "' is gone, which tells whose the run folder is"));
}

}  // namespace sluice::learner

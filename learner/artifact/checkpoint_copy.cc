#include "learner/artifact/checkpoint_copy.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// The manifest comes last: without it the checkpoint is not whole.
bool IsWhole(const std::string& checkpoint) {
  return PathExists(JoinPath(checkpoint, "manifest.json")) && IsDirectory(JoinPath(checkpoint, "model"));
}

}  // namespace

absl::StatusOr<std::string> NewestCheckpoint(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(folder));
  std::sort(names.begin(), names.end(), std::greater<>());  // steps are padded with zeros
  for (const std::string& name : names) {
    const bool being_written = absl::StrContains(name, '.');
    std::string path = JoinPath(folder, name);
    if (absl::StartsWith(name, "step-") && !being_written && IsWhole(path)) return path;
  }
  return absl::NotFoundError(absl::StrCat("there is no whole checkpoint in '", folder, "'"));
}

absl::Status CopyCheckpointModel(const std::string& checkpoint, const std::string& to) {
  namespace fs = std::filesystem;
  if (PathExists(JoinPath(to, "model"))) return absl::OkStatus();
  const std::string model = JoinPath(checkpoint, "model");
  if (!IsWhole(checkpoint)) {
    return absl::NotFoundError(absl::StrCat("there is no whole checkpoint at '", checkpoint, "'"));
  }
  const std::string aside = absl::StrCat(to, ".tmp");
  SLUICE_RETURN_IF_ERROR(RemoveAll(aside));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(aside));
  std::error_code error;
  fs::copy(model, JoinPath(aside, "model"), fs::copy_options::recursive | fs::copy_options::create_hard_links, error);
  if (error) {
    SLUICE_RETURN_IF_ERROR(RemoveAll(JoinPath(aside, "model")));
    error.clear();
    fs::copy(model, JoinPath(aside, "model"), fs::copy_options::recursive, error);
  }
  if (error) {
    const std::string reason = error.message();
    SLUICE_RETURN_IF_ERROR(RemoveAll(aside));
    return absl::NotFoundError(absl::StrCat("cannot keep the checkpoint at '", checkpoint, "' aside: ", reason));
  }
  SLUICE_RETURN_IF_ERROR(SyncDirectory(JoinPath(aside, "model")));
  SLUICE_RETURN_IF_ERROR(RemoveAll(to));
  return RenamePath(aside, to);
}

}  // namespace sluice::learner

#include "learner/artifact/checkpoint_copy.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {

absl::Status CopyCheckpointModel(const std::string& checkpoint, const std::string& to) {
  namespace fs = std::filesystem;
  if (PathExists(JoinPath(to, "model"))) return absl::OkStatus();
  const std::string model = JoinPath(checkpoint, "model");
  // The manifest comes last: without it the checkpoint is not whole.
  if (!PathExists(JoinPath(checkpoint, "manifest.json")) || !IsDirectory(model)) {
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

#include "common/model_config/model_folder.h"

#include "absl/strings/str_cat.h"
#include "common/file/file.h"

namespace sluice {

absl::StatusOr<std::string> ResolveModelFolder(const std::string& path) {
  for (const std::string& candidate :
       {path, JoinPath(path, "export/best"), JoinPath(path, "export/final"), JoinPath(path, "model")}) {
    if (PathExists(JoinPath(candidate, "config.json"))) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("no model at '", path, "': looked for config.json there, in export/best, ",
                                          "export/final and model; give a Hugging Face folder or a run folder",
                                          RelativeTo(path)));
}

}  // namespace sluice

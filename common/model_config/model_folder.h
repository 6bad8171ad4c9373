// Which folder is meant where somebody names a model.
#ifndef SLUICE_COMMON_MODEL_CONFIG_MODEL_FOLDER_H_
#define SLUICE_COMMON_MODEL_CONFIG_MODEL_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice {

// The folder itself if it holds config.json, else its export/best, export/final (a run folder) or model (a
// checkpoint). NotFound names all that were tried.
absl::StatusOr<std::string> ResolveModelFolder(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_CONFIG_MODEL_FOLDER_H_

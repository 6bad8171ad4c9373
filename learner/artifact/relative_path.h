// Paths that come from outside and must stay inside a folder.
#ifndef SLUICE_LEARNER_ARTIFACT_RELATIVE_PATH_H_
#define SLUICE_LEARNER_ARTIFACT_RELATIVE_PATH_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice::learner {

inline constexpr size_t kMaxRelativePathBytes = 512;

// InvalidArgument unless `path` is "a/b/c": relative, each part a name, none of them "." or "..", no control
// characters. Pure: says nothing of links, which whoever opens the file must look at.
absl::Status CheckRelativePath(absl::string_view path);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_ARTIFACT_RELATIVE_PATH_H_

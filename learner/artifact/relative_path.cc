#include "learner/artifact/relative_path.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice::learner {

absl::Status CheckRelativePath(absl::string_view path) {
  if (path.empty() || path.size() > kMaxRelativePathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("path: want 1 to ", kMaxRelativePathBytes, " bytes, got ", path.size()));
  }
  const bool control =
      std::any_of(path.begin(), path.end(), [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
  bool leads_out = control || path.front() == '/';
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    leads_out = leads_out || part.empty() || part == "." || part == "..";
  }
  if (!leads_out) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("path: want one like 'export/best/config.json' that stays in its "
                   "folder, got '",
                   absl::CHexEscape(path), "'"));
}

}  // namespace sluice::learner

#include "learner/mirror/checkpoint_manifest.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

}  // namespace

absl::Status DescribeFiles(const std::string& folder, nlohmann::json* files) {
  std::error_code error;
  for (auto it = std::filesystem::recursive_directory_iterator(folder, error);
       !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    if (!it->is_regular_file()) continue;
    const std::string path = it->path().string();
    SLUICE_ASSIGN_OR_RETURN(const std::string sha256, FileSha256(path));
    SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(path));
    (*files)[std::filesystem::relative(path, folder).string()] = {{"sha256", sha256}, {"bytes", bytes}};
  }
  return error ? absl::InternalError(absl::StrCat("cannot list '", folder, "': ", error.message())) : absl::OkStatus();
}

absl::StatusOr<std::vector<ManifestFile>> ParseCheckpointManifest(const std::string& text, const std::string& what,
                                                                  int64_t max_file_bytes) {
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  const auto bad = [&what](absl::string_view why) { return absl::DataLossError(absl::StrCat("'", what, "' ", why)); };
  if (!document.is_object() || !document.contains("files") || !document["files"].is_object()) {
    return bad("is no manifest of a checkpoint");
  }
  std::vector<ManifestFile> files;
  for (const auto& [name, entry] : document["files"].items()) {
    if (!CheckKey(name).ok() || name == kManifestFile) return bad("lists a file by a name that none may have");
    const bool complete = entry.is_object() && entry.contains("sha256") && entry["sha256"].is_string() &&
                          entry.contains("bytes") && entry["bytes"].is_number_integer();
    if (!complete || !IsSha256(entry["sha256"]) || entry["bytes"] < 0 || entry["bytes"] > max_file_bytes) {
      return bad(absl::StrCat("does not say size and SHA-256 of '", name, "'"));
    }
    files.push_back({name, {entry["bytes"].get<int64_t>(), entry["sha256"].get<std::string>()}});
  }
  if (files.empty()) return bad("lists no files");
  return files;
}

}  // namespace sluice::learner

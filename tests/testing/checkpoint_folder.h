// Useful for: what a checkpoint looks like from outside, without a policy in it.
#ifndef SLUICE_TESTS_TESTING_CHECKPOINT_FOLDER_H_
#define SLUICE_TESTS_TESTING_CHECKPOINT_FOLDER_H_

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {

using FolderContent = std::map<std::string, std::string>;  // relative path to bytes

// Every file of a folder; empty if there is no folder.
inline FolderContent ReadFolder(const std::string& folder) {
  FolderContent content;
  if (!IsDirectory(folder)) return content;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    content[entry.path().lexically_relative(folder).string()] = ReadFile(entry.path().string()).value();
  }
  return content;
}

// Not synced to disk: a test's fixtures need not survive a power cut, and that would be most of its time.
inline void WriteUnsynced(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Writes `path` with the files of `content` and a manifest of them. Returns all that is there then.
inline FolderContent WriteCheckpointFolder(const std::string& path, const FolderContent& content) {
  SLUICE_CHECK(RemoveAll(path).ok(), path);
  nlohmann::json manifest = {{"format", 1}};
  for (const auto& [name, bytes] : content) {
    const std::string file = JoinPath(path, name);
    SLUICE_CHECK(MakeDirectories(std::filesystem::path(file).parent_path().string()).ok(), file);
    WriteUnsynced(file, bytes);
    manifest["files"][name] = {{"sha256", Sha256(bytes)}, {"bytes", bytes.size()}};
  }
  WriteUnsynced(JoinPath(path, "manifest.json"), manifest.dump());
  return ReadFolder(path);
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_CHECKPOINT_FOLDER_H_

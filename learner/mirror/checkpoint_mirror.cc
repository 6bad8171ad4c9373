#include "learner/mirror/checkpoint_mirror.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "learner/mirror/checkpoint_manifest.h"

namespace sluice::learner {
namespace {

constexpr size_t kDigestDigits = 16;
constexpr char kBeside[] = "-beside";
constexpr char kBesideIndex[] = "-beside.json";

// The number in "step-<number>".
std::optional<uint64_t> StepOf(absl::string_view name) {
  uint64_t step = 0;
  if (!absl::ConsumePrefix(&name, "step-") || name.empty()) return std::nullopt;
  if (!std::all_of(name.begin(), name.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(name, &step))
    return std::nullopt;
  return step;
}

bool IsOlder(const std::string& a, const std::string& b) {
  return std::make_pair(*StepOf(a), a) < std::make_pair(*StepOf(b), b);
}

std::string DigestFolder(const std::string& manifest) { return Sha256(manifest).substr(0, kDigestDigits); }

bool IsWhole(const std::string& folder, const std::string& manifest, const std::vector<ManifestFile>& files) {
  const absl::StatusOr<std::string> own = ReadFile(JoinPath(folder, kManifestFile));
  if (!own.ok() || *own != manifest) return false;
  return std::all_of(files.begin(), files.end(), [&folder](const ManifestFile& file) {
    const absl::StatusOr<std::string> digest = FileSha256(JoinPath(folder, file.name));
    return digest.ok() && *digest == file.content.sha256;
  });
}

// Whether the file begins with what was expected.
bool StartsAs(const std::string& path, const ExpectedContent& content) {
  Sha256Stream hasher;
  return HashPrefix(path, static_cast<uint64_t>(*content.bytes), &hasher).ok() && hasher.Digest() == content.sha256;
}

std::string IndexOf(const std::vector<FileBeside>& beside) {
  nlohmann::json index;
  for (const FileBeside& file : beside) {
    index["files"][file.name] = {{"bytes", *file.content.bytes}, {"sha256", file.content.sha256}};
  }
  return index.dump(2) + "\n";
}

// `folder` and those below it, so that their names survive a power cut.
absl::Status SyncFolders(const std::string& folder, const std::vector<ManifestFile>& files) {
  std::set<std::string> folders = {folder};
  for (const ManifestFile& file : files) {
    std::filesystem::path path = std::filesystem::path(file.name).parent_path();
    for (; !path.empty(); path = path.parent_path()) folders.insert(JoinPath(folder, path.string()));
  }
  for (const std::string& each : folders) SLUICE_RETURN_IF_ERROR(SyncDirectory(each));
  return absl::OkStatus();
}

}  // namespace

// Keys are relative to the mirror's folder.
struct CheckpointMirror::Contents {
  std::map<std::string, std::vector<std::string>> keys;  // of each checkpoint, by name
  std::map<std::string, int64_t> bytes;                  // of each key
  std::vector<std::string> complete;                     // names, oldest first
};

CheckpointMirror::CheckpointMirror(std::shared_ptr<ObjectStore> store, std::string folder, MirrorOptions options)
    : store_(std::move(store)), folder_(std::move(folder)), options_(options) {}

std::string CheckpointMirror::name() const { return absl::StrCat(store_->name(), "/", folder_); }

std::string CheckpointMirror::Key(const std::string& name, const std::string& file) const {
  return absl::StrCat(folder_, "/", name, "/", file);
}

absl::StatusOr<CheckpointMirror::Contents> CheckpointMirror::Look() {
  const std::string prefix = folder_ + "/";
  SLUICE_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, store_->List(prefix, options_.max_objects));
  Contents contents;
  for (const ObjectInfo& object : objects) {
    const std::string key = object.key.substr(prefix.size());
    const std::string name = key.substr(0, key.find('/'));
    if (name.size() == key.size() || !StepOf(name)) continue;  // somebody else's
    contents.keys[name].push_back(key);
    contents.bytes[key] = object.bytes;
    if (key == absl::StrCat(name, "/", kManifestFile)) contents.complete.push_back(name);
  }
  std::sort(contents.complete.begin(), contents.complete.end(), IsOlder);
  return contents;
}

absl::StatusOr<std::vector<std::string>> CheckpointMirror::List() {
  SLUICE_ASSIGN_OR_RETURN(Contents contents, Look());
  return std::move(contents.complete);
}

absl::Status CheckpointMirror::Send(const Contents& contents, const std::string& name, const std::string& relative,
                                    const std::string& path, const ExpectedContent& content) {
  // Objects are whole, and what lies below a digest was checked against its manifest when it was sent.
  const auto sent = contents.bytes.find(absl::StrCat(name, "/", relative));
  if (sent != contents.bytes.end() && sent->second == *content.bytes) return absl::OkStatus();
  return store_->PutFile(Key(name, relative), path, content);
}

absl::Status CheckpointMirror::Upload(const std::string& path, const std::vector<FileBeside>& beside) {
  const std::string name = std::filesystem::path(path).filename().string();
  if (!StepOf(name)) return absl::InvalidArgumentError(absl::StrCat("'", path, "' is no checkpoint's folder"));
  const std::string local = JoinPath(path, kManifestFile);
  SLUICE_ASSIGN_OR_RETURN(const std::string manifest, ReadFile(local, options_.max_manifest_bytes));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<ManifestFile> files,
                          ParseCheckpointManifest(manifest, local, options_.max_file_bytes));
  SLUICE_ASSIGN_OR_RETURN(const Contents contents, Look());
  if (std::count(contents.complete.begin(), contents.complete.end(), name) > 0) {
    SLUICE_ASSIGN_OR_RETURN(const std::string there,
                            store_->Get(Key(name, kManifestFile), options_.max_manifest_bytes));
    if (there == manifest) return absl::OkStatus();
  }
  const std::string digest = DigestFolder(manifest);
  for (const ManifestFile& file : files) {
    SLUICE_RETURN_IF_ERROR(
        Send(contents, name, absl::StrCat(digest, "/", file.name), JoinPath(path, file.name), file.content));
  }
  for (const FileBeside& file : beside) {
    SLUICE_RETURN_IF_ERROR(
        Send(contents, name, absl::StrCat(digest, kBeside, "/", file.name), file.path, file.content));
  }
  if (!beside.empty()) {
    SLUICE_RETURN_IF_ERROR(store_->Put(Key(name, absl::StrCat(digest, kBesideIndex)), IndexOf(beside)));
  }
  return store_->Put(Key(name, kManifestFile), manifest);
}

absl::StatusOr<std::vector<ManifestFile>> CheckpointMirror::FilesBeside(const Contents& contents,
                                                                        const std::string& name,
                                                                        const std::string& digest) {
  const std::string index = absl::StrCat(digest, kBesideIndex);
  if (contents.bytes.count(absl::StrCat(name, "/", index)) == 0) return std::vector<ManifestFile>();
  SLUICE_ASSIGN_OR_RETURN(const std::string text, store_->Get(Key(name, index), options_.max_manifest_bytes));
  return ParseCheckpointManifest(text, absl::StrCat(this->name(), "/", name, "/", index), options_.max_file_bytes);
}

absl::Status CheckpointMirror::Fetch(const Contents& contents, const std::string& name, const std::string& parent,
                                     const std::string& beside_folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::string manifest,
                          store_->Get(Key(name, kManifestFile), options_.max_manifest_bytes));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<ManifestFile> files,
                          ParseCheckpointManifest(manifest, absl::StrCat(this->name(), "/", name, "/", kManifestFile),
                                                  options_.max_file_bytes));
  const std::string digest = DigestFolder(manifest);
  SLUICE_ASSIGN_OR_RETURN(const std::vector<ManifestFile> beside, FilesBeside(contents, name, digest));
  if (!beside.empty() && beside_folder.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint '", name, "' has files beside it, and no folder was named for them"));
  }
  const auto fetch = [&](const std::string& folder, const std::string& below,
                         const ManifestFile& file) -> absl::Status {
    const std::string target = JoinPath(folder, file.name);
    SLUICE_RETURN_IF_ERROR(MakeDirectories(std::filesystem::path(target).parent_path().string()));
    return store_->GetToFile(Key(name, absl::StrCat(below, "/", file.name)), target, options_.max_file_bytes,
                             file.content);
  };
  const std::string path = JoinPath(parent, name);
  // The name that an unfinished checkpoint has here, too, so that whoever tidies up after a kill removes it.
  const std::string aside = path + ".tmp";
  const absl::Cleanup remove = [&aside] { RemoveAll(aside).IgnoreError(); };
  const bool whole = IsWhole(path, manifest, files);
  if (!whole) {
    SLUICE_RETURN_IF_ERROR(RemoveAll(aside));
    for (const ManifestFile& file : files) SLUICE_RETURN_IF_ERROR(fetch(aside, digest, file));
    SLUICE_RETURN_IF_ERROR(SyncFolders(aside, files));
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(aside, kManifestFile), manifest));
  }
  for (const ManifestFile& file : beside) {
    if (StartsAs(JoinPath(beside_folder, file.name), file.content)) continue;
    SLUICE_RETURN_IF_ERROR(fetch(beside_folder, absl::StrCat(digest, kBeside), file));
  }
  return whole ? absl::OkStatus() : ReplaceFolder(aside, path);
}

absl::StatusOr<FetchedCheckpoint> CheckpointMirror::FetchNewest(const std::string& parent,
                                                                const FetchOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const Contents contents, Look());
  FetchedCheckpoint fetched;
  for (auto name = contents.complete.rbegin(); name != contents.complete.rend(); ++name) {
    if (options.newer_than && *StepOf(*name) <= *options.newer_than) break;
    SLUICE_RETURN_IF_ERROR(MakeDirectories(parent));
    const absl::Status status = Fetch(contents, *name, parent, options.beside_folder);
    if (status.ok()) {
      fetched.path = JoinPath(parent, *name);
      return fetched;
    }
    // InvalidArgument: larger than any of its kind.
    if (!absl::IsDataLoss(status) && !absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) return status;
    fetched.damaged.push_back(absl::StrCat(*name, ": ", status.message()));
  }
  if (fetched.damaged.empty() || options.newer_than) return fetched;
  return absl::DataLossError(absl::StrCat("every checkpoint in '", name(),
                                          "' is damaged: ", absl::StrJoin(fetched.damaged, "; "),
                                          "; restore one from a backup, or name another mirror to start anew"));
}

absl::Status CheckpointMirror::FetchNamed(const std::string& name, const std::string& parent) {
  SLUICE_ASSIGN_OR_RETURN(const Contents contents, Look());
  if (std::count(contents.complete.begin(), contents.complete.end(), name) == 0) {
    return absl::NotFoundError(absl::StrCat("'", this->name(), "' has no ", name));
  }
  SLUICE_RETURN_IF_ERROR(MakeDirectories(parent));
  return Fetch(contents, name, parent, /*beside_folder=*/"");
}

absl::Status CheckpointMirror::Prune(const std::vector<std::string>& keep) {
  if (keep.empty()) return absl::InvalidArgumentError("a mirror is not pruned without naming a checkpoint to keep");
  SLUICE_ASSIGN_OR_RETURN(const Contents contents, Look());
  std::set<std::string> kept(keep.begin(), keep.end());
  if (!contents.complete.empty()) kept.insert(contents.complete.back());
  for (const auto& [name, keys] : contents.keys) {
    if (kept.count(name) > 0) {
      SLUICE_RETURN_IF_ERROR(RemoveStale(name, keys));
    } else {
      SLUICE_RETURN_IF_ERROR(Remove(name, keys));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointMirror::RemoveNewer(const std::string& name) {
  SLUICE_ASSIGN_OR_RETURN(const Contents contents, Look());
  if (std::count(contents.complete.begin(), contents.complete.end(), name) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", this->name(), "' has no ", name, "; newer checkpoints stay until it has"));
  }
  for (const auto& [other, keys] : contents.keys) {
    if (IsOlder(name, other)) SLUICE_RETURN_IF_ERROR(Remove(other, keys));
  }
  return absl::OkStatus();
}

absl::Status CheckpointMirror::Remove(const std::string& name, const std::vector<std::string>& keys) {
  SLUICE_RETURN_IF_ERROR(store_->Delete(Key(name, kManifestFile)));  // from here on it is not there
  for (const std::string& key : keys) SLUICE_RETURN_IF_ERROR(store_->Delete(absl::StrCat(folder_, "/", key)));
  return absl::OkStatus();
}

// Files of a kept checkpoint that its manifest does not mean: those of one that it replaced. Without a manifest they
// are those of an upload that goes on.
absl::Status CheckpointMirror::RemoveStale(const std::string& name, const std::vector<std::string>& keys) {
  const std::string manifest_key = absl::StrCat(name, "/", kManifestFile);
  if (std::count(keys.begin(), keys.end(), manifest_key) == 0) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::string manifest,
                          store_->Get(Key(name, kManifestFile), options_.max_manifest_bytes));
  const std::string current = absl::StrCat(name, "/", DigestFolder(manifest));  // and what is beside it
  for (const std::string& key : keys) {
    if (key == manifest_key || absl::StartsWith(key, current)) continue;
    SLUICE_RETURN_IF_ERROR(store_->Delete(absl::StrCat(folder_, "/", key)));
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner

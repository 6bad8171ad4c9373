#include "learner/data/data_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/append.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/artifact/relative_path.h"

namespace sluice::learner {
namespace {

constexpr size_t kDigestDigits = 64;
constexpr size_t kMaxNameBytes = 128;
constexpr char kIncoming[] = "incoming";

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::Status CheckDigest(absl::string_view what, absl::string_view digest) {
  if (digest.size() == kDigestDigits && IsHex(digest)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": want a SHA-256 of 64 lower-case hexadecimal digits, got ", digest.size(), " bytes"));
}

absl::Status CheckFiles(const std::vector<PushedFile>& files) {
  if (files.empty() || files.size() > DataStore::kMaxFiles) {
    return absl::InvalidArgumentError(absl::StrCat("files: want 1 to ", DataStore::kMaxFiles, ", got ", files.size()));
  }
  std::set<std::string> paths;
  uint64_t bytes = 0;
  for (const PushedFile& file : files) {
    SLUICE_RETURN_IF_ERROR(CheckRelativePath(file.path));
    SLUICE_RETURN_IF_ERROR(CheckDigest(file.path, file.sha256));
    if (!paths.insert(file.path).second) {
      return absl::InvalidArgumentError(absl::StrCat("files: '", file.path, "' is there twice"));
    }
    if (file.bytes > UINT64_MAX - bytes) return absl::InvalidArgumentError("files: the sizes are out of range");
    bytes += file.bytes;
  }
  for (const PushedFile& file : files) {
    for (size_t slash = file.path.find('/'); slash != std::string::npos; slash = file.path.find('/', slash + 1)) {
      if (paths.count(file.path.substr(0, slash)) > 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("files: '", file.path.substr(0, slash), "' is a file and the folder of '", file.path, "'"));
      }
    }
  }
  return absl::OkStatus();
}

uint64_t BytesThere(const std::string& path) {
  const absl::StatusOr<int64_t> bytes = FileBytes(path);
  return bytes.ok() ? static_cast<uint64_t>(*bytes) : 0;
}

std::string ManifestText(const PushedFolder& folder) {
  nlohmann::json json = {{"format", 1},
                         {"name", folder.name},
                         {"pushed_us", absl::ToUnixMicros(folder.pushed)},
                         {"files", nlohmann::json::array()}};
  for (const PushedFile& file : folder.files) {
    json["files"].push_back({{"path", file.path}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

uint64_t PushedFolder::bytes() const {
  uint64_t sum = 0;
  for (const PushedFile& file : files) sum += file.bytes;
  return sum;
}

std::string ManifestDigest(std::vector<PushedFile> files) {
  std::sort(files.begin(), files.end(), [](const PushedFile& a, const PushedFile& b) { return a.path < b.path; });
  Sha256Stream hasher;
  for (const PushedFile& file : files) {
    hasher.Update(absl::StrCat(file.sha256, "  ", file.bytes, "  ", file.path, "\n"));
  }
  return hasher.Digest();
}

std::string DataStore::FolderOf(const std::string& digest) const { return JoinPath(options_.root, digest); }
std::string DataStore::ManifestOf(const std::string& digest) const {
  return JoinPath(options_.root, absl::StrCat(digest, ".json"));
}
std::string DataStore::IncomingOf(const std::string& digest) const {
  return JoinPath(JoinPath(options_.root, kIncoming), digest);
}

absl::StatusOr<std::unique_ptr<DataStore>> DataStore::Open(DataStoreOptions options, NowFunction now) {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(JoinPath(options.root, kIncoming)));
  std::unique_ptr<DataStore> store(new DataStore(std::move(options), std::move(now)));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(store->options_.root));
  for (const std::string& name : names) {
    if (!CheckDigest("", name).ok() || PathExists(store->ManifestOf(name))) continue;
    LogWarning("removing data that were not committed whole", {{"digest", name}});
    SLUICE_RETURN_IF_ERROR(RemoveAll(store->FolderOf(name)));
  }
  return store;
}

absl::StatusOr<PushedFolder> DataStore::ReadManifest(const std::string& path, const std::string& digest) const {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  try {
    PushedFolder folder;
    folder.digest = digest;
    folder.name = json.at("name").get<std::string>();
    folder.pushed = absl::FromUnixMicros(json.at("pushed_us").get<int64_t>());
    for (const nlohmann::json& file : json.at("files")) {
      folder.files.push_back({file.at("path"), file.at("bytes").get<uint64_t>(), file.at("sha256")});
    }
    folder.folder = FolderOf(digest);
    return folder;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "' cannot be read: ", error.what()));
  }
}

absl::StatusOr<std::vector<PushedFolder>> DataStore::ListLocked() const {
  std::vector<PushedFolder> folders;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(options_.root));
  for (const std::string& name : names) {
    if (!CheckDigest("", name).ok() || !PathExists(ManifestOf(name))) continue;
    SLUICE_ASSIGN_OR_RETURN(folders.emplace_back(), ReadManifest(ManifestOf(name), name));
  }
  std::stable_sort(folders.begin(), folders.end(),
                   [](const PushedFolder& a, const PushedFolder& b) { return a.pushed > b.pushed; });
  return folders;
}

absl::StatusOr<std::vector<PushedFolder>> DataStore::List() const {
  MutexLock lock(&mutex_);
  return ListLocked();
}

uint64_t DataStore::UsedLocked() const {
  uint64_t used = 0;
  const absl::StatusOr<std::vector<PushedFolder>> folders = ListLocked();
  if (folders.ok()) {
    for (const PushedFolder& folder : *folders) used += folder.bytes();
  }
  const absl::StatusOr<std::vector<std::string>> incoming = ListDirectory(JoinPath(options_.root, kIncoming));
  if (!incoming.ok()) return used;
  for (const std::string& digest : *incoming) {
    const absl::StatusOr<PushedFolder> folder = ReadManifest(JoinPath(IncomingOf(digest), "manifest.json"), digest);
    if (folder.ok()) used += folder->bytes();
  }
  return used;
}

uint64_t DataStore::UsedBytes() const {
  MutexLock lock(&mutex_);
  return UsedLocked();
}

absl::Status DataStore::MakeRoomLocked(uint64_t bytes) {
  const auto fits = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const uint64_t used = UsedLocked();
    return used <= options_.quota_bytes && bytes <= options_.quota_bytes - used;
  };
  if (fits()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> incoming, ListDirectory(JoinPath(options_.root, kIncoming)));
  for (const std::string& digest : incoming) {
    struct stat facts = {};
    const std::string touched = JoinPath(IncomingOf(digest), "touched");
    const bool known = stat(touched.c_str(), &facts) == 0;
    if (known && absl::TimeFromTimespec(facts.st_mtim) + options_.stale > now_()) continue;
    if (committing_.count(digest) > 0) continue;
    LogInfo("a push that did not go on gives way to another", {{"digest", digest}});
    SLUICE_RETURN_IF_ERROR(RemoveAll(IncomingOf(digest)));
  }
  if (fits()) return absl::OkStatus();
  return NoSpaceError(absl::StrCat("the quota of ", options_.quota_bytes, " bytes has no room for ", bytes, " more; ",
                                   UsedLocked(),
                                   " are used. Remove data with 'sluicectl data rm', or raise the "
                                   "coordinator's --data-quota-gib"));
}

absl::StatusOr<DataStore::Begun> DataStore::Begin(const std::string& name, const std::vector<PushedFile>& files) {
  SLUICE_RETURN_IF_ERROR(CheckFiles(files));
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("name: want at most ", kMaxNameBytes, " bytes, got ", name.size()));
  }
  Begun begun;
  begun.digest = ManifestDigest(files);
  MutexLock lock(&mutex_);
  begun.complete = PathExists(ManifestOf(begun.digest));
  const std::string incoming = IncomingOf(begun.digest);
  if (!begun.complete && !PathExists(JoinPath(incoming, "manifest.json"))) {
    PushedFolder folder;
    folder.name = name;
    folder.pushed = now_();
    folder.files = files;
    SLUICE_RETURN_IF_ERROR(MakeRoomLocked(folder.bytes()));
    SLUICE_RETURN_IF_ERROR(RemoveAll(incoming));
    SLUICE_RETURN_IF_ERROR(MakeDirectories(JoinPath(incoming, "files")));
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(incoming, "touched"), ""));
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(incoming, "manifest.json"), ManifestText(folder)));
  }
  for (const PushedFile& file : files) {
    begun.have.push_back(begun.complete
                             ? file.bytes
                             : std::min(file.bytes, BytesThere(JoinPath(JoinPath(incoming, "files"), file.path))));
  }
  return begun;
}

absl::StatusOr<uint64_t> DataStore::Put(const std::string& digest, const std::string& path, uint64_t offset,
                                        absl::string_view data) {
  SLUICE_RETURN_IF_ERROR(CheckDigest("digest", digest));
  MutexLock lock(&mutex_);
  const std::string incoming = IncomingOf(digest);
  const std::string manifest = JoinPath(incoming, "manifest.json");
  if (!PathExists(manifest) || committing_.count(digest) > 0) {
    return absl::NotFoundError(absl::StrCat("no push of ", digest, " is under way; begin it"));
  }
  SLUICE_ASSIGN_OR_RETURN(const PushedFolder folder, ReadManifest(manifest, digest));
  const auto file = std::find_if(folder.files.begin(), folder.files.end(),
                                 [&path](const PushedFile& one) { return one.path == path; });
  if (file == folder.files.end()) {
    return absl::NotFoundError(absl::StrCat("the manifest of ", digest, " has no file '", path, "'"));
  }
  const std::string target = JoinPath(JoinPath(incoming, "files"), path);
  const uint64_t have = BytesThere(target);
  if (offset > have) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "': ", have, " bytes are there, and the next are those from ", offset));
  }
  if (offset > file->bytes || data.size() > file->bytes - offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' has ", file->bytes, " bytes, got ", data.size(), " from ", offset));
  }
  const uint64_t known = std::min<uint64_t>(have - offset, data.size());
  if (const size_t slash = target.rfind('/'); slash != std::string::npos) {
    SLUICE_RETURN_IF_ERROR(MakeDirectories(target.substr(0, slash)));
  }
  SLUICE_RETURN_IF_ERROR(AppendToFile(target, data.substr(known)));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(incoming, "touched"), ""));
  return BytesThere(target);
}

absl::StatusOr<std::string> DataStore::Commit(const std::string& digest) {
  SLUICE_RETURN_IF_ERROR(CheckDigest("digest", digest));
  const std::string incoming = IncomingOf(digest);
  PushedFolder folder;
  {
    MutexLock lock(&mutex_);
    if (PathExists(ManifestOf(digest))) return FolderOf(digest);
    if (!PathExists(JoinPath(incoming, "manifest.json"))) {
      return absl::NotFoundError(absl::StrCat("no push of ", digest, " is under way; begin it"));
    }
    SLUICE_ASSIGN_OR_RETURN(folder, ReadManifest(JoinPath(incoming, "manifest.json"), digest));
    if (!committing_.insert(digest).second) {
      return absl::UnavailableError(absl::StrCat(digest, " is being committed already; ask again"));
    }
  }
  const auto done = absl::MakeCleanup([this, digest] {
    MutexLock lock(&mutex_);
    committing_.erase(digest);
  });
  for (const PushedFile& file : folder.files) {
    const std::string path = JoinPath(JoinPath(incoming, "files"), file.path);
    // A file of no bytes needs no Put.
    if (file.bytes == 0 && !PathExists(path)) {
      if (const size_t slash = path.rfind('/'); slash != std::string::npos) {
        SLUICE_RETURN_IF_ERROR(MakeDirectories(path.substr(0, slash)));
      }
      SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, ""));
    }
    const uint64_t have = BytesThere(path);
    if (have < file.bytes) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", file.path, "': ", have, " of ", file.bytes, " bytes are there; put the rest"));
    }
    SLUICE_ASSIGN_OR_RETURN(const std::string sha256, FileSha256(path));
    if (have != file.bytes || sha256 != file.sha256) {
      SLUICE_RETURN_IF_ERROR(RemoveAll(path));
      return absl::DataLossError(
          absl::StrCat("'", file.path, "' is not what its manifest says; it was dropped, push again"));
    }
    SLUICE_RETURN_IF_ERROR(SyncFile(path));
  }
  MutexLock lock(&mutex_);
  SLUICE_RETURN_IF_ERROR(RemoveAll(FolderOf(digest)));
  SLUICE_RETURN_IF_ERROR(RenamePath(JoinPath(incoming, "files"), FolderOf(digest)));
  folder.pushed = now_();
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(ManifestOf(digest), ManifestText(folder)));
  SLUICE_RETURN_IF_ERROR(RemoveAll(incoming));
  return FolderOf(digest);
}

absl::StatusOr<PushedFolder> DataStore::Find(const std::string& digest) const {
  if (digest.size() < kMinDigestDigits || digest.size() > kDigestDigits || !IsHex(digest)) {
    return absl::InvalidArgumentError(absl::StrCat("digest: want ", kMinDigestDigits, " to ", kDigestDigits,
                                                   " lower-case hexadecimal digits, got '", digest, "'"));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<PushedFolder> folders, List());
  const PushedFolder* found = nullptr;
  for (const PushedFolder& folder : folders) {
    if (!absl::StartsWith(folder.digest, digest)) continue;
    if (found != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("digest ", digest, " may be ", found->digest, " or ", folder.digest, "; give more of it"));
    }
    found = &folder;
  }
  if (found != nullptr) return *found;
  return absl::NotFoundError(
      absl::StrCat("no pushed data have the digest ", digest, "; 'sluicectl data list' shows what is there"));
}

absl::StatusOr<uint64_t> DataStore::Remove(const std::string& digest) {
  SLUICE_ASSIGN_OR_RETURN(const PushedFolder folder, Find(digest));
  MutexLock lock(&mutex_);
  // The manifest first: from here on there is no such folder, whatever happens to its files.
  SLUICE_RETURN_IF_ERROR(RemoveAll(ManifestOf(folder.digest)));
  SLUICE_RETURN_IF_ERROR(RemoveAll(folder.folder));
  return folder.bytes();
}

}  // namespace sluice::learner

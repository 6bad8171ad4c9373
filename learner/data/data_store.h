// Folders of files that clients pushed, each addressed by the digest of its manifest. A push may stop and go on at any
// byte; a folder is visible under its digest only when every file is what the manifest says.
//
//   <root>/<digest>/            the files, as pushed
//   <root>/<digest>.json        name, time, files; written last: without it there is no such folder
//   <root>/incoming/<digest>/   manifest.json and files/ of a push under way
//
// What a method returned is on the disk. Thread-safe.
#ifndef SLUICE_LEARNER_DATA_DATA_STORE_H_
#define SLUICE_LEARNER_DATA_DATA_STORE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice::learner {

struct PushedFile {
  std::string path;  // CheckRelativePath
  uint64_t bytes = 0;
  std::string sha256;
};

struct PushedFolder {
  std::string digest;
  std::string name;  // for people
  absl::Time pushed;
  std::vector<PushedFile> files;
  std::string folder;
  uint64_t bytes() const;
};

// SHA-256 of the lines "sha256  bytes  path\n" in the order of paths.
std::string ManifestDigest(std::vector<PushedFile> files);

struct DataStoreOptions {
  std::string root;
  uint64_t quota_bytes = uint64_t{64} << 30;  // of everything below root, pushes under way by their whole size
  // A push that nothing was added to for so long gives way to another that needs its room.
  absl::Duration stale = absl::Hours(24);
};

class DataStore {
 public:
  static constexpr int kMaxFiles = 10000;
  static constexpr size_t kMinDigestDigits = 8;

  // `now`: the wall clock. Makes the folder; removes what a killed process left half committed.
  static absl::StatusOr<std::unique_ptr<DataStore>> Open(DataStoreOptions options, NowFunction now);

  struct Begun {
    std::string digest;
    bool complete = false;
    std::vector<uint64_t> have;  // bytes that are there, for each file in the order given
  };
  // InvalidArgument: bad paths, digests or too many files. NoSpaceError: beyond the quota.
  absl::StatusOr<Begun> Begin(const std::string& name, const std::vector<PushedFile>& files);

  // Appends `data` to a file of a push under way; what is there already is skipped. Returns the bytes that are there.
  // NotFound: no such push or file. FailedPrecondition: `offset` lies behind what is there. InvalidArgument: beyond the
  // file's size.
  absl::StatusOr<uint64_t> Put(const std::string& digest, const std::string& path, uint64_t offset,
                               absl::string_view data);

  // Returns the folder. DataLoss: a file is not what the manifest says; it is dropped. FailedPrecondition: bytes lack.
  absl::StatusOr<std::string> Commit(const std::string& digest);

  absl::StatusOr<std::vector<PushedFolder>> List() const;  // newest first
  uint64_t UsedBytes() const;
  uint64_t quota_bytes() const { return options_.quota_bytes; }
  const std::string& root() const { return options_.root; }

  // The whole digest and the folder of a beginning of at least kMinDigestDigits digits. NotFound; InvalidArgument if
  // several begin so.
  absl::StatusOr<PushedFolder> Find(const std::string& digest) const;

  // Returns the bytes that were freed.
  absl::StatusOr<uint64_t> Remove(const std::string& digest);

 private:
  DataStore(DataStoreOptions options, NowFunction now) : options_(std::move(options)), now_(std::move(now)) {}

  std::string FolderOf(const std::string& digest) const;
  std::string ManifestOf(const std::string& digest) const;
  std::string IncomingOf(const std::string& digest) const;
  absl::StatusOr<PushedFolder> ReadManifest(const std::string& path, const std::string& digest) const;
  absl::StatusOr<std::vector<PushedFolder>> ListLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t UsedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoomLocked(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DataStoreOptions options_;
  const NowFunction now_;
  // Held over file writes on purpose: what a push has must not be told while it changes.
  mutable Mutex mutex_;
  std::set<std::string> committing_ ABSL_GUARDED_BY(mutex_);  // being checked, without the lock
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_DATA_DATA_STORE_H_

// Objects as files below a folder: a mounted network file system, or a test.
//
// Written aside, fsynced and renamed. Keys stay below the root: they cannot name ".." (CheckKey), and a symbolic link
// that leads elsewhere is not followed (PermissionDenied). Deadlines do not apply: the file system's own are what there
// is. Empty folders go with their last object. Thread-safe for different keys.
#ifndef SLUICE_COMMON_OBJECT_STORE_LOCAL_OBJECT_STORE_H_
#define SLUICE_COMMON_OBJECT_STORE_LOCAL_OBJECT_STORE_H_

#include <string>
#include <vector>

#include "common/object_store/object_store.h"

namespace sluice {

class LocalObjectStore final : public ObjectStore {
 public:
  // `root` is made by the first write. `stopped` as in TransferOptions; may be empty.
  explicit LocalObjectStore(std::string root, std::function<bool()> stopped = {});

  std::string name() const override { return root_; }
  absl::Status Put(const std::string& key, absl::string_view bytes) override;
  absl::Status PutFile(const std::string& key, const std::string& path, const ExpectedContent& expected) override;
  absl::StatusOr<std::string> Get(const std::string& key, int64_t max_bytes) override;
  absl::Status GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                         const ExpectedContent& expected) override;
  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix, int64_t max_objects) override;
  absl::StatusOr<ObjectInfo> Head(const std::string& key) override;
  absl::Status Delete(const std::string& key) override;

 private:
  // The file of a key, after the checks of the class comment.
  absl::StatusOr<std::string> PathOf(const std::string& key) const;
  absl::Status MakeParents(const std::string& path) const;
  absl::Status Copy(const std::string& from, const std::string& to, int64_t max_bytes,
                    const ExpectedContent& expected) const;

  const std::string root_;
  const std::function<bool()> stopped_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_LOCAL_OBJECT_STORE_H_

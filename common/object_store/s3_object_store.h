// Objects in an S3-compatible service: Amazon's, MinIO, Ceph and others. Path-style requests, signed by Signature
// Version 4 with the payload's digest, so that the service refuses bytes that changed on their way.
//
// Files above `part_bytes` go up in parts; the object appears when the last request, which joins them, succeeds. A
// failed upload is aborted. A killed process leaves its parts, which no listing shows but which cost storage: give the
// bucket a lifecycle rule AbortIncompleteMultipartUpload. Every request is repeated alone, within
// TransferOptions::retry_timeout. Memory: one small buffer, whatever the size of the object.
#ifndef SLUICE_COMMON_OBJECT_STORE_S3_OBJECT_STORE_H_
#define SLUICE_COMMON_OBJECT_STORE_S3_OBJECT_STORE_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/object_store/http.h"
#include "common/object_store/object_store.h"
#include "common/object_store/s3_location.h"
#include "common/random/random.h"

namespace sluice {

struct S3Options {
  S3Location location;
  SigningKeys keys;
  TransferOptions transfer;
  // Of one part of an upload. S3 takes 5 MiB to 5 GiB, and 10 000 parts: larger files get larger parts.
  int64_t part_bytes = int64_t{64} << 20;
};

class S3ObjectStore final : public ObjectStore {
 public:
  explicit S3ObjectStore(S3Options options);

  std::string name() const override;
  absl::Status Put(const std::string& key, absl::string_view bytes) override;
  absl::Status PutFile(const std::string& key, const std::string& path, const ExpectedContent& expected) override;
  absl::StatusOr<std::string> Get(const std::string& key, int64_t max_bytes) override;
  absl::Status GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                         const ExpectedContent& expected) override;
  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix, int64_t max_objects) override;
  absl::StatusOr<ObjectInfo> Head(const std::string& key) override;
  absl::Status Delete(const std::string& key) override;

 private:
  class Call;
  class Upload;

  std::string WholeKey(absl::string_view key) const;

  const S3Options options_;
  std::atomic<uint64_t> calls_{0};  // each draws its jitter from a stream of its own
};

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_S3_OBJECT_STORE_H_

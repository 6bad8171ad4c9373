// Files under keys, in a folder or in an S3-compatible service, behind one interface.
//
// A key is a relative path such as "step-00000120/model/config.json": see CheckKey. An object is whole or absent:
// readers see the old bytes or the new ones, never a part. Nothing is locked: two writers of one key leave the bytes of
// one of them, in a folder (LocalObjectStore) only if they do not write at the same time.
//
// Codes, for every implementation:
//   NotFound            no such object, or no such bucket; the message says which
//   PermissionDenied    known to the service, but not allowed or wrongly signed; with the service's code
//   Unauthenticated     unknown or expired credentials, or none
//   ResourceExhausted   throttled (repeated before it is returned), more than the caller's bound, or NoSpaceError
//   Unavailable         the service cannot be reached or failed (repeated before it is returned)
//   DeadlineExceeded    the same, by time
//   DataLoss            the bytes are not what the caller expects; nothing was written
//   InvalidArgument     a bad key, or an object or file larger than the caller's bound
//   FailedPrecondition  the settings do not fit the service: region, endpoint, certificate
//   Cancelled           the caller's process stops
// Messages name the object and hold no credentials.
#ifndef SLUICE_COMMON_OBJECT_STORE_OBJECT_STORE_H_
#define SLUICE_COMMON_OBJECT_STORE_OBJECT_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/time/clock.h"
#include "common/time/retry.h"

namespace sluice {

struct ObjectInfo {
  std::string key;
  int64_t bytes = 0;
};

// What a file must be. A transfer that finds anything else fails with DataLoss, and nothing is written.
struct ExpectedContent {
  std::optional<int64_t> bytes;
  std::string sha256;  // 64 lower-case hex digits; empty: any
};

// Thread-safe, unless an implementation says otherwise.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Where keys start, for messages: "s3://bucket/prefix" or a folder's path.
  virtual std::string name() const = 0;

  // Writes one object, replacing one of that key. For small ones: `bytes` are kept in memory until it is done.
  virtual absl::Status Put(const std::string& key, absl::string_view bytes) = 0;
  // The same from a file of any size, which is streamed.
  virtual absl::Status PutFile(const std::string& key, const std::string& path, const ExpectedContent& expected) = 0;

  // The whole object, refused if larger than `max_bytes`.
  virtual absl::StatusOr<std::string> Get(const std::string& key, int64_t max_bytes) = 0;
  // Streams the object to "`path`.tmp", checks it, fsyncs and renames: `path` is never a part of the object. Its folder
  // must exist. InvalidArgument if it is larger than `max_bytes`.
  virtual absl::Status GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                                 const ExpectedContent& expected) = 0;

  // Objects whose key starts with `prefix` (of characters, not of folders; empty: all), sorted by key.
  // ResourceExhausted if there are more than `max_objects`, so that nobody takes a part for the whole.
  virtual absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix, int64_t max_objects) = 0;

  // The object's size. NotFound if there is none.
  virtual absl::StatusOr<ObjectInfo> Head(const std::string& key) = 0;

  // Removes the object. OK if there is none, as a repeated call could not tell.
  virtual absl::Status Delete(const std::string& key) = 0;
};

// False for NotFound.
absl::StatusOr<bool> ObjectExists(ObjectStore* store, const std::string& key);

// InvalidArgument unless `key` is 1 to 900 bytes of UTF-8 without control characters and backslashes, made of parts
// between single slashes that are neither empty, "." nor ".."; and does not end in ".tmp", the mark of an unfinished
// file. (S3 takes 1024 bytes, with the prefix of the store.)
absl::Status CheckKey(absl::string_view key);

// InvalidArgument unless `prefix` is empty or could be the start of a key.
absl::Status CheckPrefix(absl::string_view prefix);

// How patient a store is, and what it takes from its process.
struct TransferOptions {
  // Of one request without its bytes, and of a request with them: request_timeout + bytes / min_bytes_per_second.
  absl::Duration request_timeout = absl::Seconds(30);
  int64_t min_bytes_per_second = int64_t{1} << 20;
  // A connection on which nothing moves for so long is given up. Whole seconds.
  absl::Duration stall_timeout = absl::Seconds(20);
  absl::Duration connect_timeout = absl::Seconds(10);
  // Between the attempts of one request; attempts and waits together last at most retry_timeout + one request's time.
  absl::Duration first_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(10);
  absl::Duration retry_timeout = absl::Minutes(2);

  NowFunction now;                // monotonic
  WaitFunction wait;              // sleeps, or returns false if the process stops
  std::function<bool()> stopped;  // asked during transfers; true ends them with Cancelled. Thread-safe
  uint64_t seed = 0;              // of the jitter; another one for each process
};

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_OBJECT_STORE_H_

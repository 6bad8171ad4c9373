// Reader and writer of safetensors files: named tensors behind a JSON header.
//
//   u64 little-endian N | N bytes of JSON, may be padded with spaces | data
//   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
//   "__metadata__": {"key": "text"}}
//
// Files come from anywhere, so a header is hostile until checked: N is at most
// 100 MB and inside the file, no key comes twice, the sorted byte ranges follow
// each other without gap or overlap, each has exactly shape x dtype bytes
// (overflow-checked), and the last one ends where the file ends. Tensors are
// row-major and little-endian, and not every writer aligns them: bytes are
// copied, never mapped.
//
// Source of the format: https://github.com/huggingface/safetensors
//
// Codes: NotFound (no such file or tensor), DataLoss (damaged or lying file),
// InvalidArgument (a wrong request), Unimplemented (a data type that Sluice does
// not read), and those of common/file.
#ifndef SLUICE_COMMON_SAFETENSORS_SAFETENSORS_H_
#define SLUICE_COMMON_SAFETENSORS_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

enum class TensorDtype {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
};

// Bytes of one element.
int64_t DtypeBytes(TensorDtype dtype);
// As in the header: "F32", "BF16".
absl::string_view DtypeName(TensorDtype dtype);

// Where a tensor lies.
struct TensorInfo {
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;  // empty: a scalar, one element
  int64_t offset = 0;          // of its first byte, from the start of the file
  int64_t bytes = 0;           // = product of shape x DtypeBytes

  int64_t elements() const { return bytes / DtypeBytes(dtype); }
};

// "[2, 3]"
std::string ShapeText(absl::Span<const int64_t> shape);

// One open file. The header is checked and held; data is read on demand.
// Thread-safe.
class SafetensorsFile {
 public:
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // By name, sorted.
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  // The header's __metadata__, for example {"format": "pt"}.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

  bool Has(absl::string_view name) const;
  // NotFound names the file and the tensor.
  absl::StatusOr<TensorInfo> Info(absl::string_view name) const;

  // The tensor's bytes, row-major, little-endian.
  absl::StatusOr<std::string> Read(absl::string_view name) const;
  // The same into `out`, which must have exactly `bytes` = TensorInfo::bytes
  // bytes.
  absl::Status ReadInto(absl::string_view name, void* out, int64_t bytes) const;

 private:
  SafetensorsFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  absl::Status ReadHeader();

  std::string path_;
  int descriptor_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

// All tensors of a model folder: the shards that
// `<stem>.safetensors.index.json` names, or the one file
// `<stem>.safetensors`. Shard names must be plain file names, so an index
// cannot point out of its folder, and every tensor of the index must be in the
// shard it is promised in. Thread-safe.
class SafetensorsFolder {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFolder>> Open(const std::string& folder,
                                                                 absl::string_view stem = "model");

  // Names of all tensors, sorted.
  const std::vector<std::string>& names() const { return names_; }
  bool Has(absl::string_view name) const { return file_of_.contains(name); }
  absl::StatusOr<TensorInfo> Info(absl::string_view name) const;
  absl::StatusOr<std::string> Read(absl::string_view name) const;
  absl::Status ReadInto(absl::string_view name, void* out, int64_t bytes) const;
  // The files that were opened, in the order of their names.
  std::vector<std::string> paths() const;

 private:
  SafetensorsFolder() = default;
  absl::StatusOr<const SafetensorsFile*> FileOf(absl::string_view name) const;

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, const SafetensorsFile*> file_of_;
};

// A tensor to be written; `data` stays the caller's and must live until the
// write returns.
struct TensorToWrite {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
  int64_t bytes = 0;  // must be shape x dtype
};

// Writes a file atomically, without a copy of the data. Tensors are laid out by
// falling element size, then name (as the reference writer does), and the
// header is padded to 8 bytes: every tensor is aligned. The same input gives
// the same bytes. InvalidArgument: a name twice or empty or "__metadata__", or
// a size that is not shape x dtype.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace sluice

#endif  // SLUICE_COMMON_SAFETENSORS_SAFETENSORS_H_

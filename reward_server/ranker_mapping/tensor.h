// Tensors as models outside of this process take and give them: a name, a datatype of the Open Inference Protocol, a
// shape, and little-endian bytes. Nothing here knows how they travel.
#ifndef SLUICE_REWARD_SERVER_RANKER_MAPPING_TENSOR_H_
#define SLUICE_REWARD_SERVER_RANKER_MAPPING_TENSOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice::reward {

enum class TensorType {
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,
};

// As the protocol writes it: "INT64".
absl::string_view TensorTypeName(TensorType type);
absl::Span<const absl::string_view> TensorTypeNames();
std::optional<TensorType> FindTensorType(absl::string_view name);
bool IsFloating(TensorType type);
// Of one element; 0 for kBytes, whose elements have sizes of their own.
int64_t ElementBytes(TensorType type);

// Whether a number can be an element: whole and in range for the integers (0 or 1 for kBool), finite after rounding for
// the others. False for kBytes.
bool Fits(TensorType type, double value);
bool FitsInteger(TensorType type, int64_t value);
// Append an element that fits; floats are rounded to the nearest, ties to even.
void AppendNumber(TensorType type, double value, std::string* raw);
void AppendInteger(TensorType type, int64_t value, std::string* raw);
// An element of kBytes: its length as uint32, then the bytes.
void AppendText(absl::string_view text, std::string* raw);
// Reads the element at `at`, which has ElementBytes(type) bytes. Not for kBytes.
double ReadNumber(TensorType type, const char* at);

struct Tensor {
  std::string name;
  TensorType type = TensorType::kFp32;
  std::vector<int64_t> shape;
  std::string raw;  // row-major
};

// The number of elements of a shape that came from outside; nullopt: a negative size, or more than `most`.
std::optional<int64_t> ElementCount(absl::Span<const int64_t> shape, int64_t most);

// "[3, -1]".
std::string ShapeText(absl::Span<const int64_t> shape);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_MAPPING_TENSOR_H_

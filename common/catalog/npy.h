// NumPy's .npy files: one array each. Written so that anyone can look into a data set with numpy.load, and read
// for item vectors that come from elsewhere; reading checks every byte of the header and the file's size.
//
// Little-endian, C order. Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
// Codes: DataLoss (damaged, or not an .npy file), InvalidArgument (an array of another kind than asked for).
#ifndef SLUICE_COMMON_CATALOG_NPY_H_
#define SLUICE_COMMON_CATALOG_NPY_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

struct NpyArray {
  std::string type;  // as in the header: "<i4", "<f8", "|u1"
  std::vector<int64_t> shape;
  std::string content;     // the whole file
  size_t data_offset = 0;  // where the elements start

  absl::string_view data() const { return absl::string_view(content).substr(data_offset); }
};

// `path` is for messages only.
absl::StatusOr<NpyArray> ParseNpy(std::string content, const std::string& path);

// Writes atomically. `bytes` must be shape x item size.
absl::Status WriteNpyBytes(const std::string& path, absl::string_view type, absl::Span<const int64_t> shape,
                           absl::string_view bytes);

template <typename T>
constexpr const char* NpyType() {
  if constexpr (std::is_same_v<T, uint8_t>) return "|u1";
  if constexpr (std::is_same_v<T, int32_t>) return "<i4";
  if constexpr (std::is_same_v<T, int64_t>) return "<i8";
  if constexpr (std::is_same_v<T, float>) return "<f4";
  if constexpr (std::is_same_v<T, double>) return "<f8";
}

template <typename T>
absl::Status WriteNpy(const std::string& path, absl::Span<const int64_t> shape, const std::vector<T>& values) {
  return WriteNpyBytes(path, NpyType<T>(), shape,
                       absl::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

// InvalidArgument unless the array has that type and that many dimensions.
absl::Status CheckNpy(const NpyArray& array, absl::string_view type, size_t dimensions, const std::string& path);

// The elements, row-major. InvalidArgument unless they are of type T in `dimensions` dimensions.
template <typename T>
absl::StatusOr<std::vector<T>> NpyValues(const NpyArray& array, size_t dimensions, const std::string& path) {
  if (absl::Status status = CheckNpy(array, NpyType<T>(), dimensions, path); !status.ok()) return status;
  std::vector<T> values(array.data().size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), array.data().data(), array.data().size());
  return values;
}

// Vectors of items, [rows, columns] row-major.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<float> values;
};

// Reads a matrix of float32 or float64. InvalidArgument also for a value that is not finite, or an empty one.
absl::StatusOr<Matrix> ReadNpyMatrix(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_NPY_H_

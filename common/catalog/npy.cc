#include "common/catalog/npy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are copied as they lie in the file");

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kMaxHeaderBytes = 65536;
constexpr int64_t kMaxMatrixBytes = int64_t{8} << 30;

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("'", path, "': ", what));
}

// The text after `'key':` in a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
std::optional<absl::string_view> ValueOf(absl::string_view header, absl::string_view key) {
  const std::string quoted = absl::StrCat("'", key, "'");
  const size_t at = header.find(quoted);
  if (at == absl::string_view::npos) return std::nullopt;
  absl::string_view rest = absl::StripLeadingAsciiWhitespace(header.substr(at + quoted.size()));
  if (!absl::ConsumePrefix(&rest, ":")) return std::nullopt;
  return absl::StripLeadingAsciiWhitespace(rest);
}

std::optional<std::vector<int64_t>> ShapeOf(absl::string_view text) {
  const size_t end = text.find(')');
  if (!absl::ConsumePrefix(&text, "(") || end == absl::string_view::npos) return std::nullopt;
  std::vector<int64_t> shape;
  for (absl::string_view part : absl::StrSplit(text.substr(0, end - 1), ',')) {
    part = absl::StripAsciiWhitespace(part);
    if (part.empty()) continue;  // after the last comma
    int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 0) return std::nullopt;
    shape.push_back(size);
  }
  return shape;
}

// Bytes of one element of the types that numpy writes for plain numbers.
int64_t ItemBytes(absl::string_view type) {
  int64_t bytes = 0;
  if (type.size() < 3 || type.size() > 4 || !absl::SimpleAtoi(type.substr(2), &bytes)) return 0;
  if (absl::string_view("biuf").find(type[1]) == absl::string_view::npos) return 0;
  return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16 ? bytes : 0;
}

std::string ShapeName(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace

absl::StatusOr<NpyArray> ParseNpy(std::string content, const std::string& path) {
  const absl::string_view bytes = content;
  if (!absl::StartsWith(bytes, kMagic) || bytes.size() < 12) {
    return Damaged(path, "it does not start like an .npy file");
  }
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<unsigned char>(bytes[at])); };
  const size_t version = byte(6);
  if (version < 1 || version > 3) return Damaged(path, absl::StrCat("unknown .npy version ", version));
  const size_t begin = version == 1 ? 10 : 12;
  const size_t length =
      version == 1 ? byte(8) | byte(9) << 8 : byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24;
  if (length > kMaxHeaderBytes || length > bytes.size() - begin) {
    return Damaged(path,
                   absl::StrCat("its header has ", length, " bytes, more than the file or than ", kMaxHeaderBytes));
  }
  const absl::string_view header = bytes.substr(begin, length);
  const auto type = ValueOf(header, "descr");
  const auto order = ValueOf(header, "fortran_order");
  const auto shape_text = ValueOf(header, "shape");
  if (!type || !order || !shape_text) return Damaged(path, "its header lacks descr, fortran_order or shape");

  NpyArray array;
  const size_t type_end = type->find('\'', 1);
  if (!absl::StartsWith(*type, "'") || type_end == absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' holds a structured array, want plain numbers"));
  }
  array.type = std::string(type->substr(1, type_end - 1));
  const int64_t item_bytes = ItemBytes(array.type);
  if (item_bytes == 0 || (array.type[0] != '<' && array.type[0] != '|')) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' holds elements of type '", array.type, "', want little-endian numbers"));
  }
  const std::optional<std::vector<int64_t>> shape = ShapeOf(*shape_text);
  if (!shape) return Damaged(path, "its header has no valid shape");
  array.shape = *shape;
  const bool plain_order = absl::StartsWith(*order, "False");
  if (!plain_order && !absl::StartsWith(*order, "True")) return Damaged(path, "fortran_order is not True or False");
  if (!plain_order && array.shape.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' is in Fortran order; save it with numpy.ascontiguousarray"));
  }
  int64_t want = item_bytes;
  for (const int64_t size : array.shape) {
    if (__builtin_mul_overflow(want, size, &want)) return Damaged(path, "its shape needs more than 2^63 bytes");
  }
  array.data_offset = begin + length;
  const int64_t got = static_cast<int64_t>(bytes.size() - array.data_offset);
  if (got != want) {
    return Damaged(path, absl::StrCat("an array of shape ", ShapeName(array.shape), " and type ", array.type, " needs ",
                                      want, " bytes, got ", got));
  }
  array.content = std::move(content);
  return array;
}

absl::Status WriteNpyBytes(const std::string& path, absl::string_view type, absl::Span<const int64_t> shape,
                           absl::string_view bytes) {
  int64_t want = ItemBytes(type);
  for (const int64_t size : shape) want *= size;
  SLUICE_CHECK(want == static_cast<int64_t>(bytes.size()),
               absl::StrCat("array '", path, "' is not as large as ", ShapeName(shape)));
  std::string header = absl::StrCat("{'descr': '", type, "', 'fortran_order': False, 'shape': (",
                                    absl::StrJoin(shape, ", "), shape.size() == 1 ? ",), }" : "), }");
  // Numpy aligns the data to 64 bytes: magic 6, version 2, length 2, header, newline.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header.push_back('\n');
  return WriteFileAtomically(path, [&](const FileSink& sink) -> absl::Status {
    const char start[] = {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
    SLUICE_RETURN_IF_ERROR(sink(kMagic));
    SLUICE_RETURN_IF_ERROR(sink(absl::string_view(start, sizeof(start))));
    SLUICE_RETURN_IF_ERROR(sink(header));
    return sink(bytes);
  });
}

absl::Status CheckNpy(const NpyArray& array, absl::string_view type, size_t dimensions, const std::string& path) {
  if (array.type == type && array.shape.size() == dimensions) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", path, "': want ", dimensions, " dimensions of type ", type,
                                                 ", got shape ", ShapeName(array.shape), " of type ", array.type));
}

absl::StatusOr<Matrix> ReadNpyMatrix(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(std::string content, ReadFile(path, kMaxMatrixBytes));
  SLUICE_ASSIGN_OR_RETURN(const NpyArray array, ParseNpy(std::move(content), path));
  Matrix matrix;
  if (array.type == "<f8") {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<double> values, NpyValues<double>(array, 2, path));
    matrix.values.assign(values.begin(), values.end());
  } else {
    SLUICE_ASSIGN_OR_RETURN(matrix.values, NpyValues<float>(array, 2, path));
  }
  matrix.rows = array.shape[0];
  matrix.columns = array.shape[1];
  if (matrix.values.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' has shape ", ShapeName(array.shape), ", want at least one row and column"));
  }
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    if (!std::isfinite(matrix.values[i])) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "': row ", i / matrix.columns, ", column ",
                                                     i % matrix.columns, " is not a finite number"));
    }
  }
  return matrix;
}

}  // namespace sluice

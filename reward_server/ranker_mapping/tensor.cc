#include "reward_server/ranker_mapping/tensor.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/status.h"

static_assert(std::endian::native == std::endian::little, "raw tensors are little-endian");

namespace sluice::reward {
namespace {

constexpr std::array<absl::string_view, 14> kNames = {"BOOL",   "INT8",   "INT16", "INT32", "INT64", "UINT8", "UINT16",
                                                      "UINT32", "UINT64", "FP16",  "BF16",  "FP32",  "FP64",  "BYTES"};
constexpr std::array<int64_t, 14> kBytes = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 0};

template <typename T>
void Append(T value, std::string* raw) {
  raw->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <typename T>
T Read(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// Rounds to a multiple of 2^(exponent of value - digits), ties to even, as a float of that many binary digits has it;
// `least` is the exponent of the smallest normal one.
double RoundTo(double value, int digits, int least) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), least);
  return std::ldexp(std::nearbyint(std::ldexp(value, digits - exponent)), exponent - digits);
}

double RoundToHalf(double value) { return RoundTo(value, 10, -14); }
double RoundToBfloat(double value) { return RoundTo(value, 7, -126); }
constexpr double kMostHalf = 65504;
// (2 - 2^-7) 2^127.
constexpr double kMostBfloat = 3.3895313892515355e38;

uint16_t HalfBits(double value) {
  const double rounded = RoundToHalf(value);
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(rounded);
  if (size == 0) return sign;
  const int exponent = std::ilogb(size);
  if (exponent < -14) return sign | static_cast<uint16_t>(std::ldexp(size, 24));  // subnormal
  return sign |
         static_cast<uint16_t>(((exponent + 15) << 10) + static_cast<int>(std::ldexp(size, 10 - exponent)) - 1024);
}

double HalfValue(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  double size = 0;
  if (exponent == 0x1f) {
    size = fraction == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else {
    size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -size : size;
}

// Lowest and highest value of the integers, as int64; the highest of kUint64 is beyond, and is cut.
std::pair<int64_t, int64_t> Bounds(TensorType type) {
  switch (type) {
    case TensorType::kBool:
      return {0, 1};
    case TensorType::kInt8:
      return {-128, 127};
    case TensorType::kInt16:
      return {-32768, 32767};
    case TensorType::kInt32:
      return {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
    case TensorType::kUint8:
      return {0, 255};
    case TensorType::kUint16:
      return {0, 65535};
    case TensorType::kUint32:
      return {0, std::numeric_limits<uint32_t>::max()};
    case TensorType::kUint64:
      return {0, std::numeric_limits<int64_t>::max()};
    default:
      return {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()};
  }
}

}  // namespace

absl::string_view TensorTypeName(TensorType type) { return kNames[static_cast<size_t>(type)]; }

absl::Span<const absl::string_view> TensorTypeNames() { return kNames; }

std::optional<TensorType> FindTensorType(absl::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<TensorType>(i);
  }
  return std::nullopt;
}

bool IsFloating(TensorType type) {
  return type == TensorType::kFp16 || type == TensorType::kBf16 || type == TensorType::kFp32 ||
         type == TensorType::kFp64;
}

int64_t ElementBytes(TensorType type) { return kBytes[static_cast<size_t>(type)]; }

bool Fits(TensorType type, double value) {
  if (type == TensorType::kBytes || !std::isfinite(value)) return false;
  if (type == TensorType::kFp16) return std::fabs(RoundToHalf(value)) <= kMostHalf;
  if (type == TensorType::kBf16) return std::fabs(RoundToBfloat(value)) <= kMostBfloat;
  if (type == TensorType::kFp32) return std::isfinite(static_cast<float>(value));
  if (type == TensorType::kFp64) return true;
  // 2^63 is the first double that no int64 holds.
  if (value != std::floor(value) || value < -0x1p63 || value >= 0x1p63) return false;
  return FitsInteger(type, static_cast<int64_t>(value));
}

bool FitsInteger(TensorType type, int64_t value) {
  if (IsFloating(type)) return Fits(type, static_cast<double>(value));
  const auto [low, high] = Bounds(type);
  return type != TensorType::kBytes && value >= low && value <= high;
}

void AppendNumber(TensorType type, double value, std::string* raw) {
  switch (type) {
    case TensorType::kFp16:
      return Append(HalfBits(value), raw);
    case TensorType::kBf16:
      return Append(static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(RoundToBfloat(value))) >> 16),
                    raw);
    case TensorType::kFp32:
      return Append(static_cast<float>(value), raw);
    case TensorType::kFp64:
      return Append(value, raw);
    default:
      return AppendInteger(type, static_cast<int64_t>(value), raw);
  }
}

void AppendInteger(TensorType type, int64_t value, std::string* raw) {
  if (IsFloating(type)) return AppendNumber(type, static_cast<double>(value), raw);
  SLUICE_CHECK(type != TensorType::kBytes, "a number as an element of BYTES");
  // Little-endian: the low bytes come first, whatever the width.
  raw->append(reinterpret_cast<const char*>(&value), static_cast<size_t>(ElementBytes(type)));
}

void AppendText(absl::string_view text, std::string* raw) {
  Append(static_cast<uint32_t>(text.size()), raw);
  raw->append(text.data(), text.size());
}

double ReadNumber(TensorType type, const char* at) {
  switch (type) {
    case TensorType::kBool:
      return *at != 0 ? 1 : 0;
    case TensorType::kInt8:
      return Read<int8_t>(at);
    case TensorType::kInt16:
      return Read<int16_t>(at);
    case TensorType::kInt32:
      return Read<int32_t>(at);
    case TensorType::kInt64:
      return static_cast<double>(Read<int64_t>(at));
    case TensorType::kUint8:
      return Read<uint8_t>(at);
    case TensorType::kUint16:
      return Read<uint16_t>(at);
    case TensorType::kUint32:
      return Read<uint32_t>(at);
    case TensorType::kUint64:
      return static_cast<double>(Read<uint64_t>(at));
    case TensorType::kFp16:
      return HalfValue(Read<uint16_t>(at));
    case TensorType::kBf16:
      return std::bit_cast<float>(static_cast<uint32_t>(Read<uint16_t>(at)) << 16);
    case TensorType::kFp32:
      return Read<float>(at);
    case TensorType::kFp64:
      return Read<double>(at);
    case TensorType::kBytes:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::optional<int64_t> ElementCount(absl::Span<const int64_t> shape, int64_t most) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count) || count > most) return std::nullopt;
  }
  return count;
}

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace sluice::reward

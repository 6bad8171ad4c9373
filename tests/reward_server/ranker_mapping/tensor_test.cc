#include "reward_server/ranker_mapping/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace sluice::reward {
namespace {

uint16_t Bits(TensorType type, double value) {
  std::string raw;
  AppendNumber(type, value, &raw);
  EXPECT_EQ(raw.size(), 2u);
  uint16_t bits = 0;
  std::memcpy(&bits, raw.data(), sizeof(bits));
  return bits;
}

TEST(TensorTest, EveryTypeHasItsNameAndBack) {
  for (const absl::string_view name : TensorTypeNames()) EXPECT_EQ(TensorTypeName(*FindTensorType(name)), name);
  EXPECT_FALSE(FindTensorType("int64"));
  EXPECT_FALSE(FindTensorType(""));
}

// The examples of IEEE 754 binary16.
TEST(TensorTest, HalfPrecisionHasItsPublishedBits) {
  EXPECT_EQ(Bits(TensorType::kFp16, 0), 0x0000);
  EXPECT_EQ(Bits(TensorType::kFp16, -0.0), 0x8000);
  EXPECT_EQ(Bits(TensorType::kFp16, 1), 0x3c00);
  EXPECT_EQ(Bits(TensorType::kFp16, -2), 0xc000);
  EXPECT_EQ(Bits(TensorType::kFp16, 65504), 0x7bff);
  EXPECT_EQ(Bits(TensorType::kFp16, 1.0 / 3), 0x3555);
  EXPECT_EQ(Bits(TensorType::kFp16, 0x1p-14), 0x0400);  // the smallest normal one
  EXPECT_EQ(Bits(TensorType::kFp16, 0x1p-24), 0x0001);  // the smallest of all
  EXPECT_EQ(Bits(TensorType::kFp16, 0x1p-14 - 0x1p-24), 0x03ff);
  EXPECT_EQ(Bits(TensorType::kFp16, 1 + 0x1p-11), 0x3c00);      // a tie, to even
  EXPECT_EQ(Bits(TensorType::kFp16, 1 + 3 * 0x1p-11), 0x3c02);  // a tie, to even
  EXPECT_EQ(Bits(TensorType::kFp16, 2 - 0x1p-12), 0x4000);      // into the next exponent
}

TEST(TensorTest, BrainFloatIsTheUpperHalfOfAFloat) {
  EXPECT_EQ(Bits(TensorType::kBf16, 1), 0x3f80);
  EXPECT_EQ(Bits(TensorType::kBf16, -1.5), 0xbfc0);
  EXPECT_EQ(Bits(TensorType::kBf16, 1 + 0x1p-8), 0x3f80);      // a tie, to even
  EXPECT_EQ(Bits(TensorType::kBf16, 1 + 3 * 0x1p-8), 0x3f82);  // a tie, to even
  EXPECT_TRUE(Fits(TensorType::kBf16, 3.3e38));
  EXPECT_FALSE(Fits(TensorType::kBf16, 3.4e38));
}

TEST(TensorTest, EveryHalfPrecisionNumberReadsBackAsItself) {
  for (const TensorType type : {TensorType::kFp16, TensorType::kBf16}) {
    for (int bits = 0; bits < 65536; ++bits) {
      const uint16_t stored = static_cast<uint16_t>(bits);
      char raw[2];
      std::memcpy(raw, &stored, sizeof(raw));
      const double value = ReadNumber(type, raw);
      if (!std::isfinite(value)) continue;
      ASSERT_TRUE(Fits(type, value)) << bits;
      ASSERT_EQ(Bits(type, value), stored) << TensorTypeName(type) << " " << value;
    }
  }
}

TEST(TensorTest, WhatATypeDoesNotHoldDoesNotFit) {
  EXPECT_TRUE(Fits(TensorType::kInt8, -128));
  EXPECT_FALSE(Fits(TensorType::kInt8, 128));
  EXPECT_FALSE(Fits(TensorType::kInt64, 0.5));
  EXPECT_FALSE(Fits(TensorType::kUint32, -1));
  EXPECT_FALSE(Fits(TensorType::kInt64, 0x1p63));
  EXPECT_FALSE(Fits(TensorType::kBool, 2));
  EXPECT_FALSE(Fits(TensorType::kFp32, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(Fits(TensorType::kFp32, 1e39));
  EXPECT_FALSE(Fits(TensorType::kFp16, 65520));  // rounds to infinity
  EXPECT_TRUE(Fits(TensorType::kFp16, 65519));
  EXPECT_FALSE(Fits(TensorType::kBytes, 1));
  EXPECT_TRUE(FitsInteger(TensorType::kUint64, std::numeric_limits<int64_t>::max()));
  EXPECT_FALSE(FitsInteger(TensorType::kUint16, 65536));
}

TEST(TensorTest, NumbersOfEveryTypeAreLittleEndianAndReadBack) {
  for (const absl::string_view name : TensorTypeNames()) {
    const TensorType type = *FindTensorType(name);
    if (type == TensorType::kBytes) continue;
    const double value = type == TensorType::kBool ? 1 : 100;
    std::string raw;
    AppendNumber(type, value, &raw);
    AppendInteger(type, static_cast<int64_t>(value), &raw);
    ASSERT_EQ(static_cast<int64_t>(raw.size()), 2 * ElementBytes(type)) << name;
    EXPECT_EQ(ReadNumber(type, raw.data()), value) << name;
    EXPECT_EQ(ReadNumber(type, raw.data() + ElementBytes(type)), value) << name;
  }
  std::string raw;
  AppendInteger(TensorType::kInt32, 0x01020304, &raw);
  EXPECT_EQ(raw, "\x04\x03\x02\x01");
  std::string text;
  AppendText("ab", &text);
  EXPECT_EQ(text, std::string("\x02\0\0\0ab", 6));
}

TEST(TensorTest, ShapesFromOutsideAreCountedWithoutOverflow) {
  EXPECT_EQ(ElementCount({2, 3}, 100), 6);
  EXPECT_EQ(ElementCount({}, 100), 1);
  EXPECT_EQ(ElementCount({0, 5}, 100), 0);
  EXPECT_FALSE(ElementCount({-1, 2}, 100));
  EXPECT_FALSE(ElementCount({101}, 100));
  EXPECT_FALSE(ElementCount({int64_t{1} << 62, int64_t{1} << 62}, 1 << 30));
}

}  // namespace
}  // namespace sluice::reward

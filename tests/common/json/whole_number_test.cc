#include "common/json/whole_number.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(WholeNumberTest, EveryNumberThatFitsComesBack) {
  EXPECT_EQ(WholeNumber(json::parse("0"), "'n'").value(), 0u);
  EXPECT_EQ(WholeNumber(json::parse("18446744073709551615"), "'n'").value(), 18446744073709551615u);
  EXPECT_EQ(WholeNumber(json::parse("7"), "'n'", 7).value(), 7u);
  uint32_t narrow = 1;
  ASSERT_TRUE(ReadWholeNumber(json::parse("4294967295"), "'n'", &narrow).ok());
  EXPECT_EQ(narrow, 4294967295u);
  int32_t with_sign = 1;
  ASSERT_TRUE(ReadWholeNumber(json::parse("2147483647"), "'n'", &with_sign).ok());
  EXPECT_EQ(with_sign, 2147483647);
  EXPECT_FALSE(ReadWholeNumber(json::parse("2147483648"), "'n'", &with_sign).ok());
}

TEST(WholeNumberTest, WhatDoesNotFitIsRefusedWithItsPlaceAndLeavesTheVariable) {
  for (const char* text : {"-1", "8", "1.0", "1e2", "18446744073709551616", "1e300", "true", "\"7\"", "null", "[7]"}) {
    const absl::Status status = WholeNumber(json::parse(text), "'n'", 7).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("'n': want a whole number from 0 to 7, got ")) << text;
  }
  uint32_t narrow = 1;
  EXPECT_EQ(ReadWholeNumber(json::parse("4294967296"), "'n'", &narrow).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(narrow, 1u);
}

TEST(WholeNumberTest, TheMessageShowsLittleOfWhatIsThereAndOnlyPrintableText) {
  const absl::Status status = WholeNumber(json(std::string(1000, '\xff')), "'n'").status();
  EXPECT_LT(status.message().size(), 200u);
  EXPECT_EQ(status.message().find('\xff'), absl::string_view::npos);
}

}  // namespace
}  // namespace sluice

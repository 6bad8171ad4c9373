#include "common/spec/spec_fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "sluice/v1/spec.pb.h"

namespace sluice {
namespace {

const google::protobuf::FieldDescriptor& Field(const google::protobuf::Descriptor* type, const char* name) {
  return *type->FindFieldByName(name);
}

TEST(SpecFieldsTest, EnumValuesAreWrittenWithoutPrefixInLowerCase) {
  EXPECT_EQ(EnumText(*v1::GateTies_descriptor()->FindValueByName("GATE_TIES_PESSIMISTIC")), "pessimistic");
  EXPECT_EQ(EnumTexts(*v1::SplitKind_descriptor()), (std::vector<std::string>{"leave_one_out", "chronological"}));
}

TEST(SpecFieldsTest, NumbersReadBackToTheSameValue) {
  const double values[] = {0,
                           1,
                           -1,
                           0.1,
                           3e-5,
                           1.0 / 3,
                           1e-12,
                           123456789,
                           1e15,
                           1.5e-7,
                           -2.5e-5,
                           1e300,
                           5e-324,
                           16777217.5,
                           1e14,
                           12000,
                           0.00012345678901234567,
                           std::numeric_limits<double>::max()};
  for (const double value : values) {
    const std::string text = NumberText(value);
    double back = 0;
    ASSERT_TRUE(absl::SimpleAtod(text, &back)) << text;
    EXPECT_EQ(back, value) << text;
    // YAML 1.1 takes an exponent without a point as text.
    EXPECT_TRUE(text.find('e') == std::string::npos || text.find('.') != std::string::npos) << text;
  }
}

TEST(SpecFieldsTest, NumbersAreShort) {
  EXPECT_EQ(NumberText(0.1), "0.1");
  EXPECT_EQ(NumberText(3e-5), "0.00003");
  EXPECT_EQ(NumberText(-2.5e-5), "-0.000025");
  EXPECT_EQ(NumberText(10000), "10000");
  EXPECT_EQ(NumberText(1e-12), "1.0e-12");
}

TEST(SpecFieldsTest, NearestWordForgivesSlipsButNotGuesses) {
  const std::vector<std::string> words = {"steps", "group_size", "groups_per_step"};
  EXPECT_EQ(NearestWord("setps", words), "steps");            // two letters swapped
  EXPECT_EQ(NearestWord("Group_Size", words), "group_size");  // case
  EXPECT_EQ(NearestWord("group_sise", words), "group_size");
  EXPECT_EQ(NearestWord("banana", words), "");
  EXPECT_EQ(NearestWord("", words), "");
}

TEST(SpecFieldsTest, TextThatYamlWouldTakeForSomethingElseIsQuoted) {
  v1::JobSpec spec;
  const auto& name = Field(v1::JobSpec::descriptor(), "name");
  const std::pair<const char*, const char*> cases[] = {
      {"beauty", "beauty"}, {"/data/x_1", "/data/x_1"}, {"true", "\"true\""},         {"12", "\"12\""},
      {"", "\"\""},         {"a: b", "\"a: b\""},       {"a\"b\\", "\"a\\\"b\\\\\""}, {"null", "\"null\""},
      {"- x", "\"- x\""},   {"#no", "\"#no\""},         {"a #b", "\"a #b\""}};
  for (const auto& [text, want] : cases) {
    spec.set_name(text);
    EXPECT_EQ(ScalarText(spec, name), want);
  }
}

TEST(SpecFieldsTest, RangesAreInclusive) {
  v1::GateSpec gate;
  const auto& tau = Field(v1::GateSpec::descriptor(), "tau");
  for (const double good : {0.0, 0.5, 1.0}) {
    gate.set_tau(good);
    EXPECT_EQ(CheckScalar(gate, tau), "");
  }
  gate.set_tau(1.0001);
  EXPECT_EQ(CheckScalar(gate, tau), "want 0 to 1, got 1.0001");
  gate.set_tau(std::nan(""));
  EXPECT_EQ(CheckScalar(gate, tau), "want a finite number, got nan");
}

}  // namespace
}  // namespace sluice

#include "common/log/log.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// What the calls of `write` put on standard error.
template <typename Function>
std::string Captured(const Function& write) {
  ::testing::internal::CaptureStderr();
  write();
  return ::testing::internal::GetCapturedStderr();
}

TEST(LogTest, AJsonLineParsesAndKeepsTypesOfFields) {
  InitLogging("actor", LogFormat::kJson, LogLevel::kInfo);
  const std::string line = Captured([] {
    LogWarning("lease lost", {{"ordinal", 7}, {"share", 0.25}, {"peer", "b:1"}});
  });
  EXPECT_THAT(line, EndsWith("}\n"));
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["role"], "actor");
  EXPECT_EQ(json["message"], "lease lost");
  EXPECT_EQ(json["ordinal"], 7);
  EXPECT_EQ(json["share"], 0.25);
  EXPECT_EQ(json["peer"], "b:1");
  EXPECT_THAT(json["time"].get<std::string>(), MatchesRegex("....-..-..T..:..:......Z"));
}

TEST(LogTest, QuotesNewlinesAndBrokenTextStayOneValidJsonLine) {
  InitLogging("actor", LogFormat::kJson, LogLevel::kInfo);
  const std::string line = Captured([] { LogInfo("said \"no\"\nthen left", {{"raw", "\xff\x01"}}); });
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(line)["message"], "said \"no\"\nthen left");
}

TEST(LogTest, NumbersThatJsonCannotHoldBecomeText) {
  InitLogging("actor", LogFormat::kJson, LogLevel::kInfo);
  const std::string line = Captured([] {
    LogInfo("loss", {{"nan", std::nan("")}, {"infinity", std::numeric_limits<double>::infinity()}});
  });
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_TRUE(json["nan"].is_string());
  EXPECT_TRUE(json["infinity"].is_string());
}

TEST(LogTest, LinesUnderTheThresholdAreNotWritten) {
  InitLogging("actor", LogFormat::kJson, LogLevel::kWarning);
  EXPECT_EQ(Captured([] { LogInfo("quiet"); }), "");
  EXPECT_THAT(Captured([] { LogError("loud"); }), HasSubstr("loud"));
}

TEST(LogTest, TextNamesLevelRoleAndFields) {
  InitLogging("reward", LogFormat::kText, LogLevel::kDebug);
  const std::string line = Captured([] { Log(LogLevel::kDebug, "batch scored", {{"groups", 8}}); });
  EXPECT_THAT(line, MatchesRegex("....-..-..T..:..:......Z debug   reward: batch scored groups=8\n"));
}

}  // namespace
}  // namespace sluice

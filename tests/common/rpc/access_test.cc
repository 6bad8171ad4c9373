#include "common/rpc/access.h"

#include <gmock/gmock.h>

#include <regex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/security/method_rules.h"

namespace sluice {
namespace {

// Every call of every service of the protocol, as gRPC names it: read from the files, so that none is missed because
// this program does not use it.
std::set<std::string> MethodsOfTheProtos() {
  const std::string folder = absl::StrCat(SLUICE_SOURCE_DIR, "/proto/sluice/v1");
  const std::regex word(R"(\bservice\s+(\w+)\s*\{|\brpc\s+(\w+)\s*\()");
  std::set<std::string> methods;
  const std::vector<std::string> names = ListDirectory(folder).value();
  for (const std::string& name : names) {
    const std::string text = ReadFile(JoinPath(folder, name)).value();
    std::string service;
    for (std::sregex_iterator found(text.begin(), text.end(), word), end; found != end; ++found) {
      if ((*found)[1].matched) {
        service = (*found)[1];
      } else {
        methods.insert(absl::StrCat("/sluice.v1.", service, "/", (*found)[2].str()));
      }
    }
  }
  return methods;
}

TEST(MethodRulesTest, NamesEveryCallOfTheProtosOnceAndNothingElse) {
  std::multiset<std::string> named;
  for (const MethodRule& rule : MethodRules()) {
    if (absl::StartsWith(rule.method, "/sluice.")) named.insert(std::string(rule.method));
  }
  const std::set<std::string> methods = MethodsOfTheProtos();
  EXPECT_GE(methods.size(), 23u);
  EXPECT_EQ(named, std::multiset<std::string>(methods.begin(), methods.end()));
}

TEST(MethodRulesTest, EveryCallIsForSomebodyAndOnlyHealthForEverybody) {
  for (const MethodRule& rule : MethodRules()) {
    EXPECT_NE(rule.open, !rule.roles.empty()) << rule.method;
    EXPECT_EQ(rule.open, absl::StartsWith(rule.method, "/grpc.health.v1.")) << rule.method;
  }
}

TEST(CheckAccessTest, ARoleMayWhatTheTableSays) {
  EXPECT_TRUE(CheckAccess("/sluice.v1.MemberService/Join", {"r0", {Role::kRank}}, false).ok());
  const absl::Status refused = CheckAccess("/sluice.v1.MemberService/Join", {"a0", {Role::kActor}}, false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("(a0) is for actor"));
}

TEST(CheckAccessTest, WhatIsInNoTableIsForNobody) {
  const RoleSet all = {Role::kCoordinator, Role::kRank, Role::kActor, Role::kReward, Role::kClient};
  for (const char* method : {"", "/", "/sluice.v1.JobService/Erase", "sluice.v1.JobService/Submit"}) {
    EXPECT_EQ(CheckAccess(method, {"x", all}, true).code(), absl::StatusCode::kPermissionDenied) << method;
  }
}

TEST(CheckAccessTest, TokensOpenTheCallsOfPeopleAlone) {
  const PeerIdentity nobody;
  EXPECT_FALSE(CheckAccess("/sluice.v1.JobService/Submit", nobody, false).ok());
  EXPECT_TRUE(CheckAccess("/sluice.v1.JobService/Submit", nobody, true).ok());
  EXPECT_FALSE(CheckAccess("/sluice.v1.MemberService/Join", nobody, true).ok());
}

}  // namespace
}  // namespace sluice

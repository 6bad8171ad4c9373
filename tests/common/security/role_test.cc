#include "common/security/role.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(RoleTest, DnsNamesAreRolesAndBack) {
  EXPECT_EQ(RoleDnsName(Role::kActor), "actor.sluice.internal");
  EXPECT_EQ(RoleOfDnsName("actor.sluice.internal"), Role::kActor);
  EXPECT_EQ(RoleOfDnsName("Reward.Sluice.Internal"), Role::kReward);
}

TEST(RoleTest, WhatOnlyLooksLikeARoleIsNone) {
  for (const char* name : {"actor", "actor.sluice.internal.example.com", "x.actor.sluice.internal", "*.sluice.internal",
                           "actor.sluice.internal.", "", "pilot.sluice.internal"}) {
    EXPECT_EQ(RoleOfDnsName(name), std::nullopt) << name;
  }
}

TEST(RoleTest, SetsTellWhatTheyHold) {
  const RoleSet roles = RolesOfDnsNames({"localhost", "rank.sluice.internal", "coordinator.sluice.internal"});
  EXPECT_TRUE(roles.HasAll({Role::kRank, Role::kCoordinator}));
  EXPECT_FALSE(roles.HasAny({Role::kActor, Role::kReward, Role::kClient}));
  EXPECT_EQ(roles.ToString(), "coordinator or rank");
  EXPECT_EQ(RoleSet().ToString(), "no role");
}

}  // namespace
}  // namespace sluice

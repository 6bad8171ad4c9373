#include "learner/coordinator/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Member> Members(const std::vector<std::string>& ids) {
  std::vector<Member> members;
  for (const std::string& id : ids) {
    Member member;
    member.id = id;
    members.push_back(member);
  }
  return members;
}

TEST(MembershipTest, AGroupWaitsForAllRanks) {
  const GroupDecision decision = DecideGroup(Members({"a"}), {}, 2, false);
  EXPECT_EQ(decision.kind, GroupDecision::Kind::kKeep);
  EXPECT_EQ(decision.reason, "1 of 2 ranks have joined");
}

TEST(MembershipTest, AGroupFormsInTheOrderOfJoining) {
  const GroupDecision decision = DecideGroup(Members({"b", "a", "c"}), {}, 2, false);
  EXPECT_EQ(decision.kind, GroupDecision::Kind::kForm);
  EXPECT_THAT(decision.members, ElementsAre(0, 1));
}

TEST(MembershipTest, AWholeGroupIsLeftAlone) {
  EXPECT_EQ(DecideGroup(Members({"c", "b", "a"}), {"a", "b"}, 2, true).kind, GroupDecision::Kind::kKeep);
}

TEST(MembershipTest, ALostRankIsReplacedByWhoStandsBy) {
  const GroupDecision decision = DecideGroup(Members({"b", "c"}), {"a", "b"}, 2, true);
  EXPECT_EQ(decision.kind, GroupDecision::Kind::kForm);
  EXPECT_THAT(decision.members, ElementsAre(0, 1));  // b and c
  EXPECT_THAT(decision.reason, HasSubstr("1 of 2 ranks lost or leaving (a)"));
}

TEST(MembershipTest, WithoutAReplacementTheGroupIsLost) {
  EXPECT_EQ(DecideGroup(Members({"b"}), {"a", "b"}, 2, true).kind, GroupDecision::Kind::kLost);
}

TEST(MembershipTest, ARankThatLeavesFinishesTheJobAndIsInNoLaterGroup) {
  std::vector<Member> members = Members({"a", "b", "c"});
  members[1].leaving = true;
  EXPECT_EQ(DecideGroup(members, {"a", "b"}, 2, true).kind, GroupDecision::Kind::kKeep);
  const GroupDecision idle = DecideGroup(members, {"a", "b"}, 2, false);
  EXPECT_EQ(idle.kind, GroupDecision::Kind::kForm);
  EXPECT_THAT(idle.members, ElementsAre(0, 2));
  members.erase(members.begin());  // a dies while b is leaving
  EXPECT_EQ(DecideGroup(members, {"a", "b"}, 2, true).kind, GroupDecision::Kind::kLost);
}

TEST(MembershipTest, ActorsGoWhereTheFewestAre) {
  EXPECT_EQ(ChooseRank({2, 1, 1}, {"a", "b", "c"}, {}).rank, 1);
  EXPECT_EQ(ChooseRank({0, 0}, {"a", "b"}, {}).rank, 0);
}

TEST(MembershipTest, ActorsAvoidWhatJustFailed) {
  EXPECT_EQ(ChooseRank({0, 5}, {"a", "b"}, {"a"}).rank, 1);
  EXPECT_EQ(ChooseRank({0, 5}, {"a", "b"}, {"a", "b"}).rank, 0);
  EXPECT_EQ(ChooseRank({3, 2, 0}, {"a", "b", "c"}, {"c"}).rank, 1);
}

TEST(MembershipTest, RanksWithoutAnAddressServeNobody) {
  EXPECT_EQ(ChooseRank({0, 5}, {"", "b"}, {}).rank, 1);
  EXPECT_EQ(ChooseRank({0}, {""}, {}).rank, -1);
  EXPECT_EQ(ChooseRank({}, {}, {}).rank, -1);
}

TEST(MembershipTest, ARankWithoutActorsGetsOneFromTheRankWithTheMost) {
  // {actors, waiting blocks} of each rank.
  EXPECT_EQ(ChooseDonor({{2, 4}, {0, 4}}).rank, 0);
  EXPECT_EQ(ChooseDonor({{1, 4}, {0, 4}, {3, 4}}).rank, 2);
  EXPECT_EQ(ChooseDonor({{4, 0}, {2, 1}}).rank, 0);
}

TEST(MembershipTest, TheLastActorOfARankGoesOnlyWhenThereIsNothingToDo) {
  EXPECT_EQ(ChooseDonor({{1, 4}, {0, 4}}).rank, -1);
  EXPECT_EQ(ChooseDonor({{1, 0}, {0, 4}}).rank, 0);
  EXPECT_EQ(ChooseDonor({{1, 3}, {1, 0}, {0, 4}}).rank, 1);
}

TEST(MembershipTest, NobodyMovesWithoutNeed) {
  EXPECT_EQ(ChooseDonor({{5, 0}, {0, 0}}).rank, -1);  // no rank has anything to do
  EXPECT_EQ(ChooseDonor({{2, 4}, {1, 4}}).rank, -1);  // as even as it gets
  EXPECT_EQ(ChooseDonor({{0, 4}, {0, 4}}).rank, -1);
  EXPECT_EQ(ChooseDonor({{0, 4}}).rank, -1);
  EXPECT_EQ(ChooseDonor({}).rank, -1);
}

}  // namespace
}  // namespace sluice::learner

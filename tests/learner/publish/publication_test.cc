#include "learner/publish/publication.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PublicationTest : public testing::Test {
 protected:
  void Start(PublicationOptions options) { publication_ = Publication(options); }

  void Join(uint64_t actor, const std::string& peer_address = "") {
    publication_.Join(actor, {.staged = true, .peer_address = peer_address}, now_);
  }
  void Publish(uint64_t version) { publication_.Publish(version, absl::StrCat("sum", version), now_); }
  void Prepared(uint64_t actor, uint64_t version) { publication_.OnPrepared(actor, version, now_); }
  void Verified(uint64_t actor, uint64_t version, bool peer_failed = false) {
    publication_.OnVerified(actor, version, absl::StrCat("sum", version), peer_failed, now_);
  }
  void Ready(uint64_t actor, uint64_t version) { publication_.OnReady(actor, version, now_); }
  void Advance(absl::Duration by) { publication_.Tick(now_ += by); }

  // "1 prepare 5", "2 transfer 5 from host:1", "1 broadcast 5 in 7 as 1 of 3".
  std::vector<std::string> Orders() {
    std::vector<std::string> told;
    for (const PublicationOrder& order : publication_.TakeOrders()) {
      static constexpr const char* kKinds[] = {"prepare", "transfer", "commit", "broadcast"};
      told.push_back(absl::StrCat(order.actor, " ", kKinds[static_cast<int>(order.kind)], " ", order.version,
                                  order.source.empty() ? "" : " from ", order.source));
      if (order.place.epoch == 0) continue;
      absl::StrAppend(&told.back(), " in ", order.place.epoch, " as ", order.place.rank, " of ",
                      order.place.world_size);
    }
    return told;
  }
  // To the sender: "send 5 in 7 of 3", "abort 7".
  std::vector<std::string> GroupOrders() {
    std::vector<std::string> told;
    for (const GroupOrder& order : publication_.TakeGroupOrders()) {
      told.push_back(
          order.kind == GroupOrder::Kind::kAbort
              ? absl::StrCat("abort ", order.place.epoch)
              : absl::StrCat("send ", order.version, " in ", order.place.epoch, " of ", order.place.world_size));
    }
    return told;
  }
  void JoinGroup(uint64_t actor) { publication_.Join(actor, {.staged = true, .group = "gloo"}, now_); }
  void Sent(uint64_t epoch, uint64_t version, bool ok = true) { publication_.OnBroadcast(epoch, version, ok, now_); }
  // From PREPARE to Ready, wherever the bytes come from.
  void Follow(uint64_t actor, uint64_t version) {
    Prepared(actor, version);
    Verified(actor, version);
    Ready(actor, version);
  }
  uint64_t Fallbacks(FallbackReason reason) const {
    return publication_.counts().fallbacks[static_cast<size_t>(reason)];
  }

  absl::Time now_ = absl::UnixEpoch();
  Publication publication_{PublicationOptions()};
};

TEST_F(PublicationTest, AVersionIsPreparedFetchedVerifiedAndCommitted) {
  Join(1);
  EXPECT_EQ(publication_.StateOf(1), WeightState::kJoining);
  EXPECT_THAT(Orders(), IsEmpty());
  Publish(5);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 5"));
  EXPECT_EQ(publication_.StateOf(1), WeightState::kSyncing);
  Prepared(1, 5);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 5"));
  Ready(1, 5);  // before anything was verified
  EXPECT_EQ(publication_.ActiveVersion(1), 0u);
  Verified(1, 5);
  EXPECT_THAT(Orders(), ElementsAre("1 commit 5"));
  EXPECT_EQ(publication_.ActiveVersion(1), 0u);  // not before it says so
  Ready(1, 5);
  EXPECT_EQ(publication_.ActiveVersion(1), 5u);
  EXPECT_EQ(publication_.StateOf(1), WeightState::kReady);
}

TEST_F(PublicationTest, TheVersionBeforeGoesOnServingWhileTheNextOneComes) {
  Join(1);
  Publish(1);
  Follow(1, 1);
  Publish(2);
  EXPECT_EQ(publication_.StateOf(1), WeightState::kSyncing);
  EXPECT_EQ(publication_.ActiveVersion(1), 1u);
  Advance(absl::Seconds(2));  // no Prepared: left out
  EXPECT_EQ(publication_.StateOf(1), WeightState::kPendingWeights);
  EXPECT_EQ(publication_.ActiveVersion(1), 1u);
  EXPECT_EQ(publication_.counts().left_out, 1u);
  Orders();
  Prepared(1, 2);  // late, and good all the same
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 2"));
}

TEST_F(PublicationTest, WhoSaysNothingIsAskedAgain) {
  Join(1);
  Publish(1);
  Orders();
  Advance(absl::Seconds(2));
  EXPECT_THAT(Orders(), IsEmpty());
  Advance(absl::Seconds(5));
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 1"));
  Prepared(1, 1);
  Verified(1, 1);
  Orders();
  Advance(absl::Seconds(10));
  EXPECT_EQ(publication_.StateOf(1), WeightState::kPendingWeights);
  Advance(absl::Seconds(5));
  EXPECT_THAT(Orders(), ElementsAre("1 commit 1"));  // what it holds is not sent again
}

TEST_F(PublicationTest, WhoIsSlowerThanTheLearnerEndsWhatItBegan) {
  Join(1);
  Publish(1);
  Prepared(1, 1);
  Publish(2);
  Publish(3);
  Orders();
  Verified(1, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 commit 1"));
  Ready(1, 1);
  EXPECT_EQ(publication_.ActiveVersion(1), 1u);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 3"));  // not 2
}

TEST_F(PublicationTest, OtherBytesAreNeverCommitted) {
  Join(1);
  Publish(1);
  Prepared(1, 1);
  Orders();
  publication_.OnVerified(1, 1, "sum of something else", false, now_);
  EXPECT_THAT(Orders(), IsEmpty());
  EXPECT_EQ(publication_.counts().mismatches, 1u);
  EXPECT_EQ(publication_.StateOf(1), WeightState::kPendingWeights);
  Advance(absl::Seconds(5));
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 1"));
}

TEST_F(PublicationTest, WhoHoldsTheVersionAlreadyIsOnlyToldToCommit) {
  Publish(4);
  Join(1);  // it was attached before, and its stream broke
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 4"));
  Verified(1, 4);
  EXPECT_THAT(Orders(), ElementsAre("1 commit 4"));
  Ready(1, 4);
  EXPECT_EQ(publication_.counts().from_rank, 0u);
}

TEST_F(PublicationTest, AnEarlierReleaseIsOfferedAVersionAndItsReadyStandsForEverything) {
  publication_.Join(1, {.staged = false}, now_);
  Publish(3);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 3"));
  Ready(1, 2);  // of an abandoned timeline
  Ready(1, 9);  // never published
  EXPECT_EQ(publication_.ActiveVersion(1), 0u);
  Publish(4);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 4"));
  Ready(1, 3);
  EXPECT_EQ(publication_.ActiveVersion(1), 3u);
  EXPECT_THAT(Orders(), IsEmpty());  // it knows of 4
  Ready(1, 4);
  EXPECT_EQ(publication_.StateOf(1), WeightState::kReady);
}

TEST_F(PublicationTest, TheQuorumCountsThoseThatHoldTheLatestVersionAndStay) {
  Start({.min_actors = 2});
  EXPECT_TRUE(publication_.QuorumCommitted());  // nothing is published
  for (const uint64_t actor : {1, 2, 3}) Join(actor);
  Publish(1);
  Follow(1, 1);
  EXPECT_FALSE(publication_.QuorumCommitted());
  now_ += absl::Seconds(3);
  Follow(2, 1);
  EXPECT_TRUE(publication_.QuorumCommitted());
  const auto times = publication_.TakeTimes();
  EXPECT_THAT(times, testing::Contains(std::pair(PublishPhase::kQuorum, absl::Seconds(3))));
  publication_.Drain(1, now_);
  EXPECT_FALSE(publication_.QuorumCommitted());
  Follow(3, 1);
  EXPECT_TRUE(publication_.QuorumCommitted());
  publication_.Leave(3, now_);
  EXPECT_FALSE(publication_.QuorumCommitted());
}

TEST_F(PublicationTest, BeyondItsBranchesTheRankNamesActorsThatHoldTheVersion) {
  Start({.branching = 2});
  for (const uint64_t actor : {1, 2, 3, 4, 5}) Join(actor, absl::StrCat("host:", actor));
  Publish(7);
  Orders();
  for (const uint64_t actor : {1, 2, 3, 4, 5}) Prepared(actor, 7);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 7", "2 transfer 7"));  // the others wait for them
  Verified(2, 7);
  Ready(2, 7);
  EXPECT_THAT(Orders(), ElementsAre("2 commit 7", "3 transfer 7 from host:2", "4 transfer 7 from host:2"));
  Verified(1, 7);
  Ready(1, 7);
  EXPECT_THAT(Orders(), ElementsAre("1 commit 7", "5 transfer 7 from host:1"));
  EXPECT_EQ(publication_.counts().from_rank, 2u);
  EXPECT_EQ(publication_.counts().from_peer, 3u);
}

TEST_F(PublicationTest, WithoutAnybodyThatListensTheRankSendsToAll) {
  Start({.branching = 1});
  for (const uint64_t actor : {1, 2}) Join(actor);
  Publish(1);
  Orders();
  Prepared(1, 1);
  Prepared(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 1", "2 transfer 1"));
  EXPECT_EQ(Fallbacks(FallbackReason::kNoPeer), 1u);
}

TEST_F(PublicationTest, APlaceAtTheRankIsKeptForWhoCanSendTheVersionOn) {
  Start({.branching = 1});
  Join(1);
  Join(2, "host:2");
  Publish(1);
  Orders();
  Prepared(1, 1);
  EXPECT_THAT(Orders(), IsEmpty());
  Prepared(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
  Verified(2, 1);
  Ready(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 commit 1", "1 transfer 1 from host:2"));
}

TEST_F(PublicationTest, WhoWaitsForAnActorThatNeverHasItGetsItFromTheRank) {
  Start({.branching = 1});
  Join(1, "host:1");
  Join(2);
  Publish(1);
  Prepared(1, 1);
  Prepared(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 1", "2 prepare 1", "1 transfer 1"));
  Advance(absl::Seconds(30));
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
  EXPECT_EQ(Fallbacks(FallbackReason::kLate), 1u);
  EXPECT_EQ(publication_.counts().left_out, 0u);
}

TEST_F(PublicationTest, WhenTheOnlyOneThatCouldSendLeavesNobodyWaitsForIt) {
  Start({.branching = 1});
  Join(1, "host:1");
  Join(2);
  Publish(1);
  Prepared(1, 1);
  Prepared(2, 1);
  Orders();
  publication_.Leave(1, now_);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
}

TEST_F(PublicationTest, AnActorThatDidNotDeliverIsNotNamedAgainForThatVersion) {
  Start({.branching = 1});
  Join(1, "host:1");
  for (const uint64_t actor : {2, 3}) Join(actor);
  Publish(1);
  Follow(1, 1);
  Prepared(2, 1);
  Orders();
  Verified(2, 1, /*peer_failed=*/true);
  EXPECT_EQ(Fallbacks(FallbackReason::kPeerFailed), 1u);
  Ready(2, 1);
  Prepared(3, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 commit 1", "3 transfer 1"));
  Publish(2);  // it may do better with this one
  Follow(1, 2);
  Orders();
  Prepared(2, 2);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 2 from host:1"));
}

TEST_F(PublicationTest, WhoDrainsIsToldNothingMore) {
  Join(1);
  Publish(1);
  Follow(1, 1);
  Orders();
  publication_.Drain(1, now_);
  Publish(2);
  EXPECT_THAT(Orders(), IsEmpty());
  EXPECT_EQ(publication_.StateOf(1), WeightState::kDraining);
  Advance(absl::Hours(1));
  EXPECT_THAT(Orders(), IsEmpty());
}

TEST_F(PublicationTest, AJobEndsWithWhatWasPublishedInIt) {
  Start({.min_actors = 1});
  Join(1);
  Publish(8);
  Follow(1, 8);
  publication_.Reset();
  EXPECT_EQ(publication_.StateOf(1), WeightState::kJoining);
  EXPECT_EQ(publication_.ActiveVersion(1), 0u);
  Publish(3);  // of another job
  Ready(1, 8);
  EXPECT_EQ(publication_.ActiveVersion(1), 0u);
}

// The weight group.

class WeightGroupTest : public PublicationTest {
 protected:
  WeightGroupTest() { Start({.group = "gloo"}); }
  // Actors 1 and 2 are in the round of version 1, in the group of epoch 1.
  void BeginRound() {
    for (const uint64_t actor : {1, 2}) JoinGroup(actor);
    Publish(1);
    for (const uint64_t actor : {1, 2}) Prepared(actor, 1);
    ASSERT_THAT(Orders(), ElementsAre("1 prepare 1", "2 prepare 1", "1 broadcast 1 in 1 as 1 of 3",
                                      "2 broadcast 1 in 1 as 2 of 3"));
    ASSERT_THAT(GroupOrders(), ElementsAre("send 1 in 1 of 3"));
  }
};

TEST_F(WeightGroupTest, AVersionComesToAllMembersByOneBroadcastAndTheGroupIsUsedAgain) {
  BeginRound();
  Sent(1, 1);
  for (const uint64_t actor : {1, 2}) {
    Verified(actor, 1);
    EXPECT_THAT(Orders(), ElementsAre(absl::StrCat(actor, " commit 1")));
    Ready(actor, 1);
  }
  Publish(2);
  for (const uint64_t actor : {2, 1}) Prepared(actor, 2);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 2", "2 prepare 2", "1 broadcast 2 in 1 as 1 of 3",
                                    "2 broadcast 2 in 1 as 2 of 3"));
  EXPECT_THAT(GroupOrders(), ElementsAre("send 2 in 1 of 3"));
  EXPECT_EQ(publication_.counts().from_group, 4u);
  EXPECT_EQ(publication_.counts().from_rank, 0u);
  EXPECT_EQ(publication_.counts().groups, 1u);
}

TEST_F(WeightGroupTest, TheRoundWaitsForAllThatAreAskedButNotForLong) {
  for (const uint64_t actor : {1, 2, 3}) JoinGroup(actor);
  Publish(1);
  Prepared(1, 1);
  Prepared(3, 1);
  Orders();
  EXPECT_THAT(GroupOrders(), IsEmpty());
  Advance(absl::Seconds(2));  // 2 has missed its time
  EXPECT_THAT(Orders(), ElementsAre("1 broadcast 1 in 1 as 1 of 3", "3 broadcast 1 in 1 as 2 of 3"));
  Prepared(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));  // it comes too late for this one
}

TEST_F(WeightGroupTest, NoRoundWaitsTwiceForWhoSaysNothing) {
  for (const uint64_t actor : {1, 2}) JoinGroup(actor);
  Publish(1);
  Prepared(1, 1);
  Advance(absl::Seconds(2));
  Sent(1, 1);
  Verified(1, 1);
  Ready(1, 1);
  Publish(2);
  Prepared(1, 2);
  EXPECT_THAT(GroupOrders(), ElementsAre("send 1 in 1 of 2", "send 2 in 1 of 2"));  // at once
  Prepared(2, 2);                                                                   // it is back
  Orders();
  Verified(2, 2);
  Ready(2, 2);
  Publish(3);
  Verified(1, 2);
  Sent(1, 2);
  Ready(1, 2);
  Prepared(1, 3);
  EXPECT_THAT(GroupOrders(), IsEmpty());  // waits for 2
  Prepared(2, 3);
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1", "send 3 in 2 of 3"));
}

TEST_F(WeightGroupTest, WhoCannotTakePartFetchesAsBefore) {
  JoinGroup(1);
  Join(2);                                                         // of this release, without a group
  publication_.Join(3, {.staged = true, .group = "nccl"}, now_);   // of another library
  publication_.Join(4, {.staged = false, .group = "gloo"}, now_);  // speaks no PREPARE
  Publish(1);
  Orders();
  Prepared(2, 1);
  Prepared(3, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1", "3 transfer 1"));
  Prepared(1, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 broadcast 1 in 1 as 1 of 2"));
}

TEST_F(WeightGroupTest, WhoJoinsInTheMiddleFetchesAndIsInTheNextGroup) {
  BeginRound();
  JoinGroup(3);
  Prepared(3, 1);
  EXPECT_THAT(Orders(), ElementsAre("3 prepare 1", "3 transfer 1"));
  Sent(1, 1);
  for (const uint64_t actor : {1, 2, 3}) {
    Verified(actor, 1);
    Ready(actor, 1);
  }
  Publish(2);
  for (const uint64_t actor : {1, 2, 3}) Prepared(actor, 2);
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1", "send 2 in 2 of 4"));
  EXPECT_EQ(publication_.counts().groups, 2u);
}

TEST_F(WeightGroupTest, WhenTheBroadcastFailsItsMembersFetchAndTheNextGroupIsAnother) {
  BeginRound();
  Verified(1, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 commit 1"));
  Sent(1, 1, /*ok=*/false);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));  // 1 has proven what it holds
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
  EXPECT_EQ(Fallbacks(FallbackReason::kGroupFailed), 1u);
  Sent(1, 1, /*ok=*/true);  // of the past
  Ready(1, 1);
  Verified(2, 1);
  Ready(2, 1);
  Publish(2);
  for (const uint64_t actor : {1, 2}) Prepared(actor, 2);
  EXPECT_THAT(GroupOrders(), ElementsAre("send 2 in 2 of 3"));
}

TEST_F(WeightGroupTest, AMemberThatFailsEndsTheRoundForAll) {
  BeginRound();
  publication_.OnMemberFailed(2, 1, /*epoch=*/1, now_);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 1", "2 transfer 1"));
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
  Verified(1, 1);  // it had it all the same
  EXPECT_THAT(Orders(), ElementsAre("1 commit 1"));
}

TEST_F(WeightGroupTest, WhatAMemberSaysOfARoundThatIsOverIsNoFailureOfItsFetch) {
  BeginRound();
  Sent(1, 1, /*ok=*/false);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 1", "2 transfer 1"));
  publication_.OnMemberFailed(1, 1, /*epoch=*/1, now_);  // the sender's abort has closed its connections
  EXPECT_EQ(publication_.StateOf(1), WeightState::kSyncing);
  publication_.OnFailed(2, 1, now_);
  EXPECT_EQ(publication_.StateOf(2), WeightState::kPendingWeights);
}

TEST_F(WeightGroupTest, AMemberThatFailsAfterAllWasSentFetchesAlone) {
  BeginRound();
  Sent(1, 1);
  publication_.OnMemberFailed(2, 1, /*epoch=*/1, now_);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
  EXPECT_THAT(GroupOrders(), IsEmpty());
  Verified(1, 1);
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));  // not believed again
}

TEST_F(WeightGroupTest, AMemberThatLeavesEndsTheRound) {
  BeginRound();
  publication_.Leave(1, now_);
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
  EXPECT_EQ(Fallbacks(FallbackReason::kGroupFailed), 1u);
}

TEST_F(WeightGroupTest, WhoReceivedSomethingElseFetches) {
  BeginRound();
  Sent(1, 1);
  publication_.OnVerified(1, 1, "sum of something else", false, now_);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 1"));
  EXPECT_EQ(publication_.counts().mismatches, 1u);
  EXPECT_EQ(Fallbacks(FallbackReason::kGroupFailed), 1u);
  Verified(2, 1);
  EXPECT_THAT(Orders(), ElementsAre("2 commit 1"));
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
}

TEST_F(WeightGroupTest, ARoundThatIsLateIsOver) {
  BeginRound();
  Sent(1, 1);
  Verified(1, 1);
  Ready(1, 1);
  Orders();
  Advance(absl::Seconds(20));
  EXPECT_THAT(Orders(), ElementsAre("2 transfer 1"));
  EXPECT_EQ(Fallbacks(FallbackReason::kGroupLate), 1u);
  EXPECT_EQ(publication_.counts().left_out, 1u);
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
}

TEST_F(WeightGroupTest, ASenderThatNeverReturnsHoldsUpNoVersion) {
  BeginRound();
  for (const uint64_t actor : {1, 2}) {
    Verified(actor, 1);
    Ready(actor, 1);
  }
  Publish(2);
  for (const uint64_t actor : {1, 2}) Prepared(actor, 2);
  EXPECT_THAT(GroupOrders(), IsEmpty());  // it may yet come
  Advance(absl::Seconds(20));
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1", "send 2 in 2 of 3"));
}

TEST_F(WeightGroupTest, WhoIsInARoundIsWaitedForByTheNextOne) {
  BeginRound();
  Publish(2);
  EXPECT_THAT(Orders(), IsEmpty());
  Sent(1, 1);
  Verified(1, 1);
  Ready(1, 1);
  Prepared(1, 2);
  EXPECT_THAT(GroupOrders(), IsEmpty());
  Verified(2, 1);
  Ready(2, 1);
  Prepared(2, 2);
  EXPECT_THAT(GroupOrders(), ElementsAre("send 2 in 1 of 3"));
}

TEST_F(WeightGroupTest, AfterAFailureWithANewerVersionOutThatOneIsFetched) {
  BeginRound();
  Publish(2);
  Sent(1, 1, /*ok=*/false);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 2", "2 prepare 2"));
  Prepared(1, 2);
  EXPECT_THAT(Orders(), ElementsAre("1 transfer 2"));
}

TEST_F(WeightGroupTest, AfterThreeFailuresInARowNothingIsBroadcastForAWhile) {
  for (const uint64_t actor : {1, 2}) JoinGroup(actor);
  const auto fetch = [this](uint64_t version) {
    for (const uint64_t actor : {1, 2}) {
      Verified(actor, version);
      Ready(actor, version);
    }
  };
  for (const uint64_t version : {1, 2, 3}) {
    Publish(version);
    for (const uint64_t actor : {1, 2}) Prepared(actor, version);
    EXPECT_FALSE(publication_.GroupPaused(now_));
    Sent(version, version, /*ok=*/false);
    fetch(version);
  }
  EXPECT_TRUE(publication_.GroupPaused(now_));
  EXPECT_EQ(publication_.counts().pauses, 1u);
  Orders();
  GroupOrders();
  Publish(4);
  Prepared(1, 4);
  EXPECT_THAT(Orders(), ElementsAre("1 prepare 4", "2 prepare 4", "1 transfer 4"));
  Prepared(2, 4);
  fetch(4);
  Advance(absl::Minutes(5));
  Publish(5);
  for (const uint64_t actor : {1, 2}) Prepared(actor, 5);
  EXPECT_THAT(GroupOrders(), ElementsAre("send 5 in 4 of 3"));
}

TEST_F(WeightGroupTest, ARoundThatIsGatheringWhenItIsGivenUpDoesNotBegin) {
  Start({.group = "gloo", .group_failures = 1});
  BeginRound();
  Verified(1, 1);
  Ready(1, 1);
  Publish(2);
  Prepared(1, 2);
  Orders();
  GroupOrders();
  Sent(1, 1, /*ok=*/false);  // 2 has not got version 1
  EXPECT_THAT(Orders(), ElementsAre("2 prepare 2", "1 transfer 2"));
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
}

TEST_F(WeightGroupTest, WhoIsTooManyForAGroupFetches) {
  Start({.group = "gloo", .group_members = 1});
  for (const uint64_t actor : {1, 2}) JoinGroup(actor);
  Publish(1);
  Orders();
  for (const uint64_t actor : {1, 2}) Prepared(actor, 1);
  EXPECT_THAT(Orders(), ElementsAre("1 broadcast 1 in 1 as 1 of 2", "2 transfer 1"));
}

TEST_F(WeightGroupTest, EpochsRiseOverJobs) {
  BeginRound();
  publication_.Reset();
  EXPECT_THAT(GroupOrders(), ElementsAre("abort 1"));
  Publish(1);
  for (const uint64_t actor : {1, 2}) Prepared(actor, 1);
  EXPECT_THAT(GroupOrders(), ElementsAre("send 1 in 2 of 3"));
}

TEST(PublicationOptionsTest, NamesTheFieldThatCannotWork) {
  EXPECT_TRUE(PublicationOptions().Validate().ok());
  PublicationOptions options;
  options.branching = -1;
  EXPECT_EQ(options.Validate(), absl::InvalidArgumentError("branching: want >= 0, got -1"));
  options = {};
  options.min_actors = -2;
  EXPECT_EQ(options.Validate(), absl::InvalidArgumentError("min_actors: want >= 0, got -2"));
  options = {};
  options.commit_timeout = absl::ZeroDuration();
  EXPECT_EQ(options.Validate(), absl::InvalidArgumentError("commit_timeout: want a time above 0, got 0"));
  options = {.group_members = 0};
  EXPECT_EQ(options.Validate(), absl::InvalidArgumentError("group_members: want >= 1, got 0"));
  options = {.group_chunk_bytes = 6};
  EXPECT_EQ(options.Validate(), absl::InvalidArgumentError("group_chunk_bytes: want a positive multiple of 4, got 6"));
}

}  // namespace
}  // namespace sluice::learner

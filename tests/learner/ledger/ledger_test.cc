#include "learner/ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Prompt> Prompts(uint64_t first, uint64_t count) {
  std::vector<Prompt> prompts(count);
  for (uint64_t i = 0; i < count; ++i) prompts[i].ordinal = first + i;
  return prompts;
}

ScoredGroup Group(uint64_t ordinal, const BlockLease& lease) {
  ScoredGroup group;
  group.ordinal = ordinal;
  group.attempt = lease.attempt;
  group.lease_id = lease.lease_id;
  return group;
}

std::vector<Verdict> Trained(uint64_t first, uint64_t count) {
  std::vector<Verdict> verdicts;
  for (uint64_t i = 0; i < count; ++i) verdicts.push_back({first + i, TerminalState::kTrained, "open"});
  return verdicts;
}

std::vector<uint64_t> Ordinals(const BlockLease& lease) {
  std::vector<uint64_t> ordinals;
  for (const Prompt& prompt : lease.prompts) ordinals.push_back(prompt.ordinal);
  return ordinals;
}

class LedgerTest : public testing::Test {
 protected:
  LedgerTest() { Make(/*whole_blocks=*/false); }

  void Make(bool whole_blocks) {
    LedgerOptions options;
    options.lease_groups = 2;
    options.lease_deadline = absl::Seconds(30);
    options.max_attempts = 3;
    options.whole_blocks = whole_blocks;
    options.max_open = 12;
    ledger_ = std::make_unique<Ledger>(options);
  }

  BlockLease Lease(const std::string& actor = "a", uint64_t version = 1) {
    std::optional<BlockLease> lease = ledger_->Lease(actor, version, next_lease_++, now_);
    EXPECT_TRUE(lease.has_value());
    return lease.value_or(BlockLease());
  }

  void CompleteAll(const BlockLease& lease) {
    for (uint64_t ordinal : Ordinals(lease)) EXPECT_EQ(ledger_->Complete(Group(ordinal, lease)), Receipt::kAccepted);
  }

  std::unique_ptr<Ledger> ledger_;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t next_lease_ = 1;
};

TEST_F(LedgerTest, AStepGoesFromIssueToItsTerminalStates) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 4), 1).ok());
  EXPECT_EQ(ledger_->Balance().open, 4u);
  CompleteAll(Lease());
  EXPECT_FALSE(ledger_->StepReady(0));
  CompleteAll(Lease());
  ASSERT_TRUE(ledger_->StepReady(0));
  const auto taken = ledger_->Take(0);
  ASSERT_TRUE(taken.ok());
  ASSERT_EQ(taken->size(), 4u);
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*taken)[i].prompt.ordinal, i);
    EXPECT_EQ((*taken)[i].group->ordinal, i);
  }
  const std::vector<Verdict> verdicts = {{0, TerminalState::kTrained, "open"},
                                         {1, TerminalState::kDropped, "stale"},
                                         {2, TerminalState::kFailed, "bad"},
                                         {3, TerminalState::kTrained, "difficulty"}};
  ASSERT_TRUE(ledger_->Commit(0, verdicts).ok());
  const LedgerBalance balance = ledger_->Balance();
  EXPECT_EQ(balance.issued, 4u);
  EXPECT_EQ(balance.trained, 2u);
  EXPECT_EQ(balance.dropped, 1u);
  EXPECT_EQ(balance.failed, 1u);
  EXPECT_EQ(balance.open, 0u);
  EXPECT_EQ(balance.frontier, 4u);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, AGroupWithoutScoresIsTriedAgainAndCostsNoAttempt) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1, now_).ok());
  for (uint32_t attempt = 1; attempt <= 9; ++attempt) {  // far beyond max_attempts
    const BlockLease lease = Lease();
    EXPECT_EQ(lease.attempt, attempt);
    EXPECT_THAT(Ordinals(lease), ElementsAre(0, 1));
    for (uint64_t ordinal : {0u, 1u}) {
      EXPECT_EQ(ledger_->PutBack(Group(ordinal, lease), now_, now_ + absl::Seconds(1)), Receipt::kAccepted);
      EXPECT_EQ(ledger_->PutBack(Group(ordinal, lease), now_, now_),
                ordinal == 1 ? Receipt::kLate : Receipt::kDuplicate);
    }
    EXPECT_EQ(ledger_->unscored(), 2u);
    EXPECT_FALSE(ledger_->StepReady(0));
    EXPECT_FALSE(ledger_->Lease("a", 1, next_lease_, now_).has_value());  // not before its time
    now_ += absl::Seconds(1);
    ASSERT_TRUE(ledger_->Check().ok()) << ledger_->Check();
  }
  const BlockLease lease = Lease();
  CompleteAll(lease);
  EXPECT_EQ(ledger_->unscored(), 0u);
  const auto taken = ledger_->Take(0);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ((*taken)[0].group->attempt, 10u);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, AGroupThatWaitedLongEnoughForScoresComesWithoutThem) {
  for (const bool whole_blocks : {false, true}) {
    Make(whole_blocks);
    ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 4), 1, now_).ok());
    const BlockLease first = Lease(), second = Lease();
    EXPECT_EQ(ledger_->PutBack(Group(0, first), now_, now_), Receipt::kAccepted);
    EXPECT_EQ(ledger_->Complete(Group(1, first)), Receipt::kAccepted);
    now_ += absl::Seconds(5);
    EXPECT_EQ(ledger_->PutBack(Group(2, second), now_, now_), Receipt::kAccepted);
    now_ += absl::Seconds(5);
    EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(11), std::nullopt), 0);
    EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(10), std::nullopt), 1);  // 0; 2 is younger
    EXPECT_FALSE(ledger_->Lease("a", 1, next_lease_, now_).has_value());         // 3 is still out, and 2 with it
    EXPECT_EQ(ledger_->Complete(Group(3, second)), Receipt::kAccepted);
    EXPECT_EQ(ledger_->waiting_blocks(), 1u);
    now_ += absl::Seconds(10);
    ASSERT_TRUE(ledger_->Check().ok()) << ledger_->Check();
    EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(10), std::nullopt), 1);
    EXPECT_EQ(ledger_->waiting_blocks(), 0u);
    ASSERT_TRUE(ledger_->StepReady(0));
    const auto taken = ledger_->Take(0);
    ASSERT_TRUE(taken.ok());
    for (const TakenGroup& one : *taken) {
      EXPECT_TRUE(one.group.has_value());  // what was sampled is kept
      EXPECT_FALSE(one.reward_outage);
    }
    ASSERT_TRUE(ledger_->Commit(0, Trained(0, 4)).ok());
    EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
  }
}

TEST_F(LedgerTest, PromptsThatNobodyMaySampleWaitFromTheOutageOrTheirIssueOn) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1, now_).ok());
  const absl::Time outage = now_ += absl::Seconds(60);
  now_ += absl::Seconds(20);
  ASSERT_TRUE(ledger_->Issue(1, Prompts(2, 2), 1, now_).ok());
  EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(20), std::nullopt), 0);  // no outage, no end
  EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(20), outage), 2);
  EXPECT_TRUE(ledger_->StepReady(0));
  EXPECT_FALSE(ledger_->StepReady(1));
  const auto taken = ledger_->Take(0);
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE((*taken)[0].group.has_value());
  EXPECT_TRUE((*taken)[0].reward_outage);
  EXPECT_THAT((*taken)[0].error, HasSubstr("not sampled"));
  // One that an actor works on is not closed under its hands.
  const BlockLease lease = Lease();
  now_ += absl::Seconds(20);
  EXPECT_EQ(ledger_->CloseWaiting(now_, absl::Seconds(20), outage), 0);
  CompleteAll(lease);
  EXPECT_TRUE(ledger_->StepReady(1));
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, AWholeBlockIsLeasedAgainWholeForAGroupWithoutScores) {
  Make(/*whole_blocks=*/true);
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1, now_).ok());
  const BlockLease first = Lease();
  EXPECT_EQ(ledger_->Complete(Group(0, first)), Receipt::kAccepted);
  EXPECT_EQ(ledger_->PutBack(Group(1, first), now_, now_), Receipt::kAccepted);
  const BlockLease second = Lease();
  EXPECT_THAT(Ordinals(second), ElementsAre(0, 1));
  EXPECT_EQ(ledger_->Complete(Group(0, second)), Receipt::kDuplicate);
  EXPECT_EQ(ledger_->Complete(Group(1, second)), Receipt::kAccepted);
  EXPECT_TRUE(ledger_->StepReady(0));
}

TEST_F(LedgerTest, WhatWasPutBackIsTrainedWithoutScoresIfItsActorsDie) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 1), 1, now_).ok());
  EXPECT_EQ(ledger_->PutBack(Group(0, Lease()), now_, now_), Receipt::kAccepted);
  for (int i = 0; i < 3; ++i) {
    Lease("mortal");
    EXPECT_EQ(ledger_->ReturnLeases("mortal", "it died"), 1);
  }
  ASSERT_TRUE(ledger_->StepReady(0));
  EXPECT_TRUE(ledger_->Take(0)->at(0).group.has_value());
  EXPECT_EQ(ledger_->unscored(), 0u);
  ASSERT_TRUE(ledger_->Issue(1, Prompts(1, 1), 1, now_).ok());
  EXPECT_EQ(ledger_->PutBack(Group(1, Lease()), now_, now_), Receipt::kAccepted);
  ledger_->CancelOpen();
  EXPECT_EQ(ledger_->unscored(), 0u);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, BlocksAreCutFromTheStartOfTheSlice) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(101, 5), 1).ok());
  EXPECT_THAT(Ordinals(Lease()), ElementsAre(101, 102));
  EXPECT_THAT(Ordinals(Lease()), ElementsAre(103, 104));
  EXPECT_THAT(Ordinals(Lease()), ElementsAre(105));
  EXPECT_FALSE(ledger_->Lease("a", 1, next_lease_, now_).has_value());
}

TEST_F(LedgerTest, LateResultOfAnExpiredLeaseDoesNotCount) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease first = Lease("a");  // attempt 1, until 30 s
  EXPECT_EQ(ledger_->NextDeadline(), now_ + absl::Seconds(30));
  now_ += absl::Seconds(29);
  EXPECT_EQ(ledger_->Expire(now_), 0);
  now_ += absl::Seconds(1);
  EXPECT_EQ(ledger_->Expire(now_), 1);
  EXPECT_EQ(ledger_->Complete(Group(0, first)), Receipt::kLate);  // waiting again
  const BlockLease second = Lease("b");                           // attempt 2
  EXPECT_EQ(second.attempt, 2u);
  EXPECT_EQ(second.prompts[0].attempt, 2u);
  EXPECT_EQ(ledger_->Complete(Group(0, first)), Receipt::kLate);  // leased to another
  EXPECT_EQ(ledger_->Complete(Group(0, second)), Receipt::kAccepted);
  EXPECT_EQ(ledger_->Complete(Group(0, first)), Receipt::kDuplicate);
  EXPECT_EQ(ledger_->Complete(Group(0, second)), Receipt::kDuplicate);
  EXPECT_EQ(ledger_->parked(), 1u);
}

TEST_F(LedgerTest, AResultIsFencedByAttemptAndLease) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease lease = Lease();
  EXPECT_EQ(ledger_->Judge(0, lease.attempt + 1, lease.lease_id), Receipt::kLate);
  EXPECT_EQ(ledger_->Judge(0, lease.attempt, lease.lease_id + 1), Receipt::kLate);
  EXPECT_EQ(ledger_->Judge(7, lease.attempt, lease.lease_id), Receipt::kUnknown);
  EXPECT_EQ(ledger_->Judge(0, lease.attempt, lease.lease_id), Receipt::kAccepted);
}

TEST_F(LedgerTest, AsynchronousReissueHoldsOnlyWhatIsUnanswered) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease first = Lease("a");
  ledger_->Complete(Group(0, first));
  EXPECT_EQ(ledger_->ReturnLeases("a", "gone"), 1);
  const BlockLease second = Lease("b");
  EXPECT_THAT(Ordinals(second), ElementsAre(1));
  EXPECT_EQ(second.block, 0u);  // the seed's block stays the same
  EXPECT_EQ(second.attempt, 2u);
}

TEST_F(LedgerTest, SynchronousReissueHoldsTheWholeBlockAndKeepsWhatCame) {
  Make(/*whole_blocks=*/true);
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease first = Lease("a");
  ScoredGroup original = Group(0, first);
  original.ranker_version = "first";
  ledger_->Complete(original);
  ledger_->ReturnLeases("a", "gone");
  EXPECT_FALSE(ledger_->StepReady(0));

  const BlockLease second = Lease("b");
  EXPECT_THAT(Ordinals(second), ElementsAre(0, 1));
  ScoredGroup again = Group(0, second);
  again.ranker_version = "second";
  EXPECT_EQ(ledger_->Complete(again), Receipt::kDuplicate);
  EXPECT_EQ(ledger_->Complete(Group(1, second)), Receipt::kAccepted);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
  EXPECT_EQ(ledger_->live_leases(), 0u);
  EXPECT_EQ(ledger_->Take(0)->at(0).group->ranker_version, "first");
}

TEST_F(LedgerTest, AfterTheLastAttemptAnOrdinalParksWithoutAGroup) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_FALSE(ledger_->StepReady(0));
    EXPECT_EQ(Lease().attempt, static_cast<uint32_t>(attempt));
    now_ += absl::Seconds(30);
    ledger_->Expire(now_);
  }
  ASSERT_TRUE(ledger_->StepReady(0));
  const auto taken = ledger_->Take(0);
  EXPECT_FALSE(taken->at(0).group.has_value());
  EXPECT_FALSE(taken->at(0).bad_data);
  EXPECT_THAT(taken->at(0).error, HasSubstr("3 attempts"));
  EXPECT_THAT(taken->at(0).error, HasSubstr("deadline"));
}

TEST_F(LedgerTest, BadDataParksAtOnceWhileTheRestGoesOn) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease lease = Lease();
  EXPECT_EQ(ledger_->Abandon(0, 1, lease.lease_id, "history is empty", /*bad_data=*/true), Receipt::kAccepted);
  EXPECT_EQ(ledger_->Complete(Group(1, lease)), Receipt::kAccepted);
  const auto taken = ledger_->Take(0);
  ASSERT_TRUE(taken.ok());
  EXPECT_TRUE(taken->at(0).bad_data);
  EXPECT_EQ(taken->at(0).error, "history is empty");
  EXPECT_TRUE(taken->at(1).group.has_value());
}

TEST_F(LedgerTest, WhatIsGivenBackWaitsAgainWhenTheLeaseIsOver) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const BlockLease lease = Lease();
  EXPECT_EQ(ledger_->Abandon(0, 1, lease.lease_id, "draining", false), Receipt::kAccepted);
  EXPECT_EQ(ledger_->Abandon(0, 1, lease.lease_id, "draining", false), Receipt::kDuplicate);
  EXPECT_EQ(ledger_->waiting_blocks(), 0u);  // ordinal 1 is still worked on
  EXPECT_EQ(ledger_->Complete(Group(1, lease)), Receipt::kAccepted);
  EXPECT_THAT(Ordinals(Lease("b")), ElementsAre(0));
}

TEST_F(LedgerTest, CreditLimitsOpenOrdinals) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 8), 1).ok());
  const absl::Status full = ledger_->Issue(1, Prompts(8, 5), 1);  // 8 + 5 > 12
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(ledger_->Issue(1, Prompts(8, 4), 1).ok());
  EXPECT_EQ(ledger_->Balance().issued, 12u);
}

TEST_F(LedgerTest, AnOrdinalIsIssuedOnce) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  EXPECT_EQ(ledger_->Issue(1, Prompts(1, 2), 1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ledger_->Issue(0, Prompts(2, 2), 1).code(), absl::StatusCode::kFailedPrecondition);
  CompleteAll(Lease());
  ASSERT_TRUE(ledger_->Commit(0, Trained(0, 2)).ok());
  EXPECT_EQ(ledger_->Issue(1, Prompts(1, 2), 1).code(), absl::StatusCode::kFailedPrecondition);
  std::vector<Prompt> unordered = Prompts(4, 2);
  std::swap(unordered[0], unordered[1]);
  EXPECT_EQ(ledger_->Issue(1, unordered, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->Issue(1, {}, 1).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LedgerTest, CommitWantsOneVerdictForEachOrdinal) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  EXPECT_EQ(ledger_->Commit(0, Trained(0, 2)).code(), absl::StatusCode::kFailedPrecondition);  // not ready
  CompleteAll(Lease());
  EXPECT_EQ(ledger_->Commit(0, Trained(0, 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->Commit(0, Trained(1, 2)).code(), absl::StatusCode::kInvalidArgument);
  const std::vector<Verdict> doubled = {{0, TerminalState::kTrained, ""}, {0, TerminalState::kTrained, ""}};
  EXPECT_EQ(ledger_->Commit(0, doubled).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->Balance().open, 2u);  // nothing changed
  EXPECT_TRUE(ledger_->Commit(0, Trained(0, 2)).ok());
  EXPECT_EQ(ledger_->Commit(0, Trained(0, 2)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LedgerTest, OlderActorsGetOnlyBlocksTheyMayWorkOn) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), /*min_version=*/3).ok());
  ASSERT_TRUE(ledger_->Issue(1, Prompts(2, 2), /*min_version=*/4).ok());
  EXPECT_FALSE(ledger_->Lease("old", 2, 100, now_).has_value());
  const BlockLease first = Lease("middle", 3);
  EXPECT_EQ(first.block, 0u);
  EXPECT_EQ(first.policy_version, 3u);
  EXPECT_FALSE(ledger_->Lease("middle", 3, 101, now_).has_value());
  EXPECT_EQ(Lease("new", 5).policy_version, 4u);  // at least 4
}

TEST_F(LedgerTest, TheFrontierWaitsForTheOldestAndCountsTheRestAhead) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 4), 1).ok());
  ASSERT_TRUE(ledger_->Issue(1, Prompts(4, 4), 1).ok());
  const BlockLease slow = Lease();
  CompleteAll(Lease());
  CompleteAll(Lease());
  CompleteAll(Lease());
  ASSERT_TRUE(ledger_->Commit(1, Trained(4, 4)).ok());
  EXPECT_EQ(ledger_->Balance().frontier, 0u);
  EXPECT_EQ(ledger_->ahead_of_frontier(), 4u);
  CompleteAll(slow);
  ASSERT_TRUE(ledger_->Commit(0, Trained(0, 4)).ok());
  EXPECT_EQ(ledger_->Balance().frontier, 8u);
  EXPECT_EQ(ledger_->ahead_of_frontier(), 0u);
}

TEST_F(LedgerTest, CancelEndsEverythingOpen) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 6), 1).ok());
  const BlockLease leased = Lease();
  CompleteAll(Lease());
  ledger_->CancelOpen();
  EXPECT_EQ(ledger_->Balance().cancelled, 6u);
  EXPECT_EQ(ledger_->Balance().open, 0u);
  EXPECT_EQ(ledger_->Complete(Group(0, leased)), Receipt::kDuplicate);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, ARestoredLedgerGoesOnWithTheNextAttempt) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  CompleteAll(Lease());
  ASSERT_TRUE(ledger_->Commit(0, Trained(0, 2)).ok());
  ASSERT_TRUE(ledger_->Issue(1, Prompts(2, 4), 1).ok());
  CompleteAll(Lease());  // 2 and 3 parked at attempt 1; 4 and 5 never leased
  const std::string snapshot = ledger_->Snapshot();
  const LedgerBalance before = ledger_->Balance();

  Make(false);
  ASSERT_TRUE(ledger_->Restore(snapshot).ok()) << ledger_->Restore(snapshot);
  EXPECT_EQ(ledger_->Snapshot(), snapshot);
  EXPECT_EQ(ledger_->Balance().open, before.open);
  EXPECT_EQ(ledger_->Balance().frontier, 2u);
  EXPECT_FALSE(ledger_->Lease("a", 9, 50, now_).has_value());  // nothing is leased before it is issued again
  EXPECT_EQ(ledger_->Issue(0, Prompts(0, 2), 1).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(ledger_->Issue(1, Prompts(2, 4), 5).ok());
  EXPECT_EQ(ledger_->Balance().issued, 6u);
  EXPECT_EQ(Lease("a", 5).attempt, 2u);
  EXPECT_EQ(Lease("a", 5).attempt, 1u);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, WhatWentToAnotherRankLeavesTheBook) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 6), 1).ok());
  const std::string snapshot = ledger_->Snapshot();
  Make(false);
  ASSERT_TRUE(ledger_->Restore(snapshot).ok());
  ASSERT_TRUE(ledger_->Issue(0, Prompts(2, 2), 1).ok());  // 0 and 1 are another rank's now
  EXPECT_EQ(ledger_->Balance().issued, 4u);
  ASSERT_TRUE(ledger_->Issue(1, Prompts(8, 2), 1).ok());  // and so are 4 and 5
  EXPECT_EQ(ledger_->Balance().issued, 4u);
  EXPECT_EQ(ledger_->Balance().open, 4u);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
}

TEST_F(LedgerTest, ADamagedSnapshotIsRefusedAndChangesNothing) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  const std::string good = ledger_->Snapshot();
  EXPECT_EQ(ledger_->Restore(good).code(), absl::StatusCode::kFailedPrecondition);  // not fresh
  const auto broken = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), good.substr(0, good.size() / 2), broken("\"issued\":2", "\"issued\":3"),
        broken("\"trained\":0", "\"trained\":1"), broken("\"frontier\":0", "\"frontier\":1"),
        broken("\"format\":1", "\"format\":2"), broken("\"terminal\":[]", "\"terminal\":[[0,1]]"),
        broken("\"terminal\":[]", "\"terminal\":[[9,9]]"), broken("\"issued\":2", "\"issued\":-2")}) {
    Make(false);
    EXPECT_EQ(ledger_->Restore(bad).code(), absl::StatusCode::kDataLoss) << bad;
    EXPECT_EQ(ledger_->Balance().issued, 0u);
  }
  EXPECT_TRUE(ledger_->Restore(good).ok());
}

// A number beyond 64 bits used to become whatever its conversion gave, one beyond 32 bits was cut, -1 became the
// largest.
TEST_F(LedgerTest, ANumberThatNoLedgerHoldsIsRefusedAndItsPlaceNamed) {
  const auto refused = [this](const std::string& counts, const std::string& lists) {
    Make(false);
    return std::string(
        ledger_->Restore(absl::StrCat(R"({"format":1,"dropped":0,"failed":0,"cancelled":0,)", counts, ",", lists, "}"))
            .message());
  };
  const std::string counts = R"("issued":2,"trained":1,"frontier":1)";
  const std::string lists = R"("terminal":[[0,1]],"open":[[1,1]])";
  EXPECT_EQ(refused(counts, lists), "");
  EXPECT_EQ(refused(R"("issued":36893488147419103232,"trained":1,"frontier":1)", lists),
            "ledger: 'issued': want a whole number from 0 to 18446744073709551615, got 3.6893488147419103e+19");
  EXPECT_EQ(refused(R"("issued":2,"trained":-1,"frontier":1)", lists),
            "ledger: 'trained': want a whole number from 0 to 18446744073709551615, got -1");
  EXPECT_EQ(refused(R"("issued":2,"trained":1)", lists),
            "ledger: 'frontier': want a whole number from 0 to 18446744073709551615, got null");
  EXPECT_EQ(refused(counts, R"("terminal":[[0,1e300]],"open":[[1,1]])"),
            "ledger: 'terminal'[0][1]: want a whole number from 0 to 18446744073709551615, got 1e+300");
  EXPECT_EQ(refused(counts, R"("terminal":[[0,1]],"open":[[1,4294967297]])"),
            "ledger: 'open'[0][1]: want a whole number from 0 to 4294967295, got 4294967297");
  EXPECT_EQ(refused(counts, R"("terminal":[[0,1]],"open":[[1]])"), "ledger: 'open'[0]: want two numbers");
  EXPECT_EQ(refused(counts, R"("terminal":[[0,1]],"open":7)"), "ledger: 'open': want a list");
}

TEST_F(LedgerTest, ABlockThatComesBackIsLeasedToAnActorThatWasRefusedMeanwhile) {
  ASSERT_TRUE(ledger_->Issue(0, Prompts(0, 2), 1).ok());
  ASSERT_TRUE(ledger_->Issue(1, Prompts(2, 2), 5).ok());
  ASSERT_TRUE(ledger_->Lease("a", 1, 1, absl::UnixEpoch()).has_value());
  EXPECT_FALSE(ledger_->Lease("b", 4, 2, absl::UnixEpoch()).has_value());  // the other block wants version 5
  EXPECT_EQ(ledger_->ReturnLeases("a", "it left"), 1);
  EXPECT_TRUE(ledger_->Check().ok()) << ledger_->Check();
  const std::optional<BlockLease> lease = ledger_->Lease("b", 4, 3, absl::UnixEpoch());
  ASSERT_TRUE(lease.has_value());
  EXPECT_EQ(lease->block, 0u);
  EXPECT_EQ(ledger_->Lease("c", 5, 4, absl::UnixEpoch())->block, 2u);
}

TEST(LedgerOptionsTest, NamesTheBadField) {
  LedgerOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.max_attempts = 0;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("max_attempts"));
}

// Thousands of seeded events in any order: leases, results that are lost, late or doubled, actors that vanish,
// snapshots restored into a fresh book. The oracle counts terminal states by itself.
class LedgerScheduleTest : public testing::TestWithParam<bool> {};

TEST_P(LedgerScheduleTest, EveryOrdinalEndsExactlyOnce) {
  const bool whole_blocks = GetParam();
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    LedgerOptions options;
    options.lease_groups = 1 + static_cast<int>(random.Below(4));
    options.lease_deadline = absl::Seconds(10);
    options.max_attempts = 1 + static_cast<int>(random.Below(4));
    options.whole_blocks = whole_blocks;
    options.max_open = 18;
    auto ledger = std::make_unique<Ledger>(options);
    absl::Time now = absl::UnixEpoch();
    uint64_t lease_id = 1;
    uint64_t next_step = 0;
    std::set<uint64_t> open_steps;
    std::map<uint64_t, int> ended;       // by ordinal, counted here
    std::vector<ScoredGroup> in_flight;  // results under way; some come twice
    constexpr uint64_t kStep = 6;
    constexpr uint64_t kSteps = 30;
    int events = 0;
    while (ended.size() < kStep * kSteps) {
      ASSERT_LT(++events, 100'000);
      switch (random.Below(10)) {
        case 0: {
          if (next_step == kSteps) break;
          const absl::Status status = ledger->Issue(next_step, Prompts(next_step * kStep, kStep), 1);
          ASSERT_EQ(status.ok(), open_steps.size() < 3) << status;  // 18 open at most
          if (status.ok()) open_steps.insert(next_step++);
          break;
        }
        case 1:
        case 2:
        case 3: {
          const std::string actor = std::string(1, static_cast<char>('a' + random.Below(3)));
          if (auto lease = ledger->Lease(actor, 1, lease_id, now)) {
            ++lease_id;
            for (uint64_t ordinal : Ordinals(*lease)) {
              const uint64_t copies = random.Below(3);  // lost, once, or twice
              for (uint64_t i = 0; i < copies; ++i) in_flight.push_back(Group(ordinal, *lease));
            }
          }
          break;
        }
        case 4:
        case 5:
        case 6: {
          if (in_flight.empty()) break;
          const size_t pick = random.Below(in_flight.size());
          const ScoredGroup group = in_flight[pick];
          in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(pick));
          const uint64_t outcomes = ledger->outcomes();
          Receipt receipt;
          if (random.Below(8) == 0) {
            receipt = ledger->Abandon(group.ordinal, group.attempt, group.lease_id, "no", random.Below(4) == 0);
          } else {
            receipt = ledger->Complete(group);
            EXPECT_EQ(ledger->outcomes() - outcomes >= 1, receipt == Receipt::kAccepted);
          }
          EXPECT_FALSE(ended.count(group.ordinal) > 0 && receipt == Receipt::kAccepted);
          break;
        }
        case 7:
          now += absl::Seconds(static_cast<int>(random.Below(8)));
          ledger->Expire(now);
          break;
        case 8:
          if (random.Below(4) == 0) {
            ledger->ReturnLeases(std::string(1, static_cast<char>('a' + random.Below(3))), "gone");
          }
          if (random.Below(40) == 0) {  // a restart from a checkpoint
            const std::string snapshot = ledger->Snapshot();
            ledger = std::make_unique<Ledger>(options);
            ASSERT_TRUE(ledger->Restore(snapshot).ok());
            for (uint64_t step : open_steps) ASSERT_TRUE(ledger->Issue(step, Prompts(step * kStep, kStep), 1).ok());
          }
          break;
        default: {
          for (uint64_t step : open_steps) {
            if (!ledger->StepReady(step)) continue;
            std::vector<Verdict> verdicts;
            const std::vector<TakenGroup> all = ledger->Take(step).value();
            for (const TakenGroup& taken : all) {
              verdicts.push_back({taken.prompt.ordinal,
                                  taken.bad_data
                                      ? TerminalState::kFailed
                                      : (taken.group.has_value() ? TerminalState::kTrained : TerminalState::kDropped),
                                  ""});
              ++ended[taken.prompt.ordinal];
            }
            ASSERT_TRUE(ledger->Commit(step, verdicts).ok());
            open_steps.erase(step);
            break;
          }
        }
      }
      ASSERT_TRUE(ledger->Check().ok()) << ledger->Check();
    }
    for (const auto& [ordinal, times] : ended) EXPECT_EQ(times, 1) << ordinal;
    const LedgerBalance balance = ledger->Balance();
    EXPECT_EQ(balance.issued, kStep * kSteps);
    EXPECT_EQ(balance.trained + balance.failed + balance.dropped, kStep * kSteps);
    EXPECT_EQ(balance.frontier, kStep * kSteps);
    EXPECT_EQ(ledger->live_leases(), 0u);
    EXPECT_EQ(ledger->waiting_blocks(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, LedgerScheduleTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Synchronous" : "Asynchronous"; });

}  // namespace
}  // namespace sluice::learner

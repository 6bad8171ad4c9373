#include "learner/ledger/decode_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr DecodeCall kCall = {.policy_version = 4, .constrained_beams = 2, .unconstrained_beams = 0};
constexpr absl::Time kStart = absl::UnixEpoch();

std::vector<Prompt> Prompts(uint64_t first, uint64_t count) {
  std::vector<Prompt> prompts(count);
  for (uint64_t i = 0; i < count; ++i) prompts[i].ordinal = first + i;
  return prompts;
}

DecodedPrompt Beams(uint64_t lease_id, uint64_t ordinal) {
  DecodedPrompt decoded;
  decoded.lease_id = lease_id;
  decoded.ordinal = ordinal;
  return decoded;
}

class DecodeBoardTest : public testing::Test {
 protected:
  DecodeBoard board_{kCall, absl::Seconds(10)};
};

TEST_F(DecodeBoardTest, ABlockIsDoneWithItsLastAnswerWhateverTheirOrder) {
  board_.Add(7, Prompts(20, 3));
  const BlockLease lease = *board_.Lease("a", 1, kStart);
  EXPECT_EQ(lease.block, 7u);
  EXPECT_EQ(lease.policy_version, 4u);
  EXPECT_EQ(lease.deadline, kStart + absl::Seconds(10));
  EXPECT_THAT(lease.prompts, SizeIs(3));
  EXPECT_FALSE(board_.Lease("b", 2, kStart).has_value()) << "nothing waits any more";
  for (const uint64_t ordinal : {22, 20, 21}) {
    EXPECT_THAT(board_.TakeDecoded(), IsEmpty());
    ASSERT_EQ(board_.Judge("a", 1, ordinal), Receipt::kAccepted);
    board_.Answer(Beams(1, ordinal));
  }
  const std::vector<DecodedBlock> decoded = board_.TakeDecoded();
  ASSERT_THAT(decoded, SizeIs(1));
  EXPECT_EQ(decoded[0].block, 7u);
  EXPECT_EQ(decoded[0].prompts[0].ordinal, 20u);
  EXPECT_EQ(decoded[0].prompts[2].ordinal, 22u);
  EXPECT_THAT(board_.TakeDecoded(), IsEmpty()) << "once only";
}

TEST_F(DecodeBoardTest, AnswersOutsideALiveLeaseAreRefused) {
  board_.Add(0, Prompts(0, 2));
  board_.Lease("a", 1, kStart);
  board_.Answer(Beams(1, 0));
  EXPECT_EQ(board_.Judge("a", 1, 0), Receipt::kDuplicate);
  EXPECT_EQ(board_.Judge("a", 1, 9), Receipt::kUnknown);
  EXPECT_EQ(board_.Judge("b", 1, 1), Receipt::kLate) << "the lease is another actor's";
  EXPECT_EQ(board_.Judge("a", 2, 1), Receipt::kLate);
  board_.GiveBack(1);
  EXPECT_EQ(board_.Judge("a", 1, 1), Receipt::kLate);
}

TEST_F(DecodeBoardTest, WhatComesBackIsTheRanksAndNoActorGetsItAgain) {
  for (uint64_t block = 0; block < 4; ++block) board_.Add(block, Prompts(2 * block, 2));
  board_.Lease("a", 1, kStart);
  board_.Lease("a", 2, kStart + absl::Seconds(5));
  board_.Lease("b", 3, kStart + absl::Seconds(5));
  board_.Answer(Beams(1, 0));
  EXPECT_EQ(board_.NextDeadline(), kStart + absl::Seconds(10));
  EXPECT_EQ(board_.Expire(kStart + absl::Seconds(10)), 1);
  EXPECT_EQ(board_.ReturnLeases("a"), 1);
  EXPECT_TRUE(board_.HoldsLease("b"));
  EXPECT_FALSE(board_.HoldsLease("a"));
  EXPECT_EQ(board_.Lease("b", 4, kStart)->block, 3u) << "the last that is fresh";
  EXPECT_FALSE(board_.Lease("b", 5, kStart).has_value());
  EXPECT_EQ(board_.waiting(), 2);
  EXPECT_EQ(board_.TakeForRank(), 0u) << "whole, with the prompt that was answered";
  EXPECT_EQ(board_.TakeForRank(), 1u);
  EXPECT_EQ(board_.TakeForRank(), std::nullopt);
  EXPECT_EQ(board_.NextDeadline(), kStart + absl::Seconds(10));
}

TEST_F(DecodeBoardTest, EveryBlockIsDecodedOnceUnderAnyScheduleOfFaults) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    DecodeBoard board(kCall, absl::Seconds(10));
    constexpr uint64_t kBlocks = 12;
    uint64_t added = 0, next_lease = 1;
    absl::Time now = kStart;
    std::map<uint64_t, int> decoded;
    std::vector<std::pair<std::string, DecodedPrompt>> under_way;
    for (int turn = 0; decoded.size() < kBlocks; ++turn) {
      ASSERT_LT(turn, 10000) << "seed " << seed;
      const std::string actor(1, static_cast<char>('a' + random.Below(3)));
      switch (random.Below(8)) {
        case 0:
          if (added < kBlocks) {
            board.Add(added, Prompts(10 * added, 1 + random.Below(4)));
            ++added;
          }
          break;
        case 1:
        case 2:
          if (const auto lease = board.Lease(actor, next_lease, now)) {
            for (const Prompt& prompt : lease->prompts)
              under_way.emplace_back(actor, Beams(next_lease, prompt.ordinal));
            ++next_lease;
          }
          break;
        case 3:
        case 4:
        case 5:
          if (!under_way.empty()) {
            const size_t pick = random.Below(under_way.size());
            const auto [from, answer] = under_way[pick];
            if (random.Below(4) > 0) under_way.erase(under_way.begin() + static_cast<int64_t>(pick));  // else doubled
            if (board.Judge(from, answer.lease_id, answer.ordinal) == Receipt::kAccepted) board.Answer(answer);
          }
          break;
        case 6:
          if (random.Below(3) == 0) board.ReturnLeases(actor);
          if (random.Below(3) == 0) board.GiveBack(1 + random.Below(next_lease));
          now += absl::Seconds(1);
          board.Expire(now);
          break;
        default:
          if (random.Below(2) == 0) {
            if (const auto block = board.TakeForRank()) ++decoded[*block];
          }
      }
      for (const DecodedBlock& block : board.TakeDecoded()) {
        ++decoded[block.block];
        for (size_t i = 0; i < block.prompts.size(); ++i) EXPECT_EQ(block.prompts[i].ordinal, 10 * block.block + i);
      }
    }
    for (const auto& [block, times] : decoded) EXPECT_EQ(times, 1) << "block " << block << ", seed " << seed;
    EXPECT_EQ(board.live_leases() + board.waiting(), 0);
  }
}

}  // namespace
}  // namespace sluice::learner

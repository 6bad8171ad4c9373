#include "learner/record/group_record.h"

#include <gtest/gtest.h>

#include "tests/learner/record/recorded_market.h"

namespace sluice::learner {
namespace {

GroupRecord MakeRecord() {
  RlOptions options;
  Random random(4);
  GroupRecord record;
  while (!record.group || record.group->heads.empty()) record = MarketGroup({}, options, 3, 77, &random);
  record.gate_open = true;
  record.gate_reason = GateReason::kOpen;
  record.reason = GateReason::kControlClosed;
  record.admission = 0.25;
  record.reliability = 0.75;
  record.group->score_error = "why";
  record.group->lease_id = 5;
  return record;
}

TEST(GroupRecordTest, SurvivesItsBytes) {
  const GroupRecord record = MakeRecord();
  const std::string bytes = Encode(record);
  const absl::StatusOr<GroupRecord> back = DecodeRecord(bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(Encode(*back), bytes);
  EXPECT_EQ(back->step, 3u);
  EXPECT_EQ(back->ordinal, 77u);
  EXPECT_EQ(back->learner_version, 13u);
  EXPECT_EQ(back->user, record.user);
  EXPECT_EQ(back->target, 500);
  EXPECT_EQ(back->target_leaf, record.target_leaf);
  EXPECT_EQ(back->target_tokens, record.target_tokens);
  EXPECT_EQ(back->region, record.region);
  EXPECT_EQ(back->reliable, record.reliable);
  EXPECT_EQ(back->group->ordinal, 77u);
  EXPECT_EQ(back->group->lease_id, 5u);
  EXPECT_EQ(back->group->behavior_version, record.group->behavior_version);
  EXPECT_EQ(back->group->catalog_version, kMarketCatalog);
  ASSERT_EQ(back->group->completions.size(), 16u);
  EXPECT_EQ(back->group->completions[5].tokens, record.group->completions[5].tokens);
  EXPECT_EQ(back->group->completions[5].log_probs_full, record.group->completions[5].log_probs_full);
  EXPECT_EQ(back->group->completions[5].log_probs_trie, record.group->completions[5].log_probs_trie);
  EXPECT_EQ(back->group->heads[0].name, "score");
  EXPECT_EQ(back->group->heads[0].completion_scores, record.group->heads[0].completion_scores);
  EXPECT_EQ(back->group->heads[0].negative_scores, record.group->heads[0].negative_scores);
  EXPECT_EQ(back->group->heads[0].history_scores, record.group->heads[0].history_scores);
  EXPECT_EQ(back->group->heads[0].target_score, record.group->heads[0].target_score);
  EXPECT_EQ(back->group->negative_leaves, record.group->negative_leaves);
  EXPECT_EQ(back->group->history_items, record.group->history_items);
  EXPECT_EQ(back->history_leaves, record.history_leaves);
  EXPECT_TRUE(back->gate_open);
  EXPECT_EQ(back->gate_reason, GateReason::kOpen);
  EXPECT_EQ(back->reason, GateReason::kControlClosed);
  EXPECT_EQ(back->admission, 0.25);
  EXPECT_EQ(back->reliability, 0.75);
}

TEST(GroupRecordTest, AnUnsampledGroupIsARecordToo) {
  GroupRecord record;
  record.ordinal = 5;
  record.gate_reason = record.reason = GateReason::kUnsampled;
  const absl::StatusOr<GroupRecord> back = DecodeRecord(Encode(record));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_FALSE(back->group);
  EXPECT_EQ(back->reliable, std::nullopt);
  EXPECT_EQ(InputOf(*back).group, nullptr);
}

TEST(GroupRecordTest, WhyAGroupWasNotSampledComesBackWithItsReason) {
  GroupRecord record;
  record.reason = GateReason::kUnsampled;
  EXPECT_FALSE(InputOf(record).reward_outage);
  record.reason = GateReason::kRewardUnavailable;
  EXPECT_TRUE(InputOf(record).reward_outage);
  record.group = ScoredGroup();  // sampled, and not scored
  EXPECT_FALSE(InputOf(record).reward_outage);
}

TEST(GroupRecordTest, EveryCutIsDataLoss) {
  const std::string bytes = Encode(MakeRecord());
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(DecodeRecord(absl::string_view(bytes).substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
        << size;
  }
  EXPECT_EQ(DecodeRecord(bytes + "x").status().code(), absl::StatusCode::kDataLoss);
}

// Whatever the bytes, a decoder answers and asks for no more memory than they could fill.
TEST(GroupRecordTest, DamagedBytesAreRefusedOrReadButNeverTrusted) {
  const std::string bytes = Encode(MakeRecord());
  Random random(9);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string damaged = bytes;
    for (int i = 0; i < 3; ++i) damaged[random.Below(damaged.size())] = static_cast<char>(random.Below(256));
    const absl::StatusOr<GroupRecord> back = DecodeRecord(damaged);
    if (!back.ok()) {
      EXPECT_EQ(back.status().code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(RecordHeaderTest, KnowsItsFormat) {
  const RecordHeader header{"catalog", 3, 64};
  const std::string bytes = Encode(header);
  EXPECT_EQ(bytes.substr(0, 8), "SLUICEGR");
  EXPECT_EQ(DecodeHeader(bytes).value(), header);
  EXPECT_EQ(DecodeHeader("SLUICEXX" + bytes.substr(8)).status().message(), "not a file of recorded groups");
  std::string later = bytes;
  later[8] = 9;
  EXPECT_EQ(DecodeHeader(later).status().message(),
            "recorded groups of format version 9; this release reads version 1");
  EXPECT_FALSE(DecodeHeader(bytes.substr(0, bytes.size() - 1)).ok());
}

}  // namespace
}  // namespace sluice::learner

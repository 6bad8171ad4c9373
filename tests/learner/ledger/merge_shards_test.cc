#include "learner/ledger/merge_shards.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "learner/ledger/ledger.h"

namespace sluice::learner {
namespace {

// A ledger that has issued [first, first + 4) as step 0, trained it, and issued 2 more from `open` as step 1.
std::string Shard(uint64_t first, uint64_t open) {
  Ledger ledger({.lease_groups = 2, .max_open = 16});
  const auto issue = [&ledger](uint64_t step, uint64_t from, uint64_t count) {
    std::vector<Prompt> prompts(count);
    for (uint64_t i = 0; i < count; ++i) prompts[i].ordinal = from + i;
    EXPECT_TRUE(ledger.Issue(step, prompts, 1).ok());
  };
  issue(0, first, 4);
  std::vector<Verdict> verdicts;
  for (uint64_t lease = 1; lease <= 2; ++lease) {
    const auto block = ledger.Lease("actor", 1, lease, absl::UnixEpoch());
    for (const Prompt& prompt : block->prompts) {
      ScoredGroup group;
      group.ordinal = prompt.ordinal;
      group.attempt = block->attempt;
      group.lease_id = lease;
      EXPECT_EQ(ledger.Complete(group), Receipt::kAccepted);
      verdicts.push_back({prompt.ordinal, TerminalState::kTrained, "open"});
    }
  }
  EXPECT_TRUE(ledger.Take(0).ok());
  EXPECT_TRUE(ledger.Commit(0, verdicts).ok());
  issue(1, open, 2);
  return ledger.Snapshot();
}

TEST(MergeLedgerShardsTest, ASingleRankContinuesWhatTwoHad) {
  // Ranks of step 0: ordinals 0..3 and 4..7; of step 1, still open: 8, 9 and 12, 13.
  const std::string shards[] = {Shard(0, 8), Shard(4, 12)};
  Ledger merged({.lease_groups = 2, .max_open = 16});
  ASSERT_TRUE(merged.Restore(MergeLedgerShards(shards).value()).ok());
  const LedgerBalance balance = merged.Balance();
  EXPECT_EQ(balance.issued, 12u);
  EXPECT_EQ(balance.trained, 8u);
  EXPECT_EQ(balance.open, 4u);
  EXPECT_EQ(balance.frontier, 8u);
  EXPECT_TRUE(balance.Holds());
}

TEST(MergeLedgerShardsTest, RefusesAnOrdinalInTwoShards) {
  const std::string shards[] = {Shard(0, 8), Shard(0, 12)};
  EXPECT_EQ(MergeLedgerShards(shards).status().code(), absl::StatusCode::kDataLoss);
  const std::string torn[] = {Shard(0, 8), "{\"format\": 1"};
  EXPECT_EQ(MergeLedgerShards(torn).status().code(), absl::StatusCode::kDataLoss);
}

TEST(MergeLedgerShardsTest, RefusesCountsThatNoLedgerHolds) {
  const auto shard = [](const std::string& issued) {
    return absl::StrCat(R"({"format":1,"trained":0,"dropped":0,"failed":0,"cancelled":0,"frontier":0,"terminal":[],)",
                        R"("open":[],"issued":)", issued, "}");
  };
  const std::string beyond[] = {shard("0"), shard("1e30")};
  EXPECT_EQ(MergeLedgerShards(beyond).status(),
            absl::DataLossError("the shard of rank 1: ledger: 'issued': want a whole number from 0 to "
                                "18446744073709551615, got 1e+30"));
  const std::string together[] = {shard("18446744073709551615"), shard("1")};
  EXPECT_EQ(MergeLedgerShards(together).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::learner

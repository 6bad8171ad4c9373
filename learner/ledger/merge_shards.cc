#include "learner/ledger/merge_shards.h"

#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "learner/ledger/ledger_snapshot.h"
#include "learner/ledger/ordinal_set.h"

namespace sluice::learner {
namespace {

constexpr uint64_t LedgerSnapshot::*kCounts[] = {&LedgerSnapshot::issued, &LedgerSnapshot::trained,
                                                 &LedgerSnapshot::dropped, &LedgerSnapshot::failed,
                                                 &LedgerSnapshot::cancelled};

}  // namespace

absl::StatusOr<std::string> MergeLedgerShards(absl::Span<const std::string> shards) {
  if (shards.empty()) return absl::InvalidArgumentError("no ledger shard to merge");
  LedgerSnapshot sum;
  OrdinalSet terminal;
  std::map<uint64_t, uint32_t> open;
  for (size_t rank = 0; rank < shards.size(); ++rank) {
    const absl::StatusOr<LedgerSnapshot> parsed = ParseLedgerSnapshot(shards[rank]);
    if (!parsed.ok()) return Annotate(parsed.status(), absl::StrCat("the shard of rank ", rank));
    const LedgerSnapshot& shard = *parsed;
    for (const auto count : kCounts) {
      if (sum.*count + shard.*count < sum.*count) {
        return absl::DataLossError(absl::StrCat("ledger: with the shard of rank ", rank, " a count is beyond 64 bits"));
      }
      sum.*count += shard.*count;
    }
    for (const auto& [first, end] : shard.terminal) {
      if (!terminal.Add(first, end)) {
        return absl::DataLossError(absl::StrCat("ledger: the range from ", first, " is in the shards of two ranks"));
      }
    }
    for (const auto& [ordinal, attempt] : shard.open) {
      if (!open.emplace(ordinal, attempt).second) {
        return absl::DataLossError(absl::StrCat("ledger: ordinal ", ordinal, " is in the shards of two ranks"));
      }
    }
  }
  sum.frontier = open.empty() ? terminal.end() : open.begin()->first;
  sum.terminal.assign(terminal.ranges().begin(), terminal.ranges().end());
  sum.open.assign(open.begin(), open.end());
  return LedgerSnapshotText(sum);
}

}  // namespace sluice::learner

#include "learner/ledger/merge_shards.h"

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
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
  nlohmann::json merged;
  merged["format"] = LedgerSnapshot::kFormat;
  merged["issued"] = sum.issued;
  merged["trained"] = sum.trained;
  merged["dropped"] = sum.dropped;
  merged["failed"] = sum.failed;
  merged["cancelled"] = sum.cancelled;
  merged["frontier"] = open.empty() ? terminal.end() : open.begin()->first;
  merged["terminal"] = nlohmann::json::array();
  for (const auto& [first, end] : terminal.ranges()) merged["terminal"].push_back({first, end});
  merged["open"] = nlohmann::json::array();
  for (const auto& [ordinal, attempt] : open) merged["open"].push_back({ordinal, attempt});
  return merged.dump();
}

}  // namespace sluice::learner

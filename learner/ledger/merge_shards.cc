#include "learner/ledger/merge_shards.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/ledger/ordinal_set.h"

namespace sluice::learner {
namespace {

constexpr const char* kCounts[] = {"issued", "trained", "dropped", "failed", "cancelled"};

}  // namespace

absl::StatusOr<std::string> MergeLedgerShards(absl::Span<const std::string> shards) {
  if (shards.empty()) return absl::InvalidArgumentError("no ledger shard to merge");
  std::map<std::string, uint64_t> counts;
  OrdinalSet terminal;
  std::map<uint64_t, uint32_t> open;
  int format = 0;
  try {
    for (const std::string& shard : shards) {
      const nlohmann::json json = nlohmann::json::parse(shard);
      format = json.at("format").get<int>();
      for (const char* count : kCounts) counts[count] += json.at(count).get<uint64_t>();
      for (const nlohmann::json& range : json.at("terminal")) {
        if (!terminal.Add(range.at(0).get<uint64_t>(), range.at(1).get<uint64_t>())) {
          return absl::DataLossError(
              absl::StrCat("ledger: the range from ", range.at(0).get<uint64_t>(), " is in the shards of two ranks"));
        }
      }
      for (const nlohmann::json& entry : json.at("open")) {
        if (!open.emplace(entry.at(0).get<uint64_t>(), entry.at(1).get<uint32_t>()).second) {
          return absl::DataLossError(
              absl::StrCat("ledger: ordinal ", entry.at(0).get<uint64_t>(), " is in the shards of two ranks"));
        }
      }
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("ledger: a shard cannot be read: ", error.what()));
  }
  nlohmann::json merged;
  merged["format"] = format;
  for (const char* count : kCounts) merged[count] = counts[count];
  merged["frontier"] = open.empty() ? terminal.end() : open.begin()->first;
  merged["terminal"] = nlohmann::json::array();
  for (const auto& [first, end] : terminal.ranges()) merged["terminal"].push_back({first, end});
  merged["open"] = nlohmann::json::array();
  for (const auto& [ordinal, attempt] : open) merged["open"].push_back({ordinal, attempt});
  return merged.dump();
}

}  // namespace sluice::learner

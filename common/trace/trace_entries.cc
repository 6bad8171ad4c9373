#include "common/trace/trace_entries.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/timestamp.pb.h"

namespace sluice {
namespace {

// How far along its way a group is at an event.
int PhaseOf(const v1::TraceEntry& entry) {
  static constexpr const char* kWay[][2] = {{"issued", ""},          {"leased", ""},   {"sampled", ""},
                                            {"scored", ""},          {"sent", ""},     {"accepted", "refused"},
                                            {"gave_back", "judged"}, {"ended", "open"}};
  int phase = 0;
  for (const auto& [one, other] : kWay) {
    if (entry.event() == one || entry.event() == other) return phase;
    ++phase;
  }
  return phase;  // "job"
}

bool SameLease(const v1::TraceEntry& a, const v1::TraceEntry& b) {
  return a.has_lease() && b.has_lease() && a.lease() == b.lease() && a.attempt() == b.attempt();
}

std::pair<int64_t, int32_t> TimeKey(const v1::TraceEntry& entry) {
  return {entry.time().seconds(), entry.time().nanos()};
}

}  // namespace

void OrderEntries(v1::GroupTrace* group) {
  std::vector<v1::TraceEntry> ordered, untimed;
  for (v1::TraceEntry& entry : *group->mutable_entries()) {
    (entry.has_time() ? ordered : untimed).push_back(std::move(entry));
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const v1::TraceEntry& a, const v1::TraceEntry& b) {
    return TimeKey(a) != TimeKey(b) ? TimeKey(a) < TimeKey(b) : PhaseOf(a) < PhaseOf(b);
  });
  std::stable_sort(untimed.begin(), untimed.end(),
                   [](const v1::TraceEntry& a, const v1::TraceEntry& b) { return PhaseOf(a) < PhaseOf(b); });
  for (v1::TraceEntry& entry : untimed) {
    // A lease's number is of one rank in one epoch: of several with it the latest is meant, which gave the group.
    const auto of_lease_before = [&](const v1::TraceEntry& other) {
      return SameLease(entry, other) && PhaseOf(other) <= PhaseOf(entry);
    };
    const bool leased = std::any_of(ordered.begin(), ordered.end(), of_lease_before);
    const auto comes_before = [&](const v1::TraceEntry& other) {
      return leased ? of_lease_before(other) : PhaseOf(other) <= PhaseOf(entry);
    };
    const auto last = std::find_if(ordered.rbegin(), ordered.rend(), comes_before);
    ordered.insert(last.base(), std::move(entry));
  }
  group->clear_entries();
  for (v1::TraceEntry& entry : ordered) *group->add_entries() = std::move(entry);
}

}  // namespace sluice

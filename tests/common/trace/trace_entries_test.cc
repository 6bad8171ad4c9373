#include "common/trace/trace_entries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/timestamp.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;

struct Given {
  std::string event;
  std::optional<int> second;  // none: its time is not known
  uint32_t attempt = 0;       // 0: of no lease
  uint64_t lease = 0;
};

// "EVENT ATTEMPT" of each, or "EVENT" of one without a lease.
std::vector<std::string> Ordered(const std::vector<Given>& given) {
  v1::GroupTrace group;
  for (const Given& one : given) {
    v1::TraceEntry* entry = group.add_entries();
    entry->set_event(one.event);
    if (one.second) SetTime(absl::FromUnixSeconds(*one.second), entry->mutable_time());
    if (one.attempt == 0) continue;
    entry->set_attempt(one.attempt);
    entry->set_lease(one.lease);
  }
  OrderEntries(&group);
  std::vector<std::string> ordered;
  for (const v1::TraceEntry& entry : group.entries()) {
    ordered.push_back(entry.has_attempt() ? absl::StrCat(entry.event(), " ", entry.attempt()) : entry.event());
  }
  return ordered;
}

TEST(TraceEntriesTest, TimesGoFirstAndAtOneTimeTheWayOfAGroup) {
  EXPECT_THAT(Ordered({{"sent", 5, 1, 9}, {"leased", 1, 1, 9}, {"job", 3}, {"scored", 5, 1, 9}, {"sampled", 4, 1, 9}}),
              ElementsAre("leased 1", "job", "sampled 1", "scored 1", "sent 1"));
}

TEST(TraceEntriesTest, WithoutTimesTheWayOfAGroupIsTheOrder) {
  EXPECT_THAT(Ordered({{"ended", {}},
                       {"judged", {}, 1, 9},
                       {"scored", {}, 1, 9},
                       {"open", {}},
                       {"sampled", {}, 1, 9},
                       {"issued", {}}}),
              ElementsAre("issued", "sampled 1", "scored 1", "judged 1", "ended", "open"));
}

// The record of the attempt that was trained stands beside what its actor wrote of it, not beside that of another one.
TEST(TraceEntriesTest, WhatHasNoTimeStandsBesideItsOwnLease) {
  EXPECT_THAT(Ordered({{"issued", {}},
                       {"sampled", {}, 2, 4},
                       {"judged", {}, 2, 4},
                       {"leased", 1, 1, 3},
                       {"sampled", 2, 1, 3},
                       {"leased", 10, 2, 4},
                       {"sampled", 11, 2, 4},
                       {"sent", 12, 2, 4},
                       {"refused", 13, 1, 3},
                       {"accepted", 14, 2, 4},
                       {"ended", 20}}),
              ElementsAre("issued", "leased 1", "sampled 1", "leased 2", "sampled 2", "sampled 2", "sent 2",
                          "refused 1", "accepted 2", "judged 2", "ended"));
}

// It used to stand before the group was issued, as of its lease only what came later had a time.
TEST(TraceEntriesTest, OfALeaseWithoutAJournalTheWayOfAGroupIsTheOrder) {
  EXPECT_THAT(Ordered({{"issued", {}}, {"sampled", {}, 1, 3}, {"scored", {}, 1, 3}, {"job", 2}, {"judged", 9, 1, 3}}),
              ElementsAre("issued", "sampled 1", "scored 1", "job", "judged 1"));
}

// Leases are numbered from 1 again by every rank of every epoch.
TEST(TraceEntriesTest, OfSeveralLeasesWithOneNumberTheLatestIsMeant) {
  EXPECT_THAT(Ordered({{"judged", {}, 1, 3}, {"accepted", 2, 1, 3}, {"job", 5}, {"accepted", 9, 1, 3}}),
              ElementsAre("accepted 1", "job", "accepted 1", "judged 1"));
}

}  // namespace
}  // namespace sluice

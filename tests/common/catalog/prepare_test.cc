#include "common/catalog/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr SplitLabel kT = SplitLabel::kTrain;
constexpr SplitLabel kV = SplitLabel::kValidation;
constexpr SplitLabel kX = SplitLabel::kTest;

EventLog Log(const std::vector<Event>& events, int32_t users, int32_t items) {
  EventLog log;
  log.source = "events.csv";
  log.events = events;
  log.has_times = log.has_ratings = true;
  for (int32_t user = 0; user < users; ++user) log.user_names.push_back(absl::StrCat("u", user));
  for (int32_t item = 0; item < items; ++item) log.item_names.push_back(absl::StrCat("i", item));
  return log;
}

PrepareEventsOptions NoFilter() {
  PrepareEventsOptions options;
  options.min_user_events = options.min_item_events = 1;
  return options;
}

TEST(PrepareTest, EventsAreOrderedByTimeAndTiesKeepTheirLines) {
  const auto prepared =
      PrepareEvents(Log({{1, 2, 5}, {0, 3, 9}, {1, 0, 4}, {0, 1, 2}, {0, 2, 9}, {0, 0, 9}}, 2, 4), NoFilter(), "d");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->contents.first_event, ElementsAre(0, 4, 6));
  EXPECT_THAT(prepared->contents.event_item, ElementsAre(1, 3, 2, 0, 0, 2));
  EXPECT_THAT(prepared->contents.event_split, ElementsAre(kT, kT, kV, kX, kT, kT)) << "two events only train";
  EXPECT_EQ(prepared->tied_events, 2);
  EXPECT_THAT(prepared->contents.notes[1], HasSubstr("2 have the same time"));
  EXPECT_THAT(prepared->contents.notes[1], HasSubstr("keep the order of their lines"));
  EXPECT_EQ(prepared->contents.name, "d");
}

TEST(PrepareTest, TheCoreIsReducedUntilAllHaveEnough) {
  // Item 3 has one event; without it user 2 has one; without that item 2 has one, and so on: users 0 and 1 remain.
  PrepareEventsOptions options;
  options.min_user_events = options.min_item_events = 2;
  const auto prepared = PrepareEvents(
      Log({{0, 0, 1}, {0, 1, 2}, {1, 0, 1}, {1, 1, 2}, {1, 2, 3}, {2, 2, 1}, {2, 3, 2}}, 3, 4), options, "d");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->contents.user_names, ElementsAre("u0", "u1"));
  EXPECT_THAT(prepared->contents.item_names, ElementsAre("i0", "i1"));
  EXPECT_EQ(prepared->core_events, 3);
  EXPECT_EQ(prepared->core_rounds, 3);
}

TEST(PrepareTest, LowRatingsAreLeftOutBeforeTheCore) {
  PrepareEventsOptions options = NoFilter();
  options.min_rating = 3.5;
  EventLog log = Log({{0, 0, 1, 3.5f}, {0, 1, 2, 3}, {1, 2, 1, 5}, {1, 0, 2, 4}}, 2, 3);
  const auto prepared = PrepareEvents(log, options, "d");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->contents.item_names, ElementsAre("i0", "i2"));
  EXPECT_THAT(prepared->log_item, ElementsAre(0, 2));
  EXPECT_EQ(prepared->low_rating_events, 1);
  log.has_ratings = false;
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("has no ratings"));
}

TEST(PrepareTest, TheChronologicalSplitCutsOneTimeLine) {
  // Ten events at times 1 to 10, two users in turn: 20 % test is times 9 and 10, 10 % validation is time 8.
  std::vector<Event> events;
  for (int i = 0; i < 10; ++i) events.push_back({i % 2, i, static_cast<double>(i + 1)});
  PrepareEventsOptions options = NoFilter();
  options.leave_one_out = false;
  options.test_fraction = 0.2;
  const auto prepared = PrepareEvents(Log(events, 2, 10), options, "d");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->contents.event_split, ElementsAre(kT, kT, kT, kT, kX, kT, kT, kT, kV, kX));
  // Times 8 and 9 fall together: both are then test.
  events[7].time = 9;
  EXPECT_THAT(PrepareEvents(Log(events, 2, 10), options, "d")->contents.event_split,
              ElementsAre(kT, kT, kT, kT, kX, kT, kT, kT, kX, kX));
}

TEST(PrepareTest, EventsBeforeTheHeldOutOnesAreReservedForRlWhileOneStaysForTraining) {
  constexpr SplitLabel kR = SplitLabel::kReserved;
  std::vector<Event> events;
  const int length[] = {7, 5, 4, 3, 2};
  for (int user = 0; user < 5; ++user) {
    for (int i = 0; i < length[user]; ++i) events.push_back({user, i, static_cast<double>(i)});
  }
  PrepareEventsOptions options = NoFilter();
  options.rl_events = 2;
  const auto prepared = PrepareEvents(Log(events, 5, 7), options, "d");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->contents.event_split, ElementsAre(kT, kT, kT, kR, kR, kV, kX,  //
                                                          kT, kR, kR, kV, kX,          //
                                                          kT, kR, kV, kX,              //
                                                          kT, kV, kX, kT, kT));
  options.leave_one_out = false;
  EXPECT_THAT(std::string(PrepareEvents(Log(events, 5, 7), options, "d").status().message()), HasSubstr("rl_events"));
  options.rl_events = -1;
  options.leave_one_out = true;
  EXPECT_FALSE(PrepareEvents(Log(events, 5, 7), options, "d").ok());
}

TEST(PrepareTest, ChronologicalSplitsThatCannotBeAreRefused) {
  PrepareEventsOptions options = NoFilter();
  options.leave_one_out = false;
  EventLog log = Log({{0, 0, 1}, {0, 1, 1}, {0, 2, 1}, {0, 3, 1}, {0, 4, 1}}, 1, 5);
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("no training event"));
  log.has_times = false;
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("needs times"));
  options.validation_fraction = options.test_fraction = 0.5;
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("below 1 together"));
}

TEST(PrepareTest, BadOptionsAndEmptyResultsAreRefused) {
  const EventLog log = Log({{0, 0, 1}, {1, 0, 1}}, 2, 1);
  const auto status = PrepareEvents(log, {}, "d").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no event of 'events.csv' is left"));
  PrepareEventsOptions options;
  options.min_user_events = 0;
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("min_user_events"));
  options = {};
  options.max_history = 0;
  EXPECT_THAT(std::string(PrepareEvents(log, options, "d").status().message()), HasSubstr("max_history"));
}

TEST(PrepareTest, RandomLogsKeepExactlyTheCore) {
  Random random(21);
  for (int round = 0; round < 50; ++round) {
    const int32_t users = 1 + static_cast<int32_t>(random.Below(30));
    const int32_t items = 1 + static_cast<int32_t>(random.Below(30));
    std::vector<Event> events;
    for (uint64_t n = random.Below(200); n > 0; --n) {
      events.push_back({static_cast<int32_t>(random.Below(users)), static_cast<int32_t>(random.Below(items)),
                        static_cast<double>(random.Below(20))});
    }
    PrepareEventsOptions options;
    options.min_user_events = 1 + static_cast<int>(random.Below(6));
    options.min_item_events = 1 + static_cast<int>(random.Below(6));
    // Oracle: drop one offender at a time, in whatever order; the core does not depend on it.
    std::multiset<std::pair<int32_t, int32_t>> core;
    for (const Event& event : events) core.insert({event.user, event.item});
    for (bool changed = true; changed;) {
      changed = false;
      std::map<int32_t, int> of_user, of_item;
      for (const auto& [user, item] : core) ++of_user[user], ++of_item[item];
      for (auto it = core.begin(); it != core.end() && !changed; ++it) {
        if (of_user[it->first] < options.min_user_events || of_item[it->second] < options.min_item_events) {
          core.erase(it);
          changed = true;
        }
      }
    }
    const auto prepared = PrepareEvents(Log(events, users, items), options, "d");
    if (core.empty()) {
      EXPECT_EQ(prepared.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    const Dataset::Contents& contents = prepared->contents;
    std::multiset<std::pair<std::string, std::string>> want, got;
    for (const auto& [user, item] : core) want.insert({absl::StrCat("u", user), absl::StrCat("i", item)});
    for (size_t user = 0; user < contents.user_names.size(); ++user) {
      for (int64_t e = contents.first_event[user]; e < contents.first_event[user + 1]; ++e) {
        got.insert({contents.user_names[user], contents.item_names[contents.event_item[e]]});
      }
    }
    EXPECT_EQ(got, want);
  }
}

}  // namespace
}  // namespace sluice

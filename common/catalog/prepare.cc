#include "common/catalog/prepare.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

// Drops events of users and items that have too few, until all have enough. Returns the rounds that dropped some.
int ReduceToCore(int64_t users, int64_t items, const PrepareEventsOptions& options, std::vector<Event>* events) {
  for (int rounds = 0;; ++rounds) {
    std::vector<int64_t> of_user(users, 0);
    std::vector<int64_t> of_item(items, 0);
    for (const Event& event : *events) {
      ++of_user[event.user];
      ++of_item[event.item];
    }
    const size_t dropped = std::erase_if(*events, [&](const Event& event) {
      return of_user[event.user] < options.min_user_events || of_item[event.item] < options.min_item_events;
    });
    if (dropped == 0) return rounds;
  }
}

// New numbers for the numbers in use, in their order, -1 for others; `used` gets the old numbers.
template <typename Get>
std::vector<int32_t> Renumber(int64_t count, const std::vector<Event>& events, const Get& get,
                              std::vector<int32_t>* used) {
  std::vector<int32_t> number(count, -1);
  for (const Event& event : events) number[get(event)] = 0;
  for (int64_t old = 0; old < count; ++old) {
    if (number[old] < 0) continue;
    number[old] = static_cast<int32_t>(used->size());
    used->push_back(static_cast<int32_t>(old));
  }
  return number;
}

void SplitLeaveOneOut(int rl_events, Dataset::Contents* contents) {
  for (size_t user = 0; user + 1 < contents->first_event.size(); ++user) {
    const int64_t end = contents->first_event[user + 1];
    if (end - contents->first_event[user] < 3) continue;
    contents->event_split[end - 1] = SplitLabel::kTest;
    contents->event_split[end - 2] = SplitLabel::kValidation;
    const int64_t reserved = std::min<int64_t>(rl_events, end - contents->first_event[user] - 3);
    for (int64_t i = 0; i < reserved; ++i) contents->event_split[end - 3 - i] = SplitLabel::kReserved;
  }
}

// `events` in the order of the data set.
void SplitByTime(const std::vector<Event>& events, const PrepareEventsOptions& options, Dataset::Contents* contents) {
  std::vector<double> times;
  times.reserve(events.size());
  for (const Event& event : events) times.push_back(event.time);
  std::sort(times.begin(), times.end());
  // The time from which on a share of the events lies; beyond all times for a share of none.
  const auto boundary = [&](double share) {
    const size_t count = static_cast<size_t>(std::llround(share * static_cast<double>(times.size())));
    return count == 0 ? HUGE_VAL : times[times.size() - count];
  };
  const double test = boundary(options.test_fraction);
  const double validation = boundary(options.test_fraction + options.validation_fraction);
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].time >= test) {
      contents->event_split[i] = SplitLabel::kTest;
    } else if (events[i].time >= validation) {
      contents->event_split[i] = SplitLabel::kValidation;
    }
  }
}

}  // namespace

absl::Status PrepareEventsOptions::Validate() const {
  if (min_user_events < 1) return absl::InvalidArgumentError("want min_user_events of at least 1");
  if (min_item_events < 1) return absl::InvalidArgumentError("want min_item_events of at least 1");
  if (rl_events < 0 || (rl_events > 0 && !leave_one_out)) {
    return absl::InvalidArgumentError("want rl_events of at least 0, and a leave-one-out split to reserve them in");
  }
  if (max_history < 1) return absl::InvalidArgumentError("want max_history of at least 1");
  if (!(validation_fraction >= 0 && test_fraction >= 0 && validation_fraction + test_fraction < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("want validation_fraction and test_fraction of at least 0 and ",
                                                   "below 1 together, got ", validation_fraction, " and ",
                                                   test_fraction));
  }
  return absl::OkStatus();
}

absl::StatusOr<PreparedEvents> PrepareEvents(const EventLog& log, const PrepareEventsOptions& options,
                                             const std::string& name) {
  SLUICE_RETURN_IF_ERROR(options.Validate());
  if (options.min_rating && !log.has_ratings) {
    return absl::InvalidArgumentError(
        absl::StrCat("min_rating is set, but '", log.source, "' has no ratings; unset it or name the rating column"));
  }
  if (!options.leave_one_out && !log.has_times) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chronological split needs times, but '", log.source, "' has none; split leave_one_out"));
  }
  PreparedEvents result;
  result.log_events = static_cast<int64_t>(log.events.size());
  std::vector<Event> events = log.events;
  if (options.min_rating) {
    result.low_rating_events = static_cast<int64_t>(
        std::erase_if(events, [&](const Event& event) { return event.rating < *options.min_rating; }));
  }
  const int64_t users = static_cast<int64_t>(log.user_names.size());
  const int64_t items = static_cast<int64_t>(log.item_names.size());
  const int64_t before_core = static_cast<int64_t>(events.size());
  result.core_rounds = ReduceToCore(users, items, options, &events);
  result.core_events = before_core - static_cast<int64_t>(events.size());
  if (events.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no event of '", log.source, "' is left: ", result.low_rating_events, " of ", result.log_events,
                     " are below min_rating, and no users with ", options.min_user_events, " events share items with ",
                     options.min_item_events, "; lower min_user_events or min_item_events"));
  }

  std::vector<int32_t> log_user;
  const std::vector<int32_t> user_number = Renumber(
      users, events, [](const Event& e) { return e.user; }, &log_user);
  const std::vector<int32_t> item_number = Renumber(
      items, events, [](const Event& e) { return e.item; }, &result.log_item);
  for (Event& event : events) {
    event.user = user_number[event.user];
    event.item = item_number[event.item];
  }
  // Stable: at equal times the order of lines stays.
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::pair(a.user, a.time) < std::pair(b.user, b.time);
  });

  Dataset::Contents& contents = result.contents;
  contents.name = name;
  contents.max_history = options.max_history;
  for (const int32_t user : log_user) contents.user_names.push_back(log.user_names[user]);
  for (const int32_t item : result.log_item) contents.item_names.push_back(log.item_names[item]);
  contents.first_event.assign(log_user.size() + 1, 0);
  contents.event_split.assign(events.size(), SplitLabel::kTrain);
  for (size_t i = 0; i < events.size(); ++i) {
    contents.event_item.push_back(events[i].item);
    contents.first_event[events[i].user + 1] = static_cast<int64_t>(i) + 1;
    if (i > 0 && events[i].user == events[i - 1].user && events[i].time == events[i - 1].time) ++result.tied_events;
  }
  if (options.leave_one_out) {
    SplitLeaveOneOut(options.rl_events, &contents);
  } else {
    SplitByTime(events, options, &contents);
    if (std::count(contents.event_split.begin(), contents.event_split.end(), SplitLabel::kTrain) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("the chronological split leaves no training event of ",
                                                     events.size(), "; are all times equal?"));
    }
  }

  contents.notes.push_back(absl::StrCat("from ", result.log_events, " events; ", result.low_rating_events,
                                        " below min_rating and ", result.core_events, " outside the core (users of ",
                                        options.min_user_events, " events, items of ", options.min_item_events, ", ",
                                        result.core_rounds, " rounds) were left out"));
  contents.notes.push_back(
      log.has_times ? absl::StrCat("events are in the order of their times; ", result.tied_events,
                                   " have the same time as the event of that user before them and keep the order "
                                   "of their lines in the file")
                    : std::string("the file has no times; events are in the order in which it lists them"));
  contents.notes.push_back(
      options.leave_one_out
          ? absl::StrCat(
                "split leave-one-out: a user's last event is test, the one before it validation",
                options.rl_events > 0 ? absl::StrCat(", up to ", options.rl_events, " before it for rl alone") : "")
          : absl::StrCat("split by time over all users: the last ", options.test_fraction, " of the events are test, ",
                         options.validation_fraction, " before them validation; events of one time stay together"));
  return result;
}

}  // namespace sluice

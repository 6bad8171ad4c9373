// From events to a data set: rating filter, k-core, order in time, split, dense numbers. Semantic IDs come after
// (sid_index.h, semantic_ids.h). Pure functions.
#ifndef SLUICE_COMMON_CATALOG_PREPARE_H_
#define SLUICE_COMMON_CATALOG_PREPARE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/catalog/readers.h"

namespace sluice {

struct PrepareEventsOptions {
  std::optional<double> min_rating;  // events with a lower rating are left out; absent: all count
  int min_user_events = 5;           // k-core, applied until nothing more falls out; 1: none
  int min_item_events = 5;
  // true: the last event of a user is test, the one before it validation; users with fewer than three events train
  // only. false: by time over all users, see below.
  bool leave_one_out = true;
  // Leave-one-out: so many events before a user's validation event are reserved for rl, at least one training event
  // left. 0: none.
  int rl_events = 0;
  // Chronological: the latest test_fraction of all events, then the validation_fraction before them. Events of one
  // time are never torn apart: they all go to the later part.
  double validation_fraction = 0.1;
  double test_fraction = 0.1;
  int max_history = 20;

  // InvalidArgument names the field.
  absl::Status Validate() const;
};

struct PreparedEvents {
  // Without semantic IDs: levels, codes and item_codes are still empty. Notes say how the events were treated.
  Dataset::Contents contents;
  // The item's number in the event log, [items]; rises. Rows of a user's item vectors are in the log's numbers.
  std::vector<int32_t> log_item;

  int64_t log_events = 0;
  int64_t low_rating_events = 0;  // left out by min_rating
  int64_t core_events = 0;        // left out by the k-core
  int core_rounds = 0;
  int64_t tied_events = 0;  // with the same time as the event of that user before it
};

// Items and users keep the log's order among themselves. Events of one user at one time keep the order of their lines.
//
// InvalidArgument: a rating or time is needed and the log has none; nothing is left; a split without training events.
absl::StatusOr<PreparedEvents> PrepareEvents(const EventLog& log, const PrepareEventsOptions& options,
                                             const std::string& name);

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_PREPARE_H_

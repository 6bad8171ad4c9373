// Readers of event files: who had which item when.
//
//   inter  RecBole: a header line of name:type fields, tab-separated; user_id and item_id are needed, rating and
//          timestamp are read if there.
//   json   {"user": [item, item, ...], ...}, each list in time order; items are text or integers.
//   csv    A header line of column names, comma-separated, fields quoted with " where needed (RFC 4180).
//
// Numbering does not depend on the order of lines: names that are all integers (0, 17, never 017) are numbered in
// the order of their values, others in byte order, which is Python's sorted(). So an item's number is its name
// where the names are 0 to n - 1, and its name minus 1 where they are 1 to n.
#ifndef SLUICE_COMMON_CATALOG_READERS_H_
#define SLUICE_COMMON_CATALOG_READERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file/file.h"

namespace sluice {

struct Event {
  int32_t user = 0;
  int32_t item = 0;
  double time = 0;   // only its order counts; without times, the position in the file
  float rating = 0;  // meaningless without ratings
};

struct EventLog {
  std::string source;  // the file's path
  std::vector<std::string> user_names;
  std::vector<std::string> item_names;
  std::vector<Event> events;  // in the file's order
  bool has_times = false;
  bool has_ratings = false;
};

enum class EventFormat { kAuto, kInter, kJson, kCsv };  // kAuto: by the file name's ending

// "auto", "inter", "json", "csv"; InvalidArgument for another word.
absl::StatusOr<EventFormat> ParseEventFormat(absl::string_view word);

struct ReadEventsOptions {
  EventFormat format = EventFormat::kAuto;
  // Columns of a CSV file. An empty rating or timestamp column: there is none.
  std::string user_column = "user";
  std::string item_column = "item";
  std::string rating_column;
  std::string timestamp_column = "timestamp";
  // A larger file is refused.
  int64_t max_bytes = kMaxTextFileBytes;
};

// NotFound: no such file. InvalidArgument: everything else that is wrong with it, with "file:line" or, in JSON,
// with the user: a missing column, a line with another number of fields, an empty name, a time or rating that is
// not a finite number, a user who comes twice in a JSON map, a file without events.
absl::StatusOr<EventLog> ReadEvents(const std::string& path, const ReadEventsOptions& options = {});

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_READERS_H_

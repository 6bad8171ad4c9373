#include "common/catalog/readers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr int64_t kMaxEvents = (int64_t{1} << 31) - 2;

// Foreign text in a message: cut, without control characters or bytes that are no UTF-8.
std::string Quoted(absl::string_view text) {
  std::string result;
  for (const char c : text.substr(0, 100)) result.push_back(static_cast<unsigned char>(c) < 0x20 ? '?' : c);
  const bool ascii =
      std::all_of(result.begin(), result.end(), [](char c) { return static_cast<unsigned char>(c) < 0x7f; });
  if (!ascii) {
    result = json(result).dump(-1, ' ', false, json::error_handler_t::replace);
    result = result.substr(1, result.size() - 2);
  }
  return absl::StrCat("'", result, text.size() > 100 ? "...'" : "'");
}

absl::Status AtLine(const std::string& path, int64_t line, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ":", line, ": ", what));
}

// Gives names numbers in the order of their first appearance.
class Names {
 public:
  int32_t Number(absl::string_view name) {
    const auto [it, is_new] = numbers_.try_emplace(std::string(name), static_cast<int32_t>(names_.size()));
    if (is_new) names_.emplace_back(name);
    return it->second;
  }

  // Sorts the names and returns each one's new number.
  std::vector<int32_t> Sort() {
    std::vector<int64_t> values;
    for (const std::string& name : names_) {
      int64_t value = 0;
      const bool canonical = absl::SimpleAtoi(name, &value) && value >= 0 && absl::StrCat(value) == name;
      if (!canonical) break;
      values.push_back(value);
    }
    const bool integers = values.size() == names_.size();
    std::vector<int32_t> order(names_.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return integers ? values[a] < values[b] : names_[a] < names_[b]; });
    std::vector<int32_t> number(names_.size());
    std::vector<std::string> sorted(names_.size());
    for (size_t i = 0; i < order.size(); ++i) {
      number[order[i]] = static_cast<int32_t>(i);
      sorted[i] = std::move(names_[order[i]]);
    }
    names_ = std::move(sorted);
    numbers_.clear();
    return number;
  }

  std::vector<std::string> Take() { return std::move(names_); }

 private:
  absl::flat_hash_map<std::string, int32_t> numbers_;
  std::vector<std::string> names_;
};

// Collects events while a file is read.
class LogBuilder {
 public:
  explicit LogBuilder(std::string path) { log_.source = std::move(path); }

  int32_t User(absl::string_view name) { return users_.Number(name); }
  int32_t Item(absl::string_view name) { return items_.Number(name); }
  // False when there are more events than can be numbered.
  bool Add(const Event& event) {
    log_.events.push_back(event);
    return static_cast<int64_t>(log_.events.size()) <= kMaxEvents;
  }
  int64_t size() const { return static_cast<int64_t>(log_.events.size()); }

  absl::StatusOr<EventLog> Finish(bool has_times, bool has_ratings) {
    if (log_.events.empty()) {
      return absl::DataLossError(absl::StrCat(Quoted(log_.source), " has no events"));
    }
    const std::vector<int32_t> user_number = users_.Sort();
    const std::vector<int32_t> item_number = items_.Sort();
    for (Event& event : log_.events) {
      event.user = user_number[event.user];
      event.item = item_number[event.item];
    }
    log_.user_names = users_.Take();
    log_.item_names = items_.Take();
    log_.has_times = has_times;
    log_.has_ratings = has_ratings;
    return std::move(log_);
  }

 private:
  EventLog log_;
  Names users_;
  Names items_;
};

// --- Tables: .inter and .csv ---

// Splits a text into records of fields. A record may span lines where a quoted field does.
class Table {
 public:
  Table(absl::string_view text, char separator, bool quotes) : text_(text), separator_(separator), quotes_(quotes) {
    absl::ConsumePrefix(&text_, "\xef\xbb\xbf");  // the byte order mark that spreadsheets write
  }

  // False at the end of the text. Blank lines are skipped. On a bad quote, error() is set.
  bool Next(std::vector<std::string>* fields) {
    while (!text_.empty() && (text_[0] == '\n' || absl::StartsWith(text_, "\r\n"))) {
      text_.remove_prefix(text_[0] == '\n' ? 1 : 2);
      ++next_line_;
    }
    line_ = next_line_;
    if (text_.empty()) return false;
    fields->clear();
    while (true) {
      fields->emplace_back();
      if (quotes_ && absl::ConsumePrefix(&text_, "\"")) {
        if (!Quoted(&fields->back())) return false;
      } else {
        Plain(&fields->back());
      }
      if (text_.empty()) return true;
      const char c = text_[0];
      text_.remove_prefix(1);
      if (c == '\n') {
        ++next_line_;
        return true;
      }
      if (c != separator_) {
        error_ = "a quoted field goes on after its closing quote";
        return false;
      }
    }
  }

  int64_t line() const { return line_; }
  const std::string& error() const { return error_; }

 private:
  void Plain(std::string* field) {
    size_t end = 0;
    while (end < text_.size() && text_[end] != separator_ && text_[end] != '\n') ++end;
    absl::string_view value = text_.substr(0, end);
    text_.remove_prefix(end);
    if (text_.empty() || text_[0] == '\n') absl::ConsumeSuffix(&value, "\r");
    field->assign(value.data(), value.size());
  }

  // The rest of a field whose opening quote is consumed; "" stands for one quote.
  bool Quoted(std::string* field) {
    while (true) {
      const size_t quote = text_.find('"');
      if (quote == absl::string_view::npos) {
        error_ = "a quoted field is not closed";
        return false;
      }
      const absl::string_view part = text_.substr(0, quote);
      next_line_ += std::count(part.begin(), part.end(), '\n');
      field->append(part.data(), part.size());
      text_.remove_prefix(quote + 1);
      if (!absl::ConsumePrefix(&text_, "\"")) break;
      field->push_back('"');
    }
    if (absl::StartsWith(text_, "\r\n") || text_ == "\r") text_.remove_prefix(1);
    return true;
  }

  absl::string_view text_;
  const char separator_;
  const bool quotes_;
  int64_t line_ = 1;
  int64_t next_line_ = 1;
  std::string error_;
};

// Where the four columns are; -1: the file has none.
struct Columns {
  size_t fields = 0;
  int user = -1, item = -1, rating = -1, time = -1;
};

absl::StatusOr<int> FindColumn(const std::vector<std::string>& names, absl::string_view name, const std::string& path) {
  int found = -1;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != name) continue;
    if (found >= 0) return AtLine(path, 1, absl::StrCat("two columns are named ", Quoted(name)));
    found = static_cast<int>(i);
  }
  if (found < 0) {
    return AtLine(path, 1,
                  absl::StrCat("no column ", Quoted(name), "; there are ", Quoted(absl::StrJoin(names, ", "))));
  }
  return found;
}

absl::StatusOr<Columns> CsvColumns(const std::vector<std::string>& names, const ReadEventsOptions& options,
                                   const std::string& path) {
  Columns columns;
  columns.fields = names.size();
  SLUICE_ASSIGN_OR_RETURN(columns.user, FindColumn(names, options.user_column, path));
  SLUICE_ASSIGN_OR_RETURN(columns.item, FindColumn(names, options.item_column, path));
  if (!options.rating_column.empty()) {
    SLUICE_ASSIGN_OR_RETURN(columns.rating, FindColumn(names, options.rating_column, path));
  }
  if (!options.timestamp_column.empty()) {
    SLUICE_ASSIGN_OR_RETURN(columns.time, FindColumn(names, options.timestamp_column, path));
  }
  return columns;
}

// RecBole's header: user_id:token <tab> item_id:token <tab> rating:float <tab> timestamp:float, in any order, further
// fields ignored.
absl::StatusOr<Columns> InterColumns(const std::vector<std::string>& header, const std::string& path) {
  std::vector<std::string> names;
  for (const std::string& field : header) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(field, absl::MaxSplits(':', 1));
    static constexpr absl::string_view kTypes[] = {"token", "float", "token_seq", "float_seq"};
    if (std::find(std::begin(kTypes), std::end(kTypes), parts.second) == std::end(kTypes)) {
      return AtLine(path, 1,
                    absl::StrCat("want a header of name:type fields such as user_id:token, got ", Quoted(field)));
    }
    const bool is_name = parts.first == "user_id" || parts.first == "item_id";
    const bool is_number = parts.first == "rating" || parts.first == "timestamp";
    if ((is_name && parts.second != "token") || (is_number && parts.second != "float")) {
      return AtLine(path, 1,
                    absl::StrCat("want ", parts.first, ":", is_name ? "token" : "float", ", got ", Quoted(field)));
    }
    names.emplace_back(parts.first);
  }
  Columns columns;
  columns.fields = header.size();
  SLUICE_ASSIGN_OR_RETURN(columns.user, FindColumn(names, "user_id", path));
  SLUICE_ASSIGN_OR_RETURN(columns.item, FindColumn(names, "item_id", path));
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (has("rating")) {
    SLUICE_ASSIGN_OR_RETURN(columns.rating, FindColumn(names, "rating", path));
  }
  if (has("timestamp")) {
    SLUICE_ASSIGN_OR_RETURN(columns.time, FindColumn(names, "timestamp", path));
  }
  return columns;
}

absl::StatusOr<double> Number(const std::string& text, absl::string_view what, const std::string& path, int64_t line) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
    return AtLine(path, line, absl::StrCat("the ", what, " ", Quoted(text), " is not a finite number"));
  }
  return value;
}

absl::StatusOr<EventLog> ReadTable(const std::string& path, const std::string& text, EventFormat format,
                                   const ReadEventsOptions& options) {
  const bool csv = format == EventFormat::kCsv;
  Table table(text, csv ? ',' : '\t', csv);
  std::vector<std::string> fields;
  if (!table.Next(&fields)) {
    return AtLine(path, table.line(), table.error().empty() ? "the file is empty, want a header line" : table.error());
  }
  Columns columns;
  if (csv) {
    SLUICE_ASSIGN_OR_RETURN(columns, CsvColumns(fields, options, path));
  } else {
    SLUICE_ASSIGN_OR_RETURN(columns, InterColumns(fields, path));
  }
  LogBuilder log(path);
  while (table.Next(&fields)) {
    if (fields.size() != columns.fields) {
      return AtLine(path, table.line(), absl::StrCat("want ", columns.fields, " fields, got ", fields.size()));
    }
    const std::string& user = fields[columns.user];
    const std::string& item = fields[columns.item];
    if (user.empty() || item.empty()) {
      return AtLine(path, table.line(), absl::StrCat("the ", user.empty() ? "user" : "item", " is empty"));
    }
    Event event = {log.User(user), log.Item(item), static_cast<double>(log.size()), 0};
    if (columns.time >= 0) {
      SLUICE_ASSIGN_OR_RETURN(event.time, Number(fields[columns.time], "time", path, table.line()));
    }
    if (columns.rating >= 0) {
      SLUICE_ASSIGN_OR_RETURN(const double rating, Number(fields[columns.rating], "rating", path, table.line()));
      event.rating = static_cast<float>(rating);
    }
    if (!log.Add(event)) return AtLine(path, table.line(), absl::StrCat("more than ", kMaxEvents, " events"));
  }
  if (!table.error().empty()) return AtLine(path, table.line(), table.error());
  return log.Finish(columns.time >= 0, columns.rating >= 0);
}

// --- JSON ---

// Walks {"user": [item, ...]} without building the document, and sees users who come twice.
class JsonReader : public nlohmann::json_sax<json> {
 public:
  JsonReader(const std::string& path, const std::string& text) : log(path), path_(path), text_(text) {}

  LogBuilder log;
  absl::Status status;

  bool null() override { return Fail("null"); }
  bool boolean(bool) override { return Fail("true or false"); }
  bool number_float(number_float_t, const string_t&) override { return Fail("a number that is no integer"); }
  bool binary(binary_t&) override { return Fail("binary"); }
  bool number_integer(number_integer_t value) override { return AddItem(absl::StrCat(value)); }
  bool number_unsigned(number_unsigned_t value) override { return AddItem(absl::StrCat(value)); }
  bool string(string_t& value) override { return AddItem(value); }

  bool start_object(std::size_t) override {
    if (in_map_) return Fail("an object");
    return in_map_ = true;
  }
  bool key(string_t& value) override {
    user_ = value;
    if (value.empty()) return Stop("a user's name is empty");
    if (!seen_.insert(value).second) {
      return Stop(absl::StrCat("user ", Quoted(value), " comes twice; join the two lists or rename one"));
    }
    number_ = log.User(value);
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override {
    if (!in_map_ || in_list_) return Fail("a list");
    return in_list_ = true;
  }
  bool end_array() override {
    in_list_ = false;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    const size_t end = std::min(position, text_.size());
    status = AtLine(path_, 1 + std::count(text_.begin(), text_.begin() + end, '\n'),
                    "not valid JSON; the file may be cut short: copy it again");
    return false;
  }

 private:
  bool AddItem(absl::string_view name) {
    if (!in_list_) return Fail("a single value");
    if (name.empty()) return Stop(absl::StrCat("user ", Quoted(user_), " has an item with an empty name"));
    if (log.Add({number_, log.Item(name), static_cast<double>(log.size()), 0})) return true;
    return Stop(absl::StrCat("more than ", kMaxEvents, " events"));
  }
  bool Fail(absl::string_view what) {
    if (!in_map_) return Stop(absl::StrCat("want a JSON object of users, got ", what));
    return Stop(absl::StrCat("user ", Quoted(user_), ": want a list of items (text or integers), got ", what,
                             in_list_ ? " in it" : ""));
  }
  bool Stop(absl::string_view what) {
    status = absl::DataLossError(absl::StrCat(path_, ": ", what));
    return false;
  }

  const std::string& path_;
  const std::string& text_;
  bool in_map_ = false;
  bool in_list_ = false;
  std::string user_;
  int32_t number_ = 0;
  absl::flat_hash_set<std::string> seen_;
};

absl::StatusOr<EventLog> ReadJson(const std::string& path, const std::string& text) {
  JsonReader reader(path, text);
  if (!json::sax_parse(text, &reader)) return reader.status;
  return reader.log.Finish(/*has_times=*/false, /*has_ratings=*/false);
}

}  // namespace

absl::StatusOr<EventFormat> ParseEventFormat(absl::string_view word) {
  if (word == "auto") return EventFormat::kAuto;
  if (word == "inter") return EventFormat::kInter;
  if (word == "json") return EventFormat::kJson;
  if (word == "csv") return EventFormat::kCsv;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown event format ", Quoted(word), ", want auto, inter, json or csv"));
}

absl::StatusOr<EventLog> ReadEvents(const std::string& path, const ReadEventsOptions& options) {
  EventFormat format = options.format;
  if (format == EventFormat::kAuto) {
    if (absl::EndsWith(path, ".inter")) format = EventFormat::kInter;
    if (absl::EndsWith(path, ".json")) format = EventFormat::kJson;
    if (absl::EndsWith(path, ".csv")) format = EventFormat::kCsv;
  }
  if (format == EventFormat::kAuto) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot tell the format of '", path,
                     "' from its name (.inter, .json, .csv); set format to inter, json or csv"));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, options.max_bytes));
  return format == EventFormat::kJson ? ReadJson(path, text) : ReadTable(path, text, format, options);
}

}  // namespace sluice

#include "common/catalog/sid_index.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMinLevels = 2;
constexpr size_t kMaxLevels = 4;

// Walks the file without building the document; keeps the codes of wanted items only.
class IndexReader : public nlohmann::json_sax<json> {
 public:
  IndexReader(const std::string& path, const std::string& text, absl::Span<const std::string> names, int codes)
      : rows(names.size()), path_(path), text_(text), max_code_(codes) {
    for (size_t i = 0; i < names.size(); ++i) number_[names[i]] = i;
  }

  std::vector<std::vector<int32_t>> rows;  // empty: not in the file
  absl::Status status;

  bool null() override { return Fail("null"); }
  bool boolean(bool) override { return Fail("true or false"); }
  bool number_integer(number_integer_t value) override { return AddCode(value, absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override { return Fail(text); }
  bool binary(binary_t&) override { return Fail("binary"); }
  bool number_unsigned(number_unsigned_t value) override {
    const auto limit = static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max());
    return AddCode(static_cast<int64_t>(std::min(value, limit)), absl::StrCat(value));
  }

  // "<b_12>" at level 1.
  bool string(string_t& value) override {
    absl::string_view rest = value;
    int64_t code = 0;
    const std::string start = absl::StrCat("<", std::string(1, static_cast<char>('a' + row_.size())), "_");
    if (!absl::ConsumePrefix(&rest, start) || !absl::ConsumeSuffix(&rest, ">") || !absl::SimpleAtoi(rest, &code)) {
      return Fail(
          absl::StrCat("'", value.substr(0, 40), "' (as text, level ", row_.size(), " is ", start, "0> and up)"));
    }
    return AddCode(code, value);
  }

  bool start_object(std::size_t) override {
    if (in_map_) return Fail("an object");
    return in_map_ = true;
  }
  bool key(string_t& value) override {
    item_ = value;
    if (!seen_.insert(value).second) return Stop(absl::StrCat("item '", value, "' comes twice"));
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override {
    if (!in_map_ || in_list_) return Fail("a list");
    row_.clear();
    return in_list_ = true;
  }
  bool end_array() override {
    in_list_ = false;
    if (row_.size() < kMinLevels) {
      return Stop(
          absl::StrCat("item '", item_, "' has ", row_.size(), " codes, want ", kMinLevels, " to ", kMaxLevels));
    }
    if (levels_ == 0) {
      levels_ = row_.size();
      first_item_ = item_;
    }
    if (row_.size() != levels_) {
      return Stop(absl::StrCat("item '", item_, "' has ", row_.size(), " codes, item '", first_item_, "' has ", levels_,
                               "; want the same for all"));
    }
    const auto found = number_.find(item_);
    if (found != number_.end()) rows[found->second] = row_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    const size_t end = std::min(position, text_.size());
    const int64_t line = 1 + std::count(text_.begin(), text_.begin() + end, '\n');
    status = absl::DataLossError(
        absl::StrCat(path_, ":", line, ": not valid JSON; the file may be cut short: copy it again"));
    return false;
  }

  size_t levels() const { return levels_; }

 private:
  bool AddCode(int64_t code, absl::string_view text) {
    if (!in_list_) return Fail(text);
    if (row_.size() >= kMaxLevels) return Stop(absl::StrCat("item '", item_, "' has more than ", kMaxLevels, " codes"));
    if (code < 0 || code >= max_code_) {
      return Stop(absl::StrCat("item '", item_, "', level ", row_.size(), ": code ", text, " is outside [0, ",
                               max_code_, "); set prepare.sids.codes if the index has more codes"));
    }
    row_.push_back(static_cast<int32_t>(code));
    return true;
  }
  bool Fail(absl::string_view what) {
    if (!in_map_) return Stop(absl::StrCat("want a JSON object of items, got ", what));
    return Stop(absl::StrCat("item '", item_, "': want a list of codes (integers or <a_0>), got ", what,
                             in_list_ ? " in it" : ""));
  }
  bool Stop(absl::string_view what) {
    status = absl::DataLossError(absl::StrCat(path_, ": ", what));
    return false;
  }

  const std::string& path_;
  const std::string& text_;
  const int64_t max_code_;
  absl::flat_hash_map<absl::string_view, size_t> number_;
  absl::flat_hash_set<std::string> seen_;
  bool in_map_ = false;
  bool in_list_ = false;
  std::string item_;
  std::string first_item_;
  std::vector<int32_t> row_;
  size_t levels_ = 0;
};

}  // namespace

absl::StatusOr<SidTable> ReadSidIndex(const std::string& path, absl::Span<const std::string> item_names, int codes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  IndexReader reader(path, text, item_names, codes);
  if (!json::sax_parse(text, &reader)) return reader.status;
  SidTable table;
  table.levels = static_cast<int>(reader.levels());
  table.codes = codes;
  const size_t missing =
      std::count_if(reader.rows.begin(), reader.rows.end(), [](const auto& row) { return row.empty(); });
  for (size_t i = 0; i < reader.rows.size(); ++i) {
    if (reader.rows[i].empty()) {
      return absl::DataLossError(absl::StrCat(path, ": item '", item_names[i], "' has no semantic ID (", missing - 1,
                                              " others neither); give it one or leave its events out"));
    }
    table.item_codes.insert(table.item_codes.end(), reader.rows[i].begin(), reader.rows[i].end());
  }
  return table;
}

}  // namespace sluice

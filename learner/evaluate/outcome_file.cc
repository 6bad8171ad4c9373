#include "learner/evaluate/outcome_file.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file/file.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int kFormat = 1;
constexpr int64_t kMaxBytes = int64_t{2} << 30;  // some 40 million users
constexpr size_t kMaxMoreColumns = 64;

constexpr std::array<const char*, 14> kColumns = {
    "user",          "position", "item_rank", "sid_rank",     "shared_first", "shared_top", "diversity",
    "unconstrained", "invalid",  "wide",      "wide_invalid", "history",      "popularity", "rule_rank"};

// The whole numbers of a row in the order of the columns; the diversity stands between them.
std::array<int32_t*, 13> Numbers(OutcomeRow* row) {
  PromptOutcome& outcome = row->outcome;
  return {&outcome.user,          &outcome.position,     &outcome.item_rank,
          &outcome.sid_rank,      &outcome.shared_first, &outcome.shared_top,
          &outcome.unconstrained, &outcome.invalid,      &outcome.unconstrained_wide,
          &outcome.invalid_wide,  &row->history,         &row->popularity,
          &row->rule_rank};
}
constexpr size_t kDiversityColumn = 6;

absl::Status NotOurs(size_t line, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("line ", line, " ", what, "; want what an evaluation writes"));
}

absl::StatusOr<OutcomeSetting> SettingFromLine(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, "# ")) return NotOurs(1, "does not start with '# {'");
  const nlohmann::json found = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  try {
    if (found.at("sluice_outcomes") != kFormat) return NotOurs(1, "is of another release");
    OutcomeSetting setting;
    setting.data = found.at("data").get<std::string>();
    setting.split = found.at("split").get<std::string>();
    for (const auto& [key, number] : {std::pair("levels", &setting.levels), std::pair("beams", &setting.beams),
                                      std::pair("unconstrained_beams", &setting.unconstrained_beams)}) {
      const absl::Status status = ReadWholeNumber(found.at(key), key, number);
      if (!status.ok()) return NotOurs(1, absl::StrCat("does not hold the evaluation's settings: ", status.message()));
    }
    setting.exclude_history = found.at("exclude_history").get<bool>();
    return setting;
  } catch (const nlohmann::json::exception& error) {
    return NotOurs(1, absl::StrCat("does not hold the evaluation's settings: ", error.what()));
  }
}

absl::StatusOr<OutcomeRow> RowFromLine(absl::string_view text, size_t more, size_t line) {
  const std::vector<absl::string_view> cells = absl::StrSplit(text, ',');
  if (cells.size() != kColumns.size() + more) {
    return NotOurs(line, absl::StrCat("has ", cells.size(), " cells, not ", kColumns.size() + more));
  }
  OutcomeRow row;
  size_t column = 0;
  for (int32_t* const number : Numbers(&row)) {
    if (column == kDiversityColumn) ++column;
    if (!absl::SimpleAtoi(cells[column], number) || *number < 0) {
      return NotOurs(line, absl::StrCat("has '", cells[column], "' as ", kColumns[column]));
    }
    ++column;
  }
  const auto read = [&](absl::string_view cell, const std::string& name) -> absl::StatusOr<double> {
    double value = std::numeric_limits<double>::quiet_NaN();
    if (cell.empty()) return value;
    if (!absl::SimpleAtod(cell, &value) || !std::isfinite(value)) {
      return NotOurs(line, absl::StrCat("has '", cell, "' as ", name));
    }
    return value;
  };
  SLUICE_ASSIGN_OR_RETURN(const double diversity, read(cells[kDiversityColumn], "diversity"));
  if (!std::isnan(diversity)) row.outcome.diversity = diversity;
  for (size_t i = 0; i < more; ++i) {
    SLUICE_ASSIGN_OR_RETURN(row.more.emplace_back(), read(cells[kColumns.size() + i], "a further column"));
  }
  return row;
}

// "sid_hr@10": the name without "sid_", and the level.
HitLevel TakeLevel(absl::string_view* name) {
  return absl::ConsumePrefix(name, "sid_") ? HitLevel::kSid : HitLevel::kItem;
}

// "hr@10" with "hr": 10.
std::optional<int> CutoffOf(absl::string_view name, absl::string_view family) {
  int cutoff = 0;
  if (!absl::ConsumePrefix(&name, family) || !absl::ConsumePrefix(&name, "@") || !absl::SimpleAtoi(name, &cutoff) ||
      cutoff < 1) {
    return std::nullopt;
  }
  return cutoff;
}

// "level_2_accuracy" or "level_2_accuracy@10": the level, and whether the top of the list is asked.
std::optional<std::pair<int, bool>> LevelOf(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "level_")) return std::nullopt;
  const bool top = absl::ConsumeSuffix(&name, absl::StrCat("@", kTopOfList));
  int level = 0;
  if (!absl::ConsumeSuffix(&name, "_accuracy") || !absl::SimpleAtoi(name, &level)) return std::nullopt;
  return std::pair(level, top);
}

}  // namespace

std::string OutcomesToText(const OutcomeTable& table) {
  const nlohmann::json setting = {{"sluice_outcomes", kFormat},
                                  {"data", table.setting.data},
                                  {"split", table.setting.split},
                                  {"levels", table.setting.levels},
                                  {"beams", table.setting.beams},
                                  {"unconstrained_beams", table.setting.unconstrained_beams},
                                  {"exclude_history", table.setting.exclude_history}};
  std::string text = absl::StrCat("# ", setting.dump(), "\n", absl::StrJoin(kColumns, ","));
  for (const std::string& name : table.more_columns) absl::StrAppend(&text, ",", name);
  text += '\n';
  for (const OutcomeRow& row : table.rows) {
    OutcomeRow copy = row;
    size_t column = 0;
    for (const int32_t* const number : Numbers(&copy)) {
      if (column == kDiversityColumn) {
        text += ',';
        if (row.outcome.diversity.has_value()) absl::StrAppend(&text, *row.outcome.diversity);
        ++column;
      }
      absl::StrAppend(&text, column == 0 ? "" : ",", *number);
      ++column;
    }
    SLUICE_CHECK(row.more.size() == table.more_columns.size(), "one number of each further column");
    for (const double value : row.more) {
      text += ',';
      if (std::isfinite(value)) absl::StrAppend(&text, nlohmann::json(value).dump());
    }
    text += '\n';
  }
  return text;
}

absl::StatusOr<OutcomeTable> OutcomesFromText(absl::string_view text) {
  OutcomeTable table;
  if (!absl::ConsumeSuffix(&text, "\n")) return absl::DataLossError("the last line is cut off");
  size_t line = 0;
  for (const absl::string_view content : absl::StrSplit(text, '\n')) {
    ++line;
    if (line == 1) {
      SLUICE_ASSIGN_OR_RETURN(table.setting, SettingFromLine(content));
    } else if (line == 2) {
      const std::vector<std::string> names = absl::StrSplit(content, ',');
      if (names.size() < kColumns.size() || names.size() > kColumns.size() + kMaxMoreColumns ||
          !std::equal(kColumns.begin(), kColumns.end(), names.begin())) {
        return NotOurs(line, absl::StrCat("does not name the columns ", absl::StrJoin(kColumns, ",")));
      }
      table.more_columns.assign(names.begin() + kColumns.size(), names.end());
    } else {
      SLUICE_ASSIGN_OR_RETURN(OutcomeRow row, RowFromLine(content, table.more_columns.size(), line));
      table.rows.push_back(std::move(row));
    }
  }
  if (line < 2) return absl::DataLossError("there are no columns; want what an evaluation writes");
  return table;
}

absl::Status WriteOutcomes(const std::string& path, const OutcomeTable& table) {
  return WriteFileAtomically(path, OutcomesToText(table));
}

absl::StatusOr<OutcomeTable> ReadOutcomes(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  absl::StatusOr<OutcomeTable> table = OutcomesFromText(text);
  if (!table.ok()) return Annotate(table.status(), path);
  return table;
}

absl::StatusOr<std::vector<double>> ValuesOf(const OutcomeTable& table, absl::string_view metric) {
  std::vector<double> values;
  values.reserve(table.rows.size());
  const auto unknown = [metric](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("the outcomes have no metric '", metric, "': ", why));
  };
  for (size_t column = 0; column < table.more_columns.size(); ++column) {
    if (table.more_columns[column] != metric) continue;
    for (const OutcomeRow& row : table.rows) {
      if (!std::isfinite(row.more[column])) return unknown("some users have no value");
      values.push_back(row.more[column]);
    }
    return values;
  }

  if (metric == "hallucination" || metric == absl::StrCat("hallucination@", kWideBeams)) {
    const bool wide = metric != "hallucination";
    for (const OutcomeRow& row : table.rows) {
      const int32_t beams = wide ? row.outcome.unconstrained_wide : row.outcome.unconstrained;
      if (beams == 0) return unknown("too few unconstrained beams were decoded");
      values.push_back(static_cast<double>(wide ? row.outcome.invalid_wide : row.outcome.invalid) / beams);
    }
    return values;
  }
  if (metric == "diversity") {
    for (const OutcomeRow& row : table.rows) {
      if (!row.outcome.diversity.has_value()) return unknown("some users have fewer than two entries in their list");
      values.push_back(*row.outcome.diversity);
    }
    return values;
  }
  if (const auto level = LevelOf(metric)) {
    if (level->first < 1 || level->first > table.setting.levels) {
      return unknown(absl::StrCat("semantic IDs have ", table.setting.levels, " levels"));
    }
    if (level->second && table.setting.beams < kTopOfList) {
      return unknown(absl::StrCat("the lists have ", table.setting.beams, " beams"));
    }
    for (const OutcomeRow& row : table.rows) {
      const int32_t shared = level->second ? row.outcome.shared_top : row.outcome.shared_first;
      values.push_back(shared >= level->first ? 1 : 0);
    }
    return values;
  }

  absl::string_view name = metric;
  const HitLevel level = TakeLevel(&name);
  const std::optional<int> hits = CutoffOf(name, "hr"), gains = CutoffOf(name, "ndcg"),
                           reciprocals = CutoffOf(name, "mrr");
  if (!hits && !gains && !reciprocals && name != "mrr") {
    return unknown("want hr@K, ndcg@K, mrr@K, mrr, level_L_accuracy, hallucination, diversity, or a further column");
  }
  const int cutoff = hits ? *hits : gains ? *gains : reciprocals ? *reciprocals : table.setting.beams;
  if (cutoff > table.setting.beams) {
    return unknown(absl::StrCat("the lists have ", table.setting.beams, " beams"));
  }
  for (const OutcomeRow& row : table.rows) {
    const int32_t rank = level == HitLevel::kItem ? row.outcome.item_rank : row.outcome.sid_rank;
    // Without a cutoff the whole list counts, which items of shared semantic IDs make longer than the beams.
    const bool hit = rank >= 1 && (name == "mrr" || rank <= cutoff);
    values.push_back(!hit ? 0 : hits ? 1 : gains ? 1 / std::log2(rank + 1.0) : 1.0 / rank);
  }
  return values;
}

}  // namespace sluice::learner

#include "learner/evaluate/context_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr char kHeader[] =
    "step,user,position,difficult,discriminable,rank_policy,rank_ranker,random_discriminable,random_rank_ranker";
constexpr size_t kColumns = 9;

bool ParseBool(absl::string_view cell, bool* value) {
  *value = cell == "1";
  return *value || cell == "0";
}

bool ParseRank(absl::string_view cell, double* value) {
  return absl::SimpleAtod(cell, value) && std::isfinite(*value) && *value >= 1;
}

}  // namespace

std::string ContextsHeader() { return absl::StrCat(kHeader, "\n"); }

std::string ContextLine(const ContextRow& row) {
  return absl::StrCat(row.step, ",", row.user, ",", row.position, ",", row.difficult ? 1 : 0, ",",
                      row.discriminable ? 1 : 0, ",", row.rank_policy, ",", row.rank_ranker, ",",
                      row.random_discriminable ? 1 : 0, ",", row.random_rank_ranker, "\n");
}

absl::StatusOr<std::vector<ContextRow>> ContextsFromText(absl::string_view text) {
  std::vector<ContextRow> rows;
  size_t number = 0;
  for (size_t end = text.find('\n'); end != absl::string_view::npos; end = text.find('\n')) {
    const absl::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (++number == 1) {
      if (line != kHeader) return absl::DataLossError(absl::StrCat("line 1 is not '", kHeader, "'"));
      continue;
    }
    const std::vector<absl::string_view> cells = absl::StrSplit(line, ',');
    ContextRow row;
    if (cells.size() != kColumns || !absl::SimpleAtoi(cells[0], &row.step) || !absl::SimpleAtoi(cells[1], &row.user) ||
        !absl::SimpleAtoi(cells[2], &row.position) || !ParseBool(cells[3], &row.difficult) ||
        !ParseBool(cells[4], &row.discriminable) || !ParseRank(cells[5], &row.rank_policy) ||
        !ParseRank(cells[6], &row.rank_ranker) || !ParseBool(cells[7], &row.random_discriminable) ||
        !ParseRank(cells[8], &row.random_rank_ranker)) {
      return absl::DataLossError(absl::StrCat("line ", number, " '", line, "' is not a context"));
    }
    rows.push_back(row);
  }
  if (number == 0) return absl::DataLossError(absl::StrCat("line 1 is not '", kHeader, "'"));
  return rows;
}

absl::StatusOr<std::vector<std::pair<std::string, Comparison>>> CompareCells(absl::Span<const ComparedArm> arms,
                                                                             absl::Span<const ContextRow> contexts,
                                                                             const CompareOptions& options) {
  std::map<std::pair<int32_t, int32_t>, ContextRow> of_user;
  for (const ContextRow& row : contexts) of_user.emplace(std::pair(row.user, row.position), row);

  struct Cell {
    const char* name;
    bool difficult, discriminable, random;
  };
  constexpr std::array<Cell, 6> kCells = {
      Cell{"D0 C0", false, false, false},      Cell{"D0 C1", false, true, false},
      Cell{"D1 C0", true, false, false},       Cell{"D1 C1", true, true, false},
      Cell{"D1 C0 random", true, false, true}, Cell{"D1 C1 random", true, true, true}};
  std::vector<std::pair<std::string, Comparison>> found;
  for (const Cell& cell : kCells) {
    const auto inside = [&](const OutcomeRow& row) {
      const auto context = of_user.find({row.outcome.user, row.outcome.position});
      return context != of_user.end() && context->second.difficult == cell.difficult &&
             (cell.random ? context->second.random_discriminable : context->second.discriminable) == cell.discriminable;
    };
    std::vector<ComparedArm> of_cell;
    for (const ComparedArm& arm : arms) {
      ComparedArm& cut = of_cell.emplace_back();
      cut.name = arm.name;
      for (const OutcomeTable& run : arm.runs) {
        OutcomeTable& table = cut.runs.emplace_back();
        table.setting = run.setting;
        table.more_columns = run.more_columns;
        std::copy_if(run.rows.begin(), run.rows.end(), std::back_inserter(table.rows), inside);
      }
    }
    if (of_cell.empty() || of_cell[0].runs.empty() || of_cell[0].runs[0].rows.empty()) continue;
    SLUICE_ASSIGN_OR_RETURN(Comparison comparison, Compare(of_cell, options));
    found.emplace_back(cell.name, std::move(comparison));
  }
  if (found.empty()) {
    return absl::InvalidArgumentError(
        "no evaluated user has a context; judge the events that were evaluated: rl.prompt_split as evaluate.split, and "
        "as many steps as it takes to see them all");
  }
  return found;
}

}  // namespace sluice::learner

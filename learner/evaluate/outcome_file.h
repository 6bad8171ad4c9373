// outcomes.csv of an evaluation: what became of every user, for paired comparisons and for anything that was not
// thought of when the evaluation ran.
//
//   # {"sluice_outcomes": 1, "data": "<digest>", "split": "test", "beams": 50, ...}
//   user,position,item_rank,sid_rank,...
//   0,7,3,3,...
//
// One line a user (with the chronological split: an event), in the order of the data set. Ranks count from 1 and are 0
// where the target is not in the list; what was not measured is an empty cell. Columns after the known ones are further
// numbers of each user, compared by their means. Pure functions on text; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_OUTCOME_FILE_H_
#define SLUICE_LEARNER_EVALUATE_OUTCOME_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "learner/evaluate/metrics.h"

namespace sluice::learner {

// What two evaluations must share to be compared user by user.
struct OutcomeSetting {
  std::string data;   // digest of the data set
  std::string split;  // "test" or "validation"
  int levels = 0;     // of a semantic ID
  int beams = 0;
  int unconstrained_beams = 0;
  bool exclude_history = true;
  bool operator==(const OutcomeSetting&) const = default;
};

struct OutcomeRow {
  PromptOutcome outcome;     // without its lists
  int32_t history = 0;       // events of the user before the target
  int32_t popularity = 0;    // of the target, in the training events
  int32_t rule_rank = 0;     // of the target under the co-occurrence rule among all items that may be recommended
  std::vector<double> more;  // of OutcomeTable::more_columns; NaN: not measured
};

struct OutcomeTable {
  OutcomeSetting setting;
  std::vector<std::string> more_columns;
  std::vector<OutcomeRow> rows;
};

std::string OutcomesToText(const OutcomeTable& table);
// DataLoss: not what OutcomesToText writes, with the line.
absl::StatusOr<OutcomeTable> OutcomesFromText(absl::string_view text);

// Written atomically; errors of common/file.
absl::Status WriteOutcomes(const std::string& path, const OutcomeTable& table);
// NotFound: no such file. DataLoss: as OutcomesFromText, with the path.
absl::StatusOr<OutcomeTable> ReadOutcomes(const std::string& path);

// The value of one metric for every row, by its name in RankingMetrics::ToMap ("hr@10", "sid_ndcg@5", "mrr",
// "level_2_accuracy", "hallucination") or the name of a further column. InvalidArgument: no such metric, a cutoff
// beyond the beams, or a row without a value.
absl::StatusOr<std::vector<double>> ValuesOf(const OutcomeTable& table, absl::string_view metric);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_OUTCOME_FILE_H_

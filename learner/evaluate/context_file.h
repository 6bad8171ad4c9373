// contexts.csv of an rl job that judges held-out events (rl.prompt_split): in which cell of the stratified analysis
// each user is. Joined with outcomes of evaluations it says in which cell a trained policy gained.
//
//   step,user,position,difficult,discriminable,rank_policy,rank_ranker,random_discriminable,random_rank_ranker
//
// Pure functions on text; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_CONTEXT_FILE_H_
#define SLUICE_LEARNER_EVALUATE_CONTEXT_FILE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "learner/evaluate/compare.h"

namespace sluice::learner {

// Of a file, at most: some forty million contexts.
inline constexpr int64_t kMaxContextBytes = int64_t{2} << 30;

struct ContextRow {
  uint64_t step = 0;  // from 0
  int32_t user = 0;
  int32_t position = 0;
  bool difficult = false;
  bool discriminable = false;
  double rank_policy = 0;
  double rank_ranker = 0;
  bool random_discriminable = false;  // to a ranker that scores at random
  double random_rank_ranker = 0;
};

std::string ContextsHeader();
// One line, with its end.
std::string ContextLine(const ContextRow& row);
// DataLoss: not what the two write, with the line. A torn last line is left out, as the next start of the job would.
absl::StatusOr<std::vector<ContextRow>> ContextsFromText(absl::string_view text);

// Compare, once for each cell: "D0 C0", "D0 C1", "D1 C0", "D1 C1", then the two of D1 as a random ranker cuts them, "D1
// C0 random", "D1 C1 random". Arms are cut down to the users of the cell (a user's first context counts); a cell
// without any is left out. Holm's correction is within a cell. InvalidArgument: no user of the evaluations has a
// context; errors of Compare.
absl::StatusOr<std::vector<std::pair<std::string, Comparison>>> CompareCells(absl::Span<const ComparedArm> arms,
                                                                             absl::Span<const ContextRow> contexts,
                                                                             const CompareOptions& options);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_CONTEXT_FILE_H_

#include "learner/objective/cells.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"

namespace sluice::learner {

GateDiagnostics RandomRankerDiagnostics(GateInput input, const GateOptions& options, uint64_t seed) {
  const auto score = [seed](int32_t leaf) { return Random(seed, static_cast<uint64_t>(leaf)).Uniform(); };
  for (size_t i = 0; i < input.completion_leaves.size(); ++i) {
    input.completion_scores[i] = score(input.completion_leaves[i]);
  }
  for (size_t i = 0; i < input.negative_leaves.size(); ++i) input.negative_scores[i] = score(input.negative_leaves[i]);
  input.target_score = score(input.target_leaf);
  return Decide(input, options).diagnostics;
}

void CellSums::Ranker::Add(const GateDiagnostics& found) {
  const bool discriminable = found.in_head && found.suppressed;
  groups[found.difficult][discriminable] += 1;
  correction[found.difficult][discriminable] += RankCorrection(found);
}

std::map<std::string, std::map<std::string, double>> CellSums::Table() const {
  std::map<std::string, std::map<std::string, double>> table;
  double total = 0;
  for (const auto& row : ranker.groups) total += row[0] + row[1];
  if (total == 0) return table;
  const auto put = [&](const std::string& cell, const std::string& prefix, double groups, double correction) {
    table[cell][absl::StrCat(prefix, "share")] = groups / total;
    if (groups > 0) table[cell][absl::StrCat(prefix, "rank_correction")] = correction / groups;
  };
  for (const auto& [sums, prefix] : {std::pair(&ranker, ""), std::pair(&random, "random_")}) {
    double groups = 0, correction = 0;
    for (size_t difficult = 0; difficult < 2; ++difficult) {
      for (size_t discriminable = 0; discriminable < 2; ++discriminable) {
        const double of_cell = sums->groups[difficult][discriminable];
        const double corrected = sums->correction[difficult][discriminable];
        groups += of_cell;
        correction += corrected;
        const std::string cell = absl::StrCat("d", difficult, "_c", discriminable);
        put(cell, prefix, of_cell, corrected);
        if (sums == &ranker) table[cell]["groups"] = of_cell;
      }
    }
    put("all", prefix, groups, correction);
  }
  table["all"]["groups"] = total;
  return table;
}

}  // namespace sluice::learner

// Outcomes of made-up users, for tests of what is done with them.
#ifndef SLUICE_TESTS_LEARNER_EVALUATE_SOME_OUTCOMES_H_
#define SLUICE_TESTS_LEARNER_EVALUATE_SOME_OUTCOMES_H_

#include <algorithm>
#include <cstdint>

#include "common/random/random.h"
#include "learner/evaluate/outcome_file.h"

namespace sluice::learner {

// Three levels, 50 beams; a third of the targets is not in the list.
inline OutcomeTable SomeOutcomes(int users, uint64_t seed) {
  Random random(seed);
  const auto below = [&random](int bound) { return static_cast<int32_t>(random.Below(static_cast<uint64_t>(bound))); };
  OutcomeTable table;
  table.setting = {.data = "d1", .split = "test", .levels = 3, .beams = 50, .unconstrained_beams = 50};
  for (int user = 0; user < users; ++user) {
    OutcomeRow& row = table.rows.emplace_back();
    PromptOutcome& outcome = row.outcome;
    outcome.user = user;
    outcome.position = 3 + below(30);
    outcome.sid_rank = std::max(0, below(75) - 24);
    outcome.item_rank = outcome.sid_rank == 0 ? 0 : outcome.sid_rank + below(2);
    outcome.shared_first = outcome.sid_rank == 1 ? 3 : below(3);
    outcome.shared_top = outcome.sid_rank >= 1 && outcome.sid_rank <= 10 ? 3 : std::max(outcome.shared_first, below(3));
    if (below(4) > 0) outcome.diversity = random.Uniform();
    outcome.unconstrained = 10;
    outcome.invalid = below(3);
    outcome.unconstrained_wide = 50;
    outcome.invalid_wide = outcome.invalid + below(10);
    row.history = outcome.position;
    row.popularity = below(20);
    row.rule_rank = below(200);
  }
  return table;
}

}  // namespace sluice::learner

#endif  // SLUICE_TESTS_LEARNER_EVALUATE_SOME_OUTCOMES_H_

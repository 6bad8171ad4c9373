// Small languages inside of values: step weights, names of rankers of known error.
#include "common/market/truth_ranking.h"
#include "learner/objective/step_rewards.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text = sluice::fuzz::Text(data, size);
  (void)sluice::ParseTruthRanking(text);
  const auto weights = sluice::learner::ParseStepWeights(text, 3);
  if (weights.ok()) sluice::fuzz::Require(weights->size() == 3, "want a weight for each level");
  return 0;
}

// What evaluate and the stratified analysis leave for compare.
#include "learner/evaluate/context_file.h"
#include "learner/evaluate/outcome_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text = sluice::fuzz::Text(data, size);
  (void)sluice::learner::ContextsFromText(text);
  const auto table = sluice::learner::OutcomesFromText(text);
  if (!table.ok()) return 0;
  for (const char* metric : {"hr@10", "sid_ndcg@5", "mrr", "level_2_accuracy", "hallucination"}) {
    (void)sluice::learner::ValuesOf(*table, metric);
  }
  const std::string written = sluice::learner::OutcomesToText(*table);
  const auto again = sluice::learner::OutcomesFromText(written);
  sluice::fuzz::Require(again.ok() && sluice::learner::OutcomesToText(*again) == written,
                        "what was read is not written as it was read");
  return 0;
}

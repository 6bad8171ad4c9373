// The state.json of a checkpoint. What is taken means the same once it is written out.
#include "learner/checkpoint_facts/checkpoint_facts.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::learner::CheckpointFactsText;
  using sluice::learner::ParseCheckpointFacts;
  const auto facts = ParseCheckpointFacts(std::string(sluice::fuzz::Text(data, size)), "input");
  if (!facts.ok()) return 0;
  const std::string written = CheckpointFactsText(*facts);
  const auto again = ParseCheckpointFacts(written, "written");
  sluice::fuzz::Require(again.ok() && CheckpointFactsText(*again) == written,
                        "a good state.json is another once it is written out");
  return 0;
}

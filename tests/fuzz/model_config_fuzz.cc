// A config.json of transformers or Sluice. What is taken means the same once it is written out, and a dry run can plan
// with it.
#include "common/model_config/policy_config.h"
#include "common/plan/plan.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = sluice::PolicyConfig::FromJson(std::string(sluice::fuzz::Text(data, size)));
  if (!config.ok()) return 0;
  const std::string written = config->ToJson();
  const auto again = sluice::PolicyConfig::FromJson(written);
  sluice::fuzz::Require(again.ok() && again->ToJson() == written,
                        "a good config.json is another once it is written out");
  sluice::fuzz::Require(sluice::ArenaElements(sluice::PolicyShape::Of(*config)) > 0, "a plan counts no parameters");
  return 0;
}

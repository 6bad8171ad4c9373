// Job specs as people write them. What is good must stay good once its defaults are written out.
#include "common/spec/spec.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto spec = sluice::ResolveSpec(std::string(sluice::fuzz::Text(data, size)), "spec", {});
  if (!spec.ok()) {
    sluice::fuzz::Require(!spec.status().message().empty(), "a refusal without a word");
    return 0;
  }
  const std::string written = sluice::SpecToYaml(spec->effective);
  const auto again = sluice::ResolveSpec(written, "effective", {});
  sluice::fuzz::Require(again.ok() && sluice::SpecDigest(again->effective) == sluice::SpecDigest(spec->effective),
                        "an effective spec is another spec");
  return 0;
}

// Recorded groups: a decoded record must encode to the same bytes.
#include "learner/record/advice.h"
#include "learner/record/group_record.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes = sluice::fuzz::Text(data, size);
  const auto header = sluice::learner::DecodeHeader(bytes);
  if (header.ok()) sluice::fuzz::Require(sluice::learner::Encode(*header) == bytes, "a header changed");
  const auto record = sluice::learner::DecodeRecord(bytes);
  if (record.ok()) {
    sluice::fuzz::Require(sluice::learner::Encode(*record) == bytes, "a record changed");
    (void)sluice::learner::InputOf(*record);
  }
  (void)sluice::learner::ParseGains(bytes);
  return 0;
}

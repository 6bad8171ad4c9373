// The first byte chooses the format, the rest is the file.
#include "common/catalog/readers.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr sluice::EventFormat kFormats[] = {sluice::EventFormat::kInter, sluice::EventFormat::kJson,
                                              sluice::EventFormat::kCsv};
  sluice::ReadEventsOptions options;
  options.format = kFormats[data[0] % 3];
  const auto log = sluice::ReadEvents(sluice::fuzz::FileWith(sluice::fuzz::Text(data + 1, size - 1)), options);
  if (!log.ok()) return 0;
  sluice::fuzz::Require(!log->events.empty(), "a log without events was taken");
  for (const sluice::Event& event : log->events) {
    sluice::fuzz::Require(event.user >= 0 && event.user < static_cast<int32_t>(log->user_names.size()) &&
                              event.item >= 0 && event.item < static_cast<int32_t>(log->item_names.size()),
                          "an event of nobody, or of nothing");
  }
  return 0;
}

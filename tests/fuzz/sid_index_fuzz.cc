#include "common/catalog/sid_index.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::string> items = {"0", "1", "a b"};
  constexpr int kCodes = 16;
  const auto table = sluice::ReadSidIndex(sluice::fuzz::FileWith(sluice::fuzz::Text(data, size)), items, kCodes);
  if (!table.ok()) return 0;
  sluice::fuzz::Require(table->item_codes.size() == items.size() * table->levels, "an item lacks codes");
  for (const int32_t code : table->item_codes) sluice::fuzz::Require(code >= 0 && code < kCodes, "a code out of range");
  return 0;
}

// The ledger of a checkpoint: what is taken must be consistent, and must survive being written again.
#include "learner/ledger/ledger.h"
#include "learner/ledger/merge_shards.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(sluice::fuzz::Text(data, size));
  sluice::learner::Ledger ledger{sluice::learner::LedgerOptions()};
  if (ledger.Restore(text).ok()) {
    sluice::fuzz::Require(ledger.Check().ok(), "an inconsistent ledger was taken");
    sluice::learner::Ledger again{sluice::learner::LedgerOptions()};
    sluice::fuzz::Require(again.Restore(ledger.Snapshot()).ok() && again.Snapshot() == ledger.Snapshot(),
                          "a snapshot does not restore to itself");
  }
  const size_t half = text.size() / 2;
  (void)sluice::learner::MergeLedgerShards({text, text.substr(0, half), text.substr(half)});
  (void)sluice::learner::MergeLedgerShards({text});
  return 0;
}

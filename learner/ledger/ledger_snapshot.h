// A ledger's JSON in a checkpoint, both ways. It is read with a check of every number: the file may be damaged or
// forged.
#ifndef SLUICE_LEARNER_LEDGER_LEDGER_SNAPSHOT_H_
#define SLUICE_LEARNER_LEDGER_LEDGER_SNAPSHOT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::learner {

struct LedgerSnapshot {
  static constexpr uint64_t kFormat = 1;

  uint64_t issued = 0;
  uint64_t trained = 0;
  uint64_t dropped = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  uint64_t frontier = 0;
  std::vector<std::pair<uint64_t, uint64_t>> terminal;  // begin and end of each range
  std::vector<std::pair<uint64_t, uint32_t>> open;      // ordinal and its last attempt
};

// One text for equal contents.
std::string LedgerSnapshotText(const LedgerSnapshot& snapshot);

// DataLoss names the place that is not what LedgerSnapshotText writes. Whether the numbers agree with each other is the
// caller's to check.
absl::StatusOr<LedgerSnapshot> ParseLedgerSnapshot(const std::string& text);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_LEDGER_SNAPSHOT_H_

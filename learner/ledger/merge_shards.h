// The ledger's shards of several ranks as one, for a group that resumes with another number of ranks.
#ifndef SLUICE_LEARNER_LEDGER_MERGE_SHARDS_H_
#define SLUICE_LEARNER_LEDGER_MERGE_SHARDS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice::learner {

// What GroupSource::Snapshot wrote on each rank, as one such document: counts added, ordinals united. DataLoss: not
// such documents, or an ordinal in two of them.
absl::StatusOr<std::string> MergeLedgerShards(absl::Span<const std::string> shards);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_MERGE_SHARDS_H_

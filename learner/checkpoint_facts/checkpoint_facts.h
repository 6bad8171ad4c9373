// What a checkpoint says of its job in numbers and words: its state.json (learner/train/checkpoint.h).
#ifndef SLUICE_LEARNER_CHECKPOINT_FACTS_CHECKPOINT_FACTS_H_
#define SLUICE_LEARNER_CHECKPOINT_FACTS_CHECKPOINT_FACTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/ledger/terminal_table.h"

namespace sluice::learner {

struct CheckpointFacts {
  uint64_t step = 0;                      // steps that are committed
  uint64_t policy_version = 0;            // published last
  double seconds = 0;                     // spent by the job so far
  std::map<std::string, double> numbers;  // counters of the job loop and its gates, by name
  std::string spec_yaml;                  // effective
  std::string spec_digest;
  std::string data_digest;
  std::optional<double> score;       // of the validation after this step, higher is better; none: there was none
  std::vector<std::string> ledgers;  // by rank; empty for jobs without one
  std::optional<TableMark> table;    // of the ledger's terminal table; none for jobs without a ledger
};

// All of `facts` but the ledgers, of which it has the number alone.
std::string CheckpointFactsText(const CheckpointFacts& facts);
// The same back, with as many empty ledgers as there were. DataLoss names `where` the text came from.
absl::StatusOr<CheckpointFacts> ParseCheckpointFacts(const std::string& text, const std::string& where);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_CHECKPOINT_FACTS_CHECKPOINT_FACTS_H_

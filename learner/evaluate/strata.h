// An evaluation cut into strata: by how hard a target is, and by how much is known of its user. No definition looks at
// the policy, so that two policies are cut alike and their strata may be compared.
//
//   difficulty_decile/01 ... 10   by the rank that the co-occurrence rule gives the target among all items that may be
//                                 recommended; 01 the easiest
//   popularity_decile/01 ... 10   by how often the target occurs in the training events; 01 the most popular
//   history/001-002 ...           by the events of the user before the target, uncut by the prompt's window
//
// Pure functions; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_STRATA_H_
#define SLUICE_LEARNER_EVALUATE_STRATA_H_

#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "learner/evaluate/outcome_file.h"

namespace sluice::learner {

// The tenth, from 1 to 10, in which each key stands among all of them, small keys first. Equal keys share a tenth, the
// one of their middle place: with many equal keys tenths differ in size, and some are empty.
std::vector<int> Deciles(absl::Span<const double> keys);

// For every stratum that has users: "prompts", "hr@K", "ndcg@K" and "mrr@K" at cutoffs that the lists reach, and
// "key_low" and "key_high", the range of what it was cut by.
std::map<std::string, std::map<std::string, double>> Stratify(const OutcomeTable& table);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_STRATA_H_

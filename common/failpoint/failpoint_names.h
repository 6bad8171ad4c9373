// Every failpoint there is. docs/failpoints.md says where each one stands; a test keeps the two in step.
#ifndef SLUICE_COMMON_FAILPOINT_FAILPOINT_NAMES_H_
#define SLUICE_COMMON_FAILPOINT_FAILPOINT_NAMES_H_

#include <cstddef>
#include <iterator>

#include "absl/strings/string_view.h"

namespace sluice {

struct FailpointName {
  absl::string_view name;
  bool returns = false;  // SLUICE_FAILPOINT_STATUS: an error may be asked for
};

inline constexpr FailpointName kFailpointNames[] = {
    // sluice-actor
    {"actor/lease_received"},
    {"actor/after_sample", true},
    {"actor/after_score", true},
    {"actor/before_send"},
    {"actor/after_send"},
    {"actor/before_transfer", true},
    {"actor/before_swap", true},
    // sluice-learner, on every rank
    {"learner/resumed", true},
    {"learner/before_issue", true},
    {"learner/after_issue", true},
    {"learner/groups_taken", true},
    {"learner/before_all_reduce", true},
    {"learner/after_all_reduce", true},
    {"learner/before_commit", true},
    {"learner/after_commit", true},
    {"publish/before_reserve", true},
    {"publish/after_reserve", true},
    {"publish/before_offer", true},
    {"publish/after_offer", true},
    {"publish/transfer"},
    // sluice-learner, on the first rank
    {"checkpoint/begin"},
    {"checkpoint/after_table_fence", true},
    {"checkpoint/after_policy", true},
    {"checkpoint/after_optimizer", true},
    {"checkpoint/after_reference", true},
    {"checkpoint/after_ledger", true},
    {"checkpoint/before_manifest", true},
    {"checkpoint/before_rename", true},
    {"checkpoint/after_fence", true},
    {"checkpoint/after_rename", true},
    {"checkpoint/before_prune", true},
    {"checkpoint/before_report", true},
    // sluice-learner coordinator
    {"coordinator/before_submit", true},
    {"coordinator/after_submit", true},
    {"coordinator/before_epoch", true},
    {"coordinator/after_epoch", true},
    {"coordinator/before_assign", true},
    {"coordinator/after_assign", true},
    {"coordinator/before_cancel", true},
    {"coordinator/after_cancel", true},
    {"coordinator/before_resume", true},
    {"coordinator/after_resume", true},
    {"coordinator/before_preempt", true},
    {"coordinator/after_preempt", true},
    {"coordinator/before_succeed", true},
    {"coordinator/after_succeed", true},
    {"coordinator/before_fail", true},
    {"coordinator/after_fail", true},
    {"coordinator/before_cancelled", true},
    {"coordinator/after_cancelled", true},
    {"coordinator/before_hold", true},
    {"coordinator/after_hold", true},
    {"coordinator/before_report", true},
    {"coordinator/after_report", true},
    {"coordinator/before_ordinals", true},
    {"coordinator/after_ordinals", true},
    {"coordinator/before_version", true},
    {"coordinator/after_version", true},
    // sluice-reward
    {"reward/before_score", true},
    {"reward/before_answer", true},
};

// For the macros: a name that is not in the list, or of the other kind, does not compile.
consteval size_t FailpointIndex(absl::string_view name, bool returns) {
  for (size_t i = 0; i < std::size(kFailpointNames); ++i) {
    if (kFailpointNames[i].name != name) continue;
    if (kFailpointNames[i].returns != returns)
      throw "want SLUICE_FAILPOINT_STATUS where `returns`, else SLUICE_FAILPOINT";
    return i;
  }
  throw "there is no such failpoint in failpoint_names.h";
}

}  // namespace sluice

#endif  // SLUICE_COMMON_FAILPOINT_FAILPOINT_NAMES_H_

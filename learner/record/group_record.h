// One judged group as bytes: everything that the judge saw of it and what came of that, so that a gate can be asked
// again without sampling or scoring anything (replay.h).
//
// Numbers are little-endian and fixed in width; a list is its length as uint32, then its elements; a text is a list of
// bytes; an optional is a byte 0 or 1, then the value if 1. The fields are those of GroupRecord in the order of
// Encode's body, which is the format's definition; kRecordVersion changes with it.
#ifndef SLUICE_LEARNER_RECORD_GROUP_RECORD_H_
#define SLUICE_LEARNER_RECORD_GROUP_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/objective/gate.h"
#include "learner/objective/judge.h"

namespace sluice::learner {

inline constexpr uint32_t kRecordVersion = 1;

// What every group of a file has in common.
struct RecordHeader {
  std::string catalog_version;  // of the learner
  uint32_t levels = 0;
  uint32_t groups_per_step = 0;  // over all ranks
  bool operator==(const RecordHeader&) const = default;
};

struct GroupRecord {
  uint64_t step = 0;             // that trained it, from 0
  uint64_t learner_version = 0;  // of the weights that the step started from
  uint64_t ordinal = 0;
  int32_t user = -1;
  int32_t target = -1;  // item
  int32_t target_leaf = -1;
  std::vector<int32_t> target_tokens;
  int32_t region = kNoRegion;
  std::optional<bool> reliable;  // truth of a generated data set
  bool bad_data = false;         // the record itself was bad: no group, not judged
  // Absent: unsampled. Of its heads only that of the reward is kept.
  std::optional<ScoredGroup> group;
  std::vector<int32_t> history_leaves;  // of group->history_items

  // What the job made of it: the gate's own word, and what a control left of that.
  bool gate_open = false;
  GateReason gate_reason = GateReason::kObjective;
  GateReason reason = GateReason::kObjective;
  double admission = 0;
  std::optional<double> reliability;
};

// The judge's input. Spans point into `record`, which must outlive it.
JudgeInput InputOf(const GroupRecord& record);

std::string Encode(const RecordHeader& header);
std::string Encode(const GroupRecord& record);
// DataLoss: cut short, longer than its fields, an unknown version, or a value that no field can have.
absl::StatusOr<RecordHeader> DecodeHeader(absl::string_view bytes);
absl::StatusOr<GroupRecord> DecodeRecord(absl::string_view bytes);

// What a group's bytes begin with, to pass over others than those one looks for.
struct RecordHead {
  uint64_t step = 0;
  uint64_t ordinal = 0;
};
// DataLoss: cut short.
absl::StatusOr<RecordHead> DecodeHead(absl::string_view bytes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RECORD_GROUP_RECORD_H_

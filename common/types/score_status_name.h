#ifndef SLUICE_COMMON_TYPES_SCORE_STATUS_NAME_H_
#define SLUICE_COMMON_TYPES_SCORE_STATUS_NAME_H_

#include "absl/strings/string_view.h"
#include "common/types/group.h"

namespace sluice {

// The word of journals, metrics and traces.
inline absl::string_view ScoreStatusName(ScoreStatus status) {
  switch (status) {
    case ScoreStatus::kOk:
      return "ok";
    case ScoreStatus::kUnavailable:
      return "unavailable";
    case ScoreStatus::kInvalid:
      return "invalid";
    case ScoreStatus::kRejected:
      return "rejected";
    case ScoreStatus::kNotAsked:
      return "not_asked";
  }
  return "invalid";
}

}  // namespace sluice

#endif  // SLUICE_COMMON_TYPES_SCORE_STATUS_NAME_H_

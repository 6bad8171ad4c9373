// Whole numbers out of JSON that may be damaged or forged.
//
// nlohmann's get<int>() converts whatever number it finds: -1 becomes 18446744073709551615, 5000000000 is cut to 32
// bits, and what is beyond 64 bits, which the parser keeps as a double, is undefined behaviour.
#ifndef SLUICE_COMMON_JSON_WHOLE_NUMBER_H_
#define SLUICE_COMMON_JSON_WHOLE_NUMBER_H_

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/status/status.h"

namespace sluice {

// The number in `json` if it is a whole one from 0 to `max`. DataLoss otherwise: it begins with `where`, which names
// the place, and says what was wanted and what is there.
absl::StatusOr<uint64_t> WholeNumber(const nlohmann::json& json, absl::string_view where,
                                     uint64_t max = std::numeric_limits<uint64_t>::max());

// The same into an integer variable of any width, up to what that holds.
template <typename Integer>
absl::Status ReadWholeNumber(const nlohmann::json& json, absl::string_view where, Integer* value) {
  constexpr uint64_t kMax = static_cast<uint64_t>(std::numeric_limits<Integer>::max());
  SLUICE_ASSIGN_OR_RETURN(const uint64_t number, WholeNumber(json, where, kMax));
  *value = static_cast<Integer>(number);
  return absl::OkStatus();
}

}  // namespace sluice

#endif  // SLUICE_COMMON_JSON_WHOLE_NUMBER_H_

#include "common/json/whole_number.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// Of what is there instead, in a message.
constexpr size_t kShownBytes = 60;

std::string Shown(const nlohmann::json& json) {
  std::string text = json.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShownBytes) text.replace(kShownBytes, std::string::npos, "...");
  return text;
}

}  // namespace

absl::StatusOr<uint64_t> WholeNumber(const nlohmann::json& json, absl::string_view where, uint64_t max) {
  // The parser keeps every number from 0 to 2^64 - 1 that is written without point and exponent as an unsigned one.
  if (json.is_number_unsigned()) {
    const auto number = json.get<uint64_t>();
    if (number <= max) return number;
  }
  return absl::DataLossError(absl::StrCat(where, ": want a whole number from 0 to ", max, ", got ", Shown(json)));
}

}  // namespace sluice

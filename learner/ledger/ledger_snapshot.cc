#include "learner/ledger/ledger_snapshot.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

using Json = nlohmann::json;

// The member `key`; null if there is none, which no reader takes.
const Json& Member(const Json& json, const char* key) {
  static const Json absent;
  const auto found = json.find(key);
  return found == json.end() ? absent : *found;
}

// A list of two numbers each.
template <typename Second>
absl::Status ReadPairs(const Json& json, const char* key, std::vector<std::pair<uint64_t, Second>>* pairs) {
  const Json& list = Member(json, key);
  if (!list.is_array()) return absl::DataLossError(absl::StrCat("'", key, "': want a list"));
  pairs->reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = absl::StrCat("'", key, "'[", i, "]");
    if (!list[i].is_array() || list[i].size() != 2) {
      return absl::DataLossError(absl::StrCat(where, ": want two numbers"));
    }
    std::pair<uint64_t, Second> pair;
    SLUICE_RETURN_IF_ERROR(ReadWholeNumber(list[i][0], where + "[0]", &pair.first));
    SLUICE_RETURN_IF_ERROR(ReadWholeNumber(list[i][1], where + "[1]", &pair.second));
    pairs->push_back(pair);
  }
  return absl::OkStatus();
}

absl::Status Parse(const std::string& text, LedgerSnapshot* snapshot) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError("not a JSON object");
  uint64_t format = 0;
  SLUICE_RETURN_IF_ERROR(ReadWholeNumber(Member(json, "format"), "'format'", &format));
  if (format != LedgerSnapshot::kFormat) {
    return absl::DataLossError(absl::StrCat("want format ", LedgerSnapshot::kFormat, ", got ", format));
  }
  for (const auto& [key, count] :
       {std::pair("issued", &snapshot->issued), std::pair("trained", &snapshot->trained),
        std::pair("dropped", &snapshot->dropped), std::pair("failed", &snapshot->failed),
        std::pair("cancelled", &snapshot->cancelled), std::pair("frontier", &snapshot->frontier)}) {
    SLUICE_RETURN_IF_ERROR(ReadWholeNumber(Member(json, key), absl::StrCat("'", key, "'"), count));
  }
  SLUICE_RETURN_IF_ERROR(ReadPairs(json, "terminal", &snapshot->terminal));
  return ReadPairs(json, "open", &snapshot->open);
}

}  // namespace

std::string LedgerSnapshotText(const LedgerSnapshot& snapshot) {
  return Json{{"format", LedgerSnapshot::kFormat}, {"issued", snapshot.issued},     {"trained", snapshot.trained},
              {"dropped", snapshot.dropped},       {"failed", snapshot.failed},     {"cancelled", snapshot.cancelled},
              {"frontier", snapshot.frontier},     {"terminal", snapshot.terminal}, {"open", snapshot.open}}
      .dump();
}

absl::StatusOr<LedgerSnapshot> ParseLedgerSnapshot(const std::string& text) {
  LedgerSnapshot snapshot;
  SLUICE_RETURN_IF_ERROR(Annotate(Parse(text, &snapshot), "ledger"));
  return snapshot;
}

}  // namespace sluice::learner

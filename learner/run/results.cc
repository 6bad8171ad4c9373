#include "learner/run/results.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {

absl::Status WriteResults(const std::string& path, const RunResults& results) {
  nlohmann::json document;
  document["kind"] = results.kind;
  document["numbers"] = nlohmann::json::object();
  for (const auto& [group, values] : results.numbers) {
    nlohmann::json& object = document["numbers"][group] = nlohmann::json::object();
    for (const auto& [name, value] : values) {
      if (std::isfinite(value)) object[name] = value;
    }
  }
  document["texts"] = results.texts;
  return WriteFileAtomically(path, document.dump(2) + "\n");
}

absl::StatusOr<RunResults> ReadResults(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  try {
    const nlohmann::json document = nlohmann::json::parse(text);
    RunResults results;
    results.kind = document.at("kind").get<std::string>();
    results.numbers = document.at("numbers").get<std::map<std::string, std::map<std::string, double>>>();
    results.texts = document.at("texts").get<std::map<std::string, std::string>>();
    return results;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "' is not a results file: ", error.what()));
  }
}

}  // namespace sluice::learner

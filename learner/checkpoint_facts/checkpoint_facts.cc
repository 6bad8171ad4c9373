#include "learner/checkpoint_facts/checkpoint_facts.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// One a rank; far above any group, so that a damaged count asks for no memory.
constexpr size_t kMaxLedgers = 65536;

}  // namespace

std::string CheckpointFactsText(const CheckpointFacts& facts) {
  nlohmann::json document;
  document["step"] = facts.step;
  document["policy_version"] = facts.policy_version;
  document["seconds"] = facts.seconds;
  document["numbers"] = facts.numbers;
  document["spec_yaml"] = facts.spec_yaml;
  document["spec_digest"] = facts.spec_digest;
  document["data_digest"] = facts.data_digest;
  document["ledgers"] = facts.ledgers.size();
  if (facts.score) document["score"] = *facts.score;
  if (facts.table) document["table"] = {{"bytes", facts.table->bytes}, {"sha256", facts.table->sha256}};
  return document.dump(2) + "\n";
}

absl::StatusOr<CheckpointFacts> ParseCheckpointFacts(const std::string& text, const std::string& where) {
  CheckpointFacts facts;
  try {
    const nlohmann::json document = nlohmann::json::parse(text);
    const auto read = [&where](const nlohmann::json& from, const char* key, auto* number) {
      return Annotate(ReadWholeNumber(from.at(key), key, number), where);
    };
    SLUICE_RETURN_IF_ERROR(read(document, "step", &facts.step));
    SLUICE_RETURN_IF_ERROR(read(document, "policy_version", &facts.policy_version));
    facts.seconds = document.at("seconds").get<double>();
    facts.numbers = document.at("numbers").get<std::map<std::string, double>>();
    facts.spec_yaml = document.at("spec_yaml").get<std::string>();
    facts.spec_digest = document.at("spec_digest").get<std::string>();
    facts.data_digest = document.at("data_digest").get<std::string>();
    size_t ledgers = 0;
    SLUICE_RETURN_IF_ERROR(read(document, "ledgers", &ledgers));
    if (ledgers > kMaxLedgers) {
      return absl::DataLossError(absl::StrCat(where, " counts ", ledgers, " ledgers, more than ", kMaxLedgers));
    }
    facts.ledgers.resize(ledgers);
    if (document.contains("score")) facts.score = document["score"].get<double>();
    if (document.contains("table")) {
      facts.table.emplace();
      SLUICE_RETURN_IF_ERROR(read(document["table"], "bytes", &facts.table->bytes));
      facts.table->sha256 = document["table"].at("sha256").get<std::string>();
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(where, " cannot be read: ", error.what()));
  }
  return facts;
}

}  // namespace sluice::learner

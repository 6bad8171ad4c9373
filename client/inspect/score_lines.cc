#include "client/inspect/score_lines.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/decode/decode.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::json;

// A line of the input and where it came from.
struct NumberedLine {
  int64_t number = 0;
  ScoreLine line;
};

absl::Status At(const absl::Status& status, const std::string& name, int64_t number) {
  return Annotate(status, absl::StrCat(name, ":", number));
}

absl::StatusOr<std::vector<int32_t>> Ids(const json& value, absl::string_view what, int64_t limit) {
  if (!value.is_array() || value.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " must be a list of at least one id"));
  }
  std::vector<int32_t> ids;
  for (const json& id : value) {
    if (!id.is_number_integer() || id < 0 || id >= limit) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has ", id.dump(), ", which is not an id from 0 to ", limit - 1));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<PromptInput> ParsePrompt(const json& line, const Policy& policy) {
  const bool has_prompt = line.contains("prompt");
  if (has_prompt == line.contains("history")) {
    return absl::InvalidArgumentError("want one of the keys \"prompt\" (token ids) and \"history\" (item ids)");
  }
  if (has_prompt) return Ids(line["prompt"], "\"prompt\"", policy.config().vocab_size);
  if (policy.trie() == nullptr) return absl::InvalidArgumentError("\"history\" needs a model with a catalog");
  SLUICE_ASSIGN_OR_RETURN(const std::vector<int32_t> items,
                          Ids(line["history"], "\"history\"", policy.trie()->num_items()));
  return policy.EncodePrompt(items);
}

// Reads up to the end of a line, no further than `limit` bytes. False at the end of the input.
absl::StatusOr<bool> ReadLine(std::istream& input, int64_t limit, std::string* line) {
  line->clear();
  int byte = input.get();
  if (byte == std::istream::traits_type::eof()) return false;
  for (; byte != std::istream::traits_type::eof() && byte != '\n'; byte = input.get()) {
    if (static_cast<int64_t>(line->size()) == limit) {
      return absl::InvalidArgumentError(absl::StrCat("the line is longer than ", limit, " bytes"));
    }
    line->push_back(static_cast<char>(byte));
  }
  return true;
}

double Total(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum;
}

json BeamJson(const Completion& beam, const Trie& trie, LogProbSpace space) {
  const absl::Span<const int32_t> items = trie.ItemsOfLeaf(beam.leaf);
  return {{"tokens", beam.tokens},
          {"log_prob", Total(space == LogProbSpace::kFull ? beam.log_probs_full : beam.log_probs_trie)},
          {"items", std::vector<int32_t>(items.begin(), items.end())}};
}

json AnswerJson(const std::vector<Completion>& scored, const std::vector<Completion>& beams, const Trie& trie,
                LogProbSpace space) {
  json answer = {{"log_probs_full", json::array()}, {"log_probs_trie", json::array()}, {"beams", json::array()}};
  for (const Completion& completion : scored) {
    answer["log_probs_full"].push_back(completion.log_probs_full);
    answer["log_probs_trie"].push_back(completion.leaf < 0 ? json(nullptr) : json(completion.log_probs_trie));
  }
  for (const Completion& beam : beams) answer["beams"].push_back(BeamJson(beam, trie, space));
  return answer;
}

absl::Status AnswerBatch(const std::vector<NumberedLine>& batch, Policy& policy, const Trie& trie,
                         const ScoreOptions& options, std::ostream& output) {
  std::vector<DecodePrompt> prompts;
  std::vector<std::vector<std::vector<int32_t>>> completions;
  for (const NumberedLine& numbered : batch) {
    DecodePrompt prompt;
    prompt.input = numbered.line.prompt;
    prompts.push_back(std::move(prompt));
    completions.push_back(numbered.line.completions);
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::vector<Completion>> scored,
                          ScoreCompletions(policy, trie, prompts, completions));
  std::vector<std::vector<Completion>> beams(batch.size());
  if (options.beams > 0) {
    SLUICE_ASSIGN_OR_RETURN(beams, ConstrainedBeamSearch(policy, trie, prompts, options.beams, options.space));
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    output << AnswerJson(scored[i], beams[i], trie, options.space).dump() << '\n';
  }
  output.flush();
  if (!output) return absl::UnavailableError("the output cannot be written (disk full, or the reader is gone)");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ScoreLine> ParseScoreLine(const std::string& text, const Policy& policy, const ScoreOptions& options) {
  const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) {
    return absl::InvalidArgumentError("want a JSON object like {\"prompt\": [1, 5], \"completions\": [[7, 9]]}");
  }
  for (const auto& [key, value] : line.items()) {
    if (key != "prompt" && key != "history" && key != "completions") {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown key \"", key, "\"; known are \"prompt\", \"history\" and \"completions\""));
    }
  }
  ScoreLine parsed;
  SLUICE_ASSIGN_OR_RETURN(parsed.prompt, ParsePrompt(line, policy));
  const json completions = line.value("completions", json::array());
  if (!completions.is_array() || static_cast<int64_t>(completions.size()) > options.max_completions) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"completions\" must be a list of at most ", options.max_completions, " lists of token ids"));
  }
  size_t longest = policy.trie() == nullptr ? 1 : static_cast<size_t>(policy.trie()->levels());
  for (const json& completion : completions) {
    SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, Ids(completion, "a completion", policy.config().vocab_size));
    longest = std::max(longest, tokens.size());
    parsed.completions.push_back(std::move(tokens));
  }
  const size_t positions = parsed.prompt.size() + longest - 1;
  if (static_cast<int64_t>(positions) > policy.config().max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("prompt and completions need ", positions,
                                                   " positions, the model has ", policy.config().max_positions));
  }
  return parsed;
}

absl::Status ScoreLines(std::istream& input, const std::string& name, Policy& policy, const Trie& trie,
                        const ScoreOptions& options, std::ostream& output) {
  std::vector<NumberedLine> batch;
  const auto answer = [&]() -> absl::Status {
    if (batch.empty()) return absl::OkStatus();
    const absl::Status status = AnswerBatch(batch, policy, trie, options, output);
    const int64_t first = batch.front().number;
    batch.clear();
    return status.ok() ? status : At(status, name, first);
  };
  std::string text;
  for (int64_t number = 1;; ++number) {
    const absl::StatusOr<bool> more = ReadLine(input, options.max_line_bytes, &text);
    if (more.ok() && !*more) break;
    if (more.ok() && text.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<ScoreLine> line = more.ok() ? ParseScoreLine(text, policy, options) : more.status();
    if (!line.ok()) {
      SLUICE_RETURN_IF_ERROR(answer());
      return At(line.status(), name, number);
    }
    batch.push_back({number, *std::move(line)});
    if (static_cast<int>(batch.size()) >= options.batch_lines) SLUICE_RETURN_IF_ERROR(answer());
  }
  return answer();
}

}  // namespace sluice

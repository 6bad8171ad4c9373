// Scoring by lines: JSON lines of prompts and completions in, JSON lines of log-probabilities and beams out, so that
// anyone can check a model against another implementation.
//
//   in   {"prompt": [token ids], "completions": [[token ids], ...]}
//        or, with "history": [item ids] instead of "prompt", encoded as the model's encoder does it (the only way
//        to a merged model's item positions). "completions" may be absent.
//   out  {"log_probs_full": [[...], ...], "log_probs_trie": [[...] or null, ...],
//         "beams": [{"tokens": [...], "log_prob": x, "items": [...]}, ...]}
//
// Log-probabilities are natural, one a token; log_probs_trie is null for a completion that is not in the catalog.
#ifndef SLUICE_CLIENT_INSPECT_SCORE_LINES_H_
#define SLUICE_CLIENT_INSPECT_SCORE_LINES_H_

#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/catalog/trie.h"
#include "common/model/policy.h"
#include "common/types/group.h"

namespace sluice {

struct ScoreOptions {
  int beams = 10;                            // 0: no beams
  LogProbSpace space = LogProbSpace::kFull;  // what beams are ordered by and their log_prob is over
  int batch_lines = 32;                      // computed together
  int64_t max_line_bytes = int64_t{16} << 20;
  int64_t max_completions = 4096;  // a line
};

// One line of input, read and checked against the policy.
struct ScoreLine {
  PromptInput prompt;
  std::vector<std::vector<int32_t>> completions;
};

// InvalidArgument says what is wrong with the line; it does not know file and number.
absl::StatusOr<ScoreLine> ParseScoreLine(const std::string& text, const Policy& policy, const ScoreOptions& options);

// Answers every line of `input` in order; blank lines have no answer. `name` stands for the input in errors, which
// begin with "name:line: "; what came before the line of the error is written.
absl::Status ScoreLines(std::istream& input, const std::string& name, Policy& policy, const Trie& trie,
                        const ScoreOptions& options, std::ostream& output);

}  // namespace sluice

#endif  // SLUICE_CLIENT_INSPECT_SCORE_LINES_H_

#include "common/model/tree_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

absl::Status CheckEntry(int32_t entry, const TreeLimits& limits) {
  if (entry >= limits.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("token ", entry, " is outside the vocabulary of ", limits.vocab_size));
  }
  if (entry < 0 && -1 - static_cast<int64_t>(entry) >= limits.num_leaves) {
    return absl::InvalidArgumentError(
        limits.num_leaves == 0 ? absl::StrCat("entry ", entry, " is a merged item, but the policy's encoder is codes")
                               : absl::StrCat("leaf ", -1 - static_cast<int64_t>(entry), " is outside the trie of ",
                                              limits.num_leaves, " leaves"));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const PromptInput& prompt, const TreeLimits& limits) {
  if (prompt.empty()) return absl::InvalidArgumentError("is empty");
  if (static_cast<int64_t>(prompt.size()) > limits.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", prompt.size(), " positions, more than the policy's ", limits.max_positions));
  }
  for (const int32_t entry : prompt) SLUICE_RETURN_IF_ERROR(CheckEntry(entry, limits));
  return absl::OkStatus();
}

absl::Status CheckBranch(const Branch& branch, absl::Span<const PromptInput> prompts, const TreeLimits& limits) {
  if (branch.prompt < 0 || branch.prompt >= static_cast<int64_t>(prompts.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("hangs on prompt ", branch.prompt, " of ", prompts.size(), " prompts"));
  }
  const int64_t length = static_cast<int64_t>(prompts[branch.prompt].size());
  if (branch.anchor < 0 || branch.anchor >= length) {
    return absl::InvalidArgumentError(
        absl::StrCat("hangs on position ", branch.anchor, " of prompt ", branch.prompt, ", which has ", length));
  }
  if (branch.tokens.empty()) return absl::InvalidArgumentError("has no token");
  const int64_t positions = branch.anchor + static_cast<int64_t>(branch.tokens.size());
  if (positions > limits.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("reaches ", positions, " positions, more than the policy's ", limits.max_positions));
  }
  for (const int32_t token : branch.tokens) {
    if (token < 0) return absl::InvalidArgumentError(absl::StrCat("has token ", token, ", want a token id"));
    SLUICE_RETURN_IF_ERROR(CheckEntry(token, limits));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TreeLayout> MakeTreeLayout(absl::Span<const PromptInput> prompts, absl::Span<const Branch> branches,
                                          const TreeLimits& limits) {
  if (prompts.empty()) return absl::InvalidArgumentError("want at least one prompt, got none");
  TreeLayout layout;
  for (size_t b = 0; b < prompts.size(); ++b) {
    const absl::Status status = CheckPrompt(prompts[b], limits);
    if (!status.ok()) return Annotate(status, absl::StrCat("prompt ", b));
    const int64_t length = static_cast<int64_t>(prompts[b].size());
    layout.trunk_first.push_back(layout.rows);
    layout.trunk_length.push_back(length);
    layout.rows += length;
    layout.visible_pairs += length * (length + 1) / 2;
  }
  layout.first_branch.assign(prompts.size() + 1, 0);
  for (size_t i = 0; i < branches.size(); ++i) {
    const absl::Status status = CheckBranch(branches[i], prompts, limits);
    if (!status.ok()) return Annotate(status, absl::StrCat("branch ", i));
    const int64_t own = static_cast<int64_t>(branches[i].tokens.size()) - 1;
    layout.branch_first.push_back(layout.rows);
    layout.branch_rows.push_back(own);
    layout.branch_anchor.push_back(branches[i].anchor);
    layout.rows += own;
    layout.visible_pairs += own * (branches[i].anchor + 1) + own * (own + 1) / 2;
    ++layout.first_branch[branches[i].prompt + 1];
  }
  if (layout.rows > limits.max_rows) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the batch has ", layout.rows, " rows, more than ", limits.max_rows, ": make it smaller"));
  }
  for (size_t b = 0; b < prompts.size(); ++b) layout.first_branch[b + 1] += layout.first_branch[b];
  std::vector<int64_t> next(layout.first_branch.begin(), layout.first_branch.end() - 1);
  layout.branch_of_prompt.resize(branches.size());
  for (size_t i = 0; i < branches.size(); ++i) {
    layout.branch_of_prompt[next[branches[i].prompt]++] = static_cast<int64_t>(i);
  }

  layout.position.reserve(layout.rows);
  layout.entry.reserve(layout.rows);
  for (const PromptInput& prompt : prompts) {
    for (size_t p = 0; p < prompt.size(); ++p) {
      layout.position.push_back(static_cast<int32_t>(p));
      layout.entry.push_back(prompt[p]);
    }
  }
  for (size_t i = 0; i < branches.size(); ++i) {
    layout.prediction_first.push_back(static_cast<int64_t>(layout.prediction_rows.size()));
    layout.prediction_rows.push_back(layout.trunk_first[branches[i].prompt] + branches[i].anchor);
    for (int64_t t = 0; t < layout.branch_rows[i]; ++t) {
      layout.position.push_back(branches[i].anchor + 1 + static_cast<int32_t>(t));
      layout.entry.push_back(branches[i].tokens[t]);
      layout.prediction_rows.push_back(layout.branch_first[i] + t);
    }
  }
  return layout;
}

int64_t RoundedRows(int64_t rows) {
  int64_t step = 1;
  while (step * 64 <= rows) step *= 2;  // rows lies in [32, 64) steps
  return (rows + step - 1) / step * step;
}

std::vector<PromptInput> WithFillers(absl::Span<const PromptInput> prompts, absl::Span<const Branch> branches) {
  std::vector<PromptInput> filled(prompts.begin(), prompts.end());
  int64_t rows = 0;
  for (const PromptInput& prompt : prompts) rows += static_cast<int64_t>(prompt.size());
  for (const Branch& branch : branches) {
    const bool fits = branch.prompt >= 0 && static_cast<size_t>(branch.prompt) < prompts.size();
    if (!fits || branch.tokens.empty()) return filled;
    rows += static_cast<int64_t>(branch.tokens.size()) - 1;
  }
  if (rows == 0) return filled;
  filled.resize(prompts.size() + static_cast<size_t>(RoundedRows(rows) - rows), PromptInput{0});
  return filled;
}

}  // namespace sluice

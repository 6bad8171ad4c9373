#include "learner/ledger/check_result.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

absl::Status CheckSize(absl::string_view what, size_t got, size_t want) {
  if (got == want) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": want ", want, " values, got ", got));
}

absl::Status CheckFinite(absl::string_view what, absl::Span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(absl::StrCat(what, "[", i, "] is ", values[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLogProbs(absl::string_view what, absl::Span<const float> values, int levels) {
  SLUICE_RETURN_IF_ERROR(CheckSize(what, values.size(), levels));
  SLUICE_RETURN_IF_ERROR(CheckFinite(what, values));
  for (size_t i = 0; i < values.size(); ++i) {
    // A little above 0 is rounding of a log-softmax; more is not a log-probability.
    if (values[i] > 1e-3f) return absl::InvalidArgumentError(absl::StrCat(what, "[", i, "] is ", values[i], " > 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckCompletion(absl::string_view what, const Completion& completion, bool constrained,
                             const HubJob& job) {
  SLUICE_RETURN_IF_ERROR(CheckSize(absl::StrCat(what, ".tokens"), completion.tokens.size(), job.levels));
  SLUICE_RETURN_IF_ERROR(CheckLogProbs(absl::StrCat(what, ".log_probs_full"), completion.log_probs_full, job.levels));
  if (constrained) {
    SLUICE_RETURN_IF_ERROR(CheckLogProbs(absl::StrCat(what, ".log_probs_trie"), completion.log_probs_trie, job.levels));
    if (completion.leaf < 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": constrained, yet without a leaf"));
    }
  }
  if (job.find_leaf != nullptr) {
    if (const int32_t leaf = job.find_leaf(completion.tokens); leaf != completion.leaf) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": its tokens are leaf ", leaf, ", it says ", completion.leaf));
    }
  }
  return absl::OkStatus();
}

// Items with leave-one-out scores: asked for, distinct, and the prompt's own.
absl::Status CheckHistoryItems(const std::vector<int32_t>& items, bool scored, const Prompt& prompt,
                               const HubJob& job) {
  const size_t wanted =
      scored && NeedsHistoryScores(job.options) ? static_cast<size_t>(job.options.gate.history_items) : 0;
  if (items.size() > wanted) {
    return absl::InvalidArgumentError(absl::StrCat("history_items: want at most ", wanted, ", got ", items.size()));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (std::find(prompt.history.begin(), prompt.history.end(), items[i]) == prompt.history.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("history_items[", i, "]: item ", items[i], " is not in the prompt's history"));
    }
    if (std::find(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(i), items[i]) !=
        items.begin() + static_cast<std::ptrdiff_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat("history_items[", i, "]: item ", items[i], " is there twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScores(const ScoredGroup& group, const Prompt& prompt, const HubJob& job) {
  const bool scored = group.score_status == ScoreStatus::kOk;
  if (scored != !group.heads.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("score_status is ", scored ? "OK" : "not OK", ", yet there are ", group.heads.size(), " heads"));
  }
  if (!job.scored() && group.score_status != ScoreStatus::kNotAsked) {
    return absl::InvalidArgumentError("scores were not asked for, yet score_status is not NOT_ASKED");
  }
  if (job.scored() && group.score_status == ScoreStatus::kNotAsked) {
    return absl::InvalidArgumentError("score_status is NOT_ASKED, yet the job asks for scores");
  }
  if (scored && group.ranker_version.empty()) return absl::InvalidArgumentError("ranker_version is empty");
  const int negatives = job.options.gate.negatives;
  if (group.negative_leaves.size() > static_cast<size_t>(negatives)) {
    return absl::InvalidArgumentError(
        absl::StrCat("negative_leaves: want at most ", negatives, ", got ", group.negative_leaves.size()));
  }
  SLUICE_RETURN_IF_ERROR(CheckHistoryItems(group.history_items, scored, prompt, job));
  for (const ScoreHead& head : group.heads) {
    const std::string where = absl::StrCat("head ", head.name);
    SLUICE_RETURN_IF_ERROR(
        CheckSize(absl::StrCat(where, ".completion_scores"), head.completion_scores.size(), group.completions.size()));
    SLUICE_RETURN_IF_ERROR(CheckFinite(absl::StrCat(where, ".completion_scores"), head.completion_scores));
    SLUICE_RETURN_IF_ERROR(
        CheckSize(absl::StrCat(where, ".negative_scores"), head.negative_scores.size(), group.negative_leaves.size()));
    SLUICE_RETURN_IF_ERROR(CheckFinite(absl::StrCat(where, ".negative_scores"), head.negative_scores));
    SLUICE_RETURN_IF_ERROR(CheckFinite(absl::StrCat(where, ".target_score"), {&head.target_score, 1}));
    SLUICE_RETURN_IF_ERROR(
        CheckSize(absl::StrCat(where, ".history_scores"), head.history_scores.size(), group.history_items.size()));
    SLUICE_RETURN_IF_ERROR(CheckFinite(absl::StrCat(where, ".history_scores"), head.history_scores));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckVersion(uint64_t behavior_version, const VersionWindow& window) {
  if (window.exact ? behavior_version == window.wanted
                   : behavior_version >= window.wanted && behavior_version <= window.latest) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      window.exact
          ? absl::StrCat("want version ", window.wanted, ", got ", behavior_version)
          : absl::StrCat("want a version from ", window.wanted, " to ", window.latest, ", got ", behavior_version));
}

absl::Status CheckGroup(const ScoredGroup& group, const Prompt& prompt, const HubJob& job) {
  if (group.catalog_version != job.catalog_version) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalog_version: want ", job.catalog_version, ", got ", group.catalog_version));
  }
  const size_t wanted = static_cast<size_t>(job.options.group_size);
  const bool may_be_fewer =
      job.options.sampler == SamplerKind::kBeam || job.options.sampler == SamplerKind::kValueGuided;
  if (group.completions.empty() || group.completions.size() > wanted ||
      (!may_be_fewer && group.completions.size() < wanted)) {
    return absl::InvalidArgumentError(absl::StrCat("completions: want ", wanted, ", got ", group.completions.size()));
  }
  for (size_t i = 0; i < group.completions.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(
        CheckCompletion(absl::StrCat("completions[", i, "]"), group.completions[i], /*constrained=*/true, job));
  }
  if (prompt.target >= 0) {
    SLUICE_RETURN_IF_ERROR(CheckLogProbs("target_log_probs_full", group.target_log_probs_full, job.levels));
    // Absent when the target is kept out of this prompt's trie, as an item of its own history.
    if (!group.target_log_probs_trie.empty()) {
      SLUICE_RETURN_IF_ERROR(CheckLogProbs("target_log_probs_trie", group.target_log_probs_trie, job.levels));
    }
  } else {
    SLUICE_RETURN_IF_ERROR(CheckSize("target_log_probs_full", group.target_log_probs_full.size(), 0));
    SLUICE_RETURN_IF_ERROR(CheckSize("target_log_probs_trie", group.target_log_probs_trie.size(), 0));
  }
  return CheckScores(group, prompt, job);
}

absl::Status CheckDecoded(const DecodedPrompt& decoded, int constrained_beams, int unconstrained_beams,
                          const HubJob& job) {
  if (decoded.constrained.size() > static_cast<size_t>(constrained_beams) ||
      (constrained_beams > 0 && decoded.constrained.empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("constrained: want ", constrained_beams, " beams, got ", decoded.constrained.size()));
  }
  SLUICE_RETURN_IF_ERROR(
      CheckSize("unconstrained", decoded.unconstrained.size(), static_cast<size_t>(unconstrained_beams)));
  for (size_t i = 0; i < decoded.constrained.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(
        CheckCompletion(absl::StrCat("constrained[", i, "]"), decoded.constrained[i], /*constrained=*/true, job));
  }
  for (size_t i = 0; i < decoded.unconstrained.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(CheckCompletion(absl::StrCat("unconstrained[", i, "]"), decoded.unconstrained[i],
                                           /*constrained=*/false, job));
  }
  return absl::OkStatus();
}

void VoidScores(std::string why, ScoredGroup* group) {
  group->score_status = ScoreStatus::kInvalid;
  group->score_error = std::move(why);
  group->heads.clear();
  group->history_items.clear();
}

}  // namespace sluice::learner

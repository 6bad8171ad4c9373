#include "common/decode/decode.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/decode/device_decode.h"
#include "common/decode/logits_block.h"
#include "common/decode/step/step.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

enum class LaneKind { kBeams, kSamples, kUnconstrained, kTarget };

// Rows of every prompt that are continued by one rule. Rows with equal tokens, of one lane or of several, are one line
// of the computation: repeated samples, say, or unconstrained beams that the constrained ones have too.
struct Lane {
  LaneKind kind;
  std::vector<std::vector<std::vector<DecodeRow>>> levels;  // [B][levels done][rows]
  std::vector<std::vector<int32_t>> slots;                  // [B][rows of the last level]: their lines of the prompt
};

absl::Status CheckPlan(const Trie& trie, absl::Span<const DecodePrompt> prompts, const DecodePlan& plan) {
  if (prompts.empty()) return absl::InvalidArgumentError("want at least one prompt to decode, got none");
  if (plan.beams < 0 || plan.samples < 0 || plan.unconstrained_beams < 0) {
    return absl::InvalidArgumentError(absl::StrCat("want widths of at least 0, got beams ", plan.beams, ", samples ",
                                                   plan.samples, ", unconstrained beams ", plan.unconstrained_beams));
  }
  if (!(plan.temperature > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("want a temperature above 0, got ", plan.temperature));
  }
  for (size_t b = 0; b < prompts.size(); ++b) {
    SLUICE_RETURN_IF_ERROR(CheckPrompt(trie, prompts[b], b));
  }
  return absl::OkStatus();
}

// Decodes one batch level by level. One object, one call of Run.
template <typename Scalar>
class BatchDecoder {
 public:
  BatchDecoder(Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts, const DecodePlan& plan)
      : policy_(policy), trie_(trie), prompts_(prompts), plan_(plan), randoms_(prompts.size()) {
    AddLane(LaneKind::kBeams, plan.beams);
    AddLane(LaneKind::kSamples, plan.samples);
    AddLane(LaneKind::kUnconstrained, plan.unconstrained_beams);
    const bool any_target =
        std::any_of(prompts.begin(), prompts.end(), [](const DecodePrompt& prompt) { return prompt.target_leaf >= 0; });
    AddLane(LaneKind::kTarget, any_target ? 1 : 0);
    for (size_t b = 0; b < prompts.size(); ++b) {
      // A stream a sample: adding samples leaves the others as they are.
      for (int i = 0; i < plan.samples; ++i) randoms_[b].emplace_back(prompts[b].seed, static_cast<uint64_t>(i));
    }
  }

  absl::StatusOr<std::vector<DecodeResult>> Run() {
    if (lanes_.empty()) {
      return absl::InvalidArgumentError("want beams, samples or targets to decode, got none");
    }
    std::vector<PromptInput> inputs;
    for (const DecodePrompt& prompt : prompts_) inputs.push_back(prompt.input);
    SLUICE_ASSIGN_OR_RETURN(const Policy::Prefilled prefilled, policy_.Prefill(inputs, trie_.levels() - 1));
    // Before the first step a prompt has one row, which all lanes start from.
    rows_of_prompt_.assign(prompts_.size(), 1);
    SLUICE_RETURN_IF_ERROR(Advance(prefilled.hidden));
    for (int level = 1; level < trie_.levels(); ++level) {
      LayOutRows();
      SLUICE_ASSIGN_OR_RETURN(const at::Tensor hidden,
                              policy_.Step(prefilled.state.get(), tokens_, parents_, rows_of_prompt_));
      SLUICE_RETURN_IF_ERROR(Advance(hidden));
    }
    return Collect();
  }

 private:
  void AddLane(LaneKind kind, int width) {
    if (width == 0) return;
    lanes_.push_back({kind, {}, {}});
    lanes_.back().levels.resize(prompts_.size());
    lanes_.back().slots.assign(prompts_.size(), {0});
  }

  // Decides the rows of the next level from the hidden states of this one's lines, [sum of rows_of_prompt_, D].
  absl::Status Advance(const at::Tensor& hidden) {
    const int64_t rows_per_block = std::max<int64_t>(1, kLogitsPerBlock / policy_.config().vocab_size);
    size_t next = 0;
    int64_t first_row = 0;
    while (next < prompts_.size()) {
      // As many whole prompts as a block of logits holds.
      const size_t first = next;
      int64_t rows = rows_of_prompt_[next++];
      while (next < prompts_.size() && rows + rows_of_prompt_[next] <= rows_per_block) rows += rows_of_prompt_[next++];
      Block<Scalar> block;
      if (rows > 0) {
        SLUICE_ASSIGN_OR_RETURN(block, LogitsOf<Scalar>(policy_, hidden.narrow(0, first_row, rows)));
      }
      first_row += rows;
      int64_t offset = 0;
      for (size_t b = first; b < next; ++b) {
        for (Lane& lane : lanes_) {
          if (rows_of_prompt_[b] > 0) {
            SLUICE_RETURN_IF_ERROR(AdvanceLane(b, block.From(offset, lane.slots[b].data()), &lane));
          } else {
            lane.levels[b].emplace_back();  // nothing to continue
          }
        }
        offset += rows_of_prompt_[b];
      }
    }
    return absl::OkStatus();
  }

  absl::Status AdvanceLane(size_t b, const RowLogits<Scalar>& logits, Lane* lane) {
    std::vector<std::vector<DecodeRow>>& levels = lane->levels[b];
    static const std::vector<DecodeRow>& kStart = *new std::vector<DecodeRow>(1);
    const std::vector<DecodeRow>& rows = levels.empty() ? kStart : levels.back();
    const DecodePrompt& prompt = prompts_[b];
    SLUICE_RETURN_IF_ERROR(CheckVocabulary(trie_, rows, logits.vocabulary));
    std::vector<DecodeRow> next;
    switch (lane->kind) {
      case LaneKind::kBeams:
        next = ExpandBeams(trie_, absl::MakeConstSpan(rows), logits, prompt.excluded_leaves, plan_.beams,
                           plan_.beam_space);
        break;
      case LaneKind::kUnconstrained:
        next = ExpandUnconstrained(trie_, absl::MakeConstSpan(rows), logits, plan_.unconstrained_beams);
        break;
      case LaneKind::kSamples:
        if (!HasAllowedLeaf(trie_, Trie::kRoot, prompt.excluded_leaves)) break;
        next.reserve(static_cast<size_t>(plan_.samples));
        for (int i = 0; i < plan_.samples; ++i) {
          next.push_back(DrawChild(trie_, absl::MakeConstSpan(rows), levels.empty() ? 0 : i, logits,
                                   prompt.excluded_leaves, plan_.temperature, randoms_[b][i].Uniform()));
        }
        break;
      case LaneKind::kTarget:
        if (prompt.target_leaf < 0) break;
        next.push_back(ForceToken(trie_, absl::MakeConstSpan(rows), 0, logits,
                                  trie_.TokensOfLeaf(prompt.target_leaf)[levels.size()]));
        break;
    }
    levels.push_back(std::move(next));
    return absl::OkStatus();
  }

  // Tokens and parents of all lines for the next step, and which line each row has.
  void LayOutRows() {
    tokens_.clear();
    parents_.clear();
    int32_t first_above = 0;
    for (size_t b = 0; b < prompts_.size(); ++b) {
      // A line is told by its line above and its token.
      auto key = [](const Lane& lane, size_t prompt, const DecodeRow& row) {
        return static_cast<int64_t>(lane.slots[prompt][row.parent]) << 32 | row.token;
      };
      keys_.clear();
      for (const Lane& lane : lanes_) {
        for (const DecodeRow& row : lane.levels[b].back()) keys_.push_back(key(lane, b, row));
      }
      std::sort(keys_.begin(), keys_.end());
      keys_.erase(std::unique(keys_.begin(), keys_.end()), keys_.end());
      for (Lane& lane : lanes_) {
        slots_.clear();
        for (const DecodeRow& row : lane.levels[b].back()) {
          const auto found = std::lower_bound(keys_.begin(), keys_.end(), key(lane, b, row));
          slots_.push_back(static_cast<int32_t>(found - keys_.begin()));
        }
        lane.slots[b].swap(slots_);
      }
      for (const int64_t line : keys_) {
        parents_.push_back(first_above + static_cast<int32_t>(line >> 32));
        tokens_.push_back(static_cast<int32_t>(line & 0xffffffff));
      }
      first_above += rows_of_prompt_[b];
      rows_of_prompt_[b] = static_cast<int32_t>(keys_.size());
    }
  }

  std::vector<DecodeResult> Collect() const {
    std::vector<DecodeResult> results(prompts_.size());
    for (size_t b = 0; b < prompts_.size(); ++b) {
      for (const Lane& lane : lanes_) {
        std::vector<Completion> completions;
        for (size_t row = 0; row < lane.levels[b].back().size(); ++row) {
          completions.push_back(TraceCompletion(trie_, lane.levels[b], static_cast<int32_t>(row)));
        }
        switch (lane.kind) {
          case LaneKind::kBeams:
            results[b].beams = std::move(completions);
            break;
          case LaneKind::kSamples:
            results[b].samples = std::move(completions);
            break;
          case LaneKind::kUnconstrained:
            results[b].unconstrained = std::move(completions);
            break;
          case LaneKind::kTarget:
            if (!completions.empty()) results[b].target = std::move(completions[0]);
            break;
        }
      }
    }
    return results;
  }

  Policy& policy_;
  const Trie& trie_;
  const absl::Span<const DecodePrompt> prompts_;
  const DecodePlan& plan_;
  std::vector<Lane> lanes_;
  std::vector<std::vector<Random>> randoms_;  // [B][samples]
  std::vector<int32_t> rows_of_prompt_;       // [B] lines of the last level
  std::vector<int32_t> tokens_;               // of the next step's lines
  std::vector<int32_t> parents_;
  std::vector<int64_t> keys_;  // kept for their memory
  std::vector<int32_t> slots_;
};

// Row i of `logits` predicts token i of one completion.
template <typename Scalar>
absl::StatusOr<Completion> ScoreTokens(const Trie& trie, absl::Span<const int32_t> tokens, RowLogits<Scalar> logits) {
  std::vector<std::vector<DecodeRow>> levels;
  std::vector<DecodeRow> row(1);
  for (const int32_t token : tokens) {
    SLUICE_RETURN_IF_ERROR(CheckVocabulary(trie, row, logits.vocabulary));
    row = {ForceToken(trie, absl::MakeConstSpan(row), 0, logits, token)};
    levels.push_back(row);
    logits.logits += logits.vocabulary;
    ++logits.log_normalizers;
  }
  return TraceCompletion(trie, levels, 0);
}

template <typename Scalar>
absl::StatusOr<std::vector<std::vector<Completion>>> Score(
    Policy& policy, const Trie& trie, const TreeBatch& batch,
    const std::vector<std::vector<std::vector<int32_t>>>& completions) {
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output, policy.ForwardTree(batch));
  std::vector<std::vector<Completion>> scored(completions.size());
  // As many whole branches at a time as a block of logits holds.
  const int64_t rows_per_block = std::max<int64_t>(1, kLogitsPerBlock / policy.config().vocab_size);
  const size_t num_branches = batch.branches.size();
  for (size_t first = 0; first < num_branches;) {
    const int64_t begin = output.prediction_first[first];
    int64_t end = begin;
    size_t last = first;
    do {
      end += static_cast<int64_t>(batch.branches[last].tokens.size());
      ++last;
    } while (last < num_branches &&
             end + static_cast<int64_t>(batch.branches[last].tokens.size()) - begin <= rows_per_block);
    const at::Tensor rows = Upload(absl::MakeConstSpan(output.prediction_rows)
                                       .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                                   output.hidden.device());
    SLUICE_ASSIGN_OR_RETURN(const Block<Scalar> block, LogitsOf<Scalar>(policy, output.hidden.index_select(0, rows)));
    for (; first < last; ++first) {
      const Branch& branch = batch.branches[first];
      SLUICE_ASSIGN_OR_RETURN(Completion completion, ScoreTokens(trie, absl::MakeConstSpan(branch.tokens),
                                                                 block.From(output.prediction_first[first] - begin)));
      scored[branch.prompt].push_back(std::move(completion));
    }
  }
  return scored;
}

absl::Status CheckWidth(absl::string_view what, int width) {
  if (width >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("want a ", what, " of at least 1, got ", width));
}

std::vector<std::vector<Completion>> TakeEach(std::vector<DecodeResult> results,
                                              std::vector<Completion> DecodeResult::*field) {
  std::vector<std::vector<Completion>> taken;
  for (DecodeResult& result : results) taken.push_back(std::move(result.*field));
  return taken;
}

// The same prompts without targets, so that only what is asked for is computed.
std::vector<DecodePrompt> WithoutTargets(absl::Span<const DecodePrompt> prompts) {
  std::vector<DecodePrompt> copies(prompts.begin(), prompts.end());
  for (DecodePrompt& copy : copies) copy.target_leaf = -1;
  return copies;
}

}  // namespace

absl::StatusOr<std::vector<DecodeResult>> Decode(Policy& policy, const Trie& trie,
                                                 absl::Span<const DecodePrompt> prompts, const DecodePlan& plan) {
  SLUICE_RETURN_IF_ERROR(CheckPlan(trie, prompts, plan));
  return CatchTorch("decoding", [&]() -> absl::StatusOr<std::vector<DecodeResult>> {
    const c10::InferenceMode inference;
    if (policy.placement().takes_device_path()) return DecodeOnDevice(policy, trie, prompts, plan);
    if (policy.parameters().scalar_type() == at::kDouble)
      return BatchDecoder<double>(policy, trie, prompts, plan).Run();
    return BatchDecoder<float>(policy, trie, prompts, plan).Run();
  });
}

absl::StatusOr<std::vector<std::vector<Completion>>> ConstrainedBeamSearch(Policy& policy, const Trie& trie,
                                                                           absl::Span<const DecodePrompt> prompts,
                                                                           int width, LogProbSpace space) {
  SLUICE_RETURN_IF_ERROR(CheckWidth("beam width", width));
  DecodePlan plan;
  plan.beams = width;
  plan.beam_space = space;
  SLUICE_ASSIGN_OR_RETURN(std::vector<DecodeResult> results, Decode(policy, trie, WithoutTargets(prompts), plan));
  return TakeEach(std::move(results), &DecodeResult::beams);
}

absl::StatusOr<std::vector<std::vector<Completion>>> UnconstrainedBeamSearch(Policy& policy, const Trie& trie,
                                                                             absl::Span<const DecodePrompt> prompts,
                                                                             int width) {
  SLUICE_RETURN_IF_ERROR(CheckWidth("beam width", width));
  DecodePlan plan;
  plan.unconstrained_beams = width;
  SLUICE_ASSIGN_OR_RETURN(std::vector<DecodeResult> results, Decode(policy, trie, WithoutTargets(prompts), plan));
  return TakeEach(std::move(results), &DecodeResult::unconstrained);
}

absl::StatusOr<std::vector<std::vector<Completion>>> SampleCompletions(Policy& policy, const Trie& trie,
                                                                       absl::Span<const DecodePrompt> prompts,
                                                                       int count, double temperature,
                                                                       absl::Span<const uint64_t> seeds) {
  SLUICE_RETURN_IF_ERROR(CheckWidth("number of samples", count));
  if (seeds.size() != prompts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("want ", prompts.size(), " seeds, got ", seeds.size()));
  }
  std::vector<DecodePrompt> seeded = WithoutTargets(prompts);
  for (size_t b = 0; b < seeded.size(); ++b) seeded[b].seed = seeds[b];
  DecodePlan plan;
  plan.samples = count;
  plan.temperature = temperature;
  SLUICE_ASSIGN_OR_RETURN(std::vector<DecodeResult> results, Decode(policy, trie, seeded, plan));
  return TakeEach(std::move(results), &DecodeResult::samples);
}

absl::StatusOr<std::vector<std::vector<Completion>>> ScoreCompletions(
    Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts,
    const std::vector<std::vector<std::vector<int32_t>>>& completions) {
  if (prompts.empty() || completions.size() != prompts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("want a list of completions for each of at least one prompt, got ",
                                                   prompts.size(), " prompts and ", completions.size(), " lists"));
  }
  TreeBatch batch;
  for (size_t b = 0; b < prompts.size(); ++b) {
    batch.prompts.push_back(prompts[b].input);
    for (size_t i = 0; i < completions[b].size(); ++i) {
      if (completions[b][i].empty()) {
        return absl::InvalidArgumentError(absl::StrCat("completion ", i, " of prompt ", b, " has no tokens"));
      }
      batch.branches.push_back(
          {static_cast<int32_t>(b), static_cast<int32_t>(prompts[b].input.size()) - 1, completions[b][i]});
    }
  }
  if (batch.branches.empty()) return std::vector<std::vector<Completion>>(prompts.size());
  return CatchTorch("scoring completions", [&]() -> absl::StatusOr<std::vector<std::vector<Completion>>> {
    const c10::InferenceMode inference;
    if (policy.parameters().scalar_type() == at::kDouble) return Score<double>(policy, trie, batch, completions);
    return Score<float>(policy, trie, batch, completions);
  });
}

}  // namespace sluice

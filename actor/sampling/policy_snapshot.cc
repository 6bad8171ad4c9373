#include "actor/sampling/policy_snapshot.h"

#include <torch/types.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/rollout/dynamic_sampling.h"
#include "common/catalog/exclusion.h"
#include "common/decode/value_guided.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice::actor {
namespace {

absl::Status CheckItem(absl::string_view what, int32_t item, const Trie& trie) {
  if (item >= 0 && item < trie.num_items()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " ", item, " is not in the catalog, which holds items 0 to ", trie.num_items() - 1));
}

// The prompts whose record is good, and where they came from.
struct GoodPrompts {
  std::vector<DecodePrompt> prompts;
  std::vector<size_t> index;
};

}  // namespace

absl::StatusOr<absl::Span<char>> PolicySnapshot::Arena(uint64_t bytes) {
  const at::Tensor arena = policy_->parameters();
  const size_t want = static_cast<size_t>(arena.numel()) * sizeof(float);
  if (bytes != want) {
    return absl::InvalidArgumentError(
        absl::StrCat("want ", want, " bytes of weights, got ", bytes, ": the learner's model differs from the job's"));
  }
  if (arena.device().is_cpu()) return absl::MakeSpan(reinterpret_cast<char*>(arena.data_ptr<float>()), want);
  const absl::Status allocated = CatchTorch("staging weights", [&] {
    c10::InferenceMode no_inference(false);
    const auto options = arena.options().device(at::kCPU).pinned_memory(arena.device().is_cuda());
    staged_ = at::empty(arena.sizes(), options);
  });
  if (!allocated.ok()) return allocated;
  return absl::MakeSpan(reinterpret_cast<char*>(staged_.data_ptr<float>()), want);
}

absl::Status PolicySnapshot::Seal(uint64_t version) {
  if (staged_.defined()) {
    SLUICE_RETURN_IF_ERROR(CatchTorch("copying weights to the device", [&] {
      c10::InferenceMode no_inference(false);
      at::NoGradGuard no_grad;
      policy_->parameters().copy_(staged_);
    }));
    staged_.reset();
  }
  version_ = version;
  return absl::OkStatus();
}

absl::string_view PolicySnapshot::Bytes() const {
  const at::Tensor arena = policy_->parameters();
  if (!arena.device().is_cpu()) return {};
  return {reinterpret_cast<const char*>(arena.const_data_ptr<float>()),
          static_cast<size_t>(arena.numel()) * sizeof(float)};
}

absl::StatusOr<PromptInput> PolicySnapshot::Encode(const LeasedPrompt& leased) const {
  if (leased.tokens.empty()) return policy_->EncodePrompt(leased.prompt.history);
  for (const int32_t token : leased.tokens) {
    if (token < 0 || token >= policy_->config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompt token ", token, " is outside the vocabulary of ", policy_->config().vocab_size));
    }
  }
  return leased.tokens;
}

absl::StatusOr<DecodePrompt> PolicySnapshot::Prepare(const LeasedPrompt& leased, absl::Span<const int32_t> excluded,
                                                     int appended) const {
  for (const int32_t item : leased.prompt.history) SLUICE_RETURN_IF_ERROR(CheckItem("history item", item, *trie_));
  for (const int32_t item : excluded) SLUICE_RETURN_IF_ERROR(CheckItem("excluded item", item, *trie_));
  DecodePrompt prompt;
  SLUICE_ASSIGN_OR_RETURN(prompt.input, Encode(leased));
  const int64_t positions = static_cast<int64_t>(prompt.input.size()) + appended;
  if (positions > policy_->config().max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("prompt and completion need ", positions,
                                                   " positions, the policy has ", policy_->config().max_positions));
  }
  prompt.excluded_leaves = ExcludedLeaves(*trie_, excluded);
  return prompt;
}

absl::StatusOr<std::vector<Decoder::Snapshot::Sampled>> PolicySnapshot::Sample(absl::Span<const LeasedPrompt> prompts,
                                                                               const DecodeSettings& settings,
                                                                               absl::Span<const uint64_t> seeds) {
  SLUICE_CHECK(seeds.size() == prompts.size(), "one seed a prompt");
  std::vector<Sampled> sampled(prompts.size());
  GoodPrompts good;
  for (size_t b = 0; b < prompts.size(); ++b) {
    absl::Span<const int32_t> excluded;
    if (settings.exclude_history) excluded = prompts[b].prompt.history;
    // A search looks at whole semantic IDs too; elsewhere the last token is only predicted.
    const int appended = settings.sampler == SamplerKind::kValueGuided ? trie_->levels() : trie_->levels() - 1;
    absl::StatusOr<DecodePrompt> prompt = Prepare(prompts[b], excluded, appended);
    const int32_t target = prompts[b].prompt.target;
    if (prompt.ok() && target != -1) {
      if (const absl::Status status = CheckItem("target", target, *trie_); !status.ok()) prompt = status;
    }
    sampled[b].status = prompt.status();
    if (!prompt.ok()) continue;
    prompt->seed = seeds[b];
    prompt->target_leaf = target == -1 ? -1 : trie_->LeafOfItem(target);
    good.prompts.push_back(*std::move(prompt));
    good.index.push_back(b);
  }
  if (good.prompts.empty()) return sampled;

  if (settings.sampler == SamplerKind::kValueGuided) {
    ValueSearchOptions search = settings.value_search;
    search.results = settings.group_size;
    SLUICE_ASSIGN_OR_RETURN(std::vector<ValueGuidedResult> found,
                            DecodeByValue(*policy_, *trie_, good.prompts, search));
    for (size_t i = 0; i < found.size(); ++i) {
      Sampled& answer = sampled[good.index[i]];
      answer.completions = std::move(found[i].completions);
      answer.target = std::move(found[i].target);
    }
    return sampled;
  }

  DecodePlan plan;
  const bool beams = settings.sampler == SamplerKind::kBeam;
  const bool dynamic = settings.sampler == SamplerKind::kDynamic;
  (beams ? plan.beams : plan.samples) = dynamic ? DynamicDraws(settings.group_size) : settings.group_size;
  plan.beam_space = settings.beam_space;
  plan.temperature = settings.temperature;
  SLUICE_ASSIGN_OR_RETURN(std::vector<DecodeResult> results, sluice::Decode(*policy_, *trie_, good.prompts, plan));
  for (size_t i = 0; i < results.size(); ++i) {
    Sampled& answer = sampled[good.index[i]];
    answer.completions = std::move(beams ? results[i].beams : results[i].samples);
    if (dynamic) {
      answer.completions =
          SelectDynamic(std::move(answer.completions), good.prompts[i].target_leaf, settings.group_size);
    }
    answer.target = std::move(results[i].target);
  }
  return sampled;
}

absl::StatusOr<std::vector<Decoder::Snapshot::Beams>> PolicySnapshot::Decode(absl::Span<const LeasedPrompt> prompts,
                                                                             const DecodeSettings& settings,
                                                                             int constrained_beams,
                                                                             int unconstrained_beams) {
  std::vector<Beams> beams(prompts.size());
  GoodPrompts good;
  for (size_t b = 0; b < prompts.size(); ++b) {
    absl::StatusOr<DecodePrompt> prompt = Prepare(prompts[b], prompts[b].prompt.excluded, trie_->levels() - 1);
    beams[b].status = prompt.status();
    if (!prompt.ok()) continue;
    good.prompts.push_back(*std::move(prompt));
    good.index.push_back(b);
  }
  if (good.prompts.empty()) return beams;

  DecodePlan plan;
  plan.beams = constrained_beams;
  plan.beam_space = settings.beam_space;
  plan.unconstrained_beams = unconstrained_beams;
  SLUICE_ASSIGN_OR_RETURN(std::vector<DecodeResult> results, sluice::Decode(*policy_, *trie_, good.prompts, plan));
  for (size_t i = 0; i < results.size(); ++i) {
    beams[good.index[i]].constrained = std::move(results[i].beams);
    beams[good.index[i]].unconstrained = std::move(results[i].unconstrained);
  }
  return beams;
}

}  // namespace sluice::actor

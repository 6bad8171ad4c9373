#include "learner/run/prompt_order.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"

namespace sluice::learner {
namespace {

// Labels of the seeds derived here; a new stream takes a new number.
constexpr uint64_t kPromptStream = 0x70726f6d;  // "prom"
constexpr uint64_t kChoiceStream = 0x63686f69;  // "choi"

}  // namespace

OrdinalRange SliceOfStep(uint64_t step, uint64_t groups_per_step, int rank, int world_size) {
  const uint64_t per_rank = groups_per_step / static_cast<uint64_t>(world_size);
  return {step * groups_per_step + static_cast<uint64_t>(rank) * per_rank, per_rank};
}

absl::Status ValidateSlices(int groups_per_step, int lease_groups, int world_size) {
  if (groups_per_step % (lease_groups * world_size) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rl.groups_per_step = ", groups_per_step,
                                                 " must be a multiple of rl.lease_groups * ranks = ", lease_groups,
                                                 " * ", world_size, ", so that every rank gets whole lease blocks"));
}

const Example& PromptOrder::ExampleAt(uint64_t ordinal) const {
  const uint64_t size = examples_.size();
  const uint64_t pass = ordinal / size;
  return examples_[PermutedIndex(DeriveSeed(seed_, {kPromptStream, pass}), size, ordinal % size)];
}

Prompt PromptOrder::At(uint64_t ordinal) const {
  const Example& example = ExampleAt(ordinal);
  const absl::Span<const int32_t> history = dataset_.History(example);
  Prompt prompt;
  prompt.ordinal = ordinal;
  prompt.user = example.user;
  prompt.history.assign(history.begin(), history.end());
  prompt.target = dataset_.Target(example);
  return prompt;
}

std::vector<Prompt> PromptOrder::Range(const OrdinalRange& range) const {
  std::vector<Prompt> prompts;
  prompts.reserve(range.count);
  for (uint64_t ordinal = range.first; ordinal < range.first + range.count; ++ordinal) prompts.push_back(At(ordinal));
  return prompts;
}

std::vector<Example> ChooseExamples(std::vector<Example> examples, int count, uint64_t seed) {
  const size_t wanted = static_cast<size_t>(count);
  if (count <= 0 || wanted >= examples.size()) return examples;
  const uint64_t size = examples.size();
  std::vector<uint64_t> chosen(wanted);
  for (size_t i = 0; i < wanted; ++i) chosen[i] = PermutedIndex(DeriveSeed(seed, {kChoiceStream}), size, i);
  std::sort(chosen.begin(), chosen.end());
  std::vector<Example> kept;
  kept.reserve(wanted);
  for (const uint64_t index : chosen) kept.push_back(examples[index]);
  return kept;
}

std::vector<Example> OfParity(std::vector<Example> examples, UserParity parity) {
  if (parity == UserParity::kAll) return examples;
  const int32_t left_out = parity == UserParity::kEven ? 1 : 0;
  std::erase_if(examples, [left_out](const Example& example) { return example.user % 2 == left_out; });
  return examples;
}

std::vector<Example> ExamplesOfRank(const std::vector<Example>& examples, int rank, int world_size) {
  std::vector<Example> mine;
  for (size_t i = static_cast<size_t>(rank); i < examples.size(); i += static_cast<size_t>(world_size)) {
    mine.push_back(examples[i]);
  }
  return mine;
}

}  // namespace sluice::learner

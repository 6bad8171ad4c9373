#include "learner/run/share_state.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int kFirst = 0;

// Words that hold `bytes`; at least one, as no collective sends nothing.
int64_t WordsFor(int64_t bytes) { return bytes / static_cast<int64_t>(sizeof(int64_t)) + 1; }

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherStrings(Collective& collective, const std::string& mine) {
  const int64_t world = collective.world_size();
  at::Tensor sizes = torch::zeros({world}, torch::kLong);
  sizes[collective.rank()].fill_(static_cast<int64_t>(mine.size()));
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(sizes));
  // Each rank's bytes in a row of words of its own; a sum with zeros is a copy.
  const int64_t words = sizes.max().item<int64_t>() / static_cast<int64_t>(sizeof(int64_t)) + 1;
  at::Tensor rows = torch::zeros({world, words}, torch::kLong);
  std::memcpy(rows[collective.rank()].mutable_data_ptr(), mine.data(), mine.size());
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(rows));
  std::vector<std::string> all;
  for (int64_t rank = 0; rank < world; ++rank) {
    all.emplace_back(static_cast<const char*>(rows[rank].const_data_ptr()),
                     static_cast<size_t>(sizes[rank].item<int64_t>()));
  }
  return all;
}

absl::StatusOr<std::vector<std::string>> BroadcastStrings(Collective& collective,
                                                          const std::vector<std::string>& mine) {
  const bool first = collective.rank() == kFirst;
  at::Tensor count = torch::tensor({first ? static_cast<int64_t>(mine.size()) : 0}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(count, kFirst));
  const int64_t strings = count.item<int64_t>();
  if (strings == 0) return std::vector<std::string>();
  at::Tensor sizes = torch::zeros({strings}, torch::kLong);
  for (int64_t i = 0; first && i < strings; ++i) sizes[i].fill_(static_cast<int64_t>(mine[i].size()));
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(sizes, kFirst));
  at::Tensor words = torch::zeros({WordsFor(sizes.sum().item<int64_t>())}, torch::kLong);
  char* const bytes = static_cast<char*>(words.mutable_data_ptr());
  size_t offset = 0;
  for (int64_t i = 0; first && i < strings; ++i) {
    std::memcpy(bytes + offset, mine[i].data(), mine[i].size());
    offset += mine[i].size();
  }
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(words, kFirst));
  std::vector<std::string> all;
  offset = 0;
  for (int64_t i = 0; i < strings; ++i) {
    const auto size = static_cast<size_t>(sizes[i].item<int64_t>());
    all.emplace_back(bytes + offset, size);
    offset += size;
  }
  return all;
}

absl::Status ShareState(Collective& collective, CheckpointState* state, Policy* policy, AdamW* optimizer) {
  const torch::NoGradGuard no_grad;
  const bool first = collective.rank() == kFirst;
  std::vector<std::string> texts;
  if (first) {
    texts = state->ledgers;
    texts.push_back(CheckpointFactsText(*state));
  }
  SLUICE_ASSIGN_OR_RETURN(texts, BroadcastStrings(collective, texts));
  at::Tensor sizes = torch::tensor({policy->parameters().numel(), optimizer->steps(),
                                    state->reference.defined() ? state->reference.numel() : int64_t{0}},
                                   torch::kLong);
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(sizes, kFirst));
  const int64_t parameters = sizes[0].item<int64_t>();
  const int64_t steps = sizes[1].item<int64_t>();
  const int64_t reference = sizes[2].item<int64_t>();
  if (parameters != policy->parameters().numel()) {
    return absl::InvalidArgumentError(absl::StrCat("this rank's policy has ", policy->parameters().numel(),
                                                   " parameters, the first rank's ", parameters,
                                                   "; all ranks must read the same model"));
  }
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(policy->parameters(), kFirst));
  // The first rank's are only read.
  const at::Tensor first_moments = first ? optimizer->first_moments() : torch::empty_like(optimizer->first_moments());
  const at::Tensor second_moments =
      first ? optimizer->second_moments() : torch::empty_like(optimizer->second_moments());
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(first_moments, kFirst));
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(second_moments, kFirst));
  if (!first) {
    SLUICE_ASSIGN_OR_RETURN(static_cast<CheckpointFacts&>(*state),
                            ParseCheckpointFacts(texts.back(), "the state that the first rank sent"));
    texts.pop_back();
    state->ledgers = std::move(texts);
    SLUICE_RETURN_IF_ERROR(optimizer->Restore(steps, first_moments, second_moments));
    if (reference > 0) state->reference = torch::empty({reference}, policy->parameters().scalar_type());
  }
  return reference > 0 ? collective.Broadcast(state->reference, kFirst) : absl::OkStatus();
}

}  // namespace sluice::learner

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model/decode_state.h"
#include "common/model/policy.h"
#include "common/model/policy_internals.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

constexpr int64_t kRowGrain = 64;

template <typename T>
T* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

// One batch of rows on its way through the layers: which rows, what each attends to, where its keys go.
struct RowPass {
  const std::vector<int32_t>* position = nullptr;
  const std::vector<AttentionGroup>* groups = nullptr;
  int64_t longest_shared = 0;
  int64_t longest_own = 0;
};

// Turns the fused projection's queries and keys; keys and values go to rows [first, first + rows) of `cache`.
at::Tensor TurnIntoCache(const RowPass& pass, const AttentionParts& parts, const at::Tensor& fused,
                         const at::Tensor& cache, int64_t first) {
  const HeadShape& shape = parts.shape;
  at::Tensor queries = at::empty({fused.size(0), shape.query_width()}, fused.options());
  AT_DISPATCH_FLOATING_TYPES(fused.scalar_type(), "rotate", [&] {
    scalar_t* keys = cache.data_ptr<scalar_t>() + first * cache.size(1);
    at::parallel_for(0, fused.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      Kernels<scalar_t>().rotate(begin, end, shape, fused.data_ptr<scalar_t>(), pass.position->data(),
                                 Data<scalar_t>(parts.rotary.cosine), Data<scalar_t>(parts.rotary.sine),
                                 static_cast<scalar_t>(parts.eps), Data<scalar_t>(parts.query_norm),
                                 Data<scalar_t>(parts.key_norm), {queries.data_ptr<scalar_t>(), queries.size(1)},
                                 {keys, cache.size(1)}, {keys + shape.key_width(), cache.size(1)});
    });
  });
  return queries;
}

at::Tensor AttendCache(const RowPass& pass, const HeadShape& shape, const at::Tensor& queries, const at::Tensor& shared,
                       const at::Tensor& own) {
  at::Tensor out = at::empty_like(queries);
  AT_DISPATCH_FLOATING_TYPES(queries.scalar_type(), "attend", [&] {
    AttentionInput<scalar_t> input;
    input.shape = shape;
    input.scale = static_cast<scalar_t>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
    input.queries = {queries.data_ptr<scalar_t>(), queries.size(1)};
    input.shared_keys = {shared.data_ptr<scalar_t>(), shared.size(1)};
    input.shared_values = {shared.data_ptr<scalar_t>() + shape.key_width(), shared.size(1)};
    if (own.defined()) {
      input.own_keys = {own.data_ptr<scalar_t>(), own.size(1)};
      input.own_values = {own.data_ptr<scalar_t>() + shape.key_width(), own.size(1)};
    }
    at::parallel_for(0, static_cast<int64_t>(pass.groups->size()), 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> scratch(AttentionScratch(shape, pass.longest_shared, pass.longest_own));
      for (int64_t b = begin; b < end; ++b) {
        Kernels<scalar_t>().attend(input, (*pass.groups)[b], {out.data_ptr<scalar_t>(), out.size(1)}, nullptr,
                                   scratch.data());
      }
    });
  });
  return out;
}

// The residual stream after attention's output and the MLP.
at::Tensor FinishLayer(const LayerWeights& layer, const at::Tensor& attended, double eps, const at::Tensor& x) {
  const at::Tensor sum = Linear(attended, layer.output, layer.output_bias, x);
  const at::Tensor gate_up = Linear(RmsNorm(sum, layer.post_norm, eps), layer.gate_up, at::Tensor(), at::Tensor());
  return Linear(GatedSilu(gate_up), layer.down, at::Tensor(), sum);
}

AttentionParts PartsOf(const PolicyConfig& config, const LayerWeights& layer, const RotaryTable& rotary) {
  return {{config.num_heads, config.num_kv_heads, config.head_dim},
          config.rms_norm_eps,
          layer.query_norm,
          layer.key_norm,
          rotary};
}

absl::Status CheckStep(const PolicyConfig& config, const DecodeState* state, absl::Span<const int32_t> tokens,
                       absl::Span<const int32_t> parents, int rows_per_prompt) {
  if (state == nullptr) return absl::InvalidArgumentError("want a decode state from Prefill, got none");
  if (rows_per_prompt < 1) {
    return absl::InvalidArgumentError(absl::StrCat("want rows_per_prompt of at least 1, got ", rows_per_prompt));
  }
  const int64_t prompts = static_cast<int64_t>(state->prompt_first.size());
  const int64_t rows = prompts * rows_per_prompt;
  if (static_cast<int64_t>(tokens.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat("want tokens [", rows, "], got [", tokens.size(), "]"));
  }
  if (state->steps >= state->max_new_tokens) {
    return absl::FailedPreconditionError(
        absl::StrCat("the decode state was made for ", state->max_new_tokens, " new tokens, all of them appended"));
  }
  for (int64_t n = 0; n < rows; ++n) {
    if (tokens[n] < 0 || tokens[n] >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", tokens[n], " of row ", n, " is outside the vocabulary of ", config.vocab_size));
    }
  }
  for (int64_t b = 0; b < prompts; ++b) {
    if (state->prompt_length[b] + state->steps >= config.max_positions) {
      return absl::InvalidArgumentError(absl::StrCat("prompt ", b, " with its new tokens is longer than the policy's ",
                                                     config.max_positions, " positions"));
    }
  }
  if (state->steps == 0) return absl::OkStatus();
  if (static_cast<int64_t>(parents.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat("want parents [", rows, "], got [", parents.size(), "]"));
  }
  for (int64_t n = 0; n < rows; ++n) {
    const int64_t first = n / rows_per_prompt * state->rows_per_prompt;
    if (parents[n] < first || parents[n] >= first + state->rows_per_prompt) {
      return absl::InvalidArgumentError(absl::StrCat("row ", n, " cannot continue row ", parents[n],
                                                     ": its prompt's rows are [", first, ", ",
                                                     first + state->rows_per_prompt, ")"));
    }
  }
  return absl::OkStatus();
}

// Lists of ancestors after appending one row to each parent, and the new rows' places in the cache.
void AppendAncestors(absl::Span<const int32_t> parents, int64_t rows, DecodeState* state) {
  const int steps = state->steps;
  std::vector<int64_t> ancestors(rows * (steps + 1));
  for (int64_t n = 0; n < rows; ++n) {
    int64_t* own = ancestors.data() + n * (steps + 1);
    if (steps > 0) std::copy_n(state->ancestors.data() + static_cast<int64_t>(parents[n]) * steps, steps, own);
    own[steps] = state->appended + n;
  }
  state->ancestors = std::move(ancestors);
}

void ReserveAppended(int64_t rows, int64_t steps_left, int64_t layers, DecodeState* state) {
  const at::Tensor& like = state->prompt_cache[0];
  const int64_t have = state->appended_cache.empty() ? 0 : state->appended_cache[0].size(0);
  if (state->appended + rows <= have) return;
  const int64_t want = state->appended + rows * steps_left;
  std::vector<at::Tensor> grown;
  for (int64_t i = 0; i < layers; ++i) {
    grown.push_back(at::empty({want, like.size(1)}, like.options()));
    if (state->appended > 0) {
      grown[i].narrow(0, 0, state->appended).copy_(state->appended_cache[i].narrow(0, 0, state->appended));
    }
  }
  state->appended_cache = std::move(grown);
}

}  // namespace

absl::StatusOr<Policy::Prefilled> Policy::Prefill(absl::Span<const PromptInput> prompts, int max_new_tokens) {
  if (max_new_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat("want max_new_tokens of at least 0, got ", max_new_tokens));
  }
  const std::vector<PromptInput> filled = parameters_.scalar_type() == at::kFloat
                                              ? WithFillers(prompts, {})
                                              : std::vector<PromptInput>(prompts.begin(), prompts.end());
  SLUICE_ASSIGN_OR_RETURN(TreeLayout layout, MakeTreeLayout(filled, {}, LimitsOf(config_)));
  return CatchTorch("prefill", [&] {
    c10::InferenceMode inference;
    const PolicyWeights& weights = internals_->weights;
    const auto plan = c10::make_intrusive<TreePlan>(std::move(layout), trie_.get(), weights.item_embedding.defined());
    const TreeLayout& tree = plan->layout;
    auto state = std::make_shared<DecodeState>();
    const int64_t count = static_cast<int64_t>(prompts.size());
    state->prompt_first.assign(tree.trunk_first.begin(), tree.trunk_first.begin() + count);
    state->prompt_length.assign(tree.trunk_length.begin(), tree.trunk_length.begin() + count);
    state->max_new_tokens = max_new_tokens;
    const RotaryTable rotary =
        ReachPositions(config_, std::min(config_.max_positions, plan->longest_trunk + max_new_tokens),
                       parameters_.scalar_type(), &internals_->rotary);

    // The last layer's output is wanted for each prompt's last position only: its keys and values come from all rows,
    // everything after from those.
    std::vector<QueryRow> last_queries;
    std::vector<AttentionGroup> last_groups;
    std::vector<int64_t> last_rows;
    for (int64_t b = 0; b < count; ++b) {
      last_rows.push_back(tree.trunk_first[b] + tree.trunk_length[b] - 1);
      last_queries.push_back({b, tree.trunk_length[b], nullptr, 0});
    }
    for (int64_t b = 0; b < count; ++b) {
      last_groups.push_back({tree.trunk_first[b], tree.trunk_length[b], &last_queries[b], 1});
    }
    const at::Tensor last = at::tensor(last_rows, at::kLong);

    at::Tensor x = EmbedRows(plan, weights.embedding, weights.item_embedding);
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      const LayerWeights& layer = weights.layers[i];
      const AttentionParts parts = PartsOf(config_, layer, rotary);
      const bool is_last = i + 1 == weights.layers.size();
      RowPass pass{&tree.position, is_last ? &last_groups : &plan->groups, plan->longest_trunk, 0};
      const at::Tensor fused = Linear(RmsNorm(x, layer.input_norm, parts.eps), layer.qkv, layer.qkv_bias, at::Tensor());
      const at::Tensor cache = at::empty({tree.rows, 2 * parts.shape.key_width()}, x.options());
      at::Tensor queries = TurnIntoCache(pass, parts, fused, cache, 0);
      state->prompt_cache.push_back(cache);
      if (is_last) {
        queries = queries.index_select(0, last);
        x = x.index_select(0, last);
      }
      x = FinishLayer(layer, AttendCache(pass, parts.shape, queries, cache, at::Tensor()), parts.eps, x);
    }
    return Prefilled{std::move(state), RmsNorm(x, weights.final_norm, config_.rms_norm_eps)};
  });
}

absl::StatusOr<at::Tensor> Policy::Step(DecodeState* state, absl::Span<const int32_t> tokens,
                                        absl::Span<const int32_t> parents, int rows_per_prompt) {
  SLUICE_RETURN_IF_ERROR(CheckStep(config_, state, tokens, parents, rows_per_prompt));
  return CatchTorch("decoding step", [&] {
    c10::InferenceMode inference;
    const PolicyWeights& weights = internals_->weights;
    const int64_t rows = static_cast<int64_t>(tokens.size());
    const int64_t prompts = static_cast<int64_t>(state->prompt_first.size());
    ReserveAppended(rows, state->max_new_tokens - state->steps, static_cast<int64_t>(weights.layers.size()), state);
    AppendAncestors(parents, rows, state);
    const int64_t own = state->steps + 1;

    RowPass pass;
    std::vector<int32_t> position(rows);
    std::vector<QueryRow> queries(rows);
    std::vector<AttentionGroup> groups(prompts);
    for (int64_t b = 0; b < prompts; ++b) {
      const int64_t length = state->prompt_length[b];
      pass.longest_shared = std::max(pass.longest_shared, length);
      groups[b] = {state->prompt_first[b], length, queries.data() + b * rows_per_prompt, rows_per_prompt};
      for (int64_t n = b * rows_per_prompt; n < (b + 1) * rows_per_prompt; ++n) {
        position[n] = static_cast<int32_t>(length + state->steps);
        queries[n] = {n, length, state->ancestors.data() + n * own, own};
      }
    }
    pass.position = &position;
    pass.groups = &groups;
    pass.longest_own = own;
    const int32_t last_position = *std::max_element(position.begin(), position.end());
    const RotaryTable rotary =
        ReachPositions(config_, last_position + 1, parameters_.scalar_type(), &internals_->rotary);

    const at::Tensor ids = at::tensor(at::ArrayRef<int32_t>(tokens.data(), tokens.size()), at::kInt);
    at::Tensor x = weights.embedding.index_select(0, ids);
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      const LayerWeights& layer = weights.layers[i];
      const AttentionParts parts = PartsOf(config_, layer, rotary);
      const at::Tensor fused = Linear(RmsNorm(x, layer.input_norm, parts.eps), layer.qkv, layer.qkv_bias, at::Tensor());
      const at::Tensor turned = TurnIntoCache(pass, parts, fused, state->appended_cache[i], state->appended);
      x = FinishLayer(layer, AttendCache(pass, parts.shape, turned, state->prompt_cache[i], state->appended_cache[i]),
                      parts.eps, x);
    }
    state->appended += rows;
    state->rows_per_prompt = rows_per_prompt;
    ++state->steps;
    return RmsNorm(x, weights.final_norm, config_.rms_norm_eps);
  });
}

}  // namespace sluice

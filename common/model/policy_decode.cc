#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model/decode_state.h"
#include "common/model/policy.h"
#include "common/model/policy_internals.h"
#include "common/model/tree_layout.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

constexpr int64_t kRowGrain = 64;

template <typename T>
T* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

// Rows that matrix products are made for: `rows` rounded up, so that few kernels are compiled. The surplus rows hold
// zeros or what an earlier pass left there; nobody reads them.
int64_t ProductRows(at::ScalarType type, int64_t rows) { return type == at::kFloat ? RoundedRows(rows) : rows; }

// `buffer` with at least `rows` rows; its first `rows` are returned.
at::Tensor TakeRows(int64_t rows, int64_t width, const at::TensorOptions& options, at::Tensor* buffer) {
  if (!buffer->defined() || buffer->size(0) < rows) *buffer = at::zeros({rows, width}, options);
  return buffer->size(0) == rows ? *buffer : buffer->narrow(0, 0, rows);
}

// One batch of rows on its way through the layers: which rows, what each attends to, where its keys go.
struct RowPass {
  int64_t rows = 0;                   // with a meaning; tensors have ProductRows
  const int32_t* position = nullptr;  // [rows]
  const std::vector<AttentionGroup>* groups = nullptr;
  int64_t longest_shared = 0;
  int64_t longest_own = 0;
  RowBuffers* buffers = nullptr;
};

at::Tensor Normed(const RowPass& pass, const at::Tensor& x, const at::Tensor& weight, double eps) {
  at::Tensor y = TakeRows(x.size(0), x.size(1), x.options(), &pass.buffers->normed);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] {
    at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      Kernels<scalar_t>().rms_norm(begin, end, x.size(1), static_cast<scalar_t>(eps), x.data_ptr<scalar_t>(),
                                   weight.data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), nullptr);
    });
  });
  return y;
}

// Turns the queries and keys of a projection [q | k | v] of `shape`, which may have no queries or no keys. Keys and
// values go to rows [first, first + rows) of `cache`, queries to a buffer.
at::Tensor Turn(const RowPass& pass, const AttentionParts& parts, const HeadShape& shape, const at::Tensor& fused,
                const at::Tensor& cache, int64_t first) {
  const int64_t width = parts.shape.query_width();
  at::Tensor queries = TakeRows(fused.size(0), width, fused.options(), &pass.buffers->queries);
  AT_DISPATCH_FLOATING_TYPES(fused.scalar_type(), "rotate", [&] {
    Strided<scalar_t> keys, values;
    if (cache.defined()) {
      keys = {cache.data_ptr<scalar_t>() + first * cache.size(1), cache.size(1)};
      values = {keys.data + parts.shape.key_width(), cache.size(1)};
    }
    at::parallel_for(0, pass.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      Kernels<scalar_t>().rotate(begin, end, shape, fused.data_ptr<scalar_t>(), pass.position,
                                 Data<scalar_t>(parts.rotary.cosine), Data<scalar_t>(parts.rotary.sine),
                                 static_cast<scalar_t>(parts.eps), Data<scalar_t>(parts.query_norm),
                                 Data<scalar_t>(parts.key_norm), {queries.data_ptr<scalar_t>(), width}, keys, values);
    });
  });
  return queries;
}

at::Tensor AttendCache(const RowPass& pass, const HeadShape& shape, const at::Tensor& queries, const at::Tensor& shared,
                       const at::Tensor& own) {
  at::Tensor out = TakeRows(queries.size(0), queries.size(1), queries.options(), &pass.buffers->attended);
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
      // Not filled with zeros first: the kernel writes what it reads.
      const auto scratch = std::make_unique_for_overwrite<scalar_t[]>(
          static_cast<size_t>(AttentionScratch(shape, pass.longest_shared, pass.longest_own)));
      for (int64_t b = begin; b < end; ++b) {
        Kernels<scalar_t>().attend(input, (*pass.groups)[b], {out.data_ptr<scalar_t>(), out.size(1)}, nullptr,
                                   scratch.get());
      }
    });
  });
  return out;
}

// The residual stream after attention's output and the MLP.
at::Tensor FinishLayer(const RowPass& pass, const LayerWeights& layer, const at::Tensor& attended, double eps,
                       const at::Tensor& x) {
  const at::Tensor sum = LinearWithoutGraph(attended, layer.output, layer.output_bias, x);
  const at::Tensor gate_up =
      LinearWithoutGraph(Normed(pass, sum, layer.post_norm, eps), layer.gate_up, at::Tensor(), at::Tensor());
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor activated = TakeRows(gate_up.size(0), width, gate_up.options(), &pass.buffers->activated);
  AT_DISPATCH_FLOATING_TYPES(gate_up.scalar_type(), "gated_silu", [&] {
    at::parallel_for(0, pass.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      Kernels<scalar_t>().gated_silu(begin, end, width, gate_up.data_ptr<scalar_t>(), activated.data_ptr<scalar_t>());
    });
  });
  return LinearWithoutGraph(activated, layer.down, at::Tensor(), sum);
}

AttentionParts PartsOf(const PolicyConfig& config, const LayerWeights& layer, const RotaryTable& rotary) {
  return {{config.num_heads, config.num_kv_heads, config.head_dim},
          config.rms_norm_eps,
          layer.query_norm,
          layer.key_norm,
          rotary};
}

// Tokens and numbers of rows, which Step and Grow share.
absl::Status CheckRows(const PolicyConfig& config, const DecodeState* state, absl::Span<const int32_t> tokens,
                       absl::Span<const int32_t> rows_of_prompt) {
  if (state == nullptr) return absl::InvalidArgumentError("want a decode state from Prefill, got none");
  const int64_t prompts = static_cast<int64_t>(state->prompt_first.size());
  if (static_cast<int64_t>(rows_of_prompt.size()) != prompts) {
    return absl::InvalidArgumentError(
        absl::StrCat("want rows_of_prompt [", prompts, "], got [", rows_of_prompt.size(), "]"));
  }
  int64_t rows = 0;
  for (const int32_t count : rows_of_prompt) {
    if (count < 0) return absl::InvalidArgumentError(absl::StrCat("want rows_of_prompt of at least 0, got ", count));
    rows += count;
  }
  if (static_cast<int64_t>(tokens.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat("want tokens [", rows, "], got [", tokens.size(), "]"));
  }
  for (int64_t n = 0; n < rows; ++n) {
    if (tokens[n] < 0 || tokens[n] >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", tokens[n], " of row ", n, " is outside the vocabulary of ", config.vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStep(const PolicyConfig& config, const DecodeState* state, absl::Span<const int32_t> tokens,
                       absl::Span<const int32_t> parents, absl::Span<const int32_t> rows_of_prompt) {
  SLUICE_RETURN_IF_ERROR(CheckRows(config, state, tokens, rows_of_prompt));
  const int64_t prompts = static_cast<int64_t>(state->prompt_first.size());
  const int64_t rows = static_cast<int64_t>(tokens.size());
  if (!state->grown.empty()) {
    return absl::FailedPreconditionError("the decode state holds a grown tree; steps go on from a state of their own");
  }
  if (state->steps >= state->max_new_tokens) {
    return absl::FailedPreconditionError(
        absl::StrCat("the decode state was made for ", state->max_new_tokens, " new tokens, all of them appended"));
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
  int64_t n = 0;
  for (int64_t b = 0; b < prompts; ++b) {
    const int64_t first = state->first_row[b], end = state->first_row[b + 1];
    for (const int64_t last = n + rows_of_prompt[b]; n < last; ++n) {
      if (parents[n] < first || parents[n] >= end) {
        return absl::InvalidArgumentError(absl::StrCat("row ", n, " cannot continue row ", parents[n],
                                                       ": its prompt's rows are [", first, ", ", end, ")"));
      }
    }
  }
  return absl::OkStatus();
}

// Lists of ancestors after appending one row to each parent, and the new rows' places in the cache.
void AppendAncestors(absl::Span<const int32_t> parents, int64_t rows, DecodeState* state) {
  const int steps = state->steps;
  std::vector<int64_t>& ancestors = state->next_ancestors;
  ancestors.resize(rows * (steps + 1));
  for (int64_t n = 0; n < rows; ++n) {
    int64_t* own = ancestors.data() + n * (steps + 1);
    if (steps > 0) std::copy_n(state->ancestors.data() + static_cast<int64_t>(parents[n]) * steps, steps, own);
    own[steps] = state->appended + n;
  }
  state->ancestors.swap(ancestors);
}

// The rows' token embeddings, [ProductRows, D].
at::Tensor EmbedTokens(const at::Tensor& table, absl::Span<const int32_t> tokens) {
  const int64_t rows = static_cast<int64_t>(tokens.size());
  at::Tensor x = at::empty({ProductRows(table.scalar_type(), rows), table.size(1)}, table.options());
  const size_t row_bytes = static_cast<size_t>(table.size(1)) * table.element_size();
  const char* from = static_cast<const char*>(table.const_data_ptr());
  char* to = static_cast<char*>(x.data_ptr());
  for (int64_t n = 0; n < rows; ++n) std::memcpy(to + n * row_bytes, from + tokens[n] * row_bytes, row_bytes);
  std::memset(to + rows * row_bytes, 0, static_cast<size_t>(x.size(0) - rows) * row_bytes);
  return x;
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

// Computes the pass's rows, puts their keys and values behind what the cache holds, and returns their hidden states.
at::Tensor AppendRows(const PolicyConfig& config, const PolicyWeights& weights, const RotaryTable& rotary,
                      absl::Span<const int32_t> tokens, const RowPass& pass, DecodeState* state) {
  at::Tensor x = EmbedTokens(weights.embedding, tokens);
  for (size_t i = 0; pass.rows > 0 && i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const AttentionParts parts = PartsOf(config, layer, rotary);
    const at::Tensor fused =
        LinearWithoutGraph(Normed(pass, x, layer.input_norm, parts.eps), layer.qkv, layer.qkv_bias, at::Tensor());
    const at::Tensor queries = Turn(pass, parts, parts.shape, fused, state->appended_cache[i], state->appended);
    x = FinishLayer(pass, layer,
                    AttendCache(pass, parts.shape, queries, state->prompt_cache[i], state->appended_cache[i]),
                    parts.eps, x);
  }
  state->appended += pass.rows;
  return RmsNorm(x.narrow(0, 0, pass.rows), weights.final_norm, config.rms_norm_eps);
}

absl::Status CheckGrow(const PolicyConfig& config, const DecodeState* state, absl::Span<const int32_t> tokens,
                       absl::Span<const int64_t> parents, absl::Span<const int32_t> rows_of_prompt) {
  if (state != nullptr && state->steps > 0) {
    return absl::FailedPreconditionError(
        "the decode state was advanced by steps; a tree grows from a state of its own");
  }
  SLUICE_RETURN_IF_ERROR(CheckRows(config, state, tokens, rows_of_prompt));
  if (parents.size() != tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("want parents [", tokens.size(), "], got [", parents.size(), "]"));
  }
  size_t n = 0;
  for (size_t b = 0; b < rows_of_prompt.size(); ++b) {
    for (const size_t last = n + static_cast<size_t>(rows_of_prompt[b]); n < last; ++n) {
      const int64_t parent = parents[n];
      if (parent < -1 || parent >= static_cast<int64_t>(state->grown.size()) ||
          (parent >= 0 && state->grown[parent].prompt != static_cast<int64_t>(b))) {
        return absl::InvalidArgumentError(
            absl::StrCat("row ", n, " cannot continue row ", parent, ": it is not one of prompt ", b));
      }
      const int depth = parent < 0 ? 1 : state->grown[parent].depth + 1;
      if (depth > state->max_new_tokens) {
        return absl::InvalidArgumentError(absl::StrCat("row ", n, " lies at depth ", depth,
                                                       ", the decode state was made for ", state->max_new_tokens));
      }
      if (state->prompt_length[b] + depth > config.max_positions) {
        return absl::InvalidArgumentError(absl::StrCat(
            "prompt ", b, " with its new tokens is longer than the policy's ", config.max_positions, " positions"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Policy::Prefilled> Policy::Prefill(absl::Span<const PromptInput> prompts, int max_new_tokens) {
  if (max_new_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat("want max_new_tokens of at least 0, got ", max_new_tokens));
  }
  DevicePath* const device_path = internals_->device_path.get();
  SLUICE_ASSIGN_OR_RETURN(TreeLayout layout, MakeTreeLayout(prompts, {}, LimitsOf(config_)));
  return CatchTorch("prefill", [&] {
    c10::InferenceMode inference;
    if (device_path != nullptr) {
      auto state = std::make_shared<DecodeState>();
      state->prompt_first = layout.trunk_first;
      state->prompt_length = layout.trunk_length;
      state->max_new_tokens = max_new_tokens;
      state->on_device = std::make_unique<DeviceDecodeState>();
      const at::Tensor hidden = device_path->Prefill(layout, trie_.get(), state->on_device.get());
      work_.prefilled += layout.rows;
      return Prefilled{std::move(state), hidden};
    }
    const PolicyWeights& weights = internals_->weights;
    const TreePlan plan(std::move(layout), trie_.get(), weights.item_embedding.defined());
    const TreeLayout& tree = plan.layout;
    auto state = std::make_shared<DecodeState>();
    const int64_t count = static_cast<int64_t>(prompts.size());
    state->prompt_first = tree.trunk_first;
    state->prompt_length = tree.trunk_length;
    state->max_new_tokens = max_new_tokens;
    const at::ScalarType type = parameters_.scalar_type();
    const RotaryTable rotary = ReachPositions(
        config_, std::min(config_.max_positions, plan.longest_trunk + max_new_tokens), type, &internals_->rotary);

    // The last layer's output is wanted for each prompt's last position only: its keys and values come from all rows,
    // everything else from those.
    std::vector<QueryRow> last_queries;
    std::vector<AttentionGroup> last_groups;
    std::vector<int64_t> last_rows;
    std::vector<int32_t> last_position;
    for (int64_t b = 0; b < count; ++b) {
      last_rows.push_back(tree.trunk_first[b] + tree.trunk_length[b] - 1);
      last_position.push_back(static_cast<int32_t>(tree.trunk_length[b]) - 1);
      last_queries.push_back({b, tree.trunk_length[b], nullptr, 0});
    }
    for (int64_t b = 0; b < count; ++b) {
      last_groups.push_back({tree.trunk_first[b], tree.trunk_length[b], &last_queries[b], 1});
    }
    last_rows.resize(ProductRows(type, count), 0);
    const at::Tensor last = at::tensor(last_rows, at::kLong);

    RowBuffers buffers;
    const RowPass pass{tree.rows, tree.position.data(), &plan.groups, plan.longest_trunk, 0, &buffers};
    at::Tensor x = at::empty({ProductRows(type, tree.rows), config_.hidden_size}, parameters_.options());
    x.narrow(0, tree.rows, x.size(0) - tree.rows).zero_();
    AT_DISPATCH_FLOATING_TYPES(type, "embed_rows", [&] {
      at::parallel_for(0, tree.rows, kRowGrain, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().embed(plan.embedding_rows(), begin, end, x.size(1), Data<scalar_t>(weights.embedding),
                                  Data<scalar_t>(weights.item_embedding), x.data_ptr<scalar_t>());
      });
    });
    for (size_t i = 0; i + 1 < weights.layers.size(); ++i) {
      const LayerWeights& layer = weights.layers[i];
      const AttentionParts parts = PartsOf(config_, layer, rotary);
      const at::Tensor fused =
          LinearWithoutGraph(Normed(pass, x, layer.input_norm, parts.eps), layer.qkv, layer.qkv_bias, at::Tensor());
      const at::Tensor cache = at::empty({tree.rows, 2 * parts.shape.key_width()}, x.options());
      const at::Tensor queries = Turn(pass, parts, parts.shape, fused, cache, 0);
      state->prompt_cache.push_back(cache);
      x = FinishLayer(pass, layer, AttendCache(pass, parts.shape, queries, cache, at::Tensor()), parts.eps, x);
    }

    const LayerWeights& layer = weights.layers.back();
    const AttentionParts parts = PartsOf(config_, layer, rotary);
    const HeadShape& shape = parts.shape;
    auto project = [&](const at::Tensor& rows, int64_t first, int64_t width) {
      const at::Tensor bias = layer.qkv_bias.defined() ? layer.qkv_bias.narrow(0, first, width) : at::Tensor();
      return LinearWithoutGraph(rows, layer.qkv.narrow(0, first, width), bias, at::Tensor());
    };
    const at::Tensor normed = Normed(pass, x, layer.input_norm, parts.eps);
    const at::Tensor last_normed = normed.index_select(0, last);
    const at::Tensor cache = at::empty({tree.rows, 2 * shape.key_width()}, x.options());
    Turn(pass, parts, {0, shape.kv_heads, shape.head_dim}, project(normed, shape.query_width(), 2 * shape.key_width()),
         cache, 0);
    state->prompt_cache.push_back(cache);
    const RowPass last_pass{count, last_position.data(), &last_groups, plan.longest_trunk, 0, &buffers};
    const at::Tensor queries = Turn(last_pass, parts, {shape.heads, 0, shape.head_dim},
                                    project(last_normed, 0, shape.query_width()), at::Tensor(), 0);
    x = FinishLayer(last_pass, layer, AttendCache(last_pass, shape, queries, cache, at::Tensor()), parts.eps,
                    x.index_select(0, last));
    work_.prefilled += tree.rows;
    return Prefilled{std::move(state), RmsNorm(x.narrow(0, 0, count), weights.final_norm, config_.rms_norm_eps)};
  });
}

absl::StatusOr<at::Tensor> Policy::Step(DecodeState* state, absl::Span<const int32_t> tokens,
                                        absl::Span<const int32_t> parents, int rows_per_prompt) {
  if (rows_per_prompt < 1) {
    return absl::InvalidArgumentError(absl::StrCat("want rows_per_prompt of at least 1, got ", rows_per_prompt));
  }
  return Step(state, tokens, parents,
              std::vector<int32_t>(state == nullptr ? 0 : state->prompt_first.size(), rows_per_prompt));
}

absl::StatusOr<at::Tensor> Policy::Step(DecodeState* state, absl::Span<const int32_t> tokens,
                                        absl::Span<const int32_t> parents, absl::Span<const int32_t> rows_of_prompt) {
  SLUICE_RETURN_IF_ERROR(CheckStep(config_, state, tokens, parents, rows_of_prompt));
  if (state->on_device != nullptr) return StepRagged(state, tokens, parents, rows_of_prompt);
  return CatchTorch("decoding step", [&] {
    c10::InferenceMode inference;
    const PolicyWeights& weights = internals_->weights;
    const int64_t rows = static_cast<int64_t>(tokens.size());
    const int64_t prompts = static_cast<int64_t>(state->prompt_first.size());
    ReserveAppended(rows, state->max_new_tokens - state->steps, static_cast<int64_t>(weights.layers.size()), state);
    AppendAncestors(parents, rows, state);
    const int64_t own = state->steps + 1;

    RowPass pass;
    int32_t last_position = 0;
    state->position.resize(rows);
    state->queries.resize(rows);
    state->groups.clear();
    state->first_row.assign(1, 0);
    for (int64_t b = 0; b < prompts; ++b) {
      const int64_t first = state->first_row.back(), length = state->prompt_length[b];
      pass.longest_shared = std::max(pass.longest_shared, length);
      last_position = std::max(last_position, static_cast<int32_t>(length + state->steps));
      state->groups.push_back({state->prompt_first[b], length, state->queries.data() + first, rows_of_prompt[b]});
      state->first_row.push_back(first + rows_of_prompt[b]);
      for (int64_t n = first; n < state->first_row.back(); ++n) {
        state->position[n] = static_cast<int32_t>(length + state->steps);
        state->queries[n] = {n, length, state->ancestors.data() + n * own, own};
      }
    }
    pass.rows = rows;
    pass.position = state->position.data();
    pass.groups = &state->groups;
    pass.longest_own = own;
    pass.buffers = &state->buffers;
    const RotaryTable rotary =
        ReachPositions(config_, last_position + 1, parameters_.scalar_type(), &internals_->rotary);

    const at::Tensor hidden = AppendRows(config_, weights, rotary, tokens, pass, state);
    ++state->steps;
    work_.appended += rows;
    return hidden;
  });
}

absl::StatusOr<at::Tensor> Policy::Grow(DecodeState* state, absl::Span<const int32_t> tokens,
                                        absl::Span<const int64_t> parents, absl::Span<const int32_t> rows_of_prompt) {
  SLUICE_RETURN_IF_ERROR(CheckGrow(config_, state, tokens, parents, rows_of_prompt));
  const int64_t rows = static_cast<int64_t>(tokens.size());
  std::vector<GrownRow> grown;
  for (int64_t b = 0, n = 0; b < static_cast<int64_t>(rows_of_prompt.size()); ++b) {
    for (int64_t w = 0; w < rows_of_prompt[b]; ++w, ++n) {
      const int32_t depth = parents[n] < 0 ? 1 : state->grown[parents[n]].depth + 1;
      grown.push_back({parents[n], b, depth, 0});
    }
  }
  if (state->on_device != nullptr) return GrowOnDevice(state, tokens, rows_of_prompt, std::move(grown));
  return CatchTorch("growing a tree", [&] {
    c10::InferenceMode inference;
    const PolicyWeights& weights = internals_->weights;
    ReserveAppended(rows, state->appended / std::max<int64_t>(rows, 1) + 1, static_cast<int64_t>(weights.layers.size()),
                    state);
    // A row's own lies in the cache at its index in `grown`.
    std::vector<int64_t> first_ancestor;
    state->next_ancestors.clear();
    for (int64_t n = 0; n < rows; ++n) {
      first_ancestor.push_back(static_cast<int64_t>(state->next_ancestors.size()));
      const size_t end = state->next_ancestors.size() + static_cast<size_t>(grown[n].depth);
      state->next_ancestors.resize(end);
      state->next_ancestors[end - 1] = state->appended + n;
      size_t place = end - 1;
      for (int64_t above = grown[n].parent; above >= 0; above = state->grown[above].parent) {
        state->next_ancestors[--place] = above;
      }
    }
    RowPass pass;
    int32_t last_position = 0;
    state->position.resize(rows);
    state->queries.resize(rows);
    state->groups.clear();
    int64_t first = 0;
    for (size_t b = 0; b < rows_of_prompt.size(); ++b) {
      const int64_t length = state->prompt_length[b];
      pass.longest_shared = std::max(pass.longest_shared, length);
      state->groups.push_back({state->prompt_first[b], length, state->queries.data() + first, rows_of_prompt[b]});
      for (const int64_t end = first + rows_of_prompt[b]; first < end; ++first) {
        const int32_t depth = grown[first].depth;
        pass.longest_own = std::max<int64_t>(pass.longest_own, depth);
        state->position[first] = static_cast<int32_t>(length) + depth - 1;
        last_position = std::max(last_position, state->position[first]);
        state->queries[first] = {first, length, state->next_ancestors.data() + first_ancestor[first], depth};
      }
    }
    pass.rows = rows;
    pass.position = state->position.data();
    pass.groups = &state->groups;
    pass.buffers = &state->buffers;
    const RotaryTable rotary =
        ReachPositions(config_, last_position + 1, parameters_.scalar_type(), &internals_->rotary);
    const at::Tensor hidden = AppendRows(config_, weights, rotary, tokens, pass, state);
    state->grown.insert(state->grown.end(), grown.begin(), grown.end());
    work_.appended += rows;
    return hidden;
  });
}

absl::StatusOr<at::Tensor> Policy::GrowOnDevice(DecodeState* state, absl::Span<const int32_t> tokens,
                                                absl::Span<const int32_t> rows_of_prompt, std::vector<GrownRow> grown) {
  const int64_t width = *std::max_element(rows_of_prompt.begin(), rows_of_prompt.end());
  return CatchTorch("growing a tree", [&] {
    c10::InferenceMode inference;
    if (width == 0) return at::empty({0, config_.hidden_size}, parameters_.options());
    DeviceDecodeState& device = *state->on_device;
    const int64_t prompts = static_cast<int64_t>(rows_of_prompt.size());
    const int64_t before = device.used - device.prompt_slots, slots = before + width;
    // Rows that fill a prompt up see its own keys and themselves; nobody reads them.
    std::vector<int64_t> padded_tokens(prompts * width, 0), positions(prompts * width), rows;
    std::vector<int32_t> seen(prompts * width * slots, 0);
    int64_t last_position = 0;
    for (int64_t b = 0, n = 0; b < prompts; ++b) {
      for (int64_t w = 0; w < width; ++w) {
        const int64_t padded = b * width + w;
        int32_t* const row_seen = seen.data() + padded * slots;
        row_seen[before + w] = 1;
        positions[padded] = state->prompt_length[b];
        if (w >= rows_of_prompt[b]) continue;
        padded_tokens[padded] = tokens[n];
        positions[padded] += grown[n].depth - 1;
        last_position = std::max(last_position, positions[padded]);
        for (int64_t above = grown[n].parent; above >= 0; above = state->grown[above].parent) {
          row_seen[state->grown[above].slot] = 1;
        }
        grown[n].slot = before + w;
        rows.push_back(padded);
        ++n;
      }
    }
    const at::Device where = parameters_.device();
    const at::Tensor mask = Upload(seen, where).to(at::kBool).view({prompts, width, slots});
    const at::Tensor hidden = internals_->device_path->Append(
        Upload(padded_tokens, where), mask, Upload(positions, where), std::max(last_position, device.prompt_slots) + 1,
        device.used + std::max(width, before), &device);
    state->grown.insert(state->grown.end(), grown.begin(), grown.end());
    work_.appended += static_cast<int64_t>(rows.size());
    return hidden.index_select(0, Upload(rows, where));
  });
}

absl::StatusOr<at::Tensor> Policy::StepRagged(DecodeState* state, absl::Span<const int32_t> tokens,
                                              absl::Span<const int32_t> parents,
                                              absl::Span<const int32_t> rows_of_prompt) {
  // On a device every prompt has as many rows as the one with most; those too many are computed and not returned.
  const int64_t width = *std::max_element(rows_of_prompt.begin(), rows_of_prompt.end());
  const at::Device device = parameters_.device();
  if (width == 0) {
    ++state->steps;
    return at::empty({0, config_.hidden_size}, parameters_.options());
  }
  const int64_t prompts = static_cast<int64_t>(rows_of_prompt.size());
  std::vector<int64_t> padded_tokens(prompts * width, 0), padded_parents(prompts * width), rows, first_row = {0};
  for (int64_t b = 0; b < prompts; ++b) {
    const int64_t first = first_row.back(), above = b * state->on_device->rows_per_prompt;
    for (int64_t w = 0; w < width; ++w) {
      const bool padding = w >= rows_of_prompt[b];
      if (!padding) {
        padded_tokens[b * width + w] = tokens[first + w];
        rows.push_back(b * width + w);
      }
      padded_parents[b * width + w] =
          above + (padding || state->steps == 0 ? 0 : parents[first + w] - state->first_row[b]);
    }
    first_row.push_back(first + rows_of_prompt[b]);
  }
  state->first_row = std::move(first_row);
  SLUICE_ASSIGN_OR_RETURN(
      const at::Tensor hidden,
      StepOnDevice(state, Upload(padded_tokens, device), Upload(padded_parents, device), static_cast<int>(width)));
  work_.appended += static_cast<int64_t>(rows.size()) - prompts * width;  // what is padding is not counted
  return CatchTorch("decoding step", [&] {
    c10::InferenceMode inference;
    return hidden.index_select(0, Upload(rows, device));
  });
}

absl::StatusOr<at::Tensor> Policy::StepOnDevice(DecodeState* state, const at::Tensor& tokens, const at::Tensor& parents,
                                                int rows_per_prompt) {
  SLUICE_CHECK(internals_->device_path != nullptr && state->on_device != nullptr,
               "a policy on a device, and its state");
  return CatchTorch("decoding step", [&] {
    c10::InferenceMode inference;
    const at::Tensor hidden = internals_->device_path->Step(
        tokens, parents, rows_per_prompt, state->max_new_tokens - state->steps, state->on_device.get());
    work_.appended += tokens.size(0);
    ++state->steps;
    return hidden;
  });
}

}  // namespace sluice

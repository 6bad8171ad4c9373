#include "common/model/device_path.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/model/policy_internals.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Prompts are attended together as long as their padded score matrices hold at most this many numbers.
constexpr int64_t kScoresPerChunk = int64_t{1} << 27;

// Rows of a table; the gradient goes straight into the table's .grad, as in EmbedRows (operations.h).
class LookUpFunction : public Function<LookUpFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& table, const at::Tensor& index) {
    context->saved_data["grad"] = table.grad();
    context->save_for_backward({index});
    return table.detach().index_select(0, index);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    at::NoGradGuard no_grad;
    at::Tensor grad = context->saved_data["grad"].toTensor();
    grad.index_add_(0, context->get_saved_variables()[0], grads[0]);
    return {at::Tensor(), at::Tensor()};
  }
};

// 32 bits of hash for each of n counters, in int64: tensors have no unsigned arithmetic that all devices share. All
// products stay below 2^63, as constants and values are below 2^31 and 2^32.
at::Tensor Hash32(at::Tensor x) {
  constexpr int64_t kMask = 0xffffffff;
  const auto mix = [&](int64_t shift, int64_t factor) {
    x = at::bitwise_xor(x, at::bitwise_right_shift(x, shift));
    x = at::bitwise_and(x * factor, kMask);
  };
  mix(16, 0x7feb352d);
  mix(15, 0x46ca68b5);
  mix(13, 0x2c1b3c6d);
  return at::bitwise_xor(x, at::bitwise_right_shift(x, int64_t{16}));
}

// q [B, Q, H, hd], k and v [B, K, Hkv, hd], mask [B, 1, Q, K] true = sees. -> [B, Q, H * hd].
at::Tensor AttendPadded(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                        const at::Tensor& mask) {
  const int64_t batch = keys.size(0), count = keys.size(1), kv_heads = keys.size(2), head_dim = keys.size(3);
  const int64_t heads = queries.size(2);
  const auto repeated = [&](const at::Tensor& x) {
    if (heads == kv_heads) return x.transpose(1, 2);
    return x.unsqueeze(3)
        .expand({batch, count, kv_heads, heads / kv_heads, head_dim})
        .reshape({batch, count, heads, head_dim})
        .transpose(1, 2);
  };
  return at::scaled_dot_product_attention(queries.transpose(1, 2), repeated(keys), repeated(values), mask)
      .transpose(1, 2)
      .reshape({batch, queries.size(1), heads * head_dim});
}

// Slots of some consecutive prompts, each with its branches, padded to one length.
struct Chunk {
  int64_t prompts = 0;
  int64_t slots = 0;       // of each prompt
  at::Tensor row_of_slot;  // [prompts * slots]; row 0 where a slot is padding
  at::Tensor mask;         // [prompts, 1, slots, slots] bool
};

// What the host writes down about slots before a chunk is made.
struct Slots {
  std::vector<int64_t> row, branch, depth, limit;
  void Add(int64_t row_index, int64_t branch_index, int64_t at_depth, int64_t trunk_limit) {
    row.push_back(row_index);
    branch.push_back(branch_index);
    depth.push_back(at_depth);
    limit.push_back(trunk_limit);
  }
};

int64_t SlotsOf(const TreeLayout& layout, int64_t prompt) {
  int64_t slots = layout.trunk_length[prompt];
  for (int64_t k = layout.first_branch[prompt]; k < layout.first_branch[prompt + 1]; ++k) {
    slots += layout.branch_rows[layout.branch_of_prompt[k]];
  }
  return slots;
}

Chunk MakeChunk(const TreeLayout& layout, int64_t first, int64_t last, int64_t width, const at::Device& device,
                int64_t first_slot, std::vector<int64_t>* slot_of_row) {
  Slots slots;
  for (int64_t b = first; b < last; ++b) {
    const size_t start = slots.row.size();
    for (int64_t p = 0; p < layout.trunk_length[b]; ++p) slots.Add(layout.trunk_first[b] + p, 0, p, p + 1);
    for (int64_t k = layout.first_branch[b]; k < layout.first_branch[b + 1]; ++k) {
      const int64_t i = layout.branch_of_prompt[k];
      for (int64_t t = 0; t < layout.branch_rows[i]; ++t) {
        slots.Add(layout.branch_first[i] + t, k - layout.first_branch[b] + 1, t, layout.branch_anchor[i] + 1);
      }
    }
    for (size_t s = start; s < slots.row.size(); ++s) {
      (*slot_of_row)[slots.row[s]] = first_slot + static_cast<int64_t>(s);
    }
    while (static_cast<int64_t>(slots.row.size() - start) < width) slots.Add(0, -1, 0, 0);
  }
  Chunk chunk;
  chunk.prompts = last - first;
  chunk.slots = width;
  chunk.row_of_slot = Upload(slots.row, device);
  const at::Tensor branch = Upload(slots.branch, device).view({chunk.prompts, width});
  const at::Tensor depth = Upload(slots.depth, device).view({chunk.prompts, width});
  const at::Tensor limit = Upload(slots.limit, device).view({chunk.prompts, width});
  const at::Tensor query_branch = branch.unsqueeze(2), key_branch = branch.unsqueeze(1);
  const at::Tensor query_depth = depth.unsqueeze(2), key_depth = depth.unsqueeze(1);
  const at::Tensor trunk = key_branch.eq(0).logical_and(key_depth.lt(limit.unsqueeze(2)));
  const at::Tensor own =
      query_branch.eq(key_branch).logical_and(query_branch.gt(0)).logical_and(key_depth.le(query_depth));
  // Padding sees itself, since a softmax over nothing is not a number.
  const at::Tensor itself = at::eye(width, branch.options().dtype(at::kBool));
  chunk.mask = trunk.logical_or(own).logical_or(itself).unsqueeze(1);
  return chunk;
}

}  // namespace

at::Tensor HashedDropout(const at::Tensor& x, double dropout, uint64_t seed) {
  const at::Tensor counters = at::arange(x.numel(), x.options().dtype(at::kLong).requires_grad(false));
  at::Tensor bits = Hash32(at::bitwise_xor(counters, static_cast<int64_t>(seed & 0xffffffff)));
  bits = Hash32(at::bitwise_xor(bits, static_cast<int64_t>(seed >> 32)));
  const int64_t zeroed = std::llround(dropout * 4294967296.0);
  const at::Tensor keep = bits.ge(zeroed).view(x.sizes());
  return x * keep.to(x.scalar_type()).div_(1 - dropout);
}

// Padded queries of a layout, in chunks.
struct DevicePath::Attention {
  Attention(const TreeLayout& layout, int64_t heads, const at::Device& device) {
    std::vector<int64_t> slot_of(layout.rows, 0);
    int64_t first_slot = 0;
    for (int64_t first = 0; first < layout.prompts();) {
      int64_t last = first, width = 0;
      while (last < layout.prompts()) {
        const int64_t wider = std::max(width, SlotsOf(layout, last));
        if (last > first && (last - first + 1) * heads * wider * wider > kScoresPerChunk) break;
        width = wider;
        ++last;
      }
      chunks.push_back(MakeChunk(layout, first, last, width, device, first_slot, &slot_of));
      first_slot += (last - first) * width;
      first = last;
    }
    slot_of_row = Upload(slot_of, device);
  }

  at::Tensor Attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) const {
    std::vector<at::Tensor> parts;
    for (const Chunk& chunk : chunks) {
      const auto padded = [&](const at::Tensor& x) {
        return x.index_select(0, chunk.row_of_slot).view({chunk.prompts, chunk.slots, x.size(1), x.size(2)});
      };
      parts.push_back(AttendPadded(padded(queries), padded(keys), padded(values), chunk.mask).flatten(0, 1));
    }
    return (parts.size() == 1 ? parts[0] : at::cat(parts)).index_select(0, slot_of_row);
  }

  std::vector<Chunk> chunks;
  at::Tensor slot_of_row;  // [rows]
};

DevicePath::DevicePath(const PolicyConfig& config, PolicyWeights weights, const Placement& placement)
    : config_(config),
      weights_(std::move(weights)),
      device_(placement.device),
      stored_(weights_.embedding.scalar_type()),
      compute_(stored_ == at::kDouble ? at::kDouble : placement.compute) {}

std::vector<LayerWeights> DevicePath::ComputeWeights() const {
  std::vector<LayerWeights> layers = weights_.layers;
  if (compute_ == stored_) return layers;
  for (LayerWeights& layer : layers) {
    // Differentiable: gradients are accumulated in the stored type. Norm weights are used in it as they are.
    for (at::Tensor* const weight :
         {&layer.qkv, &layer.qkv_bias, &layer.output, &layer.output_bias, &layer.gate_up, &layer.down}) {
      if (weight->defined()) *weight = weight->to(compute_);
    }
  }
  return layers;
}

at::Tensor DevicePath::Embed(const TreeLayout& layout, const Trie* trie) const {
  // [rows, widest]: tokens of each row, and which of them count.
  size_t widest = 1;
  for (const int32_t entry : layout.entry) {
    if (entry >= 0) continue;
    SLUICE_CHECK(trie != nullptr, "a merged item without a trie");
    widest = static_cast<size_t>(trie->levels());
    break;
  }
  std::vector<int64_t> tokens(layout.entry.size() * widest, 0), leaves(layout.entry.size(), 0);
  std::vector<double> counts(tokens.size(), 0), has_leaf(layout.entry.size(), 0);
  for (size_t row = 0; row < layout.entry.size(); ++row) {
    const int32_t entry = layout.entry[row];
    if (entry >= 0) {
      tokens[row * widest] = entry;
      counts[row * widest] = 1;
      continue;
    }
    const absl::Span<const int32_t> codes = trie->TokensOfLeaf(-1 - entry);
    std::copy(codes.begin(), codes.end(), tokens.begin() + static_cast<int64_t>(row * widest));
    std::fill_n(counts.begin() + static_cast<int64_t>(row * widest), widest, 1);
    leaves[row] = -1 - entry;
    has_leaf[row] = 1;
  }
  at::Tensor x = LookUpFunction::apply(weights_.embedding, Upload(tokens, device_));
  const int64_t width = x.size(1);
  if (widest > 1) {
    x = (x.view({layout.rows, static_cast<int64_t>(widest), width}) *
         Upload(counts, device_).to(stored_).view({layout.rows, static_cast<int64_t>(widest), 1}))
            .sum(1);
  }
  if (widest > 1 && weights_.item_embedding.defined()) {
    const at::Tensor items = LookUpFunction::apply(weights_.item_embedding, Upload(leaves, device_));
    x = x + items * Upload(has_leaf, device_).to(stored_).unsqueeze(1);
  }
  return x;
}

at::Tensor DevicePath::Normed(const at::Tensor& x, const at::Tensor& weight) const {
  return at::rms_norm(x, {x.size(-1)}, weight, config_.rms_norm_eps);
}

at::Tensor DevicePath::Project(const LayerWeights& layer, const at::Tensor& x) const {
  return at::linear(Normed(x, layer.input_norm).to(compute_), layer.qkv, layer.qkv_bias);
}

at::Tensor DevicePath::Mlp(const LayerWeights& layer, const at::Tensor& x) const {
  const at::Tensor gate_up = at::linear(Normed(x, layer.post_norm).to(compute_), layer.gate_up);
  const int64_t width = gate_up.size(1) / 2;
  const at::Tensor inner = at::silu(gate_up.narrow(1, 0, width)) * gate_up.narrow(1, width, width);
  return at::linear(inner, layer.down).to(stored_);
}

DevicePath::Heads DevicePath::Turn(const LayerWeights& layer, const at::Tensor& fused, const at::Tensor& cosine,
                                   const at::Tensor& sine) const {
  const int64_t rows = fused.size(0), heads = config_.num_heads, kv_heads = config_.num_kv_heads;
  const int64_t head_dim = config_.head_dim, half = head_dim / 2;
  const at::Tensor split = fused.view({rows, heads + 2 * kv_heads, head_dim});
  // Norms and angles in the stored type, as rounding them would move every score.
  const auto turned = [&](at::Tensor x, const at::Tensor& norm) {
    x = x.to(stored_);
    if (norm.defined()) x = Normed(x, norm);
    const at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
    return at::cat({first * cosine - second * sine, second * cosine + first * sine}, 2).to(compute_);
  };
  return {turned(split.narrow(1, 0, heads), layer.query_norm), turned(split.narrow(1, heads, kv_heads), layer.key_norm),
          split.narrow(1, heads + kv_heads, kv_heads)};
}

RotaryTable DevicePath::RotaryAt(const at::Tensor& positions, int64_t count) {
  if (!rotary_.cosine.defined() || rotary_.cosine.size(0) < count) {
    c10::InferenceMode no_inference(false);
    const int64_t have = rotary_.cosine.defined() ? rotary_.cosine.size(0) : 0;
    const int64_t want = std::min(config_.max_positions, std::max({count, 2 * have, int64_t{64}}));
    const RotaryTable host = MakeRotaryTable(config_, want, at::kDouble);
    const auto upload = [&](const at::Tensor& table) {
      const absl::Span<const double> values(table.const_data_ptr<double>(), static_cast<size_t>(table.numel()));
      return Upload(values, device_).to(stored_).view(table.sizes());
    };
    rotary_ = {upload(host.cosine), upload(host.sine)};
  }
  return {rotary_.cosine.index_select(0, positions).unsqueeze(1), rotary_.sine.index_select(0, positions).unsqueeze(1)};
}

at::Tensor DevicePath::Forward(const TreeLayout& layout, const Trie* trie, double dropout, uint64_t dropout_seed) {
  uint64_t draws = 0;
  const auto drop = [&](const at::Tensor& x) {
    return dropout > 0 ? HashedDropout(x, dropout, DeriveSeed(dropout_seed, {++draws})) : x;
  };
  const std::vector<int64_t> positions(layout.position.begin(), layout.position.end());
  const int64_t count = *std::max_element(positions.begin(), positions.end()) + 1;
  const RotaryTable rotary = RotaryAt(Upload(positions, device_), count);
  const Attention attention(layout, config_.num_heads, device_);
  at::Tensor x = drop(Embed(layout, trie));
  for (const LayerWeights& layer : ComputeWeights()) {
    const Heads heads = Turn(layer, Project(layer, x), rotary.cosine, rotary.sine);
    const at::Tensor attended = attention.Attend(heads.queries, heads.keys, heads.values);
    x = x + drop(at::linear(attended, layer.output, layer.output_bias).to(stored_));
    x = x + drop(Mlp(layer, x));
  }
  return Normed(x, weights_.final_norm);
}

at::Tensor DevicePath::Logits(const at::Tensor& hidden) const { return at::linear(hidden, weights_.head); }

at::Tensor DevicePath::Prefill(const TreeLayout& layout, const Trie* trie, DeviceDecodeState* state) {
  state->layers = ComputeWeights();
  state->prompts = layout.prompts();
  state->lengths = Upload(layout.trunk_length, device_);
  state->prompt_slots = *std::max_element(layout.trunk_length.begin(), layout.trunk_length.end());
  state->used = state->prompt_slots;
  const int64_t batch = state->prompts, slots = state->prompt_slots;
  std::vector<int64_t> row_of_slot(batch * slots, 0), slot_of_row(layout.rows), last(batch);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t p = 0; p < layout.trunk_length[b]; ++p) {
      row_of_slot[b * slots + p] = layout.trunk_first[b] + p;
      slot_of_row[layout.trunk_first[b] + p] = b * slots + p;
    }
    last[b] = layout.trunk_first[b] + layout.trunk_length[b] - 1;
  }
  const at::Tensor to_slots = Upload(row_of_slot, device_), to_rows = Upload(slot_of_row, device_);
  const at::Tensor last_rows = Upload(last, device_);
  const at::Tensor numbers = at::arange(slots, state->lengths.options());
  state->prompt_visible = numbers.unsqueeze(0).lt(state->lengths.unsqueeze(1));
  // Causal among a prompt's positions; what padding sees does not matter, as long as it is something.
  const at::Tensor causal = numbers.unsqueeze(0).le(numbers.unsqueeze(1)).view({1, 1, slots, slots});

  const std::vector<int64_t> positions(layout.position.begin(), layout.position.end());
  const RotaryTable rotary = RotaryAt(Upload(positions, device_), slots);
  const auto padded = [&](const at::Tensor& x) {
    return x.index_select(0, to_slots).view({batch, slots, x.size(1), x.size(2)});
  };
  at::Tensor x = Embed(layout, trie);
  for (size_t i = 0; i < state->layers.size(); ++i) {
    const LayerWeights& layer = state->layers[i];
    const Heads heads = Turn(layer, Project(layer, x), rotary.cosine, rotary.sine);
    state->keys.push_back(padded(heads.keys));
    state->values.push_back(padded(heads.values));
    at::Tensor attended;
    if (i + 1 == state->layers.size()) {
      // Beyond keys and values the last layer is wanted for the last positions alone.
      x = x.index_select(0, last_rows);
      attended = AttendPadded(heads.queries.index_select(0, last_rows).unsqueeze(1), state->keys[i], state->values[i],
                              state->prompt_visible.view({batch, 1, 1, slots}))
                     .flatten(0, 1);
    } else {
      attended =
          AttendPadded(padded(heads.queries), state->keys[i], state->values[i], causal.expand({batch, 1, slots, slots}))
              .flatten(0, 1)
              .index_select(0, to_rows);
    }
    x = x + at::linear(attended, layer.output, layer.output_bias).to(stored_);
    x = x + Mlp(layer, x);
  }
  return Normed(x, weights_.final_norm);
}

at::Tensor DevicePath::Step(const at::Tensor& tokens, const at::Tensor& parents, int64_t rows_per_prompt,
                            int64_t steps_left, DeviceDecodeState* state) {
  const int64_t batch = state->prompts, width = rows_per_prompt, rows = batch * width;
  const at::Tensor itself = at::eye(width, state->prompt_visible.options()).unsqueeze(0).expand({batch, width, width});
  if (state->steps == 0) {
    state->seen = itself;
  } else {
    const at::Tensor first = at::arange(batch, parents.options()).mul(state->rows_per_prompt).unsqueeze(1);
    const at::Tensor local = parents.view({batch, width}) - first;
    const at::Tensor inherited = state->seen.gather(1, local.unsqueeze(2).expand({batch, width, state->seen.size(2)}));
    state->seen = at::cat({inherited, itself}, 2);
  }
  const at::Tensor positions = (state->lengths + state->steps).unsqueeze(1).expand({batch, width}).reshape({rows});
  const at::Tensor hidden = Append(tokens, state->seen, positions, state->prompt_slots + state->steps + 1,
                                   state->used + width * steps_left, state);
  state->rows_per_prompt = width;
  ++state->steps;
  return hidden;
}

at::Tensor DevicePath::Append(const at::Tensor& tokens, const at::Tensor& seen, const at::Tensor& positions,
                              int64_t position_count, int64_t capacity, DeviceDecodeState* state) {
  const int64_t batch = state->prompts, width = seen.size(1), end = state->used + width;
  if (state->keys[0].size(1) < end) {
    for (std::vector<at::Tensor>* const caches : {&state->keys, &state->values}) {
      for (at::Tensor& cache : *caches) {
        const at::Tensor grown = at::zeros({batch, capacity, cache.size(2), cache.size(3)}, cache.options());
        grown.narrow(1, 0, state->used).copy_(cache.narrow(1, 0, state->used));
        cache = grown;
      }
    }
  }
  const at::Tensor mask =
      at::cat({state->prompt_visible.unsqueeze(1).expand({batch, width, state->prompt_slots}), seen}, 2).unsqueeze(1);
  const RotaryTable rotary = RotaryAt(positions, position_count);

  at::Tensor x = weights_.embedding.index_select(0, tokens);
  for (size_t i = 0; i < state->layers.size(); ++i) {
    const LayerWeights& layer = state->layers[i];
    const Heads heads = Turn(layer, Project(layer, x), rotary.cosine, rotary.sine);
    const auto append = [&](const at::Tensor& cache, const at::Tensor& added) {
      cache.narrow(1, state->used, width).copy_(added.reshape({batch, width, added.size(1), added.size(2)}));
      return cache.narrow(1, 0, end);
    };
    const at::Tensor keys = append(state->keys[i], heads.keys), values = append(state->values[i], heads.values);
    const at::Tensor queries = heads.queries.view({batch, width, config_.num_heads, config_.head_dim});
    const at::Tensor attended = AttendPadded(queries, keys, values, mask).flatten(0, 1);
    x = x + at::linear(attended, layer.output, layer.output_bias).to(stored_);
    x = x + Mlp(layer, x);
  }
  state->used = end;
  return Normed(x, weights_.final_norm);
}

}  // namespace sluice

// The policy's passes as plain tensor operations, for any device.
//
// The processor has kernels of its own (operations.h); everything else goes through here: GPUs, bf16, and tests that
// run the same code on the processor. Policy chooses once, when it is placed. The layout is the same packed rows;
// only attention pads, prompt by prompt, to the longest prompt with its branches.
//
// No function here waits for the device: what the host knows (layout, tokens, lengths) is uploaded, and nothing is
// read back. float64 policies compute in float64. Under bf16 matrix products, attention and the KV cache are bf16;
// parameters and their gradients, norms, rotary positions, the residual stream and logits stay float32.
#ifndef SLUICE_COMMON_MODEL_DEVICE_PATH_H_
#define SLUICE_COMMON_MODEL_DEVICE_PATH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/model/operations.h"
#include "common/model/parameters.h"
#include "common/model/tree_layout.h"
#include "common/model_config/policy_config.h"
#include "common/tensor/device.h"

namespace sluice {

// The KV cache of a batch of prompts and the rows that continue them, [B, slots] per layer: first the longest
// prompt's positions, then the rows of each step. Nothing is moved when beams re-order; a row sees its ancestors by
// a mask.
struct DeviceDecodeState {
  std::vector<LayerWeights> layers;  // as products read them
  std::vector<at::Tensor> keys;      // [layers] of [B, slots, Hkv, hd]
  std::vector<at::Tensor> values;
  at::Tensor prompt_visible;  // [B, P] bool
  at::Tensor seen;            // [B, W, appended] bool: rows of earlier steps, and this one, that a row descends from
  at::Tensor lengths;         // [B] int64: positions of each prompt
  int64_t prompts = 0;
  int64_t prompt_slots = 0;  // P
  int64_t used = 0;          // slots that are filled
  int64_t steps = 0;
  int64_t rows_per_prompt = 0;
};

class DevicePath {
 public:
  // `weights` are leaves on the placement's device. `config` must outlive this.
  DevicePath(const PolicyConfig& config, PolicyWeights weights, const Placement& placement);

  // [rows, D] after the final norm; differentiable. Dropout masks are a pure function of the seed, the same on every
  // device.
  at::Tensor Forward(const TreeLayout& layout, const Trie* trie, double dropout, uint64_t dropout_seed);

  // [rows, D] -> [rows, V], in the parameters' type.
  at::Tensor Logits(const at::Tensor& hidden) const;

  // The layout holds trunks alone. Returns the hidden states of each prompt's last position, [B, D].
  at::Tensor Prefill(const TreeLayout& layout, const Trie* trie, DeviceDecodeState* state);

  // tokens [B * rows_per_prompt] int64, parents [B * rows_per_prompt] int64 (rows of the step before; not read on the
  // first step), both on the device. `steps_left` steps, this one included, get room in the cache. [N, D].
  at::Tensor Step(const at::Tensor& tokens, const at::Tensor& parents, int64_t rows_per_prompt, int64_t steps_left,
                  DeviceDecodeState* state);

  // Step for rows of any depth: row w of prompt b goes to the prompt's appended slot used - prompt_slots + w.
  // seen [B, W, appended + W] bool: which appended slots a row attends to, its own included. positions [B * W] int64,
  // below `position_count`. `seen` and rows_per_prompt of the state are not touched.
  at::Tensor Append(const at::Tensor& tokens, const at::Tensor& seen, const at::Tensor& positions,
                    int64_t position_count, int64_t capacity, DeviceDecodeState* state);

  const at::Device& device() const { return device_; }

 private:
  struct Attention;  // padded queries, and what each sees

  std::vector<LayerWeights> ComputeWeights() const;
  at::Tensor Embed(const TreeLayout& layout, const Trie* trie) const;
  // Fused projection [rows, (H + 2 Hkv) hd] -> turned queries [rows, H, hd], keys and values [rows, Hkv, hd].
  struct Heads {
    at::Tensor queries, keys, values;
  };
  Heads Turn(const LayerWeights& layer, const at::Tensor& fused, const at::Tensor& cosine,
             const at::Tensor& sine) const;
  at::Tensor Normed(const at::Tensor& x, const at::Tensor& weight) const;
  // Fused q, k, v of the residual stream.
  at::Tensor Project(const LayerWeights& layer, const at::Tensor& x) const;
  at::Tensor Mlp(const LayerWeights& layer, const at::Tensor& x) const;
  // Rows of the rotary tables at `positions`, [rows, 1, hd / 2]; the tables reach `count` positions.
  RotaryTable RotaryAt(const at::Tensor& positions, int64_t count);

  const PolicyConfig& config_;
  const PolicyWeights weights_;
  const at::Device device_;
  const at::ScalarType stored_;
  const at::ScalarType compute_;
  RotaryTable rotary_;
};

// x with each value zeroed with probability `dropout` and the others scaled up: value i of the mask is a hash of i
// and the seed, so that no generator of a device takes part.
at::Tensor HashedDropout(const at::Tensor& x, double dropout, uint64_t seed);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_DEVICE_PATH_H_

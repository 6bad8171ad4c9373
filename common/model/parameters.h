// Which parameters a policy has, where they lie in the arena, and what Hugging Face calls them.
//
// Projections that read the same input are one matrix here (q, k, v; gate, up), so that a layer is four matrix
// products; Hugging Face's tensors are blocks of their rows.
#ifndef SLUICE_COMMON_MODEL_PARAMETERS_H_
#define SLUICE_COMMON_MODEL_PARAMETERS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/model_config/policy_config.h"
#include "common/tensor/arena.h"

namespace sluice {

// Which file of a policy's folder a tensor is in. What is not Hugging Face's has a file of its own, so that
// transformers loads the rest.
enum class TensorFile {
  kModel,    // model.safetensors
  kEncoder,  // sluice_encoder.safetensors
  kValue,    // sluice_value.safetensors
};

// A tensor of a Hugging Face file: `rows` rows of arena entry `entry` from `first_row` on.
struct FileTensor {
  std::string name;
  int entry = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  std::vector<int64_t> shape;
  TensorFile file = TensorFile::kModel;
};

// Indices into the layout; -1 where the architecture has no such parameter.
struct LayerEntries {
  int input_norm = -1, qkv = -1, qkv_bias = -1, query_norm = -1, key_norm = -1, output = -1, output_bias = -1;
  int post_norm = -1, gate_up = -1, down = -1;
};
struct ParameterMap {
  ArenaLayout layout;
  int embedding = -1, item_embedding = -1, final_norm = -1, head = -1;  // head -1: tied to the embedding
  int value_up = -1, value_up_bias = -1, value_down = -1, value_down_bias = -1;
  std::vector<LayerEntries> layers;
  std::vector<FileTensor> files;
};

// `config` must be valid. The value head's parameters are the last, so that a policy without one has the same layout
// up to there.
ParameterMap MapParameters(const PolicyConfig& config);

// Leaf tensors over the arenas; undefined where there is no such parameter.
struct LayerWeights {
  at::Tensor input_norm;            // [D]
  at::Tensor qkv, qkv_bias;         // [(H + 2 Hkv) hd, D]
  at::Tensor query_norm, key_norm;  // [hd]
  at::Tensor output, output_bias;   // [D, H hd]
  at::Tensor post_norm;             // [D]
  at::Tensor gate_up;               // [2 I, D]
  at::Tensor down;                  // [D, I]
};
struct PolicyWeights {
  at::Tensor embedding;       // [V, D]
  at::Tensor item_embedding;  // [leaves, D] or undefined
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [D]
  at::Tensor head;        // [V, D]; the embedding itself if tied
  // The value head, W wide; undefined without one.
  at::Tensor value_up, value_up_bias;      // [W, D], [W]
  at::Tensor value_down, value_down_bias;  // [1, W], [1]
};

// `gradients` undefined: views that record no graph.
PolicyWeights BindWeights(const ParameterMap& map, const at::Tensor& parameters, const at::Tensor& gradients);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_PARAMETERS_H_

#include "common/model/parameters.h"

#include <torch/types.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

class Mapper {
 public:
  explicit Mapper(ParameterMap* map) : map_(map) {}

  // A parameter that is one tensor in the file too.
  int Add(std::string name, std::string file_name, std::vector<int64_t> shape, bool decays) {
    const int entry = map_->layout.Add(std::move(name), shape, decays);
    Slice(entry, std::move(file_name), 0, shape[0]);
    return entry;
  }
  // A parameter whose tensors in the file are added by Slice.
  int AddFused(std::string name, std::vector<int64_t> shape, bool decays) {
    return map_->layout.Add(std::move(name), std::move(shape), decays);
  }
  void Slice(int entry, std::string file_name, int64_t first_row, int64_t rows) {
    FileTensor file;
    file.name = std::move(file_name);
    file.entry = entry;
    file.first_row = first_row;
    file.rows = rows;
    file.shape = map_->layout.entry(entry).shape;
    file.shape[0] = rows;
    map_->files.push_back(std::move(file));
  }

 private:
  ParameterMap* map_;
};

LayerEntries MapLayer(const PolicyConfig& config, int64_t index, Mapper* mapper) {
  const int64_t width = config.hidden_size;
  const int64_t query_width = config.num_heads * config.head_dim, key_width = config.num_kv_heads * config.head_dim;
  const std::string name = absl::StrCat("layers.", index, ".");
  const std::string file = absl::StrCat("model.layers.", index, ".");
  const std::string attention = file + "self_attn.";
  LayerEntries layer;
  layer.input_norm = mapper->Add(name + "input_norm", file + "input_layernorm.weight", {width}, false);

  layer.qkv = mapper->AddFused(name + "qkv", {query_width + 2 * key_width, width}, true);
  mapper->Slice(layer.qkv, attention + "q_proj.weight", 0, query_width);
  mapper->Slice(layer.qkv, attention + "k_proj.weight", query_width, key_width);
  mapper->Slice(layer.qkv, attention + "v_proj.weight", query_width + key_width, key_width);
  if (config.architecture == PolicyArchitecture::kQwen2 || config.attention_bias) {
    layer.qkv_bias = mapper->AddFused(name + "qkv_bias", {query_width + 2 * key_width}, false);
    mapper->Slice(layer.qkv_bias, attention + "q_proj.bias", 0, query_width);
    mapper->Slice(layer.qkv_bias, attention + "k_proj.bias", query_width, key_width);
    mapper->Slice(layer.qkv_bias, attention + "v_proj.bias", query_width + key_width, key_width);
  }
  if (config.architecture == PolicyArchitecture::kQwen3) {
    layer.query_norm = mapper->Add(name + "query_norm", attention + "q_norm.weight", {config.head_dim}, false);
    layer.key_norm = mapper->Add(name + "key_norm", attention + "k_norm.weight", {config.head_dim}, false);
  }
  layer.output = mapper->Add(name + "output", attention + "o_proj.weight", {width, query_width}, true);
  if (config.attention_bias) {
    layer.output_bias = mapper->Add(name + "output_bias", attention + "o_proj.bias", {width}, false);
  }

  layer.post_norm = mapper->Add(name + "post_norm", file + "post_attention_layernorm.weight", {width}, false);
  layer.gate_up = mapper->AddFused(name + "gate_up", {2 * config.intermediate_size, width}, true);
  mapper->Slice(layer.gate_up, file + "mlp.gate_proj.weight", 0, config.intermediate_size);
  mapper->Slice(layer.gate_up, file + "mlp.up_proj.weight", config.intermediate_size, config.intermediate_size);
  layer.down = mapper->Add(name + "down", file + "mlp.down_proj.weight", {width, config.intermediate_size}, true);
  return layer;
}

}  // namespace

ParameterMap MapParameters(const PolicyConfig& config) {
  ParameterMap map;
  Mapper mapper(&map);
  const int64_t width = config.hidden_size;
  map.embedding = mapper.Add("embedding", "model.embed_tokens.weight", {config.vocab_size, width}, true);
  if (config.item_embedding) {
    map.item_embedding = mapper.Add("item_embedding", "item_embedding.weight", {config.num_leaves, width}, true);
    map.files.back().file = TensorFile::kEncoder;
  }
  for (int64_t i = 0; i < config.num_layers; ++i) map.layers.push_back(MapLayer(config, i, &mapper));
  map.final_norm = mapper.Add("final_norm", "model.norm.weight", {width}, false);
  if (!config.tie_embeddings) map.head = mapper.Add("head", "lm_head.weight", {config.vocab_size, width}, true);
  if (config.value_hidden > 0) {
    const int64_t hidden = config.value_hidden;
    const auto add = [&](const char* name, const char* file_name, std::vector<int64_t> shape, bool decays) {
      const int entry = mapper.Add(name, file_name, std::move(shape), decays);
      map.files.back().file = TensorFile::kValue;
      return entry;
    };
    map.value_up = add("value_up", "value_head.up.weight", {hidden, width}, true);
    map.value_up_bias = add("value_up_bias", "value_head.up.bias", {hidden}, false);
    map.value_down = add("value_down", "value_head.down.weight", {1, hidden}, true);
    map.value_down_bias = add("value_down_bias", "value_head.down.bias", {1}, false);
  }
  return map;
}

PolicyWeights BindWeights(const ParameterMap& map, const at::Tensor& parameters, const at::Tensor& gradients) {
  auto bind = [&](int entry) {
    if (entry < 0) return at::Tensor();
    if (!gradients.defined()) return map.layout.View(parameters, entry);
    return TrainableView(map.layout.View(parameters, entry), map.layout.View(gradients, entry));
  };
  PolicyWeights weights;
  weights.embedding = bind(map.embedding);
  weights.item_embedding = bind(map.item_embedding);
  for (const LayerEntries& entries : map.layers) {
    LayerWeights layer;
    layer.input_norm = bind(entries.input_norm);
    layer.qkv = bind(entries.qkv);
    layer.qkv_bias = bind(entries.qkv_bias);
    layer.query_norm = bind(entries.query_norm);
    layer.key_norm = bind(entries.key_norm);
    layer.output = bind(entries.output);
    layer.output_bias = bind(entries.output_bias);
    layer.post_norm = bind(entries.post_norm);
    layer.gate_up = bind(entries.gate_up);
    layer.down = bind(entries.down);
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = bind(map.final_norm);
  weights.head = map.head < 0 ? weights.embedding : bind(map.head);
  weights.value_up = bind(map.value_up);
  weights.value_up_bias = bind(map.value_up_bias);
  weights.value_down = bind(map.value_down);
  weights.value_down_bias = bind(map.value_down_bias);
  return weights;
}

}  // namespace sluice

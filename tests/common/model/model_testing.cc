#include "tests/common/model/model_testing.h"

#include <torch/types.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model/parameters.h"
#include "common/random/random.h"
#include "tests/testing/placement.h"

namespace sluice::testing {
namespace {

using Parameters = std::map<std::string, at::Tensor>;

at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.pow(2).mean(-1, true) + eps).rsqrt() * weight;
}

// transformers' rotate_half form: x cos + rotate_half(x) sin. x: [heads, S, head_dim].
at::Tensor RotateNaively(const PolicyConfig& config, const at::Tensor& x) {
  const int64_t half = config.head_dim / 2;
  at::Tensor inverse = at::pow(config.rope_theta, -at::arange(0, half, at::kDouble) * 2 / config.head_dim);
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.factor != 1) {
    const double context = scaling.original_max_position_embeddings;
    const at::Tensor wavelength = 2 * M_PI / inverse;
    const at::Tensor smooth =
        (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    const at::Tensor blended = (1 - smooth) * inverse / scaling.factor + smooth * inverse;
    const at::Tensor low = wavelength > context / scaling.low_freq_factor;
    const at::Tensor high = wavelength < context / scaling.high_freq_factor;
    inverse = at::where(low, inverse / scaling.factor, at::where(high, inverse, blended));
  }
  const at::Tensor angle = at::outer(at::arange(0, x.size(1), at::kDouble), inverse);
  const at::Tensor cosine = at::cat({angle.cos(), angle.cos()}, -1).to(x.scalar_type());
  const at::Tensor sine = at::cat({angle.sin(), angle.sin()}, -1).to(x.scalar_type());
  const at::Tensor turned = at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  return x * cosine + turned * sine;
}

at::Tensor Linear(const Parameters& parameters, const std::string& name, const at::Tensor& x) {
  at::Tensor y = x.matmul(parameters.at(name + ".weight").t());
  const auto bias = parameters.find(name + ".bias");
  return bias == parameters.end() ? y : y + bias->second;
}

at::Tensor NaiveAttention(const PolicyConfig& config, const Parameters& parameters, const std::string& name,
                          const at::Tensor& x) {
  const int64_t length = x.size(0);
  auto heads = [&](const at::Tensor& y, int64_t count) {
    return y.view({length, count, config.head_dim}).transpose(0, 1);
  };
  at::Tensor q = heads(Linear(parameters, name + "q_proj", x), config.num_heads);
  at::Tensor k = heads(Linear(parameters, name + "k_proj", x), config.num_kv_heads);
  at::Tensor v = heads(Linear(parameters, name + "v_proj", x), config.num_kv_heads);
  if (config.architecture == PolicyArchitecture::kQwen3) {
    q = Norm(q, parameters.at(name + "q_norm.weight"), config.rms_norm_eps);
    k = Norm(k, parameters.at(name + "k_norm.weight"), config.rms_norm_eps);
  }
  const int64_t repeat = config.num_heads / config.num_kv_heads;
  q = RotateNaively(config, q);
  k = RotateNaively(config, k).repeat_interleave(repeat, 0);
  v = v.repeat_interleave(repeat, 0);
  const at::Tensor scores = q.matmul(k.transpose(1, 2)) / std::sqrt(static_cast<double>(config.head_dim));
  const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
  const at::Tensor weights = scores.masked_fill(future, -INFINITY).softmax(-1);
  return Linear(parameters, name + "o_proj", weights.matmul(v).transpose(0, 1).reshape({length, -1}));
}

Parameters Named(const Policy& policy, const at::Tensor& arena) {
  const ParameterMap map = MapParameters(policy.config());
  Parameters named;
  for (const FileTensor& file : map.files) {
    named[file.name] =
        map.layout.View(arena, file.entry).narrow(0, file.first_row, file.rows).detach().to(at::kCPU).clone();
  }
  return named;
}

}  // namespace

std::shared_ptr<const Trie> RandomTrie(int items, int codes, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < items; ++i) {
    for (int level = 0; level < 4; ++level) {
      tokens.push_back(3 + level * codes + static_cast<int32_t>(random.Below(codes)));
    }
  }
  return std::make_shared<const Trie>(Trie::Build(4, tokens).value());
}

PolicyConfig SmallConfig(PolicyArchitecture architecture, int codes) {
  PolicyConfig config;
  config.architecture = architecture;
  config.vocab_size = 3 + 4 * codes;
  config.hidden_size = 16;
  config.intermediate_size = 20;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.max_positions = 64;
  config.begin_token = 1;
  config.begin_reversed_token = 2;
  return config;
}

PolicyConfig SmallMergedConfig(PolicyArchitecture architecture, int codes, const Trie& trie) {
  PolicyConfig config = SmallConfig(architecture, codes);
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = trie.num_leaves();
  config.catalog_version = trie.version();
  return config;
}

std::unique_ptr<Policy> RandomPolicy(const PolicyConfig& config, std::shared_ptr<const Trie> trie, uint64_t seed,
                                     at::ScalarType dtype) {
  std::unique_ptr<Policy> policy = Policy::Create(config, std::move(trie), seed, dtype).value();
  const ParameterMap map = MapParameters(config);
  for (size_t i = 0; i < map.layout.entries().size(); ++i) {
    // Entry by entry: the gaps between them must stay zero. Norms stay near 1.
    at::Tensor view = map.layout.View(policy->parameters(), static_cast<int>(i));
    const at::Tensor values = at::empty_like(view).normal_(0, .3, at::make_generator<at::CPUGeneratorImpl>(seed + i));
    map.layout.entry(static_cast<int>(i)).decays ? view.copy_(values) : view.add_(values);
  }
  PlaceForTest(policy.get());
  return policy;
}

std::map<std::string, at::Tensor> NamedParameters(const Policy& policy) {
  Parameters named = Named(policy, policy.parameters());
  for (auto& [name, tensor] : named) tensor.set_requires_grad(true);
  return named;
}

std::map<std::string, at::Tensor> NamedGradients(const Policy& policy) { return Named(policy, policy.gradients()); }

at::Tensor NaiveHidden(const PolicyConfig& config, const Trie* trie, const Parameters& parameters,
                       const PromptInput& sequence) {
  const at::Tensor embedding = parameters.at("model.embed_tokens.weight");
  std::vector<at::Tensor> inputs;
  for (const int32_t entry : sequence) {
    if (entry >= 0) {
      inputs.push_back(embedding[entry]);
      continue;
    }
    const int32_t leaf = -1 - entry;
    at::Tensor sum = at::zeros({config.hidden_size}, embedding.options().requires_grad(false));
    for (const int32_t token : trie->TokensOfLeaf(leaf)) sum = sum + embedding[token];
    if (config.item_embedding) sum = sum + parameters.at("item_embedding.weight")[leaf];
    inputs.push_back(sum);
  }
  at::Tensor x = at::stack(inputs);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string name = absl::StrCat("model.layers.", i, ".");
    x = x + NaiveAttention(config, parameters, name + "self_attn.",
                           Norm(x, parameters.at(name + "input_layernorm.weight"), config.rms_norm_eps));
    const at::Tensor y = Norm(x, parameters.at(name + "post_attention_layernorm.weight"), config.rms_norm_eps);
    const at::Tensor gate = Linear(parameters, name + "mlp.gate_proj", y);
    const at::Tensor up = Linear(parameters, name + "mlp.up_proj", y);
    x = x + Linear(parameters, name + "mlp.down_proj", gate * gate.sigmoid() * up);
  }
  return Norm(x, parameters.at("model.norm.weight"), config.rms_norm_eps);
}

at::Tensor NaiveLogits(const PolicyConfig& config, const Parameters& parameters, const at::Tensor& hidden) {
  return hidden.matmul(parameters.at(config.tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight").t());
}

}  // namespace sluice::testing

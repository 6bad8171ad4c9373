#include "common/model/policy.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model/policy_internals.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/shape.h"

namespace sluice {
namespace {

absl::Status CheckTrie(const PolicyConfig& config, const Trie* trie) {
  if (config.encoder != PromptEncoderKind::kMerged) return absl::OkStatus();
  if (trie == nullptr) {
    return absl::InvalidArgumentError("a merged policy needs the catalog's trie, got none");
  }
  if (trie->num_leaves() != config.num_leaves) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a trie of ", config.num_leaves, " leaves, got ", trie->num_leaves()));
  }
  if (!config.catalog_version.empty() && trie->version() != config.catalog_version) {
    return absl::FailedPreconditionError(absl::StrCat("want the trie of catalog version ", config.catalog_version,
                                                      ", got ", trie->version(),
                                                      ": use the catalog that the policy was trained on"));
  }
  for (int64_t leaf = 0; leaf < trie->num_leaves(); ++leaf) {
    for (const int32_t token : trie->TokensOfLeaf(static_cast<int32_t>(leaf))) {
      if (token >= config.vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat("leaf ", leaf, " of the trie has token ", token,
                                                       ", outside the vocabulary of ", config.vocab_size));
      }
    }
  }
  return absl::OkStatus();
}

// A pure function of (seed, entry): no thread takes part in it.
void Initialize(const PolicyConfig& config, const ParameterMap& map, uint64_t seed, const at::Tensor& parameters) {
  for (size_t i = 0; i < map.layout.entries().size(); ++i) {
    const ArenaLayout::Entry& entry = map.layout.entries()[i];
    at::Tensor view = map.layout.View(parameters, static_cast<int>(i)).view({entry.size});
    if (entry.decays) {
      Random random(seed, i);
      at::Tensor values = at::empty({entry.size}, at::kDouble);
      double* data = values.data_ptr<double>();
      for (int64_t k = 0; k < entry.size; ++k) data[k] = config.initializer_range * random.Normal();
      view.copy_(values);
    } else {
      view.fill_(entry.name.ends_with("_norm") ? 1 : 0);
    }
  }
}

// [leaves, D]: each leaf as the sum of its tokens' embeddings and, if there is one, its own. Differentiable.
at::Tensor LeafVectors(const PolicyWeights& weights, const Trie& trie) {
  const at::Tensor sums = at::embedding(weights.embedding, Upload(LeafTokens(trie), weights.embedding.device()))
                              .view({trie.num_leaves(), trie.levels(), weights.embedding.size(1)})
                              .sum(1);
  return weights.item_embedding.defined() ? sums + weights.item_embedding : sums;
}

}  // namespace

std::vector<int32_t> LeafTokens(const Trie& trie) {
  std::vector<int32_t> tokens;
  tokens.reserve(trie.num_leaves() * trie.levels());
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
    const absl::Span<const int32_t> leaf_tokens = trie.TokensOfLeaf(leaf);
    tokens.insert(tokens.end(), leaf_tokens.begin(), leaf_tokens.end());
  }
  return tokens;
}

RotaryTable MakeRotaryTable(const PolicyConfig& config, int64_t count, at::ScalarType dtype) {
  const int64_t half = config.head_dim / 2;
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<double> frequency(half);
  for (int64_t i = 0; i < half; ++i) {
    double f = std::pow(config.rope_theta, -static_cast<double>(i) / static_cast<double>(half));
    if (scaling.factor != 1) {
      const double context = static_cast<double>(scaling.original_max_position_embeddings);
      const double turns = context * f / (2 * std::numbers::pi);
      if (turns < scaling.low_freq_factor) {
        f /= scaling.factor;
      } else if (turns < scaling.high_freq_factor) {
        const double smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        f = (1 - smooth) * f / scaling.factor + smooth * f;
      }
    }
    frequency[i] = f;
  }
  at::Tensor cosine = at::empty({count, half}, at::kDouble), sine = at::empty({count, half}, at::kDouble);
  double* c = cosine.data_ptr<double>();
  double* s = sine.data_ptr<double>();
  for (int64_t p = 0; p < count; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      *c++ = std::cos(static_cast<double>(p) * frequency[i]);
      *s++ = std::sin(static_cast<double>(p) * frequency[i]);
    }
  }
  return {cosine.to(dtype), sine.to(dtype)};
}

const RotaryTable& ReachPositions(const PolicyConfig& config, int64_t count, at::ScalarType dtype, RotaryTable* table) {
  const int64_t have = table->cosine.defined() ? table->cosine.size(0) : 0;
  if (have < count) {
    c10::InferenceMode no_inference(false);
    *table = MakeRotaryTable(config, std::min(config.max_positions, std::max({count, 2 * have, int64_t{64}})), dtype);
  }
  return *table;
}

TreeLimits LimitsOf(const PolicyConfig& config) {
  TreeLimits limits;
  limits.vocab_size = config.vocab_size;
  limits.num_leaves = config.encoder == PromptEncoderKind::kMerged ? config.num_leaves : 0;
  limits.max_positions = config.max_positions;
  return limits;
}

absl::StatusOr<std::unique_ptr<Policy>> Policy::WithValueHead(int64_t width, uint64_t seed) const {
  if (has_value_head()) return absl::InvalidArgumentError("the policy has a value head already");
  if (width < 1) return absl::InvalidArgumentError(absl::StrCat("want a value head at least 1 wide, got ", width));
  PolicyConfig config = config_;
  config.value_hidden = width;
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, Create(config, trie_, seed, parameters_.scalar_type()));
  SLUICE_RETURN_IF_ERROR(CatchTorch("adding a value head", [&] {
    c10::InferenceMode no_inference(false);
    at::NoGradGuard no_grad;
    policy->parameters_.narrow(0, 0, parameters_.numel()).copy_(parameters_);
  }));
  return policy;
}

at::Tensor Policy::Values(const at::Tensor& hidden) const {
  SLUICE_CHECK(has_value_head(), "the policy has a value head");
  const PolicyWeights& weights = internals_->weights;
  const at::Tensor inner = at::silu(at::linear(hidden, weights.value_up, weights.value_up_bias));
  return at::linear(inner, weights.value_down, weights.value_down_bias).squeeze(1);
}

absl::StatusOr<at::Tensor> Policy::LeafEmbeddings(const Trie& trie) const {
  if (config_.item_embedding && trie.num_leaves() != config_.num_leaves) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a trie of ", config_.num_leaves, " leaves, got ", trie.num_leaves()));
  }
  for (const int32_t token : LeafTokens(trie)) {
    if (token >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is outside the vocabulary of ", config_.vocab_size));
    }
  }
  return CatchTorch("embedding the catalog", [&] {
    c10::InferenceMode no_inference(false);
    at::NoGradGuard no_grad;
    return LeafVectors(internals_->weights, trie).detach().to(at::kCPU);
  });
}

at::Tensor Policy::ItemVectors() const {
  SLUICE_CHECK(config_.encoder == PromptEncoderKind::kMerged, "only merged policies have item vectors");
  return LeafVectors(internals_->weights, *trie_);
}

Policy::Policy() : internals_(std::make_unique<Internals>()) {}
Policy::~Policy() = default;

absl::StatusOr<std::unique_ptr<Policy>> Policy::Allocate(const PolicyConfig& config, std::shared_ptr<const Trie> trie,
                                                         at::ScalarType dtype, bool trainable) {
  SLUICE_RETURN_IF_ERROR(config.Validate());
  SLUICE_RETURN_IF_ERROR(CheckTrie(config, trie.get()));
  if (dtype != at::kFloat && dtype != at::kDouble) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a policy of type Float or Double, got ", c10::toString(dtype)));
  }
  return CatchTorch("making a policy", [&] {
    // The weights are trained later, whatever mode the caller is in now.
    c10::InferenceMode no_inference(false);
    std::unique_ptr<Policy> policy(new Policy());
    policy->config_ = config;
    policy->trie_ = std::move(trie);
    Internals& internals = *policy->internals_;
    internals.map = MapParameters(config);
    policy->parameters_ = internals.map.layout.Allocate(dtype);
    if (trainable) {
      policy->gradients_ = internals.map.layout.Allocate(dtype);
      policy->decay_mask_ = internals.map.layout.DecayMask(dtype);
    }
    policy->layout_digest_ = internals.map.layout.Digest();
    internals.weights = BindWeights(internals.map, policy->parameters_, policy->gradients_);
    return policy;
  });
}

absl::StatusOr<std::unique_ptr<Policy>> Policy::Create(const PolicyConfig& config, std::shared_ptr<const Trie> trie,
                                                       uint64_t seed, at::ScalarType dtype) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, Allocate(config, std::move(trie), dtype));
  SLUICE_RETURN_IF_ERROR(CatchTorch("initializing a policy", [&] {
    c10::InferenceMode no_inference(false);
    at::NoGradGuard no_grad;
    Initialize(config, policy->internals_->map, seed, policy->parameters_);
  }));
  return policy;
}

absl::StatusOr<std::unique_ptr<Policy>> Policy::CreateForDecoding(const PolicyConfig& config,
                                                                  std::shared_ptr<const Trie> trie) {
  return Allocate(config, std::move(trie), at::kFloat, /*trainable=*/false);
}

absl::StatusOr<std::unique_ptr<Policy>> Policy::MakeTwin() const {
  return CatchTorch("making a policy's twin", [&] {
    c10::InferenceMode no_inference(false);
    std::unique_ptr<Policy> twin(new Policy());
    twin->config_ = config_;
    twin->trie_ = trie_;
    twin->parameters_ = parameters_;
    if (gradients_.defined()) twin->gradients_ = at::zeros_like(gradients_);
    twin->decay_mask_ = decay_mask_;
    twin->layout_digest_ = layout_digest_;
    Internals& internals = *twin->internals_;
    internals.map = internals_->map;
    internals.weights = BindWeights(internals.map, twin->parameters_, twin->gradients_);
    internals.placement = internals_->placement;
    if (internals.placement.takes_device_path()) {
      internals.device_path = std::make_unique<DevicePath>(config_, internals.weights, internals.placement);
    }
    return twin;
  });
}

absl::Status Policy::Place(const Placement& placement) {
  return CatchTorch("placing a policy", [&] {
    c10::InferenceMode no_inference(false);
    at::NoGradGuard no_grad;
    Internals& internals = *internals_;
    parameters_ = parameters_.to(placement.device);
    if (gradients_.defined()) {
      gradients_ = gradients_.to(placement.device);
      decay_mask_ = decay_mask_.to(placement.device);
    }
    internals.weights = BindWeights(internals.map, parameters_, gradients_);
    internals.placement = placement;
    internals.trie_tables.reset();
    internals.device_path.reset();
    if (placement.takes_device_path()) {
      internals.device_path = std::make_unique<DevicePath>(config_, internals.weights, placement);
    }
  });
}

const Placement& Policy::placement() const { return internals_->placement; }

std::shared_ptr<const TrieTables> Policy::TablesOf(const Trie& trie) {
  std::shared_ptr<const TrieTables>& tables = internals_->trie_tables;
  if (tables == nullptr || tables->version() != trie.version()) {
    tables = std::make_shared<const TrieTables>(trie, parameters_.device());
  }
  return tables;
}

absl::StatusOr<PromptInput> Policy::EncodePrompt(absl::Span<const int32_t> history, bool reversed) const {
  if (trie_ == nullptr) return absl::FailedPreconditionError("encoding a history needs the catalog's trie, got none");
  if (history.empty()) return absl::InvalidArgumentError("want a history of at least one item, got none");
  PromptInput prompt;
  if (reversed && config_.begin_reversed_token < 0) {
    return absl::FailedPreconditionError("the policy has no begin token for reversed sequences");
  }
  const int32_t begin = reversed ? config_.begin_reversed_token : config_.begin_token;
  if (begin >= 0) prompt.push_back(begin);
  prompt.insert(prompt.end(), config_.prefix_tokens.begin(), config_.prefix_tokens.end());
  for (const int32_t item : history) {
    if (item < 0 || item >= trie_->num_items()) {
      return absl::InvalidArgumentError(
          absl::StrCat("item ", item, " is outside the catalog of ", trie_->num_items(), " items"));
    }
    const int32_t leaf = trie_->LeafOfItem(item);
    if (config_.encoder == PromptEncoderKind::kMerged) {
      prompt.push_back(MergedItemEntry(leaf));
    } else {
      const absl::Span<const int32_t> tokens = trie_->TokensOfLeaf(leaf);
      prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    }
    prompt.insert(prompt.end(), config_.separator_tokens.begin(), config_.separator_tokens.end());
  }
  return prompt;
}

absl::StatusOr<TreeOutput> Policy::ForwardTree(const TreeBatch& batch, double dropout, uint64_t dropout_seed,
                                               TreeRows rows) {
  if (!(dropout >= 0 && dropout < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("want dropout in [0, 1), got ", dropout));
  }
  if (!gradients_.defined() && at::GradMode::is_enabled()) {
    return absl::FailedPreconditionError(
        "a policy made for decoding has no gradients; make it with Create to train it");
  }
  DevicePath* const device_path = internals_->device_path.get();
  const std::vector<PromptInput> prompts = parameters_.scalar_type() == at::kFloat && device_path == nullptr
                                               ? WithFillers(batch.prompts, batch.branches)
                                               : batch.prompts;
  SLUICE_ASSIGN_OR_RETURN(TreeLayout layout, MakeTreeLayout(prompts, batch.branches, LimitsOf(config_)));
  return CatchTorch("forward pass", [&] {
    if (device_path != nullptr) {
      TreeOutput output;
      output.hidden = device_path->Forward(layout, trie_.get(), dropout, dropout_seed);
      output.computed_rows = layout.rows;
      output.prediction_rows = std::move(layout.prediction_rows);
      output.prediction_first = std::move(layout.prediction_first);
      if (rows == TreeRows::kPredictions && !batch.branches.empty()) {
        std::vector<int64_t> needed = output.prediction_rows;
        std::sort(needed.begin(), needed.end());
        needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
        output.hidden = output.hidden.index_select(0, Upload(needed, parameters_.device()));
        for (int64_t& row : output.prediction_rows) {
          row = std::lower_bound(needed.begin(), needed.end(), row) - needed.begin();
        }
      } else {
        output.trunk_first_row = std::move(layout.trunk_first);
      }
      return output;
    }
    const PolicyWeights& weights = internals_->weights;
    const auto plan = c10::make_intrusive<TreePlan>(std::move(layout), trie_.get(), weights.item_embedding.defined());
    const bool predictions_only = rows == TreeRows::kPredictions && !batch.branches.empty();
    if (predictions_only) plan->FindNeededRows(parameters_.scalar_type() == at::kFloat);
    at::Generator generator;
    if (dropout > 0) generator = at::make_generator<at::CPUGeneratorImpl>(dropout_seed);
    auto drop = [&](const at::Tensor& x) { return dropout > 0 ? Dropout(x, dropout, generator) : x; };
    // x + projected y, in one product where no dropout comes between.
    auto add_projection = [&](const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                              const at::Tensor& bias) {
      if (dropout > 0) return x + drop(Linear(y, weight, bias, at::Tensor()));
      return Linear(y, weight, bias, x);
    };

    AttentionParts parts;
    parts.shape = internals_->head_shape(config_);
    parts.eps = config_.rms_norm_eps;
    const int32_t last_position = *std::max_element(plan->layout.position.begin(), plan->layout.position.end());
    parts.rotary = ReachPositions(config_, last_position + 1, parameters_.scalar_type(), &internals_->rotary);

    at::Tensor x = drop(EmbedRows(plan, weights.embedding, weights.item_embedding));
    for (const LayerWeights& layer : weights.layers) {
      parts.query_norm = layer.query_norm;
      parts.key_norm = layer.key_norm;
      const at::Tensor fused = Linear(RmsNorm(x, layer.input_norm, parts.eps), layer.qkv, layer.qkv_bias, at::Tensor());
      const bool needed_only = predictions_only && &layer == &weights.layers.back();
      at::Tensor attended = AttendTree(plan, fused, parts, needed_only);
      if (needed_only) {
        attended = SelectNeeded(plan, attended);
        x = SelectNeeded(plan, x);
      }
      x = add_projection(x, attended, layer.output, layer.output_bias);
      const at::Tensor gate_up =
          Linear(RmsNorm(x, layer.post_norm, parts.eps), layer.gate_up, at::Tensor(), at::Tensor());
      x = add_projection(x, GatedSilu(gate_up), layer.down, at::Tensor());
    }
    TreeOutput output;
    output.hidden = RmsNorm(x, weights.final_norm, parts.eps);
    output.computed_rows = plan->layout.rows;
    output.prediction_rows = plan->layout.prediction_rows;
    if (predictions_only) {
      const std::vector<int64_t>& needed = plan->needed_rows;
      for (int64_t& row : output.prediction_rows) {
        row = std::lower_bound(needed.begin(), needed.end(), row) - needed.begin();
      }
    } else {
      output.trunk_first_row = plan->layout.trunk_first;
      output.trunk_first_row.resize(batch.prompts.size());
    }
    output.prediction_first = plan->layout.prediction_first;
    return output;
  });
}

at::Tensor Policy::Logits(const at::Tensor& hidden) const {
  if (internals_->device_path != nullptr) return internals_->device_path->Logits(hidden);
  // As WithFillers: one kernel for many row counts.
  const int64_t rows = hidden.size(0);
  const int64_t fillers = hidden.scalar_type() == at::kFloat ? RoundedRows(rows) - rows : 0;
  if (fillers == 0) return Linear(hidden, internals_->weights.head, at::Tensor(), at::Tensor());
  const at::Tensor filled = at::constant_pad_nd(hidden, {0, 0, 0, fillers}, 0);
  return Linear(filled, internals_->weights.head, at::Tensor(), at::Tensor()).narrow(0, 0, rows);
}

}  // namespace sluice

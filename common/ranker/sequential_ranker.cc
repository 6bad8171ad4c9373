#include "common/ranker/sequential_ranker.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/safetensors/safetensors.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kWeightsFile[] = "model.safetensors";
constexpr char kModelType[] = "sluice_sequential_ranker";
constexpr int64_t kMaxConfigBytes = 1 << 20;
// Histories in one pass of Score: bounds the memory of a call of any size.
constexpr size_t kScoreRows = 512;

at::Tensor Drop(const at::Tensor& x, double dropout, const std::optional<at::Generator>& generator) {
  if (dropout <= 0) return x;
  const at::Tensor keep = at::empty_like(x, x.options().requires_grad(false)).bernoulli_(1 - dropout, generator);
  return x * keep.div_(1 - dropout);
}

std::string ConfigJson(const SequentialRankerConfig& config) {
  const nlohmann::ordered_json json = {{"model_type", kModelType},          {"num_items", config.num_items},
                                       {"hidden_size", config.hidden_size}, {"num_layers", config.num_layers},
                                       {"num_heads", config.num_heads},     {"max_positions", config.max_positions}};
  return json.dump(2) + "\n";
}

absl::StatusOr<SequentialRankerConfig> ParseConfig(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("model_type") || json["model_type"] != kModelType) {
    return absl::DataLossError(
        absl::StrCat(path, ": want a JSON object with model_type ", kModelType, "; prepare the data set again"));
  }
  SequentialRankerConfig config;
  for (const auto& [name, field] :
       {std::pair("num_items", &config.num_items), std::pair("hidden_size", &config.hidden_size),
        std::pair("num_layers", &config.num_layers), std::pair("num_heads", &config.num_heads),
        std::pair("max_positions", &config.max_positions)}) {
    if (!json.contains(name) || !json[name].is_number_integer()) {
      return absl::DataLossError(absl::StrCat(path, ": want an integer ", name));
    }
    *field = json[name].get<int64_t>();
  }
  if (const absl::Status status = config.Validate(); !status.ok()) {
    return absl::DataLossError(absl::StrCat(path, ": ", status.message()));
  }
  return config;
}

}  // namespace

absl::Status SequentialRankerConfig::Validate() const {
  const auto check = [](const char* name, int64_t value, int64_t high) {
    if (value >= 1 && value <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("sequential ranker: want ", name, " in [1, ", high, "], got ", value));
  };
  SLUICE_RETURN_IF_ERROR(check("num_items", num_items, int64_t{1} << 28));
  SLUICE_RETURN_IF_ERROR(check("hidden_size", hidden_size, 4096));
  SLUICE_RETURN_IF_ERROR(check("num_layers", num_layers, 48));
  SLUICE_RETURN_IF_ERROR(check("num_heads", num_heads, 64));
  SLUICE_RETURN_IF_ERROR(check("max_positions", max_positions, 4096));
  if (hidden_size % num_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequential ranker: want num_heads to divide hidden_size ", hidden_size, ", got ", num_heads));
  }
  return absl::OkStatus();
}

SequentialRanker::SequentialRanker(const SequentialRankerConfig& config) : config_(config) {
  const int64_t d = config.hidden_size;
  item_embedding_ = at::empty({config.num_items, d}, at::kFloat);
  position_embedding_ = at::empty({config.max_positions, d}, at::kFloat);
  blocks_.resize(static_cast<size_t>(config.num_layers));
  for (Block& block : blocks_) {
    block.norm1_weight = at::ones({d}, at::kFloat);
    block.norm1_bias = at::zeros({d}, at::kFloat);
    block.attention_weight = at::empty({3 * d, d}, at::kFloat);
    block.attention_bias = at::zeros({3 * d}, at::kFloat);
    block.output_weight = at::empty({d, d}, at::kFloat);
    block.output_bias = at::zeros({d}, at::kFloat);
    block.norm2_weight = at::ones({d}, at::kFloat);
    block.norm2_bias = at::zeros({d}, at::kFloat);
    block.expand_weight = at::empty({4 * d, d}, at::kFloat);
    block.expand_bias = at::zeros({4 * d}, at::kFloat);
    block.contract_weight = at::empty({d, 4 * d}, at::kFloat);
    block.contract_bias = at::zeros({d}, at::kFloat);
  }
  final_norm_weight_ = at::ones({d}, at::kFloat);
  final_norm_bias_ = at::zeros({d}, at::kFloat);
}

std::vector<std::pair<std::string, at::Tensor>> SequentialRanker::Weights() const {
  std::vector<std::pair<std::string, at::Tensor>> weights = {{"item_embedding.weight", item_embedding_},
                                                             {"position_embedding.weight", position_embedding_}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    const std::string prefix = absl::StrCat("blocks.", i, ".");
    weights.emplace_back(prefix + "norm1.weight", block.norm1_weight);
    weights.emplace_back(prefix + "norm1.bias", block.norm1_bias);
    weights.emplace_back(prefix + "attention.weight", block.attention_weight);
    weights.emplace_back(prefix + "attention.bias", block.attention_bias);
    weights.emplace_back(prefix + "output.weight", block.output_weight);
    weights.emplace_back(prefix + "output.bias", block.output_bias);
    weights.emplace_back(prefix + "norm2.weight", block.norm2_weight);
    weights.emplace_back(prefix + "norm2.bias", block.norm2_bias);
    weights.emplace_back(prefix + "expand.weight", block.expand_weight);
    weights.emplace_back(prefix + "expand.bias", block.expand_bias);
    weights.emplace_back(prefix + "contract.weight", block.contract_weight);
    weights.emplace_back(prefix + "contract.bias", block.contract_bias);
  }
  weights.emplace_back("final_norm.weight", final_norm_weight_);
  weights.emplace_back("final_norm.bias", final_norm_bias_);
  return weights;
}

absl::StatusOr<std::unique_ptr<SequentialRanker>> SequentialRanker::Create(const SequentialRankerConfig& config,
                                                                           uint64_t seed) {
  SLUICE_RETURN_IF_ERROR(config.Validate());
  return CatchTorch("making the sequential ranker", [&] {
    auto ranker = std::unique_ptr<SequentialRanker>(new SequentialRanker(config));
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    for (const auto& [name, weight] : ranker->Weights()) {
      if (weight.dim() == 2) at::Tensor(weight).normal_(0, 0.02, generator);
    }
    return ranker;
  });
}

absl::StatusOr<std::unique_ptr<SequentialRanker>> SequentialRanker::Load(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(const SequentialRankerConfig config, ParseConfig(JoinPath(folder, kConfigFile)));
  const std::string path = JoinPath(folder, kWeightsFile);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  // The embedding is the one tensor that a lying configuration could make huge: ask the file, whose header is checked
  // against its length, before anything is allocated.
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo embedding, file->Info("item_embedding.weight"));
  if (embedding.shape != std::vector<int64_t>{config.num_items, config.hidden_size}) {
    return absl::DataLossError(absl::StrCat(path, ": want item_embedding.weight [", config.num_items, ", ",
                                            config.hidden_size, "], got ", ShapeText(embedding.shape)));
  }
  return CatchTorch("loading the sequential ranker", [&]() -> absl::StatusOr<std::unique_ptr<SequentialRanker>> {
    auto ranker = std::unique_ptr<SequentialRanker>(new SequentialRanker(config));
    std::set<std::string> expected;
    for (const auto& [name, weight] : ranker->Weights()) {
      expected.insert(name);
      if (!file->Has(name)) return absl::DataLossError(absl::StrCat(path, ": tensor ", name, " is missing"));
      SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, file->Info(name));
      if (info.dtype != TensorDtype::kF32 ||
          absl::MakeConstSpan(info.shape) != absl::MakeConstSpan(weight.sizes().data(), weight.sizes().size())) {
        return absl::DataLossError(absl::StrCat(path, ": want ", name, " F32 [", absl::StrJoin(weight.sizes(), ", "),
                                                "], got ", DtypeName(info.dtype), " ", ShapeText(info.shape)));
      }
      SLUICE_RETURN_IF_ERROR(file->ReadInto(name, weight.data_ptr(), static_cast<int64_t>(weight.nbytes())));
      if (!at::isfinite(weight).all().item<bool>()) {
        return absl::DataLossError(absl::StrCat(path, ": ", name, " holds numbers that are not finite"));
      }
    }
    for (const auto& [name, info] : file->tensors()) {
      if (expected.count(name) == 0) {
        return absl::DataLossError(absl::StrCat(path, ": tensor ", name, " does not belong to a sequential ranker"));
      }
    }
    return ranker;
  });
}

absl::Status SequentialRanker::Save(const std::string& folder) const {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  std::vector<at::Tensor> held;  // contiguous copies, alive until the write is over
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, weight] : Weights()) {
    held.push_back(weight.detach().contiguous());
    tensors.push_back({.name = name,
                       .dtype = TensorDtype::kF32,
                       .shape = weight.sizes().vec(),
                       .data = held.back().data_ptr(),
                       .bytes = static_cast<int64_t>(held.back().nbytes())});
  }
  SLUICE_RETURN_IF_ERROR(WriteSafetensors(JoinPath(folder, kWeightsFile), tensors));
  return WriteFileAtomically(JoinPath(folder, kConfigFile), absl::string_view(ConfigJson(config_)));
}

std::string SequentialRanker::Digest() const {
  std::string digests = ConfigJson(config_);
  for (const auto& [name, weight] : Weights()) {
    const at::Tensor bytes = weight.detach().contiguous();
    absl::StrAppend(&digests, name, " ",
                    Sha256(absl::string_view(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes())), "\n");
  }
  return Sha256(digests);
}

at::Tensor SequentialRanker::Forward(absl::Span<const std::vector<int32_t>> sequences, double dropout,
                                     const std::optional<at::Generator>& generator) const {
  const int64_t rows = static_cast<int64_t>(sequences.size());
  const int64_t d = config_.hidden_size, heads = config_.num_heads;
  int64_t length = 0;
  for (const std::vector<int32_t>& sequence : sequences) {
    length = std::max(length, static_cast<int64_t>(sequence.size()));
  }
  // Sequences lie at the left and padding at the right, so that causal attention alone hides the padding; only the
  // position ids are counted from the end.
  at::Tensor items = at::zeros({rows, length}, at::kLong);
  at::Tensor positions = at::zeros({rows, length}, at::kLong);
  std::vector<int64_t> valid;
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t>& sequence = sequences[static_cast<size_t>(row)];
    const int64_t count = static_cast<int64_t>(sequence.size());
    SLUICE_CHECK(count >= 1 && count <= config_.max_positions, "a sequence of no or too many items");
    for (int64_t i = 0; i < count; ++i) {
      items.data_ptr<int64_t>()[row * length + i] = sequence[static_cast<size_t>(i)];
      positions.data_ptr<int64_t>()[row * length + i] = config_.max_positions - count + i;
      valid.push_back(row * length + i);
    }
  }
  const auto norm = [d](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    return at::layer_norm(x, {d}, weight, bias, 1e-5);
  };
  at::Tensor x = at::embedding(item_embedding_, items) + at::embedding(position_embedding_, positions);
  x = Drop(x, dropout, generator);
  for (const Block& block : blocks_) {
    const at::Tensor projected =
        at::linear(norm(x, block.norm1_weight, block.norm1_bias), block.attention_weight, block.attention_bias)
            .view({rows, length, 3, heads, d / heads})
            .permute({2, 0, 3, 1, 4});  // [3, B, H, P, D / H]
    const at::Tensor mixed = at::scaled_dot_product_attention(projected[0], projected[1], projected[2],
                                                              /*attn_mask=*/{}, /*dropout_p=*/0, /*is_causal=*/true)
                                 .transpose(1, 2)
                                 .reshape({rows, length, d});
    x = x + Drop(at::linear(mixed, block.output_weight, block.output_bias), dropout, generator);
    const at::Tensor expanded =
        at::gelu(at::linear(norm(x, block.norm2_weight, block.norm2_bias), block.expand_weight, block.expand_bias));
    x = x + Drop(at::linear(expanded, block.contract_weight, block.contract_bias), dropout, generator);
  }
  const at::Tensor rows_kept = x.view({rows * length, d}).index_select(0, torch::tensor(valid, at::kLong));
  return norm(rows_kept, final_norm_weight_, final_norm_bias_);
}

absl::Status SequentialRanker::CheckHistories(absl::Span<const std::vector<int32_t>> histories) const {
  for (size_t row = 0; row < histories.size(); ++row) {
    if (histories[row].empty()) return absl::InvalidArgumentError(absl::StrCat("history ", row, " is empty"));
    for (const int32_t item : histories[row]) {
      if (item < 0 || item >= config_.num_items) {
        return absl::InvalidArgumentError(
            absl::StrCat("history ", row, " names item ", item, ", the ranker has items 0 to ", config_.num_items - 1));
      }
    }
  }
  return absl::OkStatus();
}

at::Tensor SequentialRanker::LastHidden(absl::Span<const std::vector<int32_t>> histories) const {
  std::vector<std::vector<int32_t>> recent;
  std::vector<int64_t> last;
  int64_t total = 0;
  for (const std::vector<int32_t>& history : histories) {
    const size_t count = std::min(history.size(), static_cast<size_t>(config_.max_positions));
    recent.emplace_back(history.end() - static_cast<std::ptrdiff_t>(count), history.end());
    total += static_cast<int64_t>(count);
    last.push_back(total - 1);
  }
  return Forward(recent, /*dropout=*/0, std::nullopt).index_select(0, torch::tensor(last, at::kLong));
}

absl::StatusOr<std::vector<std::vector<float>>> SequentialRanker::Score(
    absl::Span<const std::vector<int32_t>> histories, absl::Span<const std::vector<int32_t>> items) const {
  if (histories.size() != items.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("want one list of items a history, got ", items.size(), " lists for ", histories.size()));
  }
  SLUICE_RETURN_IF_ERROR(CheckHistories(histories));
  for (size_t row = 0; row < items.size(); ++row) {
    for (const int32_t item : items[row]) {
      if (item < 0 || item >= config_.num_items) {
        return absl::InvalidArgumentError(
            absl::StrCat("list ", row, " names item ", item, ", the ranker has items 0 to ", config_.num_items - 1));
      }
    }
  }
  return CatchTorch("scoring with the sequential ranker", [&] {
    const c10::InferenceMode guard;
    std::vector<std::vector<float>> scores(items.size());
    for (size_t first = 0; first < histories.size(); first += kScoreRows) {
      const size_t count = std::min(kScoreRows, histories.size() - first);
      const at::Tensor hidden = LastHidden(histories.subspan(first, count));  // [count, D]
      std::vector<int64_t> flat_items, flat_rows;
      for (size_t row = 0; row < count; ++row) {
        flat_items.insert(flat_items.end(), items[first + row].begin(), items[first + row].end());
        flat_rows.insert(flat_rows.end(), items[first + row].size(), static_cast<int64_t>(row));
      }
      const at::Tensor logits = (item_embedding_.index_select(0, torch::tensor(flat_items, at::kLong)) *
                                 hidden.index_select(0, torch::tensor(flat_rows, at::kLong)))
                                    .sum(-1)
                                    .contiguous();
      const float* next = logits.data_ptr<float>();
      for (size_t row = 0; row < count; ++row) {
        scores[first + row].assign(next, next + items[first + row].size());
        next += items[first + row].size();
      }
    }
    return scores;
  });
}

absl::StatusOr<at::Tensor> SequentialRanker::ScoreAll(absl::Span<const std::vector<int32_t>> histories) const {
  SLUICE_RETURN_IF_ERROR(CheckHistories(histories));
  if (histories.empty()) return absl::InvalidArgumentError("want at least one history");
  return CatchTorch("scoring with the sequential ranker", [&] {
    const c10::InferenceMode guard;
    return at::matmul(LastHidden(histories), item_embedding_.t());
  });
}

}  // namespace sluice

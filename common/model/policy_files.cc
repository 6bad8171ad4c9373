// Policies as folders of files: config.json and safetensors, the way Hugging Face's transformers has them.
#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/model/policy_internals.h"
#include "common/safetensors/safetensors.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kModelFile[] = "model.safetensors";
constexpr char kEncoderFile[] = "sluice_encoder.safetensors";
constexpr char kValueFile[] = "sluice_value.safetensors";
constexpr char kLeafTokens[] = "leaf_tokens";
constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

absl::StatusOr<at::ScalarType> TypeOf(const std::string& name, TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kF32:
      return at::kFloat;
    case TensorDtype::kF16:
      return at::kHalf;
    case TensorDtype::kBF16:
      return at::kBFloat16;
    case TensorDtype::kF64:
      return at::kDouble;
    default:
      return absl::UnimplementedError(
          absl::StrCat("tensor ", name, " is of type ", std::string(DtypeName(dtype)), ", want F32, BF16 or F16"));
  }
}

// Files of tied models from some writers carry the head anyway; old Llama files carry rotary tables. transformers
// passes over both, and so do we.
bool IsHarmless(const PolicyConfig& config, const std::string& name) {
  return (config.tie_embeddings && name == "lm_head.weight") || absl::EndsWith(name, ".rotary_emb.inv_freq");
}

// `Source` is a SafetensorsFile or SafetensorsFolder. rows: the file's row i goes to row rows[i], other rows become 0;
// null: the file has all rows.
template <typename Source>
absl::Status ReadTensor(const Source& source, const FileTensor& tensor, const ParameterMap& map,
                        const at::Tensor& parameters, const std::vector<int64_t>* rows = nullptr) {
  std::vector<int64_t> shape = tensor.shape;
  if (rows != nullptr) shape[0] = static_cast<int64_t>(rows->size());
  if (!source.Has(tensor.name)) {
    return absl::DataLossError(absl::StrCat("tensor ", tensor.name, " ", ShapeText(shape), " is missing"));
  }
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, source.Info(tensor.name));
  if (info.shape != shape) {
    return absl::DataLossError(
        absl::StrCat("want tensor ", tensor.name, " ", ShapeText(shape), ", got ", ShapeText(info.shape)));
  }
  SLUICE_ASSIGN_OR_RETURN(const at::ScalarType type, TypeOf(tensor.name, info.dtype));
  return CatchTorch("reading a tensor", [&]() -> absl::Status {
    const at::Tensor values = at::empty(shape, type);
    SLUICE_RETURN_IF_ERROR(source.ReadInto(tensor.name, values.data_ptr(), info.bytes));
    at::Tensor view = map.layout.View(parameters, tensor.entry).narrow(0, tensor.first_row, tensor.rows);
    if (rows == nullptr) {
      view.copy_(values);
    } else {
      view.zero_();
      view.index_copy_(0, torch::tensor(*rows, at::kLong), values.to(view.scalar_type()));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Trie> ReadLeaves(const SafetensorsFile& file, const PolicyConfig& config) {
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, file.Info(kLeafTokens));
  if (info.dtype != TensorDtype::kI32 || info.shape.size() != 2 || info.shape[0] != config.num_leaves ||
      info.shape[1] < 1 || info.shape[1] > 8) {
    return absl::DataLossError(absl::StrCat("want tensor ", kLeafTokens, " [", config.num_leaves,
                                            ", levels] of type I32, got ", ShapeText(info.shape), " of type ",
                                            std::string(DtypeName(info.dtype))));
  }
  std::vector<int32_t> tokens(info.elements());
  SLUICE_RETURN_IF_ERROR(file.ReadInto(kLeafTokens, tokens.data(), info.bytes));
  absl::StatusOr<Trie> trie = Trie::Build(static_cast<int>(info.shape[1]), tokens);
  if (!trie.ok()) return absl::DataLossError(absl::StrCat(kLeafTokens, ": ", trie.status().message()));
  for (int64_t leaf = 0; leaf < config.num_leaves; ++leaf) {
    if (trie->num_leaves() != config.num_leaves || trie->LeafOfItem(static_cast<int32_t>(leaf)) != leaf) {
      return absl::DataLossError(
          absl::StrCat(kLeafTokens, ": want distinct rows in ascending order, row ", leaf, " is not"));
    }
  }
  return trie;
}

bool SameLeaves(const Trie& a, const Trie& b) {
  if (a.levels() != b.levels() || a.num_leaves() != b.num_leaves()) return false;
  for (int32_t leaf = 0; leaf < a.num_leaves(); ++leaf) {
    if (a.TokensOfLeaf(leaf) != b.TokensOfLeaf(leaf)) return false;
  }
  return true;
}

// Where each leaf of a smaller catalog is in a larger one; none if the larger one lacks any of them.
std::optional<std::vector<int64_t>> LeavesWithin(const Trie& smaller, const Trie& larger) {
  if (smaller.levels() != larger.levels()) return std::nullopt;
  std::vector<int64_t> leaves;
  leaves.reserve(smaller.num_leaves());
  for (int32_t leaf = 0; leaf < smaller.num_leaves(); ++leaf) {
    const int32_t found = larger.FindLeaf(smaller.TokensOfLeaf(leaf));
    if (found == Trie::kNone) return std::nullopt;
    leaves.push_back(found);
  }
  return leaves;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> Policy::Load(const std::string& folder, std::shared_ptr<const Trie> trie,
                                                     at::ScalarType dtype) {
  SLUICE_ASSIGN_OR_RETURN(const std::string json, ReadFile(JoinPath(folder, kConfigFile), kMaxConfigBytes));
  absl::StatusOr<PolicyConfig> config = PolicyConfig::FromJson(json);
  if (!config.ok()) return Annotate(config.status(), folder);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFolder> model, SafetensorsFolder::Open(folder));

  std::unique_ptr<SafetensorsFile> encoder;
  // A trie made from the file has one item a leaf, so its version is not the catalog's: the check is the leaves'.
  PolicyConfig checked = *config;
  std::optional<std::vector<int64_t>> known_leaves;  // of a catalog that has grown
  if (config->encoder == PromptEncoderKind::kMerged) {
    const std::string path = JoinPath(folder, kEncoderFile);
    SLUICE_ASSIGN_OR_RETURN(encoder, SafetensorsFile::Open(path));
    absl::StatusOr<Trie> leaves = ReadLeaves(*encoder, *config);
    if (!leaves.ok()) return Annotate(leaves.status(), path);
    if (trie == nullptr) {
      trie = std::make_shared<const Trie>(*std::move(leaves));
      checked.catalog_version.clear();
    } else if (!SameLeaves(*trie, *leaves)) {
      known_leaves = LeavesWithin(*leaves, *trie);
      if (!known_leaves) {
        return absl::FailedPreconditionError(
            absl::StrCat(path,
                         ": the policy's semantic IDs are not all in the catalog: use the catalog that it was "
                         "trained on, or one that only has more"));
      }
      checked.num_leaves = config->num_leaves = trie->num_leaves();
      checked.catalog_version = config->catalog_version = trie->version();
    }
  }
  std::unique_ptr<SafetensorsFile> value;
  if (config->value_hidden > 0) {
    SLUICE_ASSIGN_OR_RETURN(value, SafetensorsFile::Open(JoinPath(folder, kValueFile)));
  }
  absl::StatusOr<std::unique_ptr<Policy>> made = Allocate(checked, std::move(trie), dtype);
  if (!made.ok()) return Annotate(made.status(), folder);
  std::unique_ptr<Policy> policy = *std::move(made);
  policy->config_ = *config;
  if (known_leaves) policy->new_leaves_ = config->num_leaves - static_cast<int64_t>(known_leaves->size());

  c10::InferenceMode no_inference(false);
  at::NoGradGuard no_grad;
  const ParameterMap& map = policy->internals_->map;
  std::set<std::string> model_names, own_names = {kLeafTokens};
  for (const FileTensor& tensor : map.files) {
    absl::Status status;
    if (tensor.file == TensorFile::kModel) {
      model_names.insert(tensor.name);
      status = Annotate(ReadTensor(*model, tensor, map, policy->parameters_), folder);
    } else {
      own_names.insert(tensor.name);
      const SafetensorsFile& file = tensor.file == TensorFile::kEncoder ? *encoder : *value;
      const bool grown = known_leaves && tensor.file == TensorFile::kEncoder;
      status =
          Annotate(ReadTensor(file, tensor, map, policy->parameters_, grown ? &*known_leaves : nullptr), file.path());
    }
    SLUICE_RETURN_IF_ERROR(status);
  }
  for (const std::string& name : model->names()) {
    if (!model_names.contains(name) && !IsHarmless(*config, name)) {
      return absl::DataLossError(absl::StrCat(folder, ": tensor ", name, " belongs to no parameter of a ",
                                              config->num_layers, "-layer policy of this architecture"));
    }
  }
  for (const SafetensorsFile* file : {encoder.get(), value.get()}) {
    if (file == nullptr) continue;
    for (const auto& [name, info] : file->tensors()) {
      if (!own_names.contains(name)) {
        return absl::DataLossError(absl::StrCat(file->path(), ": tensor ", name, " belongs to no parameter"));
      }
    }
  }
  return policy;
}

absl::Status Policy::Save(const std::string& folder, const at::Tensor& parameters) const {
  if (!IsDirectory(folder)) return absl::NotFoundError(absl::StrCat(folder, ": no such folder"));
  SLUICE_CHECK(parameters.sizes() == parameters_.sizes(), "an arena of another shape than the policy's");
  return CatchTorch("saving a policy", [&]() -> absl::Status {
    at::NoGradGuard no_grad;
    const at::Tensor values = parameters.to(at::kCPU, at::kFloat).contiguous();
    const ParameterMap& map = internals_->map;
    std::vector<TensorToWrite> model, encoder, value;
    for (const FileTensor& tensor : map.files) {
      // Rows of a parameter are consecutive in the arena.
      const at::Tensor view = map.layout.View(values, tensor.entry).narrow(0, tensor.first_row, tensor.rows);
      std::vector<TensorToWrite>& file =
          tensor.file == TensorFile::kModel ? model : (tensor.file == TensorFile::kEncoder ? encoder : value);
      file.push_back({tensor.name, TensorDtype::kF32, tensor.shape, view.data_ptr(),
                      view.numel() * static_cast<int64_t>(sizeof(float))});
    }
    SLUICE_RETURN_IF_ERROR(WriteSafetensors(JoinPath(folder, kModelFile), model, {{"format", "pt"}}));
    std::vector<int32_t> leaf_tokens;
    if (config_.encoder == PromptEncoderKind::kMerged) {
      leaf_tokens = LeafTokens(*trie_);
      encoder.push_back({kLeafTokens,
                         TensorDtype::kI32,
                         {trie_->num_leaves(), trie_->levels()},
                         leaf_tokens.data(),
                         static_cast<int64_t>(leaf_tokens.size() * sizeof(int32_t))});
      SLUICE_RETURN_IF_ERROR(WriteSafetensors(JoinPath(folder, kEncoderFile), encoder, {{"format", "pt"}}));
    }
    if (!value.empty()) {
      SLUICE_RETURN_IF_ERROR(WriteSafetensors(JoinPath(folder, kValueFile), value, {{"format", "pt"}}));
    }
    return WriteFileAtomically(JoinPath(folder, kConfigFile), config_.ToJson());
  });
}

}  // namespace sluice

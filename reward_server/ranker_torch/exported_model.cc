#include "reward_server/ranker_torch/exported_model.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/version.h>

#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"
#include "nlohmann/json.hpp"

namespace sluice::reward {
namespace {

// What sluice.export_ranker writes into a file, and its keys.
constexpr char kExtraFile[] = "sluice.json";
constexpr char kTorchKey[] = "sluice_torch";
constexpr char kRemedy[] = "export it again with 'python -m sluice.export_ranker' and torch " TORCH_VERSION;

struct TypePair {
  TensorType ours;
  at::ScalarType theirs;
};
constexpr std::array<TypePair, 13> kTypes = {{{TensorType::kBool, at::kBool},
                                              {TensorType::kInt8, at::kChar},
                                              {TensorType::kInt16, at::kShort},
                                              {TensorType::kInt32, at::kInt},
                                              {TensorType::kInt64, at::kLong},
                                              {TensorType::kUint8, at::kByte},
                                              {TensorType::kUint16, at::kUInt16},
                                              {TensorType::kUint32, at::kUInt32},
                                              {TensorType::kUint64, at::kUInt64},
                                              {TensorType::kFp16, at::kHalf},
                                              {TensorType::kBf16, at::kBFloat16},
                                              {TensorType::kFp32, at::kFloat},
                                              {TensorType::kFp64, at::kDouble}}};

// Views of the tensors' bytes, which must outlive them.
absl::StatusOr<std::vector<at::Tensor>> Views(std::vector<Tensor>* inputs) {
  std::vector<at::Tensor> views;
  for (Tensor& input : *inputs) {
    const auto* found =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const TypePair& t) { return t.ours == input.type; });
    if (found == kTypes.end()) {
      return absl::InvalidArgumentError(absl::StrCat("input '", input.name, "' is of ", TensorTypeName(input.type),
                                                     ", which no exported model takes"));
    }
    views.push_back(at::from_blob(input.raw.data(), input.shape, at::TensorOptions().dtype(found->theirs)));
  }
  return views;
}

absl::StatusOr<Tensor> Copied(std::string name, const at::Tensor& output) {
  if (!output.defined()) return absl::DataLossError(absl::StrCat("output '", name, "' is no tensor"));
  const auto* found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypePair& t) { return t.theirs == output.scalar_type(); });
  if (found == kTypes.end()) {
    return absl::DataLossError(
        absl::StrCat("output '", name, "' is of type ", c10::toString(output.scalar_type()), ", want numbers"));
  }
  // Not copied if it is larger than any answer can be.
  if (output.numel() > kMaxOutputElements) {
    return absl::DataLossError(absl::StrCat("output '", name, "' has ", output.numel(), " elements"));
  }
  const at::Tensor plain = output.detach().cpu().contiguous();
  Tensor tensor;
  tensor.name = std::move(name);
  tensor.type = found->ours;
  tensor.shape = plain.sizes().vec();
  tensor.raw.assign(static_cast<const char*>(plain.const_data_ptr()), plain.nbytes());
  return tensor;
}

// "2.14.1" of "2.14.1+cu130".
std::string WithoutBuild(const std::string& version) { return version.substr(0, version.find('+')); }

absl::Status CheckTorch(const std::string& path, const std::string& version) {
  if (WithoutBuild(version) == WithoutBuild(TORCH_VERSION)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("'", path, "' was exported by torch ", version, ", this server has ", TORCH_VERSION, "; ", kRemedy));
}

absl::Status Damaged(const std::string& path, const absl::Status& status) {
  // The first line says it; the rest is a trace.
  const absl::string_view all = status.message();
  return absl::DataLossError(absl::StrCat(
      "'", path, "' cannot be loaded: ", all.substr(0, std::min<size_t>(all.find('\n'), 300)), "; ", kRemedy));
}

class TorchScriptModel : public TensorModel {
 public:
  TorchScriptModel(torch::jit::Module module, std::string version)
      : module_(std::move(module)), version_(std::move(version)) {}

  const std::string& version() const override { return version_; }

  absl::StatusOr<std::vector<Tensor>> Run(std::vector<Tensor> inputs, absl::Time /*deadline*/) const override {
    return CatchTorch("the exported model", [&]() -> absl::StatusOr<std::vector<Tensor>> {
      const at::InferenceMode inference;
      // The optimizer watches the first calls and changes the program, and low bits with it.
      const torch::jit::GraphOptimizerEnabledGuard optimize(false);
      SLUICE_ASSIGN_OR_RETURN(const std::vector<at::Tensor> views, Views(&inputs));
      torch::jit::Module module = module_;  // shares all; forward is not const
      return Outputs(module.forward(std::vector<c10::IValue>(views.begin(), views.end())));
    });
  }

 private:
  static absl::StatusOr<std::vector<Tensor>> Outputs(const c10::IValue& answer) {
    std::vector<Tensor> outputs;
    const auto add = [&](std::string name, const c10::IValue& value) -> absl::Status {
      if (!value.isTensor()) return absl::DataLossError(absl::StrCat("output '", name, "' is no tensor"));
      SLUICE_ASSIGN_OR_RETURN(outputs.emplace_back(), Copied(std::move(name), value.toTensor()));
      return absl::OkStatus();
    };
    if (answer.isTensor()) {
      SLUICE_RETURN_IF_ERROR(add("0", answer));
    } else if (answer.isTuple()) {
      for (const c10::IValue& element : answer.toTupleRef().elements()) {
        SLUICE_RETURN_IF_ERROR(add(absl::StrCat(outputs.size()), element));
      }
    } else if (answer.isGenericDict()) {
      for (const auto& entry : answer.toGenericDict()) {
        if (!entry.key().isString())
          return absl::DataLossError("the model answers with a dict whose keys are no strings");
        SLUICE_RETURN_IF_ERROR(add(entry.key().toStringRef(), entry.value()));
      }
    } else {
      return absl::DataLossError(absl::StrCat("the model answers with a ", answer.tagKind(),
                                              ", want a tensor, a tuple of them, or a dict of them by name"));
    }
    return outputs;
  }

  const torch::jit::Module module_;
  const std::string version_;
};

class AotInductorModel : public TensorModel {
 public:
  AotInductorModel(std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader, std::string version)
      : loader_(std::move(loader)), version_(std::move(version)) {}

  const std::string& version() const override { return version_; }

  absl::StatusOr<std::vector<Tensor>> Run(std::vector<Tensor> inputs, absl::Time /*deadline*/) const override {
    return CatchTorch("the exported model", [&]() -> absl::StatusOr<std::vector<Tensor>> {
      const at::InferenceMode inference;
      SLUICE_ASSIGN_OR_RETURN(const std::vector<at::Tensor> views, Views(&inputs));
      std::vector<Tensor> outputs;
      for (const at::Tensor& output : loader_->run(views)) {
        SLUICE_ASSIGN_OR_RETURN(outputs.emplace_back(), Copied(absl::StrCat(outputs.size()), output));
      }
      return outputs;
    });
  }

 private:
  const std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader_;
  const std::string version_;
};

absl::StatusOr<std::unique_ptr<TensorModel>> LoadTorchScript(const std::string& path, std::string digest) {
  torch::jit::ExtraFilesMap extra = {{kExtraFile, ""}};
  auto module = CatchTorch("loading", [&] { return torch::jit::load(path, at::kCPU, extra); });
  if (!module.ok()) return Damaged(path, module.status());
  // TorchScript lives longer than a release of torch; only who says the version is held to it.
  const nlohmann::json json = nlohmann::json::parse(extra[kExtraFile], nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains(kTorchKey) && json[kTorchKey].is_string()) {
    SLUICE_RETURN_IF_ERROR(CheckTorch(path, json[kTorchKey].get<std::string>()));
  }
  module->eval();
  return std::make_unique<TorchScriptModel>(*std::move(module), std::move(digest));
}

// Whether this processor has the instructions that the package was compiled for: one that lacks them kills the process.
absl::Status CheckProcessor(const std::string& path, const std::string& instructions) {
  const bool has = absl::StrContains(instructions, "AVX512") ? __builtin_cpu_supports("avx512f") != 0
                   : absl::StrContains(instructions, "AVX2") ? __builtin_cpu_supports("avx2") != 0
                                                             : true;
  if (has) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("'", path, "' was compiled for ", instructions,
                   ", which this processor lacks; export it on a machine like this one, or "
                   "with ATEN_CPU_CAPABILITY=default"));
}

absl::StatusOr<std::unique_ptr<TensorModel>> LoadAotInductor(const std::string& path, std::string digest, int calls) {
  using Loader = torch::inductor::AOTIModelPackageLoader;
  // Read before anything of the package is loaded as code.
  const auto metadata = CatchTorch("loading", [&] { return Loader::load_metadata_from_package(path, "model"); });
  if (!metadata.ok()) return Damaged(path, metadata.status());
  const auto of = [&](const char* key) {
    const auto found = metadata->find(key);
    return found == metadata->end() ? std::string() : found->second;
  };
  if (of(kTorchKey).empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "'", path, "' does not say which torch compiled it, and another one's package may do anything; ", kRemedy));
  }
  SLUICE_RETURN_IF_ERROR(CheckTorch(path, of(kTorchKey)));
  if (of("AOTI_DEVICE_KEY") != "cpu") {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' was compiled for the device '", of("AOTI_DEVICE_KEY"), "', want cpu; ", kRemedy));
  }
  SLUICE_RETURN_IF_ERROR(CheckProcessor(path, of("AOTI_CPU_ISA")));
  auto loader = CatchTorch("loading", [&] {
    return std::make_unique<Loader>(path, "model", /*run_single_threaded=*/false, static_cast<size_t>(calls));
  });
  if (!loader.ok()) return Damaged(path, loader.status());
  return std::make_unique<AotInductorModel>(*std::move(loader), std::move(digest));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorModel>> LoadExportedModel(const QueryEncoder& encoder) {
  const RankerMapping& mapping = encoder.mapping();
  SLUICE_ASSIGN_OR_RETURN(std::string digest, FileSha256(mapping.file));
  // Torch does not look at the checksums inside its files.
  if (!mapping.file_sha256.empty() && digest != mapping.file_sha256) {
    return absl::DataLossError(absl::StrCat("'", mapping.file, "' has the SHA-256 ", digest, ", ", mapping.source,
                                            " wants ", mapping.file_sha256,
                                            "; it is damaged or another one: export it again, or mend the mapping"));
  }
  if (mapping.kind == RankerMapping::Kind::kTorchScript) return LoadTorchScript(mapping.file, std::move(digest));
  return LoadAotInductor(mapping.file, std::move(digest), mapping.remote.calls);
}

}  // namespace sluice::reward

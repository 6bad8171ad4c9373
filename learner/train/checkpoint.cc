#include "learner/train/checkpoint.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/failpoint/failpoint.h"
#include "common/file/file.h"
#include "common/safetensors/safetensors.h"
#include "common/status/status.h"
#include "learner/mirror/checkpoint_manifest.h"

namespace sluice::learner {
namespace {

constexpr int kFormat = 1;
constexpr char kPrefix[] = "step-";
constexpr char kTemporary[] = ".tmp";
constexpr char kTaken[] = ".taken.tmp";  // behind the name of what RemoveUnfinishedCheckpoints removes
constexpr char kDamagedPrefix[] = "damaged-";
// Lines of a difference that a message shows.
constexpr size_t kShownDifferences = 12;

absl::Status WriteManifest(const std::string& folder, uint64_t step) {
  nlohmann::json manifest;
  manifest["format"] = kFormat;
  manifest["step"] = step;
  SLUICE_RETURN_IF_ERROR(DescribeFiles(folder, &manifest["files"]));
  SLUICE_RETURN_IF_ERROR(SyncDirectory(JoinPath(folder, "model")));
  SLUICE_RETURN_IF_ERROR(SyncDirectory(folder));
  return WriteFileAtomically(JoinPath(folder, kManifestFile), manifest.dump(2) + "\n");
}

absl::Status VerifyManifest(const std::string& folder) {
  const std::string remedy = "; resume from an older checkpoint by removing this folder, or restore it from a backup";
  if (!PathExists(JoinPath(folder, kManifestFile))) {
    return absl::DataLossError(absl::StrCat("checkpoint '", folder, "' has no ", kManifestFile, remedy));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(folder, kManifestFile)));
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, false);
  // The parser minds neither a lost line feed nor a zero byte behind the end.
  if (!absl::EndsWith(text, "}\n") || !manifest.is_object() || !manifest.contains("files") ||
      !manifest["files"].is_object()) {
    return absl::DataLossError(absl::StrCat("'", JoinPath(folder, kManifestFile), "' is not a manifest", remedy));
  }
  if (manifest.value("format", 0) != kFormat) {
    return absl::FailedPreconditionError(absl::StrCat("checkpoint '", folder, "' has format ",
                                                      manifest.value("format", 0), ", this version reads ", kFormat,
                                                      "; resume with the version that wrote it"));
  }
  // A manifest that forgot a file would leave it unverified.
  for (const char* required : {"model/config.json", "model/model.safetensors", "optimizer.safetensors", "state.json"}) {
    if (!manifest["files"].contains(required)) {
      return absl::DataLossError(
          absl::StrCat("'", JoinPath(folder, kManifestFile), "' does not list '", required, "'", remedy));
    }
  }
  for (const auto& [file, entry] : manifest["files"].items()) {
    const std::string path = JoinPath(folder, file);
    absl::StatusOr<std::string> digest = FileSha256(path);
    if (!digest.ok()) return absl::DataLossError(absl::StrCat(digest.status().message(), remedy));
    if (!entry.is_object() || *digest != entry.value("sha256", "")) {
      return absl::DataLossError(absl::StrCat("'", path, "' is not what its manifest says (SHA-256 differs)", remedy));
    }
  }
  return absl::OkStatus();
}

// `arena` must outlive the use of what is returned.
TensorToWrite ArenaToWrite(const char* name, const at::Tensor& arena) {
  TensorToWrite entry;
  entry.name = name;
  entry.dtype = arena.scalar_type() == at::kDouble ? TensorDtype::kF64 : TensorDtype::kF32;
  entry.shape = {arena.numel()};
  entry.data = arena.const_data_ptr();
  entry.bytes = static_cast<int64_t>(arena.nbytes());
  return entry;
}

absl::Status WriteOptimizer(const std::string& path, const TrainedArenas& arenas) {
  const at::Tensor first = arenas.first_moments.to(at::kCPU).contiguous();
  const at::Tensor second = arenas.second_moments.to(at::kCPU).contiguous();
  const std::vector<TensorToWrite> tensors = {ArenaToWrite("first", first), ArenaToWrite("second", second)};
  return WriteSafetensors(path, tensors, {{"steps", absl::StrCat(arenas.steps)}});
}

constexpr char kReferenceFile[] = "reference.safetensors";
constexpr char kReferenceTensor[] = "parameters";

absl::StatusOr<at::Tensor> ReadReference(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, file->Info(kReferenceTensor));
  if (info.shape.size() != 1 || (info.dtype != TensorDtype::kF32 && info.dtype != TensorDtype::kF64)) {
    return absl::DataLossError(absl::StrCat("'", path, "' holds no parameter arena"));
  }
  at::Tensor arena = torch::empty({info.shape[0]}, info.dtype == TensorDtype::kF64 ? torch::kDouble : torch::kFloat);
  SLUICE_RETURN_IF_ERROR(
      file->ReadInto(kReferenceTensor, arena.mutable_data_ptr(), static_cast<int64_t>(arena.nbytes())));
  return arena;
}

// What a checkpoint's state says of its validation; none if it cannot be read, which is found out when it is resumed.
std::optional<double> ScoreOf(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(JoinPath(path, "state.json"));
  if (!text.ok()) return std::nullopt;
  const nlohmann::json document = nlohmann::json::parse(*text, nullptr, false);
  if (!document.is_object() || !document.contains("score") || !document["score"].is_number()) return std::nullopt;
  return document["score"].get<double>();
}

// A folder of this writer alone beside `path`: one that was taken for dead may still be writing the same checkpoint.
absl::StatusOr<std::string> MakeFolderAside(const std::string& path, uint64_t epoch) {
  for (int number = 0;; ++number) {
    const std::string aside = absl::StrCat(path, ".", epoch, ".", number, kTemporary);
    std::error_code error;
    if (std::filesystem::create_directory(aside, error)) return aside;
    if (!error) continue;  // another's
    SLUICE_RETURN_IF_ERROR(MakeDirectories(aside));
    return aside;
  }
}

}  // namespace

std::string CheckpointName(uint64_t step) { return absl::StrFormat("%s%08d", kPrefix, step); }

TrainedArenas ArenasOf(const Policy& policy, const AdamW& optimizer) {
  return {policy.parameters(), optimizer.first_moments(), optimizer.second_moments(), optimizer.steps()};
}

void CopyArenas(const TrainedArenas& arenas, TrainedArenas* copy) {
  const at::NoGradGuard no_grad;
  const auto into = [](const at::Tensor& from, at::Tensor* to) {
    if (!to->defined() || to->sizes() != from.sizes() || to->scalar_type() != from.scalar_type()) {
      *to = torch::empty_like(from, from.options().device(at::kCPU).requires_grad(false));
    }
    to->copy_(from);
  };
  into(arenas.parameters, &copy->parameters);
  into(arenas.first_moments, &copy->first_moments);
  into(arenas.second_moments, &copy->second_moments);
  copy->steps = arenas.steps;
}

namespace {

absl::StatusOr<std::string> Write(const std::string& parent, const CheckpointState& state, const Policy& policy,
                                  const TrainedArenas& arenas, const CheckpointFence& fence) {
  const std::string path = JoinPath(parent, CheckpointName(state.step));
  SLUICE_ASSIGN_OR_RETURN(const std::string aside, MakeFolderAside(path, fence.epoch));
  absl::Cleanup remove = [&aside] { RemoveAll(aside).IgnoreError(); };
  const std::string model = JoinPath(aside, "model");
  SLUICE_RETURN_IF_ERROR(MakeDirectories(model));
  SLUICE_RETURN_IF_ERROR(policy.Save(model, arenas.parameters));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_policy"));
  SLUICE_RETURN_IF_ERROR(WriteOptimizer(JoinPath(aside, "optimizer.safetensors"), arenas));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_optimizer"));
  if (state.reference.defined()) {
    const at::Tensor arena = state.reference.detach().to(at::kCPU).contiguous();
    SLUICE_RETURN_IF_ERROR(
        WriteSafetensors(JoinPath(aside, kReferenceFile), {ArenaToWrite(kReferenceTensor, arena)}, {}));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_reference"));
  for (size_t rank = 0; rank < state.ledgers.size(); ++rank) {
    const std::string file = JoinPath(aside, absl::StrCat("ledger-", rank, ".json"));
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(file, state.ledgers[rank]));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_ledger"));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(aside, "state.json"), CheckpointFactsText(state)));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/before_manifest"));
  SLUICE_RETURN_IF_ERROR(WriteManifest(aside, state.step));
  SLUICE_RETURN_IF_ERROR(SyncDirectory(aside));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/before_rename"));
  if (fence.check) SLUICE_RETURN_IF_ERROR(fence.check());
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_fence"));
  // The last step of a job is written twice, and a run that resumed from an older checkpoint repeats a step.
  SLUICE_RETURN_IF_ERROR(ReplaceFolder(aside, path));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/after_rename"));
  return path;
}

}  // namespace

absl::StatusOr<std::string> WriteCheckpoint(const std::string& parent, const CheckpointState& state,
                                            const Policy& policy, const TrainedArenas& arenas,
                                            const CheckpointFence& fence) {
  absl::StatusOr<std::string> path = Write(parent, state, policy, arenas, fence);
  // Files that vanish under a writer are a consequence of what the fence says.
  if (!path.ok() && fence.check) SLUICE_RETURN_IF_ERROR(fence.check());
  return path;
}

absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& parent) {
  std::vector<std::string> paths;
  if (!IsDirectory(parent)) return paths;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(parent));
  for (const std::string& name : names) {
    const std::string path = JoinPath(parent, name);
    if (absl::StartsWith(name, kPrefix) && !absl::EndsWith(name, kTemporary) && IsDirectory(path))
      paths.push_back(path);
  }
  return paths;
}

absl::StatusOr<CheckpointState> ReadCheckpointState(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(VerifyManifest(path));
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(path, "state.json")));
  CheckpointState state;
  SLUICE_ASSIGN_OR_RETURN(static_cast<CheckpointFacts&>(state),
                          ParseCheckpointFacts(text, absl::StrCat("'", path, "/state.json'")));
  for (size_t rank = 0; rank < state.ledgers.size(); ++rank) {
    SLUICE_ASSIGN_OR_RETURN(state.ledgers[rank], ReadFile(JoinPath(path, absl::StrCat("ledger-", rank, ".json"))));
  }
  if (const std::string file = JoinPath(path, kReferenceFile); PathExists(file)) {
    SLUICE_ASSIGN_OR_RETURN(state.reference, ReadReference(file));
  }
  return state;
}

absl::Status RestoreCheckpoint(const std::string& path, Policy* policy, AdamW* optimizer) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> saved,
                          Policy::Load(JoinPath(path, "model"), policy->trie(), policy->parameters().scalar_type()));
  if (saved->layout_digest() != policy->layout_digest()) {
    return absl::InvalidArgumentError(
        absl::StrCat("checkpoint '", path, "' holds a policy of another shape than the job's model"));
  }
  SLUICE_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(JoinPath(path, "optimizer.safetensors")));
  const auto steps_text = file->metadata().find("steps");
  int64_t steps = 0;
  if (steps_text == file->metadata().end() || !absl::SimpleAtoi(steps_text->second, &steps)) {
    return absl::DataLossError(absl::StrCat("'", file->path(), "' does not say its number of steps"));
  }
  const at::Tensor moments = optimizer->first_moments();
  at::Tensor first = torch::empty_like(moments, moments.options().device(at::kCPU));
  at::Tensor second = torch::empty_like(first);
  SLUICE_RETURN_IF_ERROR(file->ReadInto("first", first.mutable_data_ptr(), static_cast<int64_t>(first.nbytes())));
  SLUICE_RETURN_IF_ERROR(file->ReadInto("second", second.mutable_data_ptr(), static_cast<int64_t>(second.nbytes())));
  SLUICE_RETURN_IF_ERROR(optimizer->Restore(steps, first, second));
  torch::NoGradGuard no_grad;
  policy->parameters().copy_(saved->parameters());
  return absl::OkStatus();
}

absl::Status CheckResumable(const CheckpointFacts& facts, const std::string& spec_yaml, const std::string& spec_digest,
                            const std::string& data_digest) {
  if (facts.data_digest != data_digest) {
    return absl::FailedPreconditionError(absl::StrCat("the data set changed since the checkpoint: digest ",
                                                      facts.data_digest, " then, ", data_digest,
                                                      " now; give the data set it was made with, or start a new job"));
  }
  if (facts.spec_digest == spec_digest) return absl::OkStatus();
  const std::vector<std::string> then = absl::StrSplit(facts.spec_yaml, '\n');
  const std::vector<std::string> now = absl::StrSplit(spec_yaml, '\n');
  const std::set<std::string> then_lines(then.begin(), then.end());
  const std::set<std::string> now_lines(now.begin(), now.end());
  std::vector<std::string> differences;
  for (const std::string& line : then) {
    if (now_lines.count(line) == 0) differences.push_back("- " + line);
  }
  for (const std::string& line : now) {
    if (then_lines.count(line) == 0) differences.push_back("+ " + line);
  }
  if (differences.size() > kShownDifferences) {
    differences.resize(kShownDifferences);
    differences.push_back("...");
  }
  return absl::FailedPreconditionError(absl::StrCat("the spec changed since the checkpoint (- then, + now):\n",
                                                    absl::StrJoin(differences, "\n"),
                                                    "\nresume with the spec of the checkpoint, or start a new job"));
}

absl::StatusOr<std::string> SetCheckpointAside(const std::string& path) {
  const std::filesystem::path from(path);
  const std::string parent = from.parent_path().string();
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(parent));
  for (const std::string& name : names) {
    if (absl::StartsWith(name, kDamagedPrefix)) SLUICE_RETURN_IF_ERROR(RemoveAll(JoinPath(parent, name)));
  }
  const std::string to = JoinPath(parent, absl::StrCat(kDamagedPrefix, from.filename().string()));
  SLUICE_RETURN_IF_ERROR(RenamePath(path, to));
  return to;
}

absl::Status RemoveUnfinishedCheckpoints(const std::string& parent) {
  if (!IsDirectory(parent)) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(parent));
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, kPrefix) || !absl::EndsWith(name, kTemporary)) continue;
    std::string path = JoinPath(parent, name);
    if (!absl::EndsWith(name, kTaken)) {
      // First out of its writer's reach, in one operation: half of it must not take its name meanwhile.
      const std::string taken = path + kTaken;
      SLUICE_RETURN_IF_ERROR(RemoveAll(taken));
      const absl::Status moved = RenamePath(path, taken);
      if (absl::IsNotFound(moved)) continue;  // just finished
      SLUICE_RETURN_IF_ERROR(moved);
      path = taken;
    }
    SLUICE_RETURN_IF_ERROR(RemoveAll(path));
  }
  return absl::OkStatus();
}

absl::Status PruneCheckpoints(const std::string& parent, int keep, int keep_best) {
  SLUICE_RETURN_IF_ERROR(RemoveUnfinishedCheckpoints(parent));
  SLUICE_ASSIGN_OR_RETURN(std::vector<std::string> old, ListCheckpoints(parent));
  old.resize(old.size() - std::min(old.size(), static_cast<size_t>(keep)));
  std::vector<std::pair<double, std::string>> scored;
  if (keep_best > 0) {
    for (const std::string& path : old) {
      if (const std::optional<double> score = ScoreOf(path)) scored.emplace_back(-*score, path);
    }
  }
  std::sort(scored.begin(), scored.end());
  scored.resize(std::min(scored.size(), static_cast<size_t>(keep_best)));
  for (const auto& [score, path] : scored) std::erase(old, path);
  for (const std::string& path : old) {
    // Under a name that says so: a killed process must not leave half a checkpoint that looks damaged.
    SLUICE_RETURN_IF_ERROR(RemoveAll(path + kTemporary));
    SLUICE_RETURN_IF_ERROR(RenamePath(path, path + kTemporary));
    SLUICE_RETURN_IF_ERROR(RemoveAll(path + kTemporary));
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner

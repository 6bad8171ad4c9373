#include "learner/run/run_mirror.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/object_store/open_object_store.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/mirror/checkpoint_manifest.h"
#include "learner/run/best_policy.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {
namespace {

constexpr absl::Duration kRequestTimeout = absl::Seconds(10);
constexpr absl::Duration kRetryTimeout = absl::Seconds(5);
constexpr int64_t kMaxMetricsBytes = kMaxTextFileBytes;

// In the folder of exports; ends as what is being written does.
constexpr char kHeld[] = "best.mirror.tmp";

std::string LastPart(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// The step of the best policy that a checkpoint with these numbers knows of.
std::optional<uint64_t> BestStep(const std::map<std::string, double>& numbers) {
  BestPolicy best;
  best.Restore(numbers);
  const auto step = best.metrics().find(BestPolicy::kStep);
  if (step == best.metrics().end()) return std::nullopt;
  return static_cast<uint64_t>(step->second);
}

// What CheckpointMirror wants in a folder that it copies.
absl::Status WriteManifest(const std::string& folder) {
  nlohmann::json manifest;
  SLUICE_RETURN_IF_ERROR(DescribeFiles(folder, &manifest["files"]));
  return WriteFileAtomically(JoinPath(folder, kManifestFile), manifest.dump(2) + "\n");
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunMirror>> RunMirror::Open(const std::string& url, const std::string& run_folder,
                                                           NowFunction now) {
  const std::string name = LastPart(std::filesystem::path(run_folder).lexically_normal().string());
  SLUICE_RETURN_IF_ERROR(Annotate(CheckKey(name), "the run folder's name"));
  TransferOptions transfer;
  transfer.now = std::move(now);
  transfer.wait = [](absl::Duration time) {
    absl::SleepFor(time);
    return true;
  };
  // Also while the process is asked to stop: what a preempted machine has written must still leave it. But a store that
  // is down must not cost a drain its notice.
  transfer.request_timeout = kRequestTimeout;
  transfer.retry_timeout = kRetryTimeout;
  transfer.stopped = [] { return false; };
  transfer.seed = DeriveSeed(static_cast<uint64_t>(getpid()), {static_cast<uint64_t>(absl::GetCurrentTimeNanos())});
  absl::StatusOr<std::shared_ptr<ObjectStore>> store = OpenObjectStore(url, transfer, ProcessEnvironment());
  if (!store.ok()) return Annotate(store.status(), "checkpoint.mirror");
  return std::unique_ptr<RunMirror>(new RunMirror(*store, name));
}

absl::StatusOr<RunMirror::Fetched> RunMirror::Fetch(const RunFolder& folder, std::optional<uint64_t> newer_than) {
  FetchOptions options;
  options.beside_folder = folder.path();
  options.newer_than = newer_than;
  SLUICE_ASSIGN_OR_RETURN(const FetchedCheckpoint checkpoint, checkpoints_.FetchNewest(folder.checkpoints(), options));
  Fetched fetched;
  fetched.any = !checkpoint.path.empty();
  std::vector<std::string> told;
  if (fetched.any) {
    told.push_back(absl::StrCat("fetched checkpoint ", LastPart(checkpoint.path), " from ", name()));
    SLUICE_ASSIGN_OR_RETURN(const std::string best, FetchBest(folder, checkpoint.path));
    if (!best.empty()) told.push_back(best);
  }
  if (!checkpoint.damaged.empty()) {
    told.push_back(
        absl::StrCat("newer checkpoints in ", name(), " are damaged: ", absl::StrJoin(checkpoint.damaged, "; ")));
  }
  fetched.told = absl::StrJoin(told, "; ");
  // RunFolder makes an empty file of metrics.
  if (const absl::StatusOr<int64_t> bytes = FileBytes(folder.metrics()); fetched.any && (!bytes.ok() || *bytes == 0)) {
    const absl::Status status = store_->GetToFile(MetricsKey(), folder.metrics(), kMaxMetricsBytes, {});
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return fetched;
}

absl::StatusOr<std::string> RunMirror::FetchBest(const RunFolder& folder, const std::string& checkpoint) {
  const std::string file = JoinPath(checkpoint, "state.json");
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  SLUICE_ASSIGN_OR_RETURN(const CheckpointFacts facts, ParseCheckpointFacts(text, absl::StrCat("'", file, "'")));
  const std::optional<uint64_t> step = BestStep(facts.numbers);
  if (!step) return std::string();
  const std::string held = folder.export_folder(kHeld);
  const absl::Cleanup remove = [&held] { RemoveAll(held).IgnoreError(); };
  SLUICE_RETURN_IF_ERROR(RemoveAll(held));
  const std::string name = CheckpointName(*step);
  const absl::Status status = best_.FetchNamed(name, held);
  if (absl::IsNotFound(status) || absl::IsDataLoss(status)) {
    return absl::StrCat("the best policy, of step ", *step, ", could not be fetched with it (", status.message(),
                        "); the next validation that is better makes export/best anew");
  }
  SLUICE_RETURN_IF_ERROR(status);
  SLUICE_RETURN_IF_ERROR(RemoveAll(JoinPath(JoinPath(held, name), kManifestFile)));
  SLUICE_RETURN_IF_ERROR(
      folder.ReplaceBest(*step, [&] { return ReplaceFolder(JoinPath(held, name), folder.export_folder("best")); }));
  return absl::StrCat("and export/best of step ", *step);
}

absl::Status RunMirror::HoldBest(const RunFolder& folder, const std::map<std::string, double>& numbers) {
  held_.clear();
  const std::optional<uint64_t> step = BestStep(numbers);
  if (!step || best_sent_ == CheckpointName(*step)) return absl::OkStatus();
  // A job that went back to an older checkpoint has the export of a validation that it has not done yet.
  if (folder.BestStep() != step) return absl::OkStatus();
  const std::string best = folder.export_folder("best");
  SLUICE_RETURN_IF_ERROR(RemoveAll(folder.export_folder(kHeld)));
  const std::string held = JoinPath(folder.export_folder(kHeld), CheckpointName(*step));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(held));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(best));
  for (const std::string& name : names) {
    std::error_code error;
    std::filesystem::create_hard_link(JoinPath(best, name), JoinPath(held, name), error);
    if (error) {
      return absl::InternalError(absl::StrCat("cannot link '", JoinPath(best, name), "': ", error.message()));
    }
  }
  held_ = held;
  return absl::OkStatus();
}

absl::Status RunMirror::SendBest() {
  if (held_.empty()) return absl::OkStatus();
  const std::string held = std::exchange(held_, "");
  const absl::Cleanup remove = [&held] { RemoveAll(std::filesystem::path(held).parent_path().string()).IgnoreError(); };
  SLUICE_RETURN_IF_ERROR(WriteManifest(held));
  SLUICE_RETURN_IF_ERROR(best_.Upload(held));
  best_sent_ = LastPart(held);
  return absl::OkStatus();
}

absl::Status RunMirror::Send(const RunFolder& folder, const std::string& checkpoint,
                             const std::optional<TableMark>& table, const std::function<absl::Status()>& still_ours) {
  SLUICE_RETURN_IF_ERROR(still_ours());
  if (PathExists(folder.metrics())) {
    // Rows may be added meanwhile: one try, of what is there now.
    SLUICE_ASSIGN_OR_RETURN(const std::string metrics, ReadFile(folder.metrics(), kMaxMetricsBytes));
    SLUICE_RETURN_IF_ERROR(store_->Put(MetricsKey(), metrics));
  }
  std::vector<FileBeside> beside;
  if (table) {
    beside.push_back({LastPart(folder.ledger()), folder.ledger(), {static_cast<int64_t>(table->bytes), table->sha256}});
  }
  const std::string name = LastPart(checkpoint);
  // First, so that a checkpoint that is there has its best policy there.
  const absl::Status best = SendBest();
  SLUICE_RETURN_IF_ERROR(checkpoints_.Upload(checkpoint, beside));
  SLUICE_RETURN_IF_ERROR(still_ours());
  SLUICE_RETURN_IF_ERROR(checkpoints_.RemoveNewer(name));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  std::vector<std::string> keep = {name};
  for (const std::string& path : here) keep.push_back(LastPart(path));
  SLUICE_RETURN_IF_ERROR(checkpoints_.Prune(keep));
  SLUICE_RETURN_IF_ERROR(Annotate(best, "export/best"));
  if (best_sent_.empty()) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(best_.RemoveNewer(best_sent_));
  return best_.Prune({best_sent_});
}

}  // namespace sluice::learner

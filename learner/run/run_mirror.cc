#include "learner/run/run_mirror.h"

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/object_store/open_object_store.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 30;

std::string LastPart(const std::string& path) { return std::filesystem::path(path).filename().string(); }

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
  // Also while the process is asked to stop: what a preempted machine has written must still leave it.
  transfer.stopped = [] { return false; };
  transfer.seed = DeriveSeed(static_cast<uint64_t>(getpid()), {static_cast<uint64_t>(absl::GetCurrentTimeNanos())});
  std::unique_ptr<ObjectStore> stores[2];
  for (std::unique_ptr<ObjectStore>& store : stores) {
    absl::StatusOr<std::unique_ptr<ObjectStore>> opened = OpenObjectStore(url, transfer, ProcessEnvironment());
    if (!opened.ok()) return Annotate(opened.status(), "checkpoint.mirror");
    store = *std::move(opened);
  }
  return std::unique_ptr<RunMirror>(new RunMirror(std::move(stores[0]), std::move(stores[1]), name));
}

std::string RunMirror::Key(const std::string& path) const { return absl::StrCat(name_, "/", LastPart(path)); }

absl::Status RunMirror::FetchFile(const std::string& path) {
  // RunFolder makes an empty file of metrics.
  if (const absl::StatusOr<int64_t> bytes = FileBytes(path); bytes.ok() && *bytes > 0) return absl::OkStatus();
  const absl::Status status = files_->GetToFile(Key(path), path, kMaxFileBytes, {});
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::StatusOr<std::string> RunMirror::Fetch(const RunFolder& folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> there, checkpoints_.List());
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  // Names are in the order of their steps.
  if (there.empty() || (!here.empty() && LastPart(here.back()) > there.back())) return std::string();
  const bool was_here = !here.empty() && LastPart(here.back()) == there.back() && ReadCheckpointState(here.back()).ok();
  SLUICE_ASSIGN_OR_RETURN(const std::optional<FetchedCheckpoint> fetched,
                          checkpoints_.FetchNewest(folder.checkpoints()));
  SLUICE_RETURN_IF_ERROR(FetchFile(folder.ledger()));
  SLUICE_RETURN_IF_ERROR(FetchFile(folder.metrics()));
  if (!fetched || was_here) return std::string();
  std::string told = absl::StrCat("fetched checkpoint ", LastPart(fetched->path), " from ", name());
  if (!fetched->damaged.empty()) {
    absl::StrAppend(&told, "; newer ones there are damaged: ", absl::StrJoin(fetched->damaged, "; "));
  }
  return told;
}

absl::Status RunMirror::Send(const RunFolder& folder, const std::string& checkpoint) {
  // Before the checkpoint, which holds how much of them counts.
  for (const std::string& path : {folder.ledger(), folder.metrics()}) {
    if (PathExists(path)) SLUICE_RETURN_IF_ERROR(files_->PutFile(Key(path), path, {}));
  }
  SLUICE_RETURN_IF_ERROR(checkpoints_.Upload(checkpoint));
  SLUICE_RETURN_IF_ERROR(checkpoints_.RemoveNewer(LastPart(checkpoint)));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  std::vector<std::string> keep = {LastPart(checkpoint)};
  for (const std::string& path : here) keep.push_back(LastPart(path));
  return checkpoints_.Prune(keep);
}

}  // namespace sluice::learner

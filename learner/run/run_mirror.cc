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

constexpr absl::Duration kRequestTimeout = absl::Seconds(10);
constexpr absl::Duration kRetryTimeout = absl::Seconds(5);
constexpr int64_t kMaxMetricsBytes = kMaxTextFileBytes;

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
  // Also while the process is asked to stop: what a preempted machine has written must still leave it. But a store that
  // is down must not cost a drain its notice.
  transfer.request_timeout = kRequestTimeout;
  transfer.retry_timeout = kRetryTimeout;
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

absl::StatusOr<std::string> RunMirror::Fetch(const RunFolder& folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  FetchOptions options;
  options.beside_folder = folder.path();
  for (auto path = here.rbegin(); path != here.rend() && !options.newer_than; ++path) {
    const absl::StatusOr<CheckpointState> state = ReadCheckpointState(*path);
    if (state.ok()) options.newer_than = state->step;
  }
  SLUICE_ASSIGN_OR_RETURN(const FetchedCheckpoint fetched, checkpoints_.FetchNewest(folder.checkpoints(), options));
  const std::string damaged = absl::StrJoin(fetched.damaged, "; ");
  if (fetched.path.empty()) {
    return damaged.empty() ? std::string() : absl::StrCat("newer checkpoints in ", name(), " are damaged: ", damaged);
  }
  // RunFolder makes an empty file of metrics.
  if (const absl::StatusOr<int64_t> bytes = FileBytes(folder.metrics()); !bytes.ok() || *bytes == 0) {
    const absl::Status status = files_->GetToFile(MetricsKey(), folder.metrics(), kMaxMetricsBytes, {});
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  std::string told = absl::StrCat("fetched checkpoint ", LastPart(fetched.path), " from ", name());
  if (!damaged.empty()) absl::StrAppend(&told, "; newer ones there are damaged: ", damaged);
  return told;
}

absl::Status RunMirror::Send(const RunFolder& folder, const std::string& checkpoint,
                             const std::optional<TableMark>& table) {
  if (PathExists(folder.metrics())) {
    // Rows may be added meanwhile: one try, of what is there now.
    SLUICE_ASSIGN_OR_RETURN(const std::string metrics, ReadFile(folder.metrics(), kMaxMetricsBytes));
    SLUICE_RETURN_IF_ERROR(files_->Put(MetricsKey(), metrics));
  }
  std::vector<FileBeside> beside;
  if (table) {
    beside.push_back({LastPart(folder.ledger()), folder.ledger(), {static_cast<int64_t>(table->bytes), table->sha256}});
  }
  const std::string name = LastPart(checkpoint);
  SLUICE_RETURN_IF_ERROR(checkpoints_.Upload(checkpoint, beside));
  SLUICE_RETURN_IF_ERROR(checkpoints_.RemoveNewer(name));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  std::vector<std::string> keep = {name};
  for (const std::string& path : here) keep.push_back(LastPart(path));
  return checkpoints_.Prune(keep);
}

}  // namespace sluice::learner

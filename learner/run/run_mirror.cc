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
  if (fetched.any) told.push_back(absl::StrCat("fetched checkpoint ", LastPart(checkpoint.path), " from ", name()));
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

absl::Status RunMirror::Send(const RunFolder& folder, const std::string& checkpoint,
                             const std::optional<TableMark>& table,
                             const std::function<absl::Status()>& still_ours) {
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
  SLUICE_RETURN_IF_ERROR(checkpoints_.Upload(checkpoint, beside));
  SLUICE_RETURN_IF_ERROR(still_ours());
  SLUICE_RETURN_IF_ERROR(checkpoints_.RemoveNewer(name));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> here, ListCheckpoints(folder.checkpoints()));
  std::vector<std::string> keep = {name};
  for (const std::string& path : here) keep.push_back(LastPart(path));
  return checkpoints_.Prune(keep);
}

}  // namespace sluice::learner

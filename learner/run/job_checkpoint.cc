#include "learner/run/job_checkpoint.h"

#include <torch/types.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failpoint/failpoint.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "learner/ledger/merge_shards.h"
#include "learner/run/checkpoint_mark.h"
#include "learner/run/share_state.h"

namespace sluice::learner {
namespace {

// What rank 0 tells the others of its look for a checkpoint.
constexpr int64_t kNoCheckpoint = 0;
constexpr int64_t kResumed = 1;
constexpr int64_t kFailed = 2;

// Rank 0's verdict on something that it alone did, told to all: without it the others would go on and hang.
absl::Status TellAll(Collective& collective, const absl::Status& mine) {
  at::Tensor failed = torch::tensor({mine.ok() ? int64_t{0} : int64_t{1}}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(failed, 0));
  if (collective.rank() == 0) return mine;
  if (failed.item<int64_t>() == 0) return absl::OkStatus();
  return absl::AbortedError("the first rank could not write the checkpoint; its error is the job's");
}

}  // namespace

JobCheckpoints::JobCheckpoints(const RunContext& context, const RunFolder& folder, std::string data_digest)
    : context_(context),
      folder_(folder),
      epoch_(context.collective->epoch()),
      data_digest_(std::move(data_digest)),
      writer_(folder.checkpoints(), {epoch_, [this] { return CheckStillOurs(); }}) {}

absl::Status JobCheckpoints::CheckStillOurs() const { return CheckMarkEpoch(folder_.checkpoint_mark(), epoch_); }

TableFence JobCheckpoints::TableOfOurs() const {
  return {epoch_, [this] { return CheckStillOurs(); }};
}

absl::StatusOr<std::optional<CheckpointState>> JobCheckpoints::FindNewest() {
  const std::string mark_path = folder_.checkpoint_mark();
  SLUICE_ASSIGN_OR_RETURN(const CheckpointMark mark, TakeCheckpointMark(mark_path, epoch_));
  SLUICE_RETURN_IF_ERROR(RemoveUnfinishedCheckpoints(folder_.checkpoints()));
  SLUICE_RETURN_IF_ERROR(TerminalTable::RemoveUnfinished(folder_.ledger()));

  Damage damage;
  SLUICE_ASSIGN_OR_RETURN(std::optional<CheckpointState> found, NewestWhole(&damage));
  if (const std::string& url = context_.options.checkpoint.mirror; !url.empty()) {
    SLUICE_ASSIGN_OR_RETURN(mirror_, RunMirror::Open(url, folder_.path(), context_.now));
    SLUICE_ASSIGN_OR_RETURN(const RunMirror::Fetched fetched,
                            mirror_->Fetch(folder_, found ? std::optional<uint64_t>(found->step) : std::nullopt));
    if (!fetched.told.empty()) context_.monitor->ReportLog(fetched.told);
    if (fetched.any) {
      damage = {};
      SLUICE_ASSIGN_OR_RETURN(found, NewestWhole(&damage));
    }
  }
  if (found) {
    if (mark.step != found->step) SLUICE_RETURN_IF_ERROR(AdvanceCheckpointMark(mark_path, epoch_, found->step));
    for (const std::string& path : damage.paths) {
      SLUICE_ASSIGN_OR_RETURN(const std::string aside, SetCheckpointAside(path));
      context_.monitor->ReportLog(absl::StrCat("checkpoint ", path, " is damaged and now lies in ", aside,
                                               "; going on from that of step ", found->step, ": ",
                                               damage.error.message()));
    }
    return found;
  }
  if (!damage.paths.empty()) {
    return absl::DataLossError(absl::StrCat("no checkpoint in '", folder_.checkpoints(),
                                            "' is whole: ", damage.error.message(),
                                            "; without one, submit the job anew in another run folder"));
  }
  if (mark.step) {
    return absl::DataLossError(
        absl::StrCat("'", folder_.checkpoints(), "' is empty, and the job had a checkpoint of step ", *mark.step,
                     "; restore it from a backup, or remove '", mark_path, "' to start the job from nothing"));
  }
  return found;
}

absl::StatusOr<std::optional<CheckpointState>> JobCheckpoints::NewestWhole(Damage* damage) const {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> paths, ListCheckpoints(folder_.checkpoints()));
  for (auto path = paths.rbegin(); path != paths.rend(); ++path) {
    absl::StatusOr<CheckpointState> state = ReadCheckpointState(*path);
    absl::Status status = state.status();
    if (status.ok() && state->table) status = TerminalTable::Verify(folder_.ledger(), *state->table);
    if (status.ok()) return std::optional<CheckpointState>(*std::move(state));
    if (!absl::IsDataLoss(status)) return status;
    damage->error.Update(status);
    damage->paths.push_back(*path);
  }
  return std::optional<CheckpointState>();
}

absl::StatusOr<std::optional<CheckpointState>> JobCheckpoints::ResumeOnFirst(Policy* policy, AdamW* optimizer) {
  SLUICE_ASSIGN_OR_RETURN(std::optional<CheckpointState> state, FindNewest());
  if (!state) return state;
  SLUICE_RETURN_IF_ERROR(CheckResumable(*state, context_.spec_yaml, context_.resume_digest, data_digest_));
  const std::string path = JoinPath(folder_.checkpoints(), CheckpointName(state->step));
  SLUICE_RETURN_IF_ERROR(RestoreCheckpoint(path, policy, optimizer));
  if (state->table) {
    SLUICE_ASSIGN_OR_RETURN(table_, TerminalTable::Reopen(folder_.ledger(), *state->table, TableOfOurs()));
  }
  return state;
}

absl::StatusOr<std::optional<CheckpointState>> JobCheckpoints::Resume(Policy* policy, AdamW* optimizer) {
  Collective& collective = *context_.collective;
  std::optional<CheckpointState> state;
  absl::Status status;
  if (context_.is_first()) {
    absl::StatusOr<std::optional<CheckpointState>> resumed = ResumeOnFirst(policy, optimizer);
    status = resumed.status();
    if (status.ok()) state = *std::move(resumed);
  }
  at::Tensor told = torch::tensor({!status.ok() ? kFailed : state ? kResumed : kNoCheckpoint}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(told, 0));
  SLUICE_RETURN_IF_ERROR(status);
  const auto verdict = told.item<int64_t>();
  if (verdict == kFailed) return absl::AbortedError("the first rank could not resume; its error is the job's");
  if (verdict == kNoCheckpoint) return std::optional<CheckpointState>();
  if (!state) state.emplace();
  if (collective.world_size() > 1) SLUICE_RETURN_IF_ERROR(ShareState(collective, &*state, policy, optimizer));
  // Each rank has read the data set by itself, and it may be another one.
  if (!context_.is_first()) {
    SLUICE_RETURN_IF_ERROR(CheckResumable(*state, context_.spec_yaml, context_.resume_digest, data_digest_));
  }
  ledgers_ = state->ledgers;
  return state;
}

absl::Status JobCheckpoints::RestoreLedger(GroupSource* source) const {
  if (ledgers_.empty()) return absl::OkStatus();
  const size_t rank = static_cast<size_t>(context_.collective->rank());
  if (ledgers_.size() == static_cast<size_t>(context_.collective->world_size())) return source->Restore(ledgers_[rank]);
  if (rank != 0) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::string merged, MergeLedgerShards(ledgers_));
  return source->Restore(merged);
}

absl::Status JobCheckpoints::Save(CheckpointState state, const Policy& policy, const AdamW& optimizer,
                                  const LedgerPart& ledger, Writing writing) {
  std::string ended;
  if (ledger.source != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(state.ledgers, GatherStrings(*context_.collective, ledger.source->Snapshot()));
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> lines, GatherStrings(*context_.collective, ledger.ended));
    if (context_.is_first()) ended = MergeTerminalLines(lines);
  }
  absl::Status status;
  if (context_.is_first()) {
    SLUICE_FAILPOINT("checkpoint/begin");
    status = SaveOnFirst(std::move(state), policy, optimizer, ledger.balance, ended, writing);
  }
  return TellAll(*context_.collective, status);
}

absl::Status JobCheckpoints::SaveOnFirst(CheckpointState state, const Policy& policy, const AdamW& optimizer,
                                         const LedgerBalance& balance, const std::string& ended, Writing writing) {
  SLUICE_RETURN_IF_ERROR(SettleOnFirst());
  SLUICE_RETURN_IF_ERROR(CheckStillOurs());
  if (!state.ledgers.empty()) {
    if (table_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(table_, TerminalTable::Create(folder_.ledger(), TableOfOurs()));
    }
    SLUICE_RETURN_IF_ERROR(table_->Append(ended));
    state.table = table_->mark();
  }
  state.spec_yaml = context_.spec_yaml;
  state.spec_digest = context_.resume_digest;
  state.data_digest = data_digest_;
  const CheckpointOptions& options = context_.options.checkpoint;
  const auto on_written = [this, options, table = state.table, step = state.step, version = state.policy_version,
                           balance](const std::string& path) -> absl::Status {
    SLUICE_RETURN_IF_ERROR(AdvanceCheckpointMark(folder_.checkpoint_mark(), epoch_, step));
    SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/before_prune"));
    SLUICE_RETURN_IF_ERROR(PruneCheckpoints(folder_.checkpoints(), options.keep, options.keep_best));
    SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/before_report"));
    context_.monitor->ReportCheckpoint(path, step, version, balance);
    if (mirror_ == nullptr) return absl::OkStatus();
    if (const absl::Status sent = mirror_->Send(folder_, path, table, [this] { return CheckStillOurs(); });
        !sent.ok()) {
      context_.monitor->ReportLog(absl::StrCat("the checkpoint of step ", step, " was not copied whole to ",
                                               mirror_->name(), ", which keeps an older one: ", sent.message()));
    }
    return absl::OkStatus();
  };
  if (mirror_ != nullptr) {
    // On this thread, which exports: what the writer copies then is that of this checkpoint.
    if (const absl::Status held = mirror_->HoldBest(folder_, state.numbers); !held.ok()) {
      context_.monitor->ReportLog(absl::StrCat("export/best is not copied to ", mirror_->name(),
                                               " with the checkpoint of step ", state.step, ": ", held.message()));
    }
  }
  SLUICE_RETURN_IF_ERROR(writer_.Start(std::move(state), policy, optimizer, on_written));
  return writing == Writing::kNow || !options.behind ? SettleOnFirst() : absl::OkStatus();
}

absl::Status JobCheckpoints::SettleOnFirst() {
  const Blocked::Wait wait(context_.waits != nullptr ? &context_.waits->checkpoint : nullptr);
  return writer_.Settle();
}

}  // namespace sluice::learner

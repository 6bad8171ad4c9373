#include "learner/run/job_checkpoint.h"

#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "learner/ledger/merge_shards.h"

namespace sluice::learner {
namespace {

constexpr int64_t kNoCheckpoint = -1;

// Rank 0's verdict on something that it alone did, told to all: without it the others would go on and hang.
absl::Status TellAll(Collective& collective, const absl::Status& mine) {
  at::Tensor failed = torch::tensor({mine.ok() ? int64_t{0} : int64_t{1}}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(collective.Broadcast(failed, 0));
  if (collective.rank() == 0) return mine;
  if (failed.item<int64_t>() == 0) return absl::OkStatus();
  return absl::AbortedError("the first rank could not write the checkpoint; its error is the job's");
}

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherStrings(Collective& collective, const std::string& mine) {
  const int64_t world = collective.world_size();
  at::Tensor sizes = torch::zeros({world}, torch::kLong);
  sizes[collective.rank()].fill_(static_cast<int64_t>(mine.size()));
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(sizes));
  // Each rank's bytes in a row of words of its own; a sum with zeros is a copy.
  const int64_t words = sizes.max().item<int64_t>() / static_cast<int64_t>(sizeof(int64_t)) + 1;
  at::Tensor rows = torch::zeros({world, words}, torch::kLong);
  std::memcpy(rows[collective.rank()].mutable_data_ptr(), mine.data(), mine.size());
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(rows));
  std::vector<std::string> all;
  for (int64_t rank = 0; rank < world; ++rank) {
    all.emplace_back(static_cast<const char*>(rows[rank].const_data_ptr()),
                     static_cast<size_t>(sizes[rank].item<int64_t>()));
  }
  return all;
}

absl::StatusOr<std::optional<CheckpointState>> JobCheckpoints::Resume(Policy* policy, AdamW* optimizer) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> found, ListCheckpoints(folder_.checkpoints()));
  // A rank whose view of the shared folder lags must not resume from another step than the first rank.
  int64_t newest = kNoCheckpoint;
  std::optional<CheckpointState> state;
  if (context_.is_first() && !found.empty()) {
    SLUICE_ASSIGN_OR_RETURN(state, ReadCheckpointState(found.back()));
    newest = static_cast<int64_t>(state->step);
  }
  at::Tensor step = torch::tensor({newest}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(context_.collective->Broadcast(step, 0));
  newest = step.item<int64_t>();
  if (newest == kNoCheckpoint) return std::optional<CheckpointState>();
  const std::string path = JoinPath(folder_.checkpoints(), CheckpointName(static_cast<uint64_t>(newest)));
  if (!state) {
    SLUICE_ASSIGN_OR_RETURN(state, ReadCheckpointState(path));
  }
  SLUICE_RETURN_IF_ERROR(CheckResumable(*state, context_.spec_yaml, context_.resume_digest, data_digest_));
  SLUICE_RETURN_IF_ERROR(RestoreCheckpoint(path, policy, optimizer));
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
                                  const GroupSource* source, const LedgerBalance& balance) {
  if (source != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(state.ledgers, GatherStrings(*context_.collective, source->Snapshot()));
  }
  state.spec_yaml = context_.spec_yaml;
  state.spec_digest = context_.resume_digest;
  state.data_digest = data_digest_;
  absl::Status status;
  if (context_.is_first()) {
    absl::StatusOr<std::string> path = WriteCheckpoint(folder_.checkpoints(), state, policy, optimizer);
    status = path.status();
    if (status.ok()) status = PruneCheckpoints(folder_.checkpoints(), context_.options.checkpoint.keep);
    if (status.ok()) context_.monitor->ReportCheckpoint(*path, state.step, state.policy_version, balance);
  }
  return TellAll(*context_.collective, status);
}

}  // namespace sluice::learner

#include "learner/run/checkpoint_writer.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice::learner {

absl::Status CheckpointWriter::Start(CheckpointState state, const Policy& policy, const AdamW& optimizer,
                                     OnWritten on_written) {
  SLUICE_RETURN_IF_ERROR(CatchTorch("copying what a checkpoint holds", [&] {
    CopyArenas(ArenasOf(policy, optimizer), &copy_);
    if (state.reference.defined()) state.reference = state.reference.detach().to(at::kCPU).clone();
    return absl::OkStatus();
  }));
  const auto shared = std::make_shared<const CheckpointState>(std::move(state));
  thread_ = StartThread("checkpoint", [this, shared, &policy, on_written = std::move(on_written)] {
    status_ = CatchTorch("writing a checkpoint", [&]() -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const std::string path, WriteCheckpoint(parent_, *shared, policy, copy_, fence_));
      return on_written(path);
    });
  });
  return absl::OkStatus();
}

absl::Status CheckpointWriter::Settle() {
  thread_.Join();
  return std::exchange(status_, absl::OkStatus());
}

}  // namespace sluice::learner

#include "common/collective/weight_group.h"

#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/collective/backend.h"
#include "common/collective/device_stream.h"
#include "common/collective/nccl_collective.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

constexpr char kName[] = "weights";
// How often a wait for the other members looks whether it is still wanted.
constexpr absl::Duration kLook = absl::Milliseconds(100);

}  // namespace

FormGroup GlooGroups(std::string host) {
  return [host = std::move(host)](std::shared_ptr<KvStore> store, const GroupPlace& place, absl::Duration timeout) {
    return MakeGlooCollective(std::move(store), place.rank, place.world_size, place.epoch,
                              {.name = kName, .host = host, .timeout = timeout});
  };
}

FormGroup NcclGroups(NcclApi api, const at::Device& device) {
  return [api = std::move(api), device](std::shared_ptr<KvStore> store, const GroupPlace& place,
                                        absl::Duration timeout) -> absl::StatusOr<std::unique_ptr<Collective>> {
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceStream> stream, MakeTorchStream(device));
    return NcclCollective::Form(api, std::move(stream), *store, place.rank, place.world_size, place.epoch,
                                {.name = kName, .timeout = timeout});
  };
}

absl::StatusOr<WeightBackend> OpenWeightBackend(absl::string_view weights, const at::Device& device, bool tls,
                                                const std::string& host) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<CollectiveBackend> backend, ParseWeights(weights, device, tls));
  if (!backend) return WeightBackend();
  WeightBackend opened = {.name = std::string(BackendName(*backend))};
  if (*backend == CollectiveBackend::kGloo) {
    opened.form = GlooGroups(host);
    return opened;
  }
  absl::StatusOr<NcclApi> api = LoadNccl();
  // Who did not ask for it by name can do without.
  if (!api.ok() && weights == "auto") return WeightBackend();
  SLUICE_RETURN_IF_ERROR(api.status());
  opened.form = NcclGroups(*std::move(api), device);
  return opened;
}

// The store while a group forms: waits in it end with the epoch.
class WeightGroup::WatchedStore : public KvStore {
 public:
  WatchedStore(const WeightGroup* group, uint64_t epoch) : group_(group), epoch_(epoch) {}
  absl::Status Set(const std::string& key, const std::string& value) override {
    SLUICE_RETURN_IF_ERROR(group_->CheckAlive(epoch_));
    return group_->store_->Set(key, value);
  }
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    SLUICE_RETURN_IF_ERROR(group_->CheckAlive(epoch_));
    return group_->store_->Add(key, amount);
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    for (absl::Duration left = timeout;; left -= kLook) {
      SLUICE_RETURN_IF_ERROR(group_->CheckAlive(epoch_));
      absl::StatusOr<std::string> value = group_->store_->Get(key, std::clamp(left, absl::ZeroDuration(), kLook));
      if (!absl::IsDeadlineExceeded(value.status())) return value;
      if (left > kLook) continue;
      return absl::DeadlineExceededError(absl::StrCat("a member has not come within ", absl::FormatDuration(timeout)));
    }
  }

 private:
  const WeightGroup* const group_;  // outlives the forming, which is all that this store is for
  const uint64_t epoch_;
};

WeightGroup::WeightGroup(FormGroup form, std::shared_ptr<KvStore> store)
    : form_(std::move(form)), store_(std::move(store)) {}

WeightGroup::~WeightGroup() { Drop(); }

absl::Status WeightGroup::CheckAlive(uint64_t epoch) const {
  MutexLock lock(&mutex_);
  if (epoch > aborted_) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("the weight group of epoch ", epoch, " was given up"));
}

void WeightGroup::Drop() {
  std::shared_ptr<Collective> group;
  {
    MutexLock lock(&mutex_);
    group.swap(group_);
  }
  // Never in order: a member that died would be waited for.
  if (group != nullptr) group->Abort();
}

absl::StatusOr<std::shared_ptr<Collective>> WeightGroup::GroupOf(const GroupPlace& place, absl::Duration timeout) {
  SLUICE_RETURN_IF_ERROR(CheckAlive(place.epoch));
  {
    MutexLock lock(&mutex_);
    if (group_ != nullptr && group_->epoch() == place.epoch && group_->rank() == place.rank &&
        group_->world_size() == place.world_size) {
      return group_;
    }
  }
  Drop();
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<Collective> group,
                          form_(std::make_shared<WatchedStore>(this, place.epoch), place, timeout));
  {
    MutexLock lock(&mutex_);
    group_ = group;
  }
  SLUICE_RETURN_IF_ERROR(CheckAlive(place.epoch));  // an abort before this line has not seen the group
  return group;
}

absl::Status WeightGroup::Broadcast(const GroupPlace& place, absl::Span<char> bytes, uint64_t chunk_bytes,
                                    absl::Duration timeout) {
  if (chunk_bytes == 0 || chunk_bytes % sizeof(float) != 0 || bytes.size() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("want whole float32 values, got ", bytes.size(), " bytes in pieces of ", chunk_bytes));
  }
  const auto broadcast = [&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<Collective> group, GroupOf(place, timeout));
    for (uint64_t offset = 0; offset < bytes.size(); offset += chunk_bytes) {
      const uint64_t size = std::min<uint64_t>(chunk_bytes, bytes.size() - offset);
      SLUICE_ASSIGN_OR_RETURN(at::Tensor piece, CatchTorch("a piece of the weights", [&] {
                                return torch::from_blob(bytes.data() + offset,
                                                        {static_cast<int64_t>(size / sizeof(float))}, torch::kFloat);
                              }));
      SLUICE_RETURN_IF_ERROR(CheckAlive(place.epoch));
      SLUICE_RETURN_IF_ERROR(group->Broadcast(std::move(piece), 0));
    }
    return absl::OkStatus();
  };
  const absl::Status status = broadcast();
  if (status.ok()) return status;
  Drop();
  // Whatever an abort does to the call in progress, it is the reason.
  const absl::Status alive = CheckAlive(place.epoch);
  return alive.ok() ? status : alive;
}

void WeightGroup::Abort(uint64_t epoch) {
  std::shared_ptr<Collective> group;
  {
    MutexLock lock(&mutex_);
    aborted_ = std::max(aborted_, epoch);
    if (group_ != nullptr && group_->epoch() <= aborted_) group = group_;
  }
  if (group != nullptr) group->Abort();
}

}  // namespace sluice

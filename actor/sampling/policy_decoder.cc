#include "actor/sampling/policy_decoder.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/sampling/policy_snapshot.h"
#include "common/model/policy.h"
#include "common/status/status.h"

namespace sluice::actor {

PolicyDecoder::PolicyDecoder(const Placement& placement) : placement_(placement) {}
PolicyDecoder::~PolicyDecoder() = default;

absl::StatusOr<std::shared_ptr<PolicySnapshot>> PolicyDecoder::MakeSnapshot(
    const std::shared_ptr<const Trie>& trie) const {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, Policy::CreateForDecoding(config_, trie));
  SLUICE_RETURN_IF_ERROR(policy->Place(placement_));
  return std::make_shared<PolicySnapshot>(std::move(policy), trie);
}

absl::Status PolicyDecoder::SetJob(const std::string& model_config_json, std::shared_ptr<const Trie> trie) {
  EndJob();
  SLUICE_ASSIGN_OR_RETURN(config_, PolicyConfig::FromJson(model_config_json));
  // Made now, so that a configuration which cannot work is refused before any weights travel.
  SLUICE_ASSIGN_OR_RETURN(spare_, MakeSnapshot(trie));
  trie_ = std::move(trie);
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<char>> PolicyDecoder::Stage(uint64_t bytes) {
  if (trie_ == nullptr) return absl::FailedPreconditionError("weights came before a job was set");
  // Only the current snapshot is handed out (who sends it on lets it go before the next one is staged, but for streams
  // that have begun), so the spare's count can only fall; at 1 it is ours alone, and the
  // fence orders our writes after the last reader's release.
  if (spare_ == nullptr || spare_.use_count() > 1) {
    SLUICE_ASSIGN_OR_RETURN(spare_, MakeSnapshot(trie_));
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  SLUICE_ASSIGN_OR_RETURN(const absl::Span<char> arena, spare_->Arena(bytes));
  staged_ = true;
  return arena;
}

absl::Status PolicyDecoder::Commit(uint64_t version) {
  if (!staged_) return absl::FailedPreconditionError("no weights are staged");
  std::shared_ptr<PolicySnapshot> before;
  {
    MutexLock lock(&mutex_);
    before = current_;
  }
  if (before != nullptr && version <= before->version()) {
    return absl::FailedPreconditionError(
        absl::StrCat("want a policy version above ", before->version(), ", got ", version));
  }
  SLUICE_RETURN_IF_ERROR(spare_->Seal(version));
  staged_ = false;
  {
    MutexLock lock(&mutex_);
    current_ = std::move(spare_);
  }
  spare_ = std::move(before);
  return absl::OkStatus();
}

absl::Status PolicyDecoder::LoadWeights(uint64_t version, absl::string_view payload) {
  SLUICE_ASSIGN_OR_RETURN(const absl::Span<char> arena, Stage(payload.size()));
  std::memcpy(arena.data(), payload.data(), payload.size());
  return Commit(version);
}

PolicyDecoder::Weights PolicyDecoder::ActiveWeights() const {
  MutexLock lock(&mutex_);
  if (current_ == nullptr) return {};
  return {current_, current_->Bytes()};
}

void PolicyDecoder::EndJob() {
  std::shared_ptr<PolicySnapshot> before;
  {
    MutexLock lock(&mutex_);
    before = std::move(current_);
    current_ = nullptr;
  }
  spare_ = nullptr;
  staged_ = false;
  trie_ = nullptr;
}

std::shared_ptr<Decoder::Snapshot> PolicyDecoder::Current() const {
  MutexLock lock(&mutex_);
  return current_;
}

}  // namespace sluice::actor

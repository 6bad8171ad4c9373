#include "learner/ledger/decode_board.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {

void DecodeBoard::Add(uint64_t block, std::vector<Prompt> prompts) {
  SLUICE_CHECK(!prompts.empty(), absl::StrCat("block ", block, " has no prompts"));
  const bool added = fresh_.emplace(block, std::move(prompts)).second;
  SLUICE_CHECK(added, absl::StrCat("block ", block, " was added twice"));
}

std::optional<BlockLease> DecodeBoard::Lease(const std::string& actor, uint64_t lease_id, absl::Time now) {
  if (fresh_.empty()) return std::nullopt;
  const auto first = fresh_.begin();
  LiveLease live;
  live.actor = actor;
  live.block = first->first;
  live.deadline = now + lease_deadline_;
  live.prompts = std::move(first->second);
  fresh_.erase(first);

  BlockLease lease;
  lease.lease_id = lease_id;
  lease.block = live.block;
  lease.policy_version = call_.policy_version;
  lease.deadline = live.deadline;
  lease.prompts = live.prompts;
  const bool inserted = leases_.emplace(lease_id, std::move(live)).second;
  SLUICE_CHECK(inserted, absl::StrCat("lease id ", lease_id, " was given twice"));
  return lease;
}

std::optional<uint64_t> DecodeBoard::TakeForRank() {
  std::optional<uint64_t> block;
  if (!returned_.empty()) {
    block = *returned_.begin();
    returned_.erase(returned_.begin());
  } else if (!fresh_.empty()) {
    block = fresh_.begin()->first;
    fresh_.erase(fresh_.begin());
  }
  return block;
}

Receipt DecodeBoard::Judge(const std::string& actor, uint64_t lease_id, uint64_t ordinal) const {
  const auto found = leases_.find(lease_id);
  if (found == leases_.end() || found->second.actor != actor) return Receipt::kLate;
  const LiveLease& lease = found->second;
  if (lease.answers.contains(ordinal)) return Receipt::kDuplicate;
  const bool asked = std::any_of(lease.prompts.begin(), lease.prompts.end(),
                                 [ordinal](const Prompt& prompt) { return prompt.ordinal == ordinal; });
  return asked ? Receipt::kAccepted : Receipt::kUnknown;
}

void DecodeBoard::Answer(DecodedPrompt decoded) {
  const uint64_t lease_id = decoded.lease_id;
  LiveLease& lease = leases_.at(lease_id);
  const uint64_t ordinal = decoded.ordinal;
  lease.answers.emplace(ordinal, std::move(decoded));
  if (lease.answers.size() < lease.prompts.size()) return;
  DecodedBlock block;
  block.block = lease.block;
  for (const Prompt& prompt : lease.prompts) block.prompts.push_back(std::move(lease.answers.at(prompt.ordinal)));
  done_.push_back(std::move(block));
  leases_.erase(lease_id);
}

void DecodeBoard::GiveBack(uint64_t lease_id) {
  const auto found = leases_.find(lease_id);
  if (found == leases_.end()) return;
  returned_.insert(found->second.block);
  leases_.erase(found);
}

int DecodeBoard::Expire(absl::Time now) {
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.deadline <= now) over.push_back(id);
  }
  for (const uint64_t id : over) GiveBack(id);
  return static_cast<int>(over.size());
}

int DecodeBoard::ReturnLeases(const std::string& actor) {
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.actor == actor) over.push_back(id);
  }
  for (const uint64_t id : over) GiveBack(id);
  return static_cast<int>(over.size());
}

std::vector<DecodedBlock> DecodeBoard::TakeDecoded() { return std::exchange(done_, {}); }

bool DecodeBoard::HoldsLease(const std::string& actor) const {
  return std::any_of(leases_.begin(), leases_.end(),
                     [&actor](const auto& entry) { return entry.second.actor == actor; });
}

absl::Time DecodeBoard::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, lease] : leases_) next = std::min(next, lease.deadline);
  return next;
}

}  // namespace sluice::learner

#include "learner/publish/policy_store.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/transfer/catalog_document.h"
#include "common/transfer/transfer.h"

namespace sluice::learner {

static_assert(std::endian::native == std::endian::little, "payloads travel as the machine keeps them");

std::shared_ptr<const PolicySnapshot> MakeSnapshot(uint64_t version, absl::Span<const float> arena) {
  return SnapshotEncoder().Encode(version, arena);
}

std::shared_ptr<const PolicySnapshot> SnapshotEncoder::Encode(uint64_t version, absl::Span<const float> arena) {
  std::unique_ptr<PolicySnapshot> snapshot;
  {
    MutexLock lock(&pool_->mutex);
    snapshot = std::move(pool_->spare);
  }
  if (snapshot == nullptr) {
    snapshot = std::make_unique<PolicySnapshot>();
    ++allocated_;
  }
  const absl::string_view bytes(reinterpret_cast<const char*>(arena.data()), arena.size() * sizeof(float));
  snapshot->version = version;
  snapshot->payload.resize(bytes.size());
  snapshot->checksum = CopyAndHash(bytes, snapshot->payload.data(), kDefaultChunkBytes, &snapshot->chunks);
  return std::shared_ptr<PolicySnapshot>(snapshot.release(), [pool = pool_](PolicySnapshot* let_go) {
    std::unique_ptr<PolicySnapshot> back(let_go);  // freed after the lock, if there is a spare already
    MutexLock lock(&pool->mutex);
    if (pool->spare == nullptr) pool->spare = std::move(back);
  });
}

void PolicyStore::Put(const std::string& job_id, std::shared_ptr<const PolicySnapshot> snapshot) {
  MutexLock lock(&mutex_);
  if (job_id != job_id_) snapshots_.clear();
  job_id_ = job_id;
  snapshots_.push_back(std::move(snapshot));
  while (snapshots_.size() > kKept) snapshots_.pop_front();
}

void PolicyStore::PutCatalog(const std::string& job_id, const Trie& trie) {
  auto document = std::make_shared<const std::string>(CatalogToJson(trie));
  MutexLock lock(&mutex_);
  catalog_job_id_ = job_id;
  catalog_version_ = trie.version();
  catalog_ = std::move(document);
}

void PolicyStore::Clear() {
  MutexLock lock(&mutex_);
  job_id_.clear();
  snapshots_.clear();
  catalog_job_id_.clear();
  catalog_version_.clear();
  catalog_.reset();
}

absl::StatusOr<std::shared_ptr<const PolicySnapshot>> PolicyStore::Find(const std::string& job_id,
                                                                        uint64_t version) const {
  MutexLock lock(&mutex_);
  if (job_id == job_id_) {
    for (const auto& snapshot : snapshots_) {
      if (snapshot->version == version) return snapshot;
    }
  }
  const auto name = [](std::string* out, const auto& snapshot) { absl::StrAppend(out, snapshot->version); };
  return absl::NotFoundError(absl::StrCat("version ", version, " of job ", job_id, " is not kept; kept are [",
                                          absl::StrJoin(snapshots_, ", ", name), "] of job ", job_id_));
}

absl::StatusOr<std::shared_ptr<const std::string>> PolicyStore::FindCatalog(const std::string& job_id,
                                                                            const std::string& catalog_version) const {
  MutexLock lock(&mutex_);
  if (catalog_ != nullptr && job_id == catalog_job_id_ && catalog_version == catalog_version_) return catalog_;
  return absl::NotFoundError(absl::StrCat("catalog ", catalog_version, " of job ", job_id, " is not kept; kept is ",
                                          catalog_version_, " of job ", catalog_job_id_));
}

}  // namespace sluice::learner

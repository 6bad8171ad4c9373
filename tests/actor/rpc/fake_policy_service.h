// Useful for: serving weights and a catalog to the code that fetches them, damaged on demand.
#ifndef SLUICE_TESTS_ACTOR_RPC_FAKE_POLICY_SERVICE_H_
#define SLUICE_TESTS_ACTOR_RPC_FAKE_POLICY_SERVICE_H_

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "common/sync/mutex.h"
#include "common/transfer/transfer.h"
#include "sluice/v1/policy.grpc.pb.h"
#include "sluice/v1/rollout.pb.h"

namespace sluice::actor {

class FakePolicyService : public v1::PolicyService::Service {
 public:
  explicit FakePolicyService(size_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}

  void Put(uint64_t version, std::string payload) {
    MutexLock lock(&mutex_);
    payloads_[version] = std::move(payload);
  }
  void Forget(uint64_t version) {
    MutexLock lock(&mutex_);
    payloads_.erase(version);
  }
  void PutCatalog(std::string json) {
    MutexLock lock(&mutex_);
    catalog_ = std::move(json);
  }
  // The next `count` streams end with a chunk that has one bit turned, its checksum as it should be.
  void DamageNext(int count) { damage_ = count; }
  // The next `count` payloads leave with one bit turned and chunk checksums to match.
  void ForgeNext(int count) { forge_ = count; }

  v1::PolicyOffer Offer(const std::string& job_id, uint64_t version) const {
    MutexLock lock(&mutex_);
    v1::PolicyOffer offer;
    offer.set_job_id(job_id);
    offer.set_policy_version(version);
    offer.set_payload_bytes(payloads_.at(version).size());
    offer.set_checksum(PayloadChecksum(payloads_.at(version)));
    return offer;
  }

  // Offsets asked for, in order.
  std::vector<uint64_t> offsets() const {
    MutexLock lock(&mutex_);
    return offsets_;
  }
  int catalog_fetches() const { return catalog_fetches_; }

  grpc::Status FetchPolicy(grpc::ServerContext*, const v1::FetchPolicyRequest* request,
                           grpc::ServerWriter<v1::Chunk>* writer) override {
    std::string payload;
    {
      MutexLock lock(&mutex_);
      offsets_.push_back(request->offset());
      auto found = payloads_.find(request->policy_version());
      if (found == payloads_.end()) return grpc::Status(grpc::StatusCode::NOT_FOUND, "not kept");
      payload = found->second;
    }
    if (forge_ > 0) {
      --forge_;
      payload.back() ^= 1;
    }
    return Write(payload, request->offset(), writer);
  }

  grpc::Status FetchCatalog(grpc::ServerContext*, const v1::FetchCatalogRequest*,
                            grpc::ServerWriter<v1::Chunk>* writer) override {
    ++catalog_fetches_;
    std::string catalog;
    {
      MutexLock lock(&mutex_);
      catalog = catalog_;
    }
    return Write(catalog, 0, writer);
  }

 private:
  grpc::Status Write(const std::string& payload, uint64_t offset, grpc::ServerWriter<v1::Chunk>* writer) {
    do {
      const ChunkView view = ChunkAt(payload, offset, chunk_bytes_);
      v1::Chunk chunk;
      chunk.set_offset(view.offset);
      chunk.set_total_bytes(view.total_bytes);
      chunk.set_data(view.data.data(), view.data.size());
      chunk.set_checksum(view.checksum);
      // Never the first, so that there is something to resume from.
      if (offset > 0 && damage_ > 0) {
        --damage_;
        (*chunk.mutable_data())[0] ^= 1;
        writer->Write(chunk);
        return grpc::Status::OK;  // so that the count is of tries
      }
      offset += view.data.size();
      if (!writer->Write(chunk)) return grpc::Status::CANCELLED;
    } while (offset < payload.size());
    return grpc::Status::OK;
  }

  const size_t chunk_bytes_;
  mutable Mutex mutex_;
  std::map<uint64_t, std::string> payloads_ ABSL_GUARDED_BY(mutex_);
  std::string catalog_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> offsets_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> damage_{0};
  std::atomic<int> forge_{0};
  std::atomic<int> catalog_fetches_{0};
};

}  // namespace sluice::actor

#endif  // SLUICE_TESTS_ACTOR_RPC_FAKE_POLICY_SERVICE_H_

#include "actor/rpc/policy_fetcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "common/transfer/catalog_document.h"

namespace sluice::actor {

PolicyFetcher::PolicyFetcher(Options options) : options_(std::move(options)), random_(options_.seed) {
  if (options_.metrics == nullptr) return;
  bytes_ = options_.metrics->AddCounter("sluice_weight_bytes_total", "Bytes of weights and catalogs received.");
  mismatches_ = options_.metrics->AddCounter("sluice_weight_checksum_mismatch_total",
                                             "Chunks or payloads whose checksum was wrong.");
}

absl::StatusOr<std::string> PolicyFetcher::Fetch(Assembler* assembler, const OpenStream& open,
                                                 const std::function<bool()>& wanted) {
  std::string payload;
  absl::Status damage;
  const auto attempt = [&](absl::Duration timeout) -> absl::Status {
    // Before each try, too: a rank that died answers none of them, and another one may be waiting for this actor.
    if (!wanted()) return absl::CancelledError("the fetch is no longer wanted");
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    const auto reader = open(&context, assembler->next_offset());
    v1::Chunk chunk;
    absl::Status refused;
    while (refused.ok() && reader->Read(&chunk)) {
      if (bytes_ != nullptr) bytes_->Increment(static_cast<double>(chunk.data().size()));
      refused = wanted() ? assembler->Add({chunk.offset(), chunk.total_bytes(), chunk.data(), chunk.checksum()})
                         : absl::CancelledError("the fetch is no longer wanted");
    }
    if (!refused.ok()) context.TryCancel();
    const absl::Status end = FromGrpc(reader->Finish());
    if (refused.ok() && !end.ok()) return end;
    if (refused.ok()) {
      absl::StatusOr<std::string> finished = assembler->Finish();
      if (finished.ok()) {
        payload = *std::move(finished);
        return absl::OkStatus();
      }
      refused = finished.status();
    }
    if (!absl::IsDataLoss(refused)) return refused;
    if (mismatches_ != nullptr) mismatches_->Increment();
    LogWarning("a payload was damaged on the way", {{"error", refused.message()}});
    damage = refused;
    // Worth another try, which CallWithRetry tells by the code.
    return absl::UnavailableError(refused.message());
  };
  const absl::Status status = CallWithRetry(options_.retry, options_.now, options_.wait, &random_, attempt);
  if (!status.ok()) return absl::IsUnavailable(status) && !damage.ok() ? Annotate(damage, "gave up") : status;
  return payload;
}

absl::StatusOr<std::string> PolicyFetcher::FetchPolicy(v1::PolicyService::Stub* stub, const v1::PolicyOffer& offer,
                                                       const std::function<bool()>& wanted) {
  if (offer.payload_bytes() == 0 || offer.checksum().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the offer of version ", offer.policy_version(), " names no length or no checksum"));
  }
  Assembler assembler({offer.payload_bytes(), offer.checksum(), options_.max_payload_bytes});
  v1::FetchPolicyRequest request;
  request.set_job_id(offer.job_id());
  request.set_policy_version(offer.policy_version());
  return Fetch(
      &assembler,
      [stub, &request](grpc::ClientContext* context, uint64_t offset) {
        request.set_offset(offset);
        return stub->FetchPolicy(context, request);
      },
      wanted);
}

absl::StatusOr<std::shared_ptr<const Trie>> PolicyFetcher::FetchCatalog(v1::PolicyService::Stub* stub,
                                                                        const std::string& job_id,
                                                                        const std::string& catalog_version,
                                                                        const std::function<bool()>& wanted) {
  v1::FetchCatalogRequest request;
  request.set_job_id(job_id);
  request.set_catalog_version(catalog_version);
  // The catalog has no offset to resume from, so every try starts with a new assembler.
  Assembler assembler({0, "", options_.max_catalog_bytes});
  SLUICE_ASSIGN_OR_RETURN(const std::string json, Fetch(
                                                      &assembler,
                                                      [&](grpc::ClientContext* context, uint64_t /*offset*/) {
                                                        assembler.Restart();
                                                        return stub->FetchCatalog(context, request);
                                                      },
                                                      wanted));
  return CatalogFromJson(json, catalog_version);
}

}  // namespace sluice::actor

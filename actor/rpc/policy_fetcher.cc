#include "actor/rpc/policy_fetcher.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/impl/rpc_method.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "common/transfer/catalog_document.h"

namespace sluice::actor {
namespace {

using google::protobuf::internal::WireFormatLite;

constexpr char kFetchPolicy[] = "/sluice.v1.PolicyService/FetchPolicy";
constexpr char kFetchCatalog[] = "/sluice.v1.PolicyService/FetchCatalog";

// The stream of a call whose answers are left as they came. What the generated stub does, but for the type.
template <typename Request>
std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> Open(const char* method, grpc::Channel* channel,
                                                           grpc::ClientContext* context, const Request& request) {
  const grpc::internal::RpcMethod rpc(method, grpc::internal::RpcMethod::SERVER_STREAMING);
  return std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>>(
      grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(channel, rpc, context, request));
}

// Adds a v1::Chunk in its wire form; its data goes straight to where the assembler wants it. Returns the data's size.
// DataLoss and InvalidArgument as Assembler::Begin and End; DataLoss: not a chunk.
absl::StatusOr<size_t> AddEncoded(grpc::ByteBuffer* encoded, Assembler* assembler) {
  const absl::Status malformed = absl::DataLossError("a message of the stream is no chunk");
  grpc::ProtoBufferReader reader(encoded);
  google::protobuf::io::CodedInputStream in(&reader);
  uint64_t offset = 0, total_bytes = 0, checksum = 0;
  std::optional<std::pair<uint64_t, uint64_t>> begun;  // offset and total that the data's place was asked with
  uint32_t size = 0;
  while (const uint32_t tag = in.ReadTag()) {
    bool good = true;
    switch (WireFormatLite::GetTagFieldNumber(tag)) {
      case v1::Chunk::kOffsetFieldNumber:
        good = in.ReadVarint64(&offset);
        break;
      case v1::Chunk::kTotalBytesFieldNumber:
        good = in.ReadVarint64(&total_bytes);
        break;
      case v1::Chunk::kChecksumFieldNumber:
        good = in.ReadVarint64(&checksum);
        break;
      case v1::Chunk::kDataFieldNumber: {
        // A field that comes twice would count the last time; nobody sends one, and nothing is won by taking it.
        if (begun.has_value() || !in.ReadVarint32(&size)) return malformed;
        SLUICE_ASSIGN_OR_RETURN(char* const place, assembler->Begin(offset, total_bytes, size));
        begun.emplace(offset, total_bytes);
        good = in.ReadRaw(place, static_cast<int>(size));
        break;
      }
      default:
        good = WireFormatLite::SkipField(&in, tag);  // of a later minor version
    }
    if (!good) return malformed;
  }
  if (!in.ConsumedEntireMessage()) return malformed;
  if (!begun.has_value()) {  // empty data need not be written
    SLUICE_RETURN_IF_ERROR(assembler->Begin(offset, total_bytes, 0).status());
  } else if (*begun != std::pair(offset, total_bytes)) {
    return malformed;  // offset or length came after the data
  }
  SLUICE_RETURN_IF_ERROR(assembler->End(checksum));
  return size;
}

}  // namespace

PolicyFetcher::PolicyFetcher(Options options) : options_(std::move(options)), random_(options_.seed) {
  if (options_.metrics == nullptr) return;
  bytes_ = options_.metrics->AddCounter("sluice_weight_bytes_total", "Bytes of weights and catalogs received.");
  mismatches_ = options_.metrics->AddCounter("sluice_weight_checksum_mismatch_total",
                                             "Chunks or payloads whose checksum was wrong.");
}

absl::Status PolicyFetcher::Fetch(Assembler* assembler, const OpenStream& open, const std::function<bool()>& wanted) {
  absl::Status damage;
  const auto attempt = [&](absl::Duration timeout) -> absl::Status {
    // Before each try, too: a rank that died answers none of them, and another one may be waiting for this actor.
    if (!wanted()) return absl::CancelledError("the fetch is no longer wanted");
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    const auto reader = open(&context, assembler->next_offset());
    grpc::ByteBuffer chunk;
    absl::Status refused;
    while (refused.ok() && reader->Read(&chunk)) {
      if (!wanted()) {
        refused = absl::CancelledError("the fetch is no longer wanted");
        break;
      }
      const absl::StatusOr<size_t> added = AddEncoded(&chunk, assembler);
      refused = added.status();
      if (added.ok() && bytes_ != nullptr) bytes_->Increment(static_cast<double>(*added));
    }
    if (!refused.ok()) context.TryCancel();
    const absl::Status end = FromGrpc(reader->Finish());
    if (refused.ok() && !end.ok()) return end;
    if (refused.ok()) refused = assembler->Verify();
    if (!absl::IsDataLoss(refused)) return refused;
    if (mismatches_ != nullptr) mismatches_->Increment();
    LogWarning("a payload was damaged on the way", {{"error", refused.message()}});
    damage = refused;
    // Worth another try, which CallWithRetry tells by the code.
    return absl::UnavailableError(refused.message());
  };
  const absl::Status status = CallWithRetry(options_.retry, options_.now, options_.wait, &random_, attempt);
  return absl::IsUnavailable(status) && !damage.ok() ? Annotate(damage, "gave up") : status;
}

absl::Status PolicyFetcher::FetchPolicy(const std::shared_ptr<grpc::Channel>& channel, const v1::PolicyOffer& offer,
                                        absl::Span<char> place, const std::function<bool()>& wanted) {
  if (offer.payload_bytes() == 0 || offer.checksum().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the offer of version ", offer.policy_version(), " names no length or no checksum"));
  }
  if (offer.payload_bytes() != place.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the offer of version ", offer.policy_version(), " is of ",
                                                   offer.payload_bytes(), " bytes, its place has ", place.size()));
  }
  Assembler assembler({offer.payload_bytes(), offer.checksum(), options_.max_payload_bytes}, place);
  v1::FetchPolicyRequest request;
  request.set_job_id(offer.job_id());
  request.set_policy_version(offer.policy_version());
  return Fetch(
      &assembler,
      [&channel, &request](grpc::ClientContext* context, uint64_t offset) {
        request.set_offset(offset);
        return Open(kFetchPolicy, channel.get(), context, request);
      },
      wanted);
}

absl::StatusOr<std::shared_ptr<const Trie>> PolicyFetcher::FetchCatalog(const std::shared_ptr<grpc::Channel>& channel,
                                                                        const std::string& job_id,
                                                                        const std::string& catalog_version,
                                                                        const std::function<bool()>& wanted) {
  v1::FetchCatalogRequest request;
  request.set_job_id(job_id);
  request.set_catalog_version(catalog_version);
  // The catalog has no offset to resume from, so every try starts with a new assembler.
  Assembler assembler({0, "", options_.max_catalog_bytes});
  SLUICE_RETURN_IF_ERROR(Fetch(
      &assembler,
      [&](grpc::ClientContext* context, uint64_t /*offset*/) {
        assembler.Restart();
        return Open(kFetchCatalog, channel.get(), context, request);
      },
      wanted));
  SLUICE_ASSIGN_OR_RETURN(const std::string json, assembler.Finish());
  return CatalogFromJson(json, catalog_version);
}

}  // namespace sluice::actor

#include "common/rpc/rendezvous.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr size_t kMaxKeyBytes = 512;
// Of one wait at the server: each holds a thread there.
constexpr absl::Duration kMaxWait = absl::Seconds(1);
// Of a call beyond its wait.
constexpr absl::Duration kCallTimeout = absl::Seconds(5);

absl::Status CheckKey(const std::string& key) {
  if (key.size() <= kMaxKeyBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("key: want at most ", kMaxKeyBytes, " bytes, got ", key.size()));
}

}  // namespace

grpc::Status RendezvousService::Set(grpc::ServerContext*, const v1::RendezvousSetRequest* request,
                                    v1::RendezvousSetResponse*) {
  if (const absl::Status key = CheckKey(request->key()); !key.ok()) return ToGrpc(key);
  return ToGrpc(store_->Set(request->key(), request->value()));
}

grpc::Status RendezvousService::Get(grpc::ServerContext*, const v1::RendezvousGetRequest* request,
                                    v1::RendezvousGetResponse* response) {
  if (const absl::Status key = CheckKey(request->key()); !key.ok()) return ToGrpc(key);
  absl::StatusOr<std::string> value =
      store_->Get(request->key(), std::min(absl::Milliseconds(request->wait_ms()), kMaxWait));
  if (!value.ok()) return ToGrpc(value.status());
  response->set_value(*std::move(value));
  return grpc::Status::OK;
}

grpc::Status RendezvousService::Add(grpc::ServerContext*, const v1::RendezvousAddRequest* request,
                                    v1::RendezvousAddResponse* response) {
  if (const absl::Status key = CheckKey(request->key()); !key.ok()) return ToGrpc(key);
  const absl::StatusOr<int64_t> value = store_->Add(request->key(), request->amount());
  if (!value.ok()) return ToGrpc(value.status());
  response->set_value(*value);
  return grpc::Status::OK;
}

RendezvousClient::RendezvousClient(const std::shared_ptr<grpc::Channel>& channel, NowFunction now)
    : stub_(v1::RendezvousService::NewStub(channel)), now_(std::move(now)) {}

absl::Status RendezvousClient::Set(const std::string& key, const std::string& value) {
  v1::RendezvousSetRequest request;
  request.set_key(key);
  request.set_value(value);
  v1::RendezvousSetResponse response;
  grpc::ClientContext context;
  SetDeadline(&context, kCallTimeout);
  return FromServer(stub_->Set(&context, request, &response));
}

absl::StatusOr<std::string> RendezvousClient::Get(const std::string& key, absl::Duration timeout) {
  const absl::Time until = now_() + timeout;
  while (true) {
    const absl::Duration wait = std::clamp(until - now_(), absl::ZeroDuration(), kMaxWait);
    v1::RendezvousGetRequest request;
    request.set_key(key);
    request.set_wait_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(wait)));
    v1::RendezvousGetResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, wait + kCallTimeout);
    const absl::Status status = FromServer(stub_->Get(&context, request, &response));
    if (status.ok()) return std::move(*response.mutable_value());
    if (!absl::IsDeadlineExceeded(status) || now_() >= until) return status;
  }
}

absl::StatusOr<int64_t> RendezvousClient::Add(const std::string& key, int64_t amount) {
  v1::RendezvousAddRequest request;
  request.set_key(key);
  request.set_amount(amount);
  v1::RendezvousAddResponse response;
  grpc::ClientContext context;
  SetDeadline(&context, kCallTimeout);
  SLUICE_RETURN_IF_ERROR(FromServer(stub_->Add(&context, request, &response)));
  return response.value();
}

}  // namespace sluice

#include "common/rpc/access.h"

#include <grpc/grpc_security_constants.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "common/security/method_rules.h"

namespace sluice {
namespace {

std::vector<std::string> Values(const grpc::AuthContext& context, const char* property) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : context.FindPropertyValues(property)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

class AccessProcessor : public grpc::AuthMetadataProcessor {
 public:
  AccessProcessor(bool tokens_open, OnRefused on_refused)
      : tokens_open_(tokens_open), on_refused_(std::move(on_refused)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    const auto path = metadata.find(":path");
    const std::string method = path == metadata.end() ? "" : std::string(path->second.data(), path->second.size());
    const PeerIdentity peer = IdentifyPeer(*context);
    const absl::Status allowed = CheckAccess(method, peer, tokens_open_);
    if (!allowed.ok() && on_refused_) on_refused_(peer, method, allowed);
    return ToGrpc(allowed);
  }

 private:
  const bool tokens_open_;
  const OnRefused on_refused_;
};

}  // namespace

PeerIdentity IdentifyPeer(const grpc::AuthContext& context) {
  PeerIdentity peer;
  const std::vector<std::string> names = Values(context, GRPC_X509_CN_PROPERTY_NAME);
  if (!names.empty()) peer.name = names.front();
  peer.roles = RolesOfDnsNames(Values(context, GRPC_PEER_DNS_PROPERTY_NAME));
  return peer;
}

absl::Status CheckAccess(absl::string_view method, const PeerIdentity& peer, bool tokens_open) {
  const MethodRule* const rule = FindMethodRule(method);
  if (rule == nullptr) return absl::PermissionDeniedError("there is no such call for anybody here");
  if (rule->open || rule->roles.HasAny(peer.roles)) return absl::OkStatus();
  if (tokens_open && rule->person != PersonNeeds::kCertificate) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("the certificate shown (", peer.name, ") is for ",
                                                  peer.roles.ToString(), ", and ", method, " is for ",
                                                  rule->roles.ToString(), " alone; use the certificate of that role"));
}

std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessProcessor(bool tokens_open, OnRefused on_refused) {
  return std::make_shared<AccessProcessor>(tokens_open, std::move(on_refused));
}

}  // namespace sluice

// Holds every call of a TLS server against the table of common/security/method_rules.h before its handler runs.
#ifndef SLUICE_COMMON_RPC_ACCESS_H_
#define SLUICE_COMMON_RPC_ACCESS_H_

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/auth_metadata_processor.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/security/role.h"

namespace sluice {

// What a client's certificate says. Empty: it showed none, or there is no TLS.
struct PeerIdentity {
  std::string name;  // the common name
  RoleSet roles;
};
PeerIdentity IdentifyPeer(const grpc::AuthContext& context);

// OK if `peer` may call `method`. tokens_open: methods that a token may open are let through, as their handler looks at
// the token. PermissionDenied with the reason otherwise.
absl::Status CheckAccess(absl::string_view method, const PeerIdentity& peer, bool tokens_open);

// Told of every call that is refused here. May be called from many threads.
using OnRefused = std::function<void(const PeerIdentity& peer, const std::string& method, const absl::Status& reason)>;

// For ServerCredentials::SetAuthMetadataProcessor of a server with TLS.
std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessProcessor(bool tokens_open, OnRefused on_refused);

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_ACCESS_H_

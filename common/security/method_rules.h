// Who may call what: the one table of it. A method that is not in it is refused on every server with TLS.
#ifndef SLUICE_COMMON_SECURITY_METHOD_RULES_H_
#define SLUICE_COMMON_SECURITY_METHOD_RULES_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/security/role.h"

namespace sluice {

// What a person with a token needs.
enum class PersonNeeds {
  kCertificate,  // no token opens it
  kAnyToken,
  kSubmit,     // the scope submit or admin
  kSeeJob,     // to have submitted the job, or the scope read or admin
  kChangeJob,  // to have submitted the job, or the scope admin
  kAdmin,      // the scope admin
};

struct MethodRule {
  absl::string_view method;  // "/sluice.v1.JobService/Submit"
  RoleSet roles;             // whose certificates open it
  PersonNeeds person = PersonNeeds::kCertificate;
  bool open = false;  // to whoever got through the handshake
};

absl::Span<const MethodRule> MethodRules();
// The row of `method`; null if there is none.
const MethodRule* FindMethodRule(absl::string_view method);

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_METHOD_RULES_H_

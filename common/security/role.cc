#include "common/security/role.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {
namespace {

constexpr Role kAllRoles[] = {Role::kCoordinator, Role::kRank, Role::kActor, Role::kReward, Role::kClient};
constexpr absl::string_view kDomain = ".sluice.internal";

}  // namespace

std::string RoleSet::ToString() const {
  std::vector<absl::string_view> names;
  for (const Role role : kAllRoles) {
    if (Has(role)) names.push_back(RoleName(role));
  }
  return names.empty() ? "no role" : absl::StrJoin(names, " or ");
}

absl::string_view RoleName(Role role) {
  switch (role) {
    case Role::kCoordinator:
      return "coordinator";
    case Role::kRank:
      return "rank";
    case Role::kActor:
      return "actor";
    case Role::kReward:
      return "reward";
    case Role::kClient:
      return "client";
  }
  return "unknown";
}

std::string RoleDnsName(Role role) { return absl::StrCat(RoleName(role), kDomain); }

std::optional<Role> RoleOfDnsName(absl::string_view name) {
  for (const Role role : kAllRoles) {
    if (absl::EqualsIgnoreCase(name, RoleDnsName(role))) return role;
  }
  return std::nullopt;
}

RoleSet RolesOfDnsNames(const std::vector<std::string>& names) {
  RoleSet roles;
  for (const std::string& name : names) {
    if (const std::optional<Role> role = RoleOfDnsName(name)) roles.Add(*role);
  }
  return roles;
}

}  // namespace sluice

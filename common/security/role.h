// The roles of processes, as their certificates name them.
//
// A certificate says what its holder is by DNS names in its subjectAltName: "actor.sluice.internal" is an actor,
// whatever its host is called. One certificate may name several roles (a rank with --with-coordinator has two). The CA
// is what separates installations: whoever holds a certificate of it is a member, so each installation has its own.
#ifndef SLUICE_COMMON_SECURITY_ROLE_H_
#define SLUICE_COMMON_SECURITY_ROLE_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

enum class Role : uint8_t {
  kCoordinator,
  kRank,  // a learner rank, also `sluice-learner run`
  kActor,
  kReward,
  kClient,  // a person's or robot's sluicectl: may do everything that people may
};

// A small set of roles. A value.
class RoleSet {
 public:
  constexpr RoleSet() = default;
  constexpr RoleSet(std::initializer_list<Role> roles) {
    for (const Role role : roles) Add(role);
  }
  constexpr void Add(Role role) { bits_ |= static_cast<uint8_t>(1u << static_cast<unsigned>(role)); }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool Has(Role role) const { return (bits_ & (1u << static_cast<unsigned>(role))) != 0; }
  constexpr bool HasAny(RoleSet other) const { return (bits_ & other.bits_) != 0; }
  constexpr bool HasAll(RoleSet other) const { return (bits_ & other.bits_) == other.bits_; }
  friend constexpr bool operator==(RoleSet a, RoleSet b) { return a.bits_ == b.bits_; }

  // "coordinator or rank"; "no role" if empty.
  std::string ToString() const;

 private:
  uint8_t bits_ = 0;
};

absl::string_view RoleName(Role role);
// What a certificate of the role holds: "actor.sluice.internal".
std::string RoleDnsName(Role role);
// The role that a DNS name stands for; nothing if it stands for none. Letters of either case.
std::optional<Role> RoleOfDnsName(absl::string_view name);
// The roles among the DNS names of a certificate.
RoleSet RolesOfDnsNames(const std::vector<std::string>& names);

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_ROLE_H_

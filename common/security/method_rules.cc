#include "common/security/method_rules.h"

namespace sluice {
namespace {

constexpr RoleSet kClient = {Role::kClient};
constexpr RoleSet kRank = {Role::kRank};
constexpr RoleSet kActor = {Role::kActor};

// tests/common/rpc/access_test.cc holds this against the protos: every call is named once, and nothing else is.
constexpr MethodRule kRules[] = {
    {"/sluice.v1.JobService/Validate", kClient, PersonNeeds::kAnyToken},
    {"/sluice.v1.JobService/Submit", kClient, PersonNeeds::kSubmit},
    {"/sluice.v1.JobService/List", kClient, PersonNeeds::kAnyToken},  // answers with the jobs that the caller may see
    {"/sluice.v1.JobService/Describe", kClient, PersonNeeds::kSeeJob},
    {"/sluice.v1.JobService/Watch", kClient, PersonNeeds::kSeeJob},
    {"/sluice.v1.JobService/Cancel", kClient, PersonNeeds::kChangeJob},
    {"/sluice.v1.JobService/Resume", kClient, PersonNeeds::kChangeJob},
    {"/sluice.v1.JobService/Pause", kClient, PersonNeeds::kChangeJob},
    {"/sluice.v1.JobService/Kill", kClient, PersonNeeds::kChangeJob},
    {"/sluice.v1.JobService/Delete", kClient, PersonNeeds::kChangeJob},
    {"/sluice.v1.JobService/Fork", kClient, PersonNeeds::kSubmit},  // and to see the job that is forked
    {"/sluice.v1.JobService/Plan", kClient, PersonNeeds::kSubmit},
    {"/sluice.v1.JobService/ServerInfo", kClient, PersonNeeds::kAnyToken},
    {"/sluice.v1.JobService/ListArtifacts", kClient, PersonNeeds::kSeeJob},
    {"/sluice.v1.JobService/ReadArtifact", kClient, PersonNeeds::kSeeJob},
    {"/sluice.v1.JobService/Trace", kClient, PersonNeeds::kSeeJob},
    {"/sluice.v1.JobService/Compare", kClient, PersonNeeds::kAnyToken},  // and to see every job that is compared

    {"/sluice.v1.DataService/Begin", kClient, PersonNeeds::kSubmit},
    {"/sluice.v1.DataService/Put", kClient, PersonNeeds::kSubmit},
    {"/sluice.v1.DataService/Commit", kClient, PersonNeeds::kSubmit},
    {"/sluice.v1.DataService/List", kClient, PersonNeeds::kAnyToken},
    {"/sluice.v1.DataService/Remove", kClient, PersonNeeds::kAdmin},  // pushed data belong to nobody

    {"/sluice.v1.MemberService/Join", kRank},
    {"/sluice.v1.MemberService/Heartbeat", kRank},
    {"/sluice.v1.MemberService/Leave", kRank},
    {"/sluice.v1.MemberService/StoreSet", kRank},
    {"/sluice.v1.MemberService/StoreGet", kRank},
    {"/sluice.v1.MemberService/StoreAdd", kRank},
    {"/sluice.v1.MemberService/ReserveVersion", kRank},
    {"/sluice.v1.MemberService/ReserveOrdinals", kRank},
    {"/sluice.v1.MemberService/Report", kRank},
    {"/sluice.v1.MemberService/Finish", kRank},
    {"/sluice.v1.MemberService/AttachActor", kActor},

    {"/sluice.v1.RolloutService/Work", kActor},
    {"/sluice.v1.PolicyService/FetchPolicy", kActor},
    {"/sluice.v1.PolicyService/FetchCatalog", kActor},
    {"/sluice.v1.RendezvousService/Set", kActor},
    {"/sluice.v1.RendezvousService/Get", kActor},
    {"/sluice.v1.RendezvousService/Add", kActor},

    // The coordinator asks for a golden batch before a job is submitted.
    {"/sluice.v1.RewardService/Score", {Role::kActor, Role::kCoordinator}},
    {"/sluice.v1.RewardService/Describe", {Role::kActor, Role::kClient, Role::kCoordinator}},

    // Of gRPC itself. Health says no more than a probe may know; the protocol's description is for its users.
    {"/grpc.health.v1.Health/Check", {}, PersonNeeds::kCertificate, /*open=*/true},
    {"/grpc.health.v1.Health/Watch", {}, PersonNeeds::kCertificate, /*open=*/true},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kClient},
};

}  // namespace

absl::Span<const MethodRule> MethodRules() { return kRules; }

const MethodRule* FindMethodRule(absl::string_view method) {
  for (const MethodRule& rule : kRules) {
    if (rule.method == method) return &rule;
  }
  return nullptr;
}

}  // namespace sluice

#include "common/security/certificate.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file/file.h"
#include "tests/testing/certificates.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CertificateTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/certificates-",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    ca_.Write(JoinPath(folder_, "ca.crt"));
  }
  TlsFiles Issue(const std::string& dns_names) { return ca_.Issue(folder_, "own", dns_names); }
  // What is said of files that cannot work; "" if they can.
  std::string Mistake(const TlsFiles& files, RoleSet roles = {}) {
    const auto read = ReadTlsFiles(files, roles, absl::Now());
    if (read.ok()) return "";
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(read.status().message());
  }

  const TestCa ca_{"the authority"};
  std::string folder_;
};

TEST_F(CertificateTest, SaysWhatTheFilesHold) {
  const absl::Time until = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) + 86400);
  const TlsFiles files =
      ca_.Issue(folder_, "own", "rank.sluice.internal,host.example.com", absl::Now() - absl::Hours(1), until);
  const auto read = ReadTlsFiles(files, {Role::kRank}, absl::Now());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->certificate.common_name, "own");
  EXPECT_EQ(read->certificate.issuer, "the authority");
  EXPECT_THAT(read->certificate.dns_names, ElementsAre("rank.sluice.internal", "host.example.com"));
  EXPECT_EQ(read->certificate.not_after, until);
  EXPECT_EQ(read->certificate.fingerprint.size(), 64u);
  EXPECT_GT(read->ca_not_after, until);
}

TEST_F(CertificateTest, ACaAloneIsEnoughForWhoShowsNothing) {
  TlsFiles files;
  files.ca = JoinPath(folder_, "ca.crt");
  EXPECT_EQ(Mistake(files), "");
  EXPECT_THAT(Mistake(files, {Role::kActor}), HasSubstr("--tls-cert and --tls-key"));
}

TEST_F(CertificateTest, HalvesOfASetAreNamed) {
  TlsFiles files = Issue("actor.sluice.internal");
  files.key.clear();
  EXPECT_THAT(Mistake(files), HasSubstr("--tls-cert and --tls-key together"));
  files = Issue("actor.sluice.internal");
  files.ca.clear();
  EXPECT_THAT(Mistake(files), HasSubstr("need --tls-ca"));
}

TEST_F(CertificateTest, AFileThatIsMissingOrUnreadableIsNamedWithItsFlag) {
  TlsFiles files = Issue("actor.sluice.internal");
  ASSERT_EQ(unlink(files.key.c_str()), 0);
  EXPECT_THAT(Mistake(files), AllOf(HasSubstr("--tls-key: "), HasSubstr(files.key), HasSubstr("No such file")));
  ASSERT_TRUE(MakeDirectories(files.key).ok());  // root reads everything else
  EXPECT_THAT(Mistake(files), AllOf(HasSubstr("--tls-key: "), HasSubstr(files.key)));
}

TEST_F(CertificateTest, WhatIsNoPemIsNamed) {
  TlsFiles files = Issue("actor.sluice.internal");
  ASSERT_TRUE(WriteFileAtomically(files.certificate, "no certificate").ok());
  EXPECT_THAT(Mistake(files), AllOf(HasSubstr("--tls-cert: "), HasSubstr("holds no certificate")));
  files = Issue("actor.sluice.internal");
  ASSERT_TRUE(WriteFileAtomically(files.key, "no key").ok());
  EXPECT_THAT(Mistake(files), AllOf(HasSubstr("--tls-key: "), HasSubstr("holds no private key")));
}

TEST_F(CertificateTest, TheKeyOfAnotherCertificateIsRefused) {
  TlsFiles files = Issue("actor.sluice.internal");
  files.key = ca_.Issue(folder_, "other", "actor.sluice.internal").key;
  EXPECT_THAT(Mistake(files), HasSubstr("is not that of the certificate"));
}

TEST_F(CertificateTest, DatesAreChecked) {
  const absl::Time now = absl::Now();
  EXPECT_THAT(Mistake(ca_.Issue(folder_, "own", "", now - absl::Hours(48), now - absl::Hours(24))),
              AllOf(HasSubstr("expired at "), HasSubstr("renew it")));
  EXPECT_THAT(Mistake(ca_.Issue(folder_, "own", "", now + absl::Hours(24), now + absl::Hours(48))),
              AllOf(HasSubstr("is valid from "), HasSubstr("clock")));
}

TEST_F(CertificateTest, AnotherCaIsRefused) {
  TlsFiles files = Issue("actor.sluice.internal");
  TestCa("another").Write(files.ca);
  EXPECT_THAT(Mistake(files), AllOf(HasSubstr("issued by the authority"), HasSubstr("is not from a CA in")));
}

TEST_F(CertificateTest, TheRoleThatIsMissingIsNamed) {
  EXPECT_THAT(Mistake(Issue("actor.sluice.internal,a.example.com"), {Role::kCoordinator, Role::kActor}),
              AllOf(HasSubstr("is for actor (DNS names: actor.sluice.internal, a.example.com)"),
                    HasSubstr("needs one with coordinator.sluice.internal")));
}

TEST_F(CertificateTest, AnotherContentIsNoticed) {
  const std::string before = ReadTlsFiles(Issue("actor.sluice.internal"), {}, absl::Now())->contents;
  EXPECT_EQ(
      ReadTlsFiles(TlsFiles{JoinPath(folder_, "ca.crt"), JoinPath(folder_, "own.crt"), JoinPath(folder_, "own.key")},
                   {}, absl::Now())
          ->contents,
      before);
  EXPECT_NE(ReadTlsFiles(Issue("actor.sluice.internal"), {}, absl::Now())->contents, before);
}

}  // namespace
}  // namespace sluice

#include "common/security/token.h"

#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

NewToken Token(const std::string& name, const std::string& scopes, absl::Time expires = kNow + absl::Hours(1),
               char seed = 'a') {
  return MakeToken(std::string(32, seed), {name, ParseScopes(scopes).value()}, expires, kNow).value();
}

class TokenFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(testing::TempDir(), "/tokens-", testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(path_).ok());
  }
  std::unique_ptr<TokenFile> Open() {
    return TokenFile::Open(path_, [this] { return now_; }).value();
  }
  std::string path_;
  absl::Time now_ = kNow;
};

TEST(TokenTest, ASecretSaysWhatItIsAndItsDigestIsThatOfSha256Sum) {
  const NewToken token = Token("ada", "submit");
  // printf a%.0s {1..32} | basenc --base64url
  EXPECT_EQ(token.secret, "sluice_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE");
  EXPECT_EQ(token.entry.digest, Sha256(token.secret));
  EXPECT_THAT(TokenLine(token.entry), Not(HasSubstr(token.secret)));
}

TEST(TokenTest, ALineSurvivesItsFile) {
  const NewToken token = Token("ada@example.com", "read,submit");
  const auto read = ParseTokens(absl::StrCat("# people\n\n", TokenLine(token.entry), "\n"), "t");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 1u);
  EXPECT_EQ(read->at(0).holder.name, "ada@example.com");
  EXPECT_EQ(read->at(0).holder.scopes, (Scopes{.submit = true, .read = true}));
  EXPECT_EQ(read->at(0).digest, token.entry.digest);
  EXPECT_EQ(read->at(0).expires, token.entry.expires);
}

TEST(TokenTest, WhatIsNoTokenIsNotMade) {
  const std::string entropy(32, 'a');
  const Scopes read = {.read = true};
  for (const char* name : {"", "two words", "a\"b", "\n"}) {
    EXPECT_FALSE(MakeToken(entropy, {name, read}, kNow + absl::Hours(1), kNow).ok()) << name;
  }
  EXPECT_FALSE(MakeToken(entropy, {std::string(65, 'a'), read}, kNow + absl::Hours(1), kNow).ok());
  EXPECT_FALSE(MakeToken(entropy, {"ada", {}}, kNow + absl::Hours(1), kNow).ok());
  EXPECT_FALSE(MakeToken(entropy, {"ada", read}, kNow, kNow).ok());
  EXPECT_FALSE(ParseScopes("submit,root").ok());
  EXPECT_FALSE(ParseScopes("").ok());
}

TEST(TokenTest, AMistakeIsNamedByItsLineAndNothingOfTheLineIsRepeated) {
  for (const char* bad :
       {"sluice_secret", "{}", R"({"name":"sluice_secret","sha256":"xyz","scopes":["read"],"expires":"x"})",
        R"({"name":"a","sha256":1,"scopes":[],"expires":""})"}) {
    const absl::Status status = ParseTokens(absl::StrCat("# first\n", bad, "\n"), "tokens").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("tokens:2: "), Not(HasSubstr("sluice_secret"))));
  }
}

TEST_F(TokenFileTest, FindsWhoHoldsASecret) {
  const NewToken ada = Token("ada", "submit"), bob = Token("bob", "admin", kNow + absl::Hours(1), 'b');
  ASSERT_TRUE(AddToken(path_, ada.entry).ok());
  ASSERT_TRUE(AddToken(path_, bob.entry).ok());
  const auto file = Open();
  EXPECT_EQ(file->Find(ada.secret)->name, "ada");
  EXPECT_TRUE(file->Find(bob.secret)->scopes.admin);
}

TEST_F(TokenFileTest, AnythingElseOpensNothing) {
  const NewToken ada = Token("ada", "submit");
  ASSERT_TRUE(AddToken(path_, ada.entry).ok());
  const auto file = Open();
  for (const std::string& secret : {std::string(), ada.entry.digest, ada.secret.substr(1), ada.secret + " ",
                                    absl::StrCat(ada.secret, std::string(1000, 'a')), std::string("sluice_")}) {
    const absl::Status status = file->Find(secret).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
    EXPECT_THAT(std::string(status.message()), HasSubstr("is not known here"));
  }
}

TEST_F(TokenFileTest, AnExpiredTokenSaysSoToItsHolder) {
  const NewToken ada = Token("ada", "submit");
  ASSERT_TRUE(AddToken(path_, ada.entry).ok());
  const auto file = Open();
  now_ = ada.entry.expires - absl::Seconds(1);
  EXPECT_TRUE(file->Find(ada.secret).ok());
  now_ = ada.entry.expires;
  EXPECT_EQ(file->Find(ada.secret).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(file->Find(ada.secret).status().message()), HasSubstr("expired at"));
}

TEST_F(TokenFileTest, AChangedFileIsTakenAndAnUnfitOneIsNot) {
  const NewToken ada = Token("ada", "submit"), bob = Token("bob", "admin", kNow + absl::Hours(1), 'b');
  ASSERT_TRUE(AddToken(path_, ada.entry).ok());
  const auto file = Open();
  ASSERT_TRUE(WriteFileAtomically(path_, TokenLine(bob.entry)).ok());
  EXPECT_FALSE(file->Find(ada.secret).ok()) << "taken away";
  EXPECT_TRUE(file->Find(bob.secret).ok());
  ASSERT_TRUE(WriteFileAtomically(path_, "no such file").ok());
  EXPECT_TRUE(file->Find(bob.secret).ok());
  ASSERT_TRUE(RemoveAll(path_).ok());
  EXPECT_TRUE(file->Find(bob.secret).ok());
}

TEST_F(TokenFileTest, IsRefusedAtTheStartIfItIsUnfit) {
  const auto open = [this] { return TokenFile::Open(path_, [] { return kNow; }).status(); };
  EXPECT_EQ(open().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteFileAtomically(path_, "no such file").ok());
  EXPECT_EQ(open().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AddToken(path_, Token("ada", "read").entry).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice

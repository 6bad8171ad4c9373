#include "client/cli/token_command.h"

#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/security/token.h"

namespace sluice::client {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

TEST(TokenCommandTest, TheFileThatItWritesKnowsTheSecretByItsDigestAlone) {
  const std::string path = absl::StrCat(testing::TempDir(), "/token_command_test");
  ASSERT_TRUE(RemoveAll(path).ok());
  TokenFlags flags;
  flags.name = "ada";
  flags.scopes = "submit,read";
  flags.days = 2;
  flags.tokens = path;
  const auto secret = CreateToken(flags, std::string(32, 'x'), kNow);
  ASSERT_TRUE(secret.ok()) << secret.status();
  EXPECT_THAT(ReadFile(path).value(), testing::Not(testing::HasSubstr(*secret)));
  absl::Time now = kNow + absl::Hours(47);
  const auto file = TokenFile::Open(path, [&now] { return now; }).value();
  EXPECT_EQ(file->Find(*secret)->name, "ada");
  now = kNow + absl::Hours(48);
  EXPECT_FALSE(file->Find(*secret).ok());
}

TEST(TokenCommandTest, MistakesMakeNoFile) {
  const std::string path = absl::StrCat(testing::TempDir(), "/token_command_test_none");
  ASSERT_TRUE(RemoveAll(path).ok());
  for (const TokenFlags& flags : {TokenFlags{"two words", "submit", 1, path}, TokenFlags{"ada", "root", 1, path},
                                  TokenFlags{"ada", "submit", 0, path}, TokenFlags{"ada", "submit", 1e9, path}}) {
    EXPECT_EQ(CreateToken(flags, std::string(32, 'x'), kNow).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(PathExists(path));
}

}  // namespace
}  // namespace sluice::client

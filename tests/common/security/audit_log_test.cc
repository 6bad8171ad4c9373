#include "common/security/audit_log.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice {
namespace {

class AuditLogTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        absl::StrCat(testing::TempDir(), "/audit-", testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    path_ = JoinPath(folder_, "audit.jsonl");
  }
  std::unique_ptr<AuditLog> Open(AuditLogOptions options = {}) {
    return AuditLog::Open(
               path_, [] { return absl::FromUnixMillis(1'800'000'000'123); }, options)
        .value();
  }
  static std::vector<nlohmann::json> Lines(const std::string& path) {
    std::vector<nlohmann::json> lines;
    for (const absl::string_view line : absl::StrSplit(ReadFile(path).value(), '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
    }
    return lines;
  }
  std::string folder_;
  std::string path_;
};

TEST_F(AuditLogTest, ALineSaysWhoWhatFromWhereAndWhatCameOfIt) {
  const auto log = Open();
  ASSERT_TRUE(log->Write({"ada", "token", "ipv4:192.0.2.7:1", "/sluice.v1.JobService/Submit", "tiny-1a2b3c", {}}).ok());
  ASSERT_TRUE(log->Write({"", "nothing", "", "/x", "", absl::UnauthenticatedError("no token")}).ok());
  ASSERT_TRUE(log->Write({"ada", "token", "", "/x", "j", absl::NotFoundError("no job")}).ok());
  ASSERT_TRUE(log->Write({"rank-0", "certificate", "", "/sluice.v1.MemberService/Join", "", {}, "5f0c"}).ok());
  const auto lines = Lines(path_);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].dump(),
            R"({"by":"token","call":"/sluice.v1.JobService/Submit","code":"OK","from":"ipv4:192.0.2.7:1",)"
            R"("job":"tiny-1a2b3c","member":"","reason":"","time":"2027-01-15T08:00:00.123Z","verdict":"allowed",)"
            R"("who":"ada"})");
  EXPECT_EQ(lines[1]["verdict"], "refused");
  EXPECT_EQ(lines[1]["code"], "UNAUTHENTICATED");
  EXPECT_EQ(lines[2]["verdict"], "failed");
  EXPECT_EQ(lines[3]["member"], "5f0c");
}

TEST_F(AuditLogTest, NobodyWritesALineOfTheirOwnOrALongOne) {
  const auto log = Open();
  const std::string forged = absl::StrCat("x\"}\n{\"who\":\"root\"}\n\xff\xfe", std::string(5000, 'j'));
  ASSERT_TRUE(log->Write({forged, forged, forged, forged, forged, absl::PermissionDeniedError(forged), forged}).ok());
  const auto lines = Lines(path_);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_LT(lines[0].dump().size(), 4000u);
}

TEST_F(AuditLogTest, GoesOnInItsFileAndIsRotatedBySize) {
  AuditLogOptions options;
  options.max_file_bytes = 400;
  options.max_old_files = 2;
  const auto write = [](AuditLog* log, int job) {
    return log->Write({"ada", "token", "", "/x", absl::StrCat(job), {}});
  };
  // A line has about 160 bytes: two fit in a file.
  for (int job = 0; job < 9; ++job) ASSERT_TRUE(write(Open(options).get(), job).ok());
  std::vector<std::string> kept;
  for (const char* suffix : {".2", ".1", ""}) {
    EXPECT_LE(FileBytes(path_ + suffix).value(), 400);
    for (const auto& line : Lines(path_ + suffix)) kept.push_back(line["job"]);
  }
  EXPECT_THAT(kept, testing::ElementsAre("4", "5", "6", "7", "8")) << "the oldest are gone, the order is kept";
  EXPECT_FALSE(PathExists(path_ + ".3"));
}

}  // namespace
}  // namespace sluice

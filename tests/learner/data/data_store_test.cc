#include "learner/data/data_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/status/exit_code.h"
#include "tests/testing/temporary_folder.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

PushedFile File(const std::string& path, const std::string& text) { return {path, text.size(), Sha256(text)}; }

class DataStoreTest : public testing::Test {
 protected:
  DataStoreTest() { Reopen(); }
  void Reopen() {
    store_.reset();
    DataStoreOptions options;
    options.root = root_ / "data";
    options.quota_bytes = 20;
    store_ = DataStore::Open(options, [this] { return now_; }).value();
  }
  std::string Push(const std::string& path, const std::string& text) {
    const DataStore::Begun begun = store_->Begin("n", {File(path, text)}).value();
    EXPECT_TRUE(store_->Put(begun.digest, path, 0, text).ok());
    EXPECT_TRUE(store_->Commit(begun.digest).ok());
    return begun.digest;
  }

  const TemporaryFolder root_;
  absl::Time now_ = absl::Now();
  std::unique_ptr<DataStore> store_;
};

TEST_F(DataStoreTest, APushGoesOnWhereItStoppedAndIsFoundByItsDigest) {
  const std::vector<PushedFile> files = {File("b/two", "0123456789"), File("a", "")};
  const DataStore::Begun begun = store_->Begin("mine", files).value();
  EXPECT_FALSE(begun.complete);
  EXPECT_EQ(store_->Put(begun.digest, "b/two", 0, "0123").value(), 4u);
  Reopen();  // as after a crash
  EXPECT_THAT(store_->Begin("mine", files)->have, ElementsAre(4u, 0u));
  EXPECT_EQ(store_->Commit(begun.digest).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Put(begun.digest, "b/two", 6, "67").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Put(begun.digest, "b/two", 2, "23456789").value(), 10u);  // two of them told again
  const std::string folder = store_->Commit(begun.digest).value();
  EXPECT_EQ(ReadFile(JoinPath(folder, "b/two")).value(), "0123456789");
  EXPECT_EQ(ReadFile(JoinPath(folder, "a")).value(), "");
  EXPECT_EQ(store_->Commit(begun.digest).value(), folder);
  EXPECT_TRUE(store_->Begin("again", files)->complete);
  EXPECT_EQ(store_->Find(begun.digest.substr(0, 8))->folder, folder);
  EXPECT_EQ(store_->Find("00000000").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DataStoreTest, TheDigestIsThatOfTheManifestWhateverItsOrder) {
  // printf '%s  1  a\n%s  1  b\n' $(printf x | sha256sum) ... | sha256sum, by hand with coreutils.
  const std::vector<PushedFile> files = {File("b", "y"), File("a", "x")};
  EXPECT_EQ(ManifestDigest(files), ManifestDigest({files[1], files[0]}));
  EXPECT_EQ(ManifestDigest(files), Sha256(Sha256("x") + "  1  a\n" + Sha256("y") + "  1  b\n"));
}

TEST_F(DataStoreTest, BytesThatAreNotThoseOfTheManifestAreDropped) {
  const DataStore::Begun begun = store_->Begin("n", {File("a", "good")}).value();
  ASSERT_TRUE(store_->Put(begun.digest, "a", 0, "evil").ok());
  EXPECT_EQ(store_->Commit(begun.digest).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->Find(begun.digest).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(store_->Begin("n", {File("a", "good")})->have, ElementsAre(0u));
  EXPECT_EQ(store_->Put(begun.digest, "a", 0, "longer").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DataStoreTest, PathsStayInsideAndManifestsMakeSense) {
  for (const std::vector<PushedFile>& files : {std::vector<PushedFile>{},
                                               {File("../x", "a")},
                                               {File("/x", "a")},
                                               {File("x", "a"), File("x", "a")},
                                               {File("x", "a"), File("x/y", "a")},
                                               {{"x", 1, "nonsense"}}}) {
    EXPECT_EQ(store_->Begin("n", files).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(store_->Put("../../x", "a", 0, "").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Commit(std::string(64, 'a')).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DataStoreTest, TheQuotaHoldsAndAForgottenPushGivesWay) {
  Push("a", "0123456789");
  const std::string twelve(12, 'x');
  const absl::Status full = store_->Begin("n", {File("b", twelve)}).status();
  EXPECT_EQ(ExitCodeFor(full), ExitCode::kNoSpace);
  EXPECT_THAT(std::string(full.message()), HasSubstr("the quota of 20 bytes has no room for 12 more; 10 are used"));
  ASSERT_TRUE(store_->Begin("begun and forgotten", {File("c", "12345678")}).ok());
  EXPECT_FALSE(store_->Begin("n", {File("d", "12345")}).ok());  // its room is taken from the first byte on
  now_ += absl::Hours(25);
  EXPECT_TRUE(store_->Begin("n", {File("d", "12345")}).ok());
}

TEST_F(DataStoreTest, WhatIsRemovedIsGoneAndWhatWasHalfCommittedTooAfterARestart) {
  const std::string digest = Push("a", "0123");
  EXPECT_EQ(store_->UsedBytes(), 4u);
  EXPECT_EQ(store_->Remove(digest).value(), 4u);
  EXPECT_TRUE(store_->List()->empty());
  const std::string other = Push("b", "0123");
  ASSERT_TRUE(RemoveAll(JoinPath(store_->root(), other + ".json")).ok());  // killed before the manifest
  Reopen();
  EXPECT_FALSE(PathExists(JoinPath(store_->root(), other)));
}

}  // namespace
}  // namespace sluice::learner

#include "common/object_store/local_object_store.h"

#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/file/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;

class LocalObjectStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "sluice_objects_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  std::vector<std::string> Keys(const std::string& prefix) {
    const std::vector<ObjectInfo> objects = store_().List(prefix, 100).value();
    std::vector<std::string> keys;
    for (const ObjectInfo& object : objects) keys.push_back(object.key);
    return keys;
  }
  LocalObjectStore store_() const { return LocalObjectStore(Path("root")); }

  std::string folder_;
};

TEST_F(LocalObjectStoreTest, AnObjectIsWrittenFoundReadListedAndRemoved) {
  LocalObjectStore store = store_();
  EXPECT_THAT(Keys(""), ElementsAre());  // before there is a folder
  ASSERT_TRUE(store.Put("a/b/ü x", "abc").ok());
  ASSERT_TRUE(store.Put("a/c", "").ok());
  EXPECT_EQ(store.Get("a/b/ü x", 3).value(), "abc");
  EXPECT_EQ(store.Get("a/b/ü x", 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Head("a/b/ü x").value().bytes, 3);
  EXPECT_THAT(Keys(""), ElementsAre("a/b/ü x", "a/c"));
  EXPECT_THAT(Keys("a/b"), ElementsAre("a/b/ü x"));
  EXPECT_EQ(store.List("", 1).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store.Delete("a/b/ü x").ok());
  EXPECT_TRUE(store.Delete("a/b/ü x").ok());
  EXPECT_EQ(store.Head("a/b/ü x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.Head("a").status().code(), absl::StatusCode::kNotFound);  // a folder
  EXPECT_FALSE(PathExists(Path("root/a/b")));                               // went with its last object
}

TEST_F(LocalObjectStoreTest, FilesAreCopiedWholeAndCheckedOrNotAtAll) {
  LocalObjectStore store = store_();
  ASSERT_TRUE(WriteFileAtomically(Path("from"), "0123456789").ok());
  const ExpectedContent right{10, Sha256("0123456789")};
  for (const ExpectedContent& wrong : {ExpectedContent{9, ""}, ExpectedContent{10, Sha256("")}}) {
    EXPECT_EQ(store.PutFile("x", Path("from"), wrong).code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(Keys(""), ElementsAre());
  }
  ASSERT_TRUE(store.PutFile("x", Path("from"), right).ok());
  for (const ExpectedContent& wrong : {ExpectedContent{9, ""}, ExpectedContent{10, Sha256("")}}) {
    EXPECT_EQ(store.GetToFile("x", Path("to"), 100, wrong).code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(store.GetToFile("x", Path("to"), 9, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("from", "root"));
  ASSERT_TRUE(store.GetToFile("x", Path("to"), 10, right).ok());
  EXPECT_EQ(ReadFile(Path("to")).value(), "0123456789");
}

TEST_F(LocalObjectStoreTest, AStoppingProcessLeavesNothingHalfCopied) {
  ASSERT_TRUE(WriteFileAtomically(Path("from"), "abc").ok());
  LocalObjectStore store(Path("root"), [] { return true; });
  EXPECT_EQ(store.PutFile("x", Path("from"), {}).code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(Keys(""), ElementsAre());
}

TEST_F(LocalObjectStoreTest, NoKeyAndNoLinkLeadsOutOfTheRoot) {
  LocalObjectStore store = store_();
  ASSERT_TRUE(store.Put("x", "abc").ok());
  ASSERT_TRUE(MakeDirectories(Path("outside")).ok());
  ASSERT_TRUE(WriteFileAtomically(Path("outside/secret"), "s").ok());
  EXPECT_EQ(store.Get("../outside/secret", 10).status().code(), absl::StatusCode::kInvalidArgument);

  ASSERT_EQ(::symlink(Path("outside").c_str(), Path("root/link").c_str()), 0);
  ASSERT_EQ(::symlink(Path("outside/secret").c_str(), Path("root/file").c_str()), 0);
  for (const char* key : {"link/secret", "file"}) {
    EXPECT_EQ(store.Get(key, 10).status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(store.Put(key, "abc").code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(store.Delete(key).code(), absl::StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(store.Put("link/new", "abc").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Keys(""), ElementsAre("x"));
  EXPECT_THAT(ListDirectory(Path("outside")).value(), ElementsAre("secret"));
}

TEST_F(LocalObjectStoreTest, UnfinishedFilesAreNoObjects) {
  LocalObjectStore store = store_();
  ASSERT_TRUE(store.Put("a", "abc").ok());
  ASSERT_TRUE(WriteFileAtomically(Path("root/b.tmp"), "left by a killed process").ok());
  EXPECT_THAT(Keys(""), ElementsAre("a"));
  EXPECT_EQ(store.Put("b.tmp", "").code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice

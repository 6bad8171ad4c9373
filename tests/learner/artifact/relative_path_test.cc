#include "learner/artifact/relative_path.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice::learner {
namespace {

TEST(RelativePathTest, NamesInsideAFolderAreTaken) {
  for (const char* path : {"a", "export/best/config.json", "a..b/...", ".hidden"}) {
    EXPECT_TRUE(CheckRelativePath(path).ok()) << path;
  }
}

TEST(RelativePathTest, WhateverLeadsOutIsRefused) {
  const std::string nul("a\0b", 3);
  for (const std::string& path :
       {std::string(), std::string("/etc/passwd"), std::string(".."), std::string("a/../b"), std::string("a//b"),
        std::string("a/"), std::string("./a"), std::string("a/\n"), nul, std::string(kMaxRelativePathBytes + 1, 'a')}) {
    EXPECT_EQ(CheckRelativePath(path).code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

}  // namespace
}  // namespace sluice::learner

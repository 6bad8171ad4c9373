// A folder that is gone when its test is over.
#ifndef SLUICE_TESTS_TESTING_TEMPORARY_FOLDER_H_
#define SLUICE_TESTS_TESTING_TEMPORARY_FOLDER_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "common/file/file.h"

namespace sluice {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    path_ = testing::TempDir() + "/folder_XXXXXX";
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~TemporaryFolder() { EXPECT_TRUE(RemoveAll(path_).ok()); }
  TemporaryFolder(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return JoinPath(path_, name); }
  // Makes the folders on the way.
  void Write(const std::string& name, const std::string& text) const {
    const std::string path = JoinPath(path_, name);
    ASSERT_TRUE(MakeDirectories(path.substr(0, path.rfind('/'))).ok());
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
  }

 private:
  std::string path_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_TEMPORARY_FOLDER_H_

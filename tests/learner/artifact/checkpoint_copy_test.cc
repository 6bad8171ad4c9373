#include "learner/artifact/checkpoint_copy.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "tests/testing/temporary_folder.h"

namespace sluice::learner {
namespace {

TEST(CheckpointCopyTest, TheCopyOutlivesTheCheckpoint) {
  const TemporaryFolder run;
  run.Write("step-1/model/config.json", "{}");
  run.Write("step-1/manifest.json", "{}");
  ASSERT_TRUE(CopyCheckpointModel(run / "step-1", run / "forks/one").ok());
  ASSERT_TRUE(RemoveAll(run / "step-1").ok());
  EXPECT_EQ(ReadFile(run / "forks/one/model/config.json").value(), "{}");
  // A second fork of it asks for nothing any more.
  EXPECT_TRUE(CopyCheckpointModel(run / "step-1", run / "forks/one").ok());
}

TEST(CheckpointCopyTest, WhatIsNotWholeIsNotCopied) {
  const TemporaryFolder run;
  run.Write("step-1/model/config.json", "{}");
  EXPECT_EQ(CopyCheckpointModel(run / "step-1", run / "one").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(PathExists(run / "one"));
}

TEST(CheckpointCopyTest, TheNewestWholeOneIsFound) {
  const TemporaryFolder run;
  run.Write("step-00000009/model/config.json", "{}");
  EXPECT_EQ(NewestCheckpoint(run / "").status().code(), absl::StatusCode::kNotFound);
  run.Write("step-00000009/manifest.json", "{}");
  for (const char* name : {"step-00000002", "step-00000012.0.tmp", "damaged-step-00000013"}) {
    run.Write(absl::StrCat(name, "/model/config.json"), "{}");
    run.Write(absl::StrCat(name, "/manifest.json"), "{}");
  }
  EXPECT_EQ(NewestCheckpoint(run / "").value(), JoinPath(run / "", "step-00000009"));
  run.Write("step-00000010/manifest.json", "{}");
  EXPECT_EQ(NewestCheckpoint(run / "").value(), JoinPath(run / "", "step-00000009"));
  run.Write("step-00000010/model/config.json", "{}");
  EXPECT_EQ(NewestCheckpoint(run / "").value(), JoinPath(run / "", "step-00000010"));
}

}  // namespace
}  // namespace sluice::learner

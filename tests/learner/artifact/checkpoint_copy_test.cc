#include "learner/artifact/checkpoint_copy.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace sluice::learner

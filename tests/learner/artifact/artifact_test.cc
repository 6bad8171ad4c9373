#include "learner/artifact/artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/testing/temporary_folder.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Paths(const ArtifactList& list) {
  std::vector<std::string> paths;
  for (const ArtifactFile& file : list.files) paths.push_back(file.path);
  return paths;
}

TEST(ArtifactTest, FilesAreListedByPathWithoutWhatIsBeingWrittenAndLinks) {
  const TemporaryFolder run;
  run.Write("spec.yaml", "x");
  run.Write("export/best/config.json", "{}");
  run.Write("checkpoints/step-1.3.tmp/state.json", "half");
  run.Write("results.json.tmp", "half");
  std::filesystem::create_symlink("/etc/passwd", run / "link");
  const ArtifactList list = ListArtifacts(run.path(), 10).value();
  EXPECT_THAT(Paths(list), ElementsAre("export/best/config.json", "spec.yaml"));
  EXPECT_EQ(list.files[0].bytes, 2u);
  EXPECT_FALSE(list.truncated);
  EXPECT_TRUE(ListArtifacts(run.path(), 1)->truncated);
  EXPECT_EQ(ListArtifacts(run / "none", 1).status().code(), absl::StatusCode::kNotFound);
}

TEST(ArtifactTest, AFileIsReadInPiecesAndItsDigestComesWithTheLast) {
  const TemporaryFolder run;
  run.Write("a/file", "0123456789");
  ArtifactRange range{.max_bytes = 6, .digest = true};
  const ArtifactPiece first = ReadArtifact(run.path(), "a/file", range).value();
  EXPECT_EQ(first.data, "012345");
  EXPECT_EQ(first.total_bytes, 10u);
  EXPECT_EQ(first.sha256, "");
  range.offset = 6;
  range.identity = first.identity;
  const ArtifactPiece last = ReadArtifact(run.path(), "a/file", range).value();
  EXPECT_EQ(last.data, "6789");
  EXPECT_EQ(last.sha256, "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");  // sha256sum
  range.offset = 10;
  EXPECT_EQ(ReadArtifact(run.path(), "a/file", range)->data, "");
  range.offset = 11;
  EXPECT_EQ(ReadArtifact(run.path(), "a/file", range).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ArtifactTest, AFileThatChangedIsNotGoneOnWith) {
  const TemporaryFolder run;
  run.Write("file", "first");
  const ArtifactPiece piece = ReadArtifact(run.path(), "file", {.max_bytes = 2}).value();
  run.Write("file", "other bytes");
  EXPECT_EQ(ReadArtifact(run.path(), "file", {.offset = 2, .identity = piece.identity}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ArtifactTest, NothingOutsideTheFolderIsRead) {
  const TemporaryFolder run, other;
  other.Write("secret", "s");
  std::filesystem::create_directory_symlink(other.path(), run / "out");
  std::filesystem::create_symlink(other / "secret", run / "file");
  EXPECT_EQ(ReadArtifact(run.path(), "../secret", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadArtifact(run.path(), other / "secret", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadArtifact(run.path(), "out/secret", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadArtifact(run.path(), "file", {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadArtifact(run.path(), "none", {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice::learner

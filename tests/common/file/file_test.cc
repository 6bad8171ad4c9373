#include "common/file/file.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "sluice_file_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  std::vector<std::string> Names() const { return ListDirectory(folder_).value(); }

  std::string folder_;
};

// Lets files of this process grow to `bytes` at most: write(2) then fails as on a full disk or quota.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

TEST_F(FileTest, WhatWasWrittenIsReadBackAndNothingElseIsLeft) {
  const std::string bytes("a\0b\xff\n", 5);
  ASSERT_TRUE(WriteFileAtomically(Path("x"), bytes).ok());
  EXPECT_EQ(ReadFile(Path("x")).value(), bytes);
  EXPECT_EQ(FileBytes(Path("x")).value(), 5);
  EXPECT_THAT(Names(), ElementsAre("x"));
}

TEST_F(FileTest, AWriteReplacesTheOldBytesWhole) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "a long first version").ok());
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "short").ok());
  EXPECT_EQ(ReadFile(Path("x")).value(), "short");
}

TEST_F(FileTest, PiecesOfAStreamedWriteAreJoined) {
  const absl::Status status = WriteFileAtomically(Path("x"), [](const FileSink& sink) {
    for (const char* piece : {"one ", "two ", "three"}) {
      if (absl::Status s = sink(piece); !s.ok()) return s;
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(ReadFile(Path("x")).value(), "one two three");
}

TEST_F(FileTest, AWriterThatFailsLeavesTheOldFileAndNoTemporaryOne) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "old").ok());
  const absl::Status status = WriteFileAtomically(Path("x"), [](const FileSink& sink) {
    sink("half").IgnoreError();
    return absl::AbortedError("changed my mind");
  });
  EXPECT_EQ(status, absl::AbortedError("changed my mind"));
  EXPECT_EQ(ReadFile(Path("x")).value(), "old");
  EXPECT_THAT(Names(), ElementsAre("x"));
}

TEST_F(FileTest, AFullDiskEndsWithItsOwnExitCodeAndTheOldFileStays) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "old").ok());
  absl::Status status;
  {
    const FileSizeLimit limit(1000);
    status = WriteFileAtomically(Path("x"), std::string(5000, 'n'));
  }
  EXPECT_EQ(ExitCodeFor(status), ExitCode::kNoSpace);
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("x")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("free space there or choose another folder"));
  EXPECT_EQ(ReadFile(Path("x")).value(), "old");
  EXPECT_THAT(Names(), ElementsAre("x"));
}

TEST_F(FileTest, AMissingFileIsNotFoundAndNamed) {
  const absl::Status status = ReadFile(Path("none")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("none")));
}

TEST_F(FileTest, WritingIntoAMissingFolderIsNotFound) {
  EXPECT_EQ(WriteFileAtomically(Path("none/x"), "a").code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, AFileOverTheLimitIsRefusedWithBothNumbers) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "123456").ok());
  EXPECT_EQ(ReadFile(Path("x"), 6).value(), "123456");
  const absl::Status status = ReadFile(Path("x"), 5).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("6 bytes, more than the limit of 5"));
}

// Files of /proc say 0 bytes and hold more: the limit must count what is read, not what stat promised.
TEST_F(FileTest, AFileThatHoldsMoreThanItSaysIsStillBounded) {
  EXPECT_EQ(ReadFile("/proc/self/status", 10).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileTest, AFolderIsNotReadAsAFile) {
  EXPECT_EQ(ReadFile(folder_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileTest, AppendedLinesSurviveAReopening) {
  for (const char* line : {"one", "two"}) {
    auto file = AppendFile::Open(Path("log")).value();
    ASSERT_TRUE(file->Append(line).ok());
    ASSERT_TRUE(file->Sync().ok());
  }
  EXPECT_EQ(ReadFile(Path("log")).value(), "one\ntwo\n");
}

TEST_F(FileTest, AnAppendOntoAFullDiskSaysSo) {
  auto file = AppendFile::Open(Path("log")).value();
  const FileSizeLimit limit(4);
  EXPECT_TRUE(file->Append("abc").ok());
  EXPECT_EQ(ExitCodeFor(file->Append("d")), ExitCode::kNoSpace);
}

TEST_F(FileTest, FoldersAreMadeListedRenamedAndRemoved) {
  ASSERT_TRUE(MakeDirectories(Path("b/c")).ok());
  ASSERT_TRUE(MakeDirectories(Path("b/c")).ok());  // again: no error
  ASSERT_TRUE(WriteFileAtomically(Path("a"), "").ok());
  EXPECT_THAT(Names(), ElementsAre("a", "b"));
  EXPECT_TRUE(IsDirectory(Path("b")));
  EXPECT_FALSE(IsDirectory(Path("a")));
  EXPECT_EQ(MakeDirectories(Path("a")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MakeDirectories(Path("a")).message(), HasSubstr("is a file, want a folder; choose another path"));
  ASSERT_TRUE(RenamePath(Path("b"), Path("d")).ok());
  EXPECT_TRUE(PathExists(Path("d/c")));
  EXPECT_FALSE(PathExists(Path("b")));
  ASSERT_TRUE(RemoveAll(Path("d")).ok());
  ASSERT_TRUE(RemoveAll(Path("d")).ok());  // nothing there: no error
  EXPECT_THAT(Names(), ElementsAre("a"));
}

TEST_F(FileTest, SeveralMayRemoveTheSameFolder) {
  for (int round = 0; round < 20; ++round) {
    for (int file = 0; file < 20; ++file) {
      const std::string folder = Path(absl::StrCat("d/", file % 5, "/e"));
      ASSERT_TRUE(MakeDirectories(folder).ok());
      ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder, "/", file), "x").ok());
    }
    absl::Status other;
    Thread thread = StartThread("other", [&] { other = RemoveAll(Path("d")); });
    const absl::Status mine = RemoveAll(Path("d"));
    thread.Join();
    EXPECT_TRUE(mine.ok()) << mine;
    EXPECT_TRUE(other.ok()) << other;
    EXPECT_FALSE(PathExists(Path("d")));
  }
}

TEST_F(FileTest, ALockHasOneHolderAtATime) {
  std::unique_ptr<FileLock> first = FileLock::Acquire(Path("lock"), "the folder").value();
  const absl::Status second = FileLock::Acquire(Path("lock"), "the folder").status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr("the folder is in use"));
  first.reset();
  EXPECT_TRUE(FileLock::Acquire(Path("lock"), "the folder").ok());
}

TEST_F(FileTest, AMissingRelativePathSaysWhereItStarts) {
  EXPECT_THAT(std::string(ReadFile("no-such-file").status().message()), HasSubstr("a relative path starts at '/"));
  EXPECT_EQ(RelativeTo("/absolute"), "");
}

TEST_F(FileTest, ListingAMissingFolderIsNotFound) {
  EXPECT_EQ(ListDirectory(Path("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST(JoinPathTest, JoinsNamesAndKeepsAbsoluteOnes) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
}

// FIPS 180-2, appendix B.1 and B.2, and the empty message.
TEST(Sha256Test, GivesThePublishedDigests) {
  EXPECT_EQ(Sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_F(FileTest, TheDigestOfAFileIsThatOfItsBytes) {
  const std::string bytes(3 * 1024 * 1024 + 17, 'z');  // more than one read buffer
  ASSERT_TRUE(WriteFileAtomically(Path("x"), bytes).ok());
  EXPECT_EQ(FileSha256(Path("x")).value(), Sha256(bytes));
  EXPECT_EQ(FileSha256(Path("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, AFolderTakesThePlaceOfAnother) {
  for (const char* name : {"old", "new"}) {
    ASSERT_TRUE(MakeDirectories(Path(name)).ok());
    ASSERT_TRUE(WriteFileAtomically(JoinPath(Path(name), "which"), name).ok());
  }
  ASSERT_TRUE(ReplaceFolder(Path("new"), Path("old")).ok());
  EXPECT_EQ(ReadFile(JoinPath(Path("old"), "which")).value(), "new");
  EXPECT_THAT(Names(), ElementsAre("old"));

  ASSERT_TRUE(ReplaceFolder(Path("old"), Path("free")).ok());
  EXPECT_THAT(Names(), ElementsAre("free"));

  // It used to remove what was to be replaced before it found that there was nothing to put in its place.
  EXPECT_EQ(ReplaceFolder(Path("gone"), Path("free")).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Names(), ElementsAre("free"));
}

TEST_F(FileTest, APlaceInAFileIsReadWholeOrNotAtAll) {
  ASSERT_TRUE(WriteFileAtomically(Path("x"), "0123456789").ok());
  const auto file = InputFile::Open(Path("x")).value();
  EXPECT_EQ(file->bytes(), 10);
  std::string four(4, ' ');
  ASSERT_TRUE(file->ReadAt(3, four.data(), 4).ok());
  EXPECT_EQ(four, "3456");
  EXPECT_EQ(file->ReadAt(8, four.data(), 4).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(InputFile::Open(Path("absent")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, ADigestInPiecesIsThatOfTheWhole) {
  Sha256Stream stream;
  stream.Update("ab");
  stream.Update("");
  stream.Update("c");
  EXPECT_EQ(stream.Digest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2, "abc"
}

}  // namespace
}  // namespace sluice

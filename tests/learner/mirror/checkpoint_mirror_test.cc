#include "learner/mirror/checkpoint_mirror.h"

#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/file/file.h"
#include "common/object_store/local_object_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_folder.h"
#include "tests/testing/faulty_object_store.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

class CheckpointMirrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "sluice_mirror_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }

  CheckpointMirror Mirror(ObjectStoreFault fault = {}) {
    auto store = std::make_unique<LocalObjectStore>(Path("bucket"));
    return CheckpointMirror(std::make_unique<FaultyObjectStore>(std::move(store), fault, &operations_),
                            "job/checkpoints");
  }

  // A checkpoint of a job; `mark` makes it differ from another of that step.
  FolderContent Write(const std::string& name, const std::string& mark = "") {
    return WriteCheckpointFolder(Path(name), {{"model/config.json", "{}"},
                                              {"model/model.safetensors", "weights of " + name + mark},
                                              {"state.json", "state of " + name + mark}});
  }
  // The store as it is now, and back to that: cheaper than to fill it again.
  void SaveBucket() { std::filesystem::copy(Path("bucket"), Path("saved"), std::filesystem::copy_options::recursive); }
  void RestoreBucket() {
    ASSERT_TRUE(RemoveAll(Path("bucket")).ok());
    std::filesystem::copy(Path("saved"), Path("bucket"), std::filesystem::copy_options::recursive);
    operations_ = 0;
  }

  std::string File(const std::string& name, const std::string& file) const {
    return JoinPath(Path("bucket/job/checkpoints/" + name), file);
  }
  // What a new machine gets.
  FolderContent Fetched(const std::string& name) {
    EXPECT_TRUE(RemoveAll(Path("new")).ok());
    const auto fetched = Mirror().FetchNewest(Path("new"), {});
    EXPECT_TRUE(fetched.ok()) << fetched.status();
    if (!fetched.ok() || fetched->path.empty()) return {};
    EXPECT_EQ(fetched->path, JoinPath(Path("new"), name));
    EXPECT_THAT(fetched->damaged, SizeIs(0));
    EXPECT_THAT(ListDirectory(Path("new")).value(), ElementsAre(name));
    return ReadFolder(fetched->path);
  }

  std::string folder_;
  int operations_ = 0;
};

TEST_F(CheckpointMirrorTest, WhatWasUploadedComesBackTheSame) {
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), {}).value().path, "");
  const FolderContent first = Write("step-00000009");
  ASSERT_TRUE(Mirror().Upload(Path("step-00000009")).ok());
  EXPECT_EQ(Fetched("step-00000009"), first);
  const FolderContent second = Write("step-00000010");
  ASSERT_TRUE(Mirror().Upload(Path("step-00000010")).ok());
  EXPECT_EQ(Fetched("step-00000010"), second);
  EXPECT_THAT(Mirror().List().value(), ElementsAre("step-00000009", "step-00000010"));
}

TEST_F(CheckpointMirrorTest, TheNewestIsThatOfTheHighestStep) {
  for (const char* name : {"step-100000000", "step-99999999"}) {
    Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  EXPECT_THAT(Mirror().List().value(), ElementsAre("step-99999999", "step-100000000"));
}

TEST_F(CheckpointMirrorTest, AnUploadThatWasMadeSendsNothingAndAnInterruptedOneTheRest) {
  Write("step-1");
  ASSERT_FALSE(Mirror({.at = 3}).Upload(Path("step-1")).ok());  // list, one file, and no further
  EXPECT_THAT(Mirror().List().value(), ElementsAre());
  operations_ = 0;
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  EXPECT_EQ(operations_, 4);  // list, two files, manifest
  operations_ = 0;
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  EXPECT_EQ(operations_, 2);  // list, and what manifest is there
}

// Runs `act` on a mirror whose n-th operation fails, for each n until none does, from the same start; then checks.
void AtEveryCut(const std::function<void()>& start, const std::function<absl::Status(const ObjectStoreFault&)>& act,
                const std::function<void()>& check) {
  for (const bool answer_lost : {false, true}) {
    bool failed = true;
    for (int at = 1; failed; ++at) {
      SCOPED_TRACE(absl::StrCat("operation ", at, answer_lost ? " executed" : " not executed"));
      start();
      failed = !act({.at = at, .answer_lost = answer_lost}).ok();
      check();
      ASSERT_LT(at, 100);
    }
  }
}

TEST_F(CheckpointMirrorTest, WhereverAnUploadIsCutTheNewestVisibleCheckpointIsWhole) {
  const FolderContent first = Write("step-1");
  const FolderContent second = Write("step-2");
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  SaveBucket();
  int seen_first = 0, seen_second = 0;
  AtEveryCut([&] { RestoreBucket(); },
             [&](const ObjectStoreFault& fault) { return Mirror(fault).Upload(Path("step-2")); },
             [&] {
               const bool is_second = Mirror().List().value().size() == 2;
               EXPECT_EQ(Fetched(is_second ? "step-2" : "step-1"), is_second ? second : first);
               ++(is_second ? seen_second : seen_first);
               ASSERT_TRUE(Mirror().Upload(Path("step-2")).ok());  // the next try
               EXPECT_EQ(Fetched("step-2"), second);
             });
  // List, three files, manifest: cut before each, and after each; the last cut comes too late, as do the two that none
  // is.
  EXPECT_EQ(seen_first, 5 + 4);
  EXPECT_EQ(seen_second, 1 + 2);
}

TEST_F(CheckpointMirrorTest, ACheckpointThatIsWrittenAgainIsTheOldOrTheNewOneWhole) {
  const FolderContent before = Write("step-2");
  ASSERT_TRUE(Mirror().Upload(Path("step-2")).ok());
  SaveBucket();
  const FolderContent after = Write("step-2", " again");
  int seen_before = 0, seen_after = 0;
  AtEveryCut([&] { RestoreBucket(); },
             [&](const ObjectStoreFault& fault) {
               CheckpointMirror mirror = Mirror(fault);
               const absl::Status status = mirror.Upload(Path("step-2"));
               return status.ok() ? mirror.Prune({"step-2"}) : status;
             },
             [&] {
               const FolderContent got = Fetched("step-2");
               EXPECT_TRUE(got == before || got == after);
               ++(got == before ? seen_before : seen_after);
               ASSERT_TRUE(Mirror().Upload(Path("step-2")).ok());
               EXPECT_EQ(Fetched("step-2"), after);
               ASSERT_TRUE(Mirror().Prune({"step-2"}).ok());
               EXPECT_THAT(ReadFolder(Path("bucket")), SizeIs(4));  // nothing of the old one is left
             });
  EXPECT_GT(seen_before, 3);
  EXPECT_GT(seen_after, 3);
}

TEST_F(CheckpointMirrorTest, WhereverPruningIsCutWhatIsVisibleIsWhole) {
  FolderContent third;
  for (const char* name : {"step-1", "step-2", "step-3"}) {
    third = Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  SaveBucket();
  AtEveryCut([&] { RestoreBucket(); }, [&](const ObjectStoreFault& fault) { return Mirror(fault).Prune({"step-3"}); },
             [&] {
               EXPECT_EQ(Fetched("step-3"), third);
               // Take the newest away: what is then the newest must be whole too.
               const std::vector<std::string> names = Mirror().List().value();
               ASSERT_TRUE(RemoveAll(File("step-3", "")).ok());
               if (names.size() > 1) Fetched(names[names.size() - 2]);
               ASSERT_TRUE(Mirror().Prune({"step-9"}).ok());  // the next try, after a step that is not there yet
               EXPECT_LE(Mirror().List().value().size(), 1u);
             });
}

TEST_F(CheckpointMirrorTest, PruningKeepsWhatIsNamedAndAlwaysTheNewest) {
  for (const char* name : {"step-1", "step-2", "step-3", "step-4"}) {
    Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  ASSERT_TRUE(WriteFileAtomically(Path("bucket/job/checkpoints/notes.txt"), "of a person").ok());
  EXPECT_EQ(Mirror().Prune({}).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Mirror().Prune({"step-2", "step-5"}).ok());  // 5 is still on its way
  EXPECT_THAT(Mirror().List().value(), ElementsAre("step-2", "step-4"));
  EXPECT_TRUE(PathExists(Path("bucket/job/checkpoints/notes.txt")));
}

TEST_F(CheckpointMirrorTest, WhatATimelineThatWasAbandonedLeftIsRemovedOnceThereIsAnother) {
  for (const char* name : {"step-1", "step-2", "step-10"}) {
    Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  EXPECT_EQ(Mirror().RemoveNewer("step-3").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Mirror().List().value(), ElementsAre("step-1", "step-2", "step-10"));
  ASSERT_TRUE(Mirror().RemoveNewer("step-2").ok());
  EXPECT_THAT(Mirror().List().value(), ElementsAre("step-1", "step-2"));
}

TEST_F(CheckpointMirrorTest, WhereverFetchingIsCutNoHalfCheckpointStands) {
  const FolderContent content = Write("step-1");
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  AtEveryCut(
      [&] {
        ASSERT_TRUE(RemoveAll(Path("new")).ok());
        operations_ = 0;
      },
      [&](const ObjectStoreFault& fault) { return Mirror(fault).FetchNewest(Path("new"), {}).status(); },
      [&] {
        const FolderContent got = ReadFolder(Path("new/step-1"));
        EXPECT_TRUE(got.empty() || got == content);
        EXPECT_FALSE(PathExists(Path("new/step-1.tmp")));
      });
}

class FilesBesideTest : public CheckpointMirrorTest {
 protected:
  // A table that grows: the first `bytes` of "0123456789" are the checkpoint's.
  absl::Status UploadWithTable(const std::string& name, size_t bytes, const ObjectStoreFault& fault = {}) {
    const std::string table = std::string("0123456789").substr(0, bytes);
    WriteUnsynced(Path("ledger.csv"), table);
    return Mirror(fault).Upload(Path(name),
                                {{"ledger.csv", Path("ledger.csv"), {static_cast<int64_t>(bytes), Sha256(table)}}});
  }
  std::string Table() { return ReadFile(Path("run/ledger.csv")).value_or("none"); }
  FetchOptions Beside() const { return {.beside_folder = Path("run")}; }
};

TEST_F(FilesBesideTest, WhatBelongsToACheckpointComesWithIt) {
  Write("step-1");
  ASSERT_TRUE(UploadWithTable("step-1", 3).ok());
  Write("step-2");
  ASSERT_TRUE(UploadWithTable("step-2", 6).ok());
  ASSERT_TRUE(Mirror().Prune({"step-1"}).ok());
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), Beside()).value().path, Path("new/step-2"));
  EXPECT_EQ(Table(), "012345");
  // A longer one is of the same timeline; another or a shorter one is not it.
  for (const auto& [here, after] : std::vector<std::pair<std::string, std::string>>{
           {"01234567", "01234567"}, {"x123456", "012345"}, {"01234", "012345"}}) {
    WriteUnsynced(Path("run/ledger.csv"), here);
    ASSERT_TRUE(Mirror().FetchNewest(Path("new"), Beside()).ok());
    EXPECT_EQ(Table(), after);
  }
}

TEST_F(FilesBesideTest, WhereverAnUploadIsCutBothAreOfTheSameCheckpoint) {
  Write("step-1");
  ASSERT_TRUE(UploadWithTable("step-1", 3).ok());
  SaveBucket();
  Write("step-2");
  AtEveryCut([&] { RestoreBucket(); },
             [&](const ObjectStoreFault& fault) { return UploadWithTable("step-2", 6, fault); },
             [&] {
               ASSERT_TRUE(RemoveAll(Path("new")).ok() && RemoveAll(Path("run")).ok());
               const std::string path = Mirror().FetchNewest(Path("new"), Beside()).value().path;
               EXPECT_EQ(Table(), path == Path("new/step-2") ? "012345" : "012");
             });
}

TEST_F(FilesBesideTest, ACheckpointWhoseFileBesideIsDamagedIsDamaged) {
  Write("step-1");
  ASSERT_TRUE(UploadWithTable("step-1", 3).ok());
  Write("step-2");
  ASSERT_TRUE(UploadWithTable("step-2", 6).ok());
  const std::string manifest = ReadFile(File("step-2", "manifest.json")).value();
  WriteUnsynced(File("step-2", Sha256(manifest).substr(0, 16) + "-beside/ledger.csv"), "01234x");
  const FetchedCheckpoint fetched = Mirror().FetchNewest(Path("new"), Beside()).value();
  EXPECT_EQ(fetched.path, Path("new/step-1"));
  EXPECT_THAT(fetched.damaged, ElementsAre(StartsWith("step-2: ")));
  EXPECT_EQ(Table(), "012");
}

TEST_F(FilesBesideTest, ATableThatIsNotWhatTheCheckpointMeansIsNotMadeVisible) {
  Write("step-1");
  WriteUnsynced(Path("ledger.csv"), "0123");  // has grown since
  EXPECT_EQ(Mirror().Upload(Path("step-1"), {{"ledger.csv", Path("ledger.csv"), {3, Sha256("012")}}}).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_THAT(Mirror().List().value(), ElementsAre());
}

TEST_F(CheckpointMirrorTest, OnlyWhatIsNewerThanWhatIsHereIsFetched) {
  for (const char* name : {"step-1", "step-2"}) {
    Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), {.newer_than = 2}).value().path, "");
  EXPECT_FALSE(PathExists(Path("new")));
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), {.newer_than = 1}).value().path, Path("new/step-2"));
  ASSERT_TRUE(WriteFileAtomically(File("step-2", "manifest.json"), "{").ok());
  const FetchedCheckpoint fetched = Mirror().FetchNewest(Path("new"), {.newer_than = 1}).value();
  EXPECT_EQ(fetched.path, "");  // the caller's own is the better one
  EXPECT_THAT(fetched.damaged, SizeIs(1));
}

TEST_F(CheckpointMirrorTest, OneIsFetchedByItsName) {
  for (const char* name : {"step-1", "step-2"}) {
    WriteCheckpointFolder(Path(name), {{"model.safetensors", name}});
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  ASSERT_TRUE(Mirror().FetchNamed("step-1", Path("new")).ok());
  EXPECT_EQ(ReadFile(Path("new/step-1/model.safetensors")).value(), "step-1");
  EXPECT_EQ(Mirror().FetchNamed("step-3", Path("new")).code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointMirrorTest, ADamagedCheckpointIsPassedOverAndNamed) {
  const FolderContent first = Write("step-1");
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  Write("step-2");
  ASSERT_TRUE(Mirror().Upload(Path("step-2")).ok());
  const std::string manifest = ReadFile(File("step-2", "manifest.json")).value();
  const std::string state = JoinPath(File("step-2", Sha256(manifest).substr(0, 16)), "state.json");
  const std::string outside = R"({"files": {"../x": {"bytes": 1, "sha256": ")" + Sha256("x") + "\"}}}";
  const std::vector<std::function<absl::Status()>> damages = {
      [&] { return WriteFileAtomically(state, "state of step-3"); },
      [&] { return RemoveAll(state); },
      [&] { return WriteFileAtomically(File("step-2", "manifest.json"), "{"); },
      [&] { return WriteFileAtomically(File("step-2", "manifest.json"), outside); },
      [&] { return WriteFileAtomically(File("step-2", "manifest.json"), R"({"files": {}})"); },
  };
  for (const auto& damage : damages) {
    ASSERT_TRUE(damage().ok());
    ASSERT_TRUE(RemoveAll(Path("new")).ok());
    const auto fetched = Mirror().FetchNewest(Path("new"), {}).value();
    EXPECT_EQ(ReadFolder(fetched.path), first);
    EXPECT_THAT(fetched.damaged, ElementsAre(StartsWith("step-2: ")));
    EXPECT_THAT(ListDirectory(Path("new")).value(), ElementsAre("step-1"));
  }
  ASSERT_TRUE(WriteFileAtomically(File("step-1", "manifest.json"), "{").ok());
  EXPECT_EQ(Mirror().FetchNewest(Path("new"), {}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointMirrorTest, AServiceThatFailsIsNoReasonToGoBack) {
  for (const char* name : {"step-1", "step-2"}) {
    Write(name);
    ASSERT_TRUE(Mirror().Upload(Path(name)).ok());
  }
  operations_ = 0;
  EXPECT_EQ(Mirror({.at = 2, .dies = false}).FetchNewest(Path("new"), {}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_FALSE(PathExists(Path("new/step-1")));
}

TEST_F(CheckpointMirrorTest, ACheckpointThatIsHereIsFetchedOnlyIfItIsDamaged) {
  const FolderContent content = Write("step-1");
  ASSERT_TRUE(Mirror().Upload(Path("step-1")).ok());
  operations_ = 0;
  EXPECT_EQ(Mirror().FetchNewest(folder_, {}).value().path, Path("step-1"));
  EXPECT_EQ(operations_, 2);  // list and manifest
  ASSERT_TRUE(WriteFileAtomically(Path("step-1/state.json"), "rotten").ok());
  EXPECT_EQ(Mirror().FetchNewest(folder_, {}).value().path, Path("step-1"));
  EXPECT_EQ(ReadFolder(Path("step-1")), content);
}

TEST_F(CheckpointMirrorTest, AFolderThatIsNotWhatItsManifestSaysIsNotMadeVisible) {
  Write("step-1");
  ASSERT_TRUE(WriteFileAtomically(Path("step-1/state.json"), "rotten").ok());
  EXPECT_EQ(Mirror().Upload(Path("step-1")).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Mirror().List().value(), ElementsAre());
  EXPECT_EQ(Mirror().Upload(Path("other")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Mirror().Upload(Path("step-1.tmp")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Mirror().Upload(Path("step-2")).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice::learner

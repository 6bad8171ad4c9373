// A mirror in moto's S3. Started by tests/testing/moto_server.py.
#include <stdlib.h>

#include <memory>
#include <string>

#include "common/file/file.h"
#include "common/object_store/s3_object_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/mirror/checkpoint_mirror.h"
#include "tests/testing/checkpoint_folder.h"
#include "tests/testing/object_store_options.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;

TEST(CheckpointMirrorMotoTest, CheckpointsGoUpComeBackAndAreRemoved) {
  std::string folder = ::testing::TempDir() + "sluice_mirror_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const EnvironmentFunction environment = ProcessEnvironment();
  FakeWaits waits;
  S3Options options{.transfer = waits.Options(), .part_bytes = int64_t{5} << 20};
  options.location = ParseS3Url("s3://" + environment("SLUICE_TEST_S3_BUCKET") +
                                    "/runs?endpoint=" + environment("SLUICE_TEST_S3_ENDPOINT"),
                                environment)
                         .value();
  options.keys = SigningKeysFromEnvironment(options.location.region, environment).value();
  CheckpointMirror mirror(std::make_unique<S3ObjectStore>(options), "job 1/checkpoints");

  FolderContent content;
  for (const char* name : {"step-00000001", "step-00000002"}) {
    content = WriteCheckpointFolder(JoinPath(folder, name),
                                    {{"model/model.safetensors", std::string(11 << 20, 'w') + name},  // three parts
                                     {"state.json", name}});
    const absl::Status uploaded =
        mirror.Upload(JoinPath(folder, name),
                      {{"ledger.csv", JoinPath(folder, std::string(name) + "/state.json"), {13, Sha256(name)}}});
    ASSERT_TRUE(uploaded.ok()) << uploaded;
  }
  EXPECT_THAT(mirror.List().value(), ElementsAre("step-00000001", "step-00000002"));
  ASSERT_TRUE(mirror.Prune({"step-00000002"}).ok());
  EXPECT_THAT(mirror.List().value(), ElementsAre("step-00000002"));
  const auto fetched = mirror.FetchNewest(JoinPath(folder, "new"), {.beside_folder = JoinPath(folder, "run")});
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(ReadFolder(fetched->path), content);
  EXPECT_EQ(ReadFile(JoinPath(folder, "run/ledger.csv")).value(), "step-00000002");

  WriteCheckpointFolder(JoinPath(folder, "step-00000003"), {{"model.safetensors", "best"}});
  CheckpointMirror best(std::make_unique<S3ObjectStore>(options), "job 1/export/best");
  ASSERT_TRUE(best.Upload(JoinPath(folder, "step-00000003")).ok());
  ASSERT_TRUE(best.FetchNamed("step-00000003", JoinPath(folder, "best")).ok());
  EXPECT_EQ(ReadFile(JoinPath(folder, "best/step-00000003/model.safetensors")).value(), "best");
  EXPECT_THAT(mirror.List().value(), ElementsAre("step-00000002")) << "neither is in the other's way";
  EXPECT_TRUE(RemoveAll(folder).ok());
}

}  // namespace
}  // namespace sluice::learner

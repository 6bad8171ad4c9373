#include "learner/publish/policy_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "common/sync/thread.h"
#include "common/transfer/catalog_document.h"
#include "common/transfer/transfer.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;

TEST(MakeSnapshotTest, ThePayloadIsTheArenasBytes) {
  const std::vector<float> arena = {1.5f, -2.f, 0.f};
  const auto snapshot = MakeSnapshot(4, arena);
  EXPECT_EQ(snapshot->version, 4u);
  ASSERT_EQ(snapshot->payload.size(), 12u);
  float second = 0;
  std::memcpy(&second, snapshot->payload.data() + 4, 4);
  EXPECT_EQ(second, -2.f);
  EXPECT_EQ(snapshot->checksum, PayloadChecksum(snapshot->payload));
}

TEST(SnapshotEncoderTest, AVersionIsHashedOnceAndWrittenOverOneThatNobodyHolds) {
  SnapshotEncoder encoder;
  PolicyStore store;
  const std::vector<float> first = {1.f, 2.f};
  const auto held = encoder.Encode(1, first);  // by an actor that fetches slowly
  store.Put("job-1", held);
  for (uint64_t version = 2; version <= 20; ++version) {
    store.Put("job-1", encoder.Encode(version, {static_cast<float>(version), 0.f}));
    const auto latest = store.Find("job-1", version).value();
    EXPECT_EQ(latest->checksum, PayloadChecksum(latest->payload));
    ASSERT_EQ(latest->chunks.checksums.size(), 1u);
    EXPECT_EQ(latest->chunks.checksums[0], ChunkChecksum(latest->payload));
  }
  // The one that is held, the two of the store, and the one that the next is written to.
  EXPECT_EQ(encoder.allocated(), 4u);
  EXPECT_EQ(held->version, 1u);
  EXPECT_EQ(held->payload, std::string(reinterpret_cast<const char*>(first.data()), 8));
  EXPECT_EQ(encoder.Encode(21, {1.f, 2.f, 3.f})->payload.size(), 12u);
}

TEST(SnapshotEncoderTest, SnapshotsMayBeLetGoByOtherThreadsAndAfterTheEncoder) {
  std::shared_ptr<const PolicySnapshot> last;
  {
    SnapshotEncoder encoder;
    Thread reader;
    for (int version = 1; version <= 50; ++version) {
      const auto snapshot = encoder.Encode(static_cast<uint64_t>(version), {static_cast<float>(version)});
      reader.Join();
      reader = StartThread("reader", [snapshot, version] {
        float value = 0;
        std::memcpy(&value, snapshot->payload.data(), 4);
        EXPECT_EQ(value, static_cast<float>(version));
      });
      last = snapshot;
    }
    EXPECT_LE(encoder.allocated(), 4u);
  }
  EXPECT_EQ(last->checksum, PayloadChecksum(last->payload));
}

TEST(PolicyStoreTest, KeepsTheLastTwoVersionsOfTheJob) {
  PolicyStore store;
  for (uint64_t version = 1; version <= 3; ++version) store.Put("job-1", MakeSnapshot(version, {1.f}));
  const absl::Status gone = store.Find("job-1", 1).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("kept are [2, 3]"));
  EXPECT_EQ(store.Find("job-1", 2).value()->version, 2u);
  EXPECT_EQ(store.Find("job-1", 3).value()->version, 3u);
  store.Put("job-2", MakeSnapshot(1, {1.f}));
  EXPECT_FALSE(store.Find("job-1", 3).ok());
  EXPECT_TRUE(store.Find("job-2", 1).ok());
}

TEST(PolicyStoreTest, AFetchInProgressKeepsItsPayload) {
  PolicyStore store;
  store.Put("job-1", MakeSnapshot(1, {1.f}));
  const auto held = store.Find("job-1", 1).value();
  store.Clear();
  EXPECT_FALSE(store.Find("job-1", 1).ok());
  EXPECT_EQ(held->payload.size(), 4u);
}

TEST(PolicyStoreTest, ServesTheCatalogOfItsJobAndVersion) {
  const auto trie = Trie::Build(2, {3, 5, 4, 5});
  ASSERT_TRUE(trie.ok());
  PolicyStore store;
  store.PutCatalog("job-1", *trie);
  EXPECT_EQ(*store.FindCatalog("job-1", trie->version()).value(), CatalogToJson(*trie));
  EXPECT_EQ(store.FindCatalog("job-1", "other").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.FindCatalog("job-2", trie->version()).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice::learner

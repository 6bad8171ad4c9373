#include "learner/publish/policy_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

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

#include "learner/rpc/policy_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/transfer/catalog_document.h"

namespace sluice::learner {
namespace {

class PolicyServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 1000; ++i) arena_.push_back(0.5f * static_cast<float>(i));
    store_.Put("job-1", MakeSnapshot(3, arena_));
    service_ = std::make_unique<GrpcPolicyService>(
        &store_, GrpcPolicyService::Options{.chunk_bytes = 300, .metrics = &metrics_});
    auto server = RpcServer::Start("127.0.0.1:0", {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::PolicyService::NewStub(MakeChannel(server_->address()));
  }

  // Chunks until the end, at most `limit`.
  absl::Status Fetch(uint64_t version, uint64_t offset, std::vector<v1::Chunk>* chunks, size_t limit = 1000) {
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(60));
    v1::FetchPolicyRequest request;
    request.set_job_id("job-1");
    request.set_policy_version(version);
    request.set_offset(offset);
    auto reader = stub_->FetchPolicy(&context, request);
    v1::Chunk chunk;
    while (reader->Read(&chunk)) {
      chunks->push_back(chunk);
      if (chunks->size() == limit) context.TryCancel();
    }
    return FromGrpc(reader->Finish());
  }

  std::vector<float> arena_;
  Metrics metrics_;
  PolicyStore store_;
  std::unique_ptr<GrpcPolicyService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
};

ChunkView View(const v1::Chunk& chunk) {
  return ChunkView{chunk.offset(), chunk.total_bytes(), chunk.data(), chunk.checksum()};
}

TEST_F(PolicyServiceTest, StreamsAVersionInChunks) {
  std::vector<v1::Chunk> chunks;
  ASSERT_TRUE(Fetch(3, 0, &chunks).ok());
  EXPECT_EQ(chunks.size(), 14u);  // 4000 bytes of 300
  const auto snapshot = store_.Find("job-1", 3).value();
  Assembler assembler({.total_bytes = 4000, .checksum = snapshot->checksum});
  for (const v1::Chunk& chunk : chunks) ASSERT_TRUE(assembler.Add(View(chunk)).ok());
  EXPECT_EQ(assembler.Finish().value(), snapshot->payload);
}

TEST_F(PolicyServiceTest, AFetchThatBrokeOffResumesAtItsOffset) {
  const auto snapshot = store_.Find("job-1", 3).value();
  Assembler assembler({.total_bytes = 4000, .checksum = snapshot->checksum});
  std::vector<v1::Chunk> first;
  Fetch(3, 0, &first, 2).IgnoreError();
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(assembler.Add(View(first.at(i))).ok());
  std::vector<v1::Chunk> rest;
  ASSERT_TRUE(Fetch(3, assembler.next_offset(), &rest).ok());
  EXPECT_EQ(rest.front().offset(), 600u);
  for (const v1::Chunk& chunk : rest) ASSERT_TRUE(assembler.Add(View(chunk)).ok());
  EXPECT_EQ(assembler.Finish().value(), snapshot->payload);
}

TEST_F(PolicyServiceTest, AVersionThatIsGoneIsNotFound) {
  std::vector<v1::Chunk> chunks;
  EXPECT_EQ(Fetch(2, 0, &chunks).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Fetch(3, 4001, &chunks).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(chunks.empty());
}

TEST_F(PolicyServiceTest, TheEndOfAPayloadIsOneEmptyChunk) {
  std::vector<v1::Chunk> chunks;
  ASSERT_TRUE(Fetch(3, 4000, &chunks).ok());
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(chunks[0].data().empty());
}

TEST_F(PolicyServiceTest, WeightsAreHashedOnceHoweverManyActorsFetchThem) {
  GrpcPolicyService service(&store_, GrpcPolicyService::Options{.metrics = &metrics_});
  const auto server = RpcServer::Start("127.0.0.1:0", {&service}).value();
  stub_ = v1::PolicyService::NewStub(MakeChannel(server->address()));
  std::vector<float> large(kDefaultChunkBytes / 2);  // two chunks of the default size
  auto snapshot = std::make_shared<PolicySnapshot>(*MakeSnapshot(4, large));
  ASSERT_EQ(snapshot->chunks.checksums.size(), 2u);
  snapshot->chunks.checksums = {7, 8};  // would be told from computed ones
  store_.Put("job-1", snapshot);
  for (int actor = 0; actor < 5; ++actor) {
    std::vector<v1::Chunk> chunks;
    ASSERT_TRUE(Fetch(4, 0, &chunks).ok());
    ASSERT_EQ(chunks.size(), 2u);
    EXPECT_EQ(chunks[0].checksum(), 7u);
    EXPECT_EQ(chunks[1].checksum(), 8u);
    EXPECT_EQ(chunks[1].offset(), kDefaultChunkBytes);
    EXPECT_EQ(chunks[0].data() + chunks[1].data(), snapshot->payload);
  }
  EXPECT_THAT(metrics_.Text(), testing::HasSubstr("sluice_weight_chunks_hashed_total 0"));
  EXPECT_THAT(metrics_.Text(),
              testing::HasSubstr("sluice_weight_bytes_total " + std::to_string(10 * kDefaultChunkBytes)));
  // A resumed fetch that does not start on the grid hashes its first chunk and no more.
  std::vector<v1::Chunk> chunks;
  ASSERT_TRUE(Fetch(4, 5, &chunks).ok());
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].checksum(), ChunkChecksum(chunks[0].data()));
  EXPECT_EQ(chunks[1].checksum(), 8u);
  EXPECT_THAT(metrics_.Text(), testing::HasSubstr("sluice_weight_chunks_hashed_total 1"));
  server->Shutdown(absl::ZeroDuration());
}

TEST_F(PolicyServiceTest, StreamsTheCatalog) {
  const auto trie = Trie::Build(2, {3, 5, 4, 5, 3, 5});
  ASSERT_TRUE(trie.ok());
  store_.PutCatalog("job-1", *trie);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(60));
  v1::FetchCatalogRequest request;
  request.set_job_id("job-1");
  request.set_catalog_version(trie->version());
  auto reader = stub_->FetchCatalog(&context, request);
  Assembler assembler({});
  v1::Chunk chunk;
  while (reader->Read(&chunk)) ASSERT_TRUE(assembler.Add(View(chunk)).ok());
  ASSERT_TRUE(FromGrpc(reader->Finish()).ok());
  const auto rebuilt = CatalogFromJson(assembler.Finish().value(), trie->version());
  ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
  EXPECT_EQ((*rebuilt)->num_items(), 3);
}

}  // namespace
}  // namespace sluice::learner

#include "actor/rpc/peer_policies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"

namespace sluice::actor {
namespace {

using testing::HasSubstr;

class PeerPoliciesTest : public testing::Test {
 protected:
  void SetUp() override {
    server_ = RpcServer::Start("127.0.0.1:0", {&peers_}).value();
    stub_ = v1::PolicyService::NewStub(MakeChannel(server_->address()));
  }

  void Put(uint64_t version, std::string payload) {
    auto owner = std::make_shared<const std::string>(std::move(payload));
    peers_.Put("job-1", version, {owner, *owner, std::make_shared<const ChunkTable>()});
  }

  // One stream, to be read step by step.
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::Chunk>> reader;
    std::string bytes;

    bool Read() {
      v1::Chunk chunk;
      if (!reader->Read(&chunk)) return false;
      EXPECT_EQ(chunk.checksum(), ChunkChecksum(chunk.data()));
      bytes += chunk.data();
      return true;
    }
    absl::Status Finish() {
      while (Read()) {
      }
      return FromGrpc(reader->Finish());
    }
  };
  std::unique_ptr<Stream> Open(uint64_t version, const std::string& job = "job-1", uint64_t offset = 0) {
    auto stream = std::make_unique<Stream>();
    SetDeadline(&stream->context, absl::Seconds(60));
    v1::FetchPolicyRequest request;
    request.set_job_id(job);
    request.set_policy_version(version);
    request.set_offset(offset);
    stream->reader = stub_->FetchPolicy(&stream->context, request);
    return stream;
  }

  Metrics metrics_;
  PeerPolicies peers_{{.chunk_bytes = 1 << 20, .max_streams = 4, .metrics = &metrics_}};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
};

TEST_F(PeerPoliciesTest, ServesTheVersionItHoldsFromAnyOffset) {
  Put(3, "0123456789");
  auto whole = Open(3);
  EXPECT_TRUE(whole->Finish().ok());
  EXPECT_EQ(whole->bytes, "0123456789");
  auto rest = Open(3, "job-1", 6);
  EXPECT_TRUE(rest->Finish().ok());
  EXPECT_EQ(rest->bytes, "6789");
  EXPECT_EQ(Open(3, "job-1", 11)->Finish().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_peer_weight_bytes_total 14"));
}

TEST_F(PeerPoliciesTest, RefusesWhatItDoesNotHold) {
  EXPECT_EQ(Open(3)->Finish().code(), absl::StatusCode::kNotFound);
  Put(3, "weights");
  EXPECT_EQ(Open(2)->Finish().code(), absl::StatusCode::kNotFound);
  const absl::Status other = Open(3, "job-2")->Finish();
  EXPECT_EQ(other.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(other.message()), HasSubstr("holds version 3 of job 'job-1'"));
  peers_.Clear();
  EXPECT_EQ(Open(3)->Finish().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_peer_refusals_total 4"));
}

TEST_F(PeerPoliciesTest, SendsToSoManyAtATimeAndNoMore) {
  // More than the connection takes in while nobody reads.
  const std::string large(32 << 20, 'w');
  Put(1, large);
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(Open(1));
    ASSERT_TRUE(streams.back()->Read());
  }
  EXPECT_EQ(Open(1)->Finish().code(), absl::StatusCode::kResourceExhausted);
  Put(2, "the next version");  // what is on its way stays as it is
  EXPECT_TRUE(streams[0]->Finish().ok());
  EXPECT_EQ(streams[0]->bytes, large);
  for (int i = 1; i < 4; ++i) {
    streams[i]->context.TryCancel();
    streams[i]->Finish().IgnoreError();
  }
  // A place is free once the server knows that a stream is over.
  absl::Status status = absl::ResourceExhaustedError("");
  for (int tries = 0; tries < 10'000 && absl::IsResourceExhausted(status); ++tries) status = Open(2)->Finish();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(PeerPoliciesTest, HasNoCatalog) {
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(60));
  auto reader = stub_->FetchCatalog(&context, v1::FetchCatalogRequest());
  v1::Chunk chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  EXPECT_EQ(FromGrpc(reader->Finish()).code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace sluice::actor

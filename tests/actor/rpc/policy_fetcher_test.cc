#include "actor/rpc/policy_fetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/transfer/catalog_document.h"
#include "tests/actor/rpc/fake_policy_service.h"

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class PolicyFetcherTest : public testing::Test {
 protected:
  void SetUp() override {
    service_.Put(3, std::string(1000, 'w'));
    auto server = RpcServer::Start("127.0.0.1:0", {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = MakeChannel(server_->address());
    PolicyFetcher::Options options;
    options.now = [this] { return now_; };
    options.wait = [this](absl::Duration delay) {  // time passes in waits alone
      now_ += delay;
      if (now_ > unwanted_from_) wanted_ = false;
      return true;
    };
    options.metrics = &metrics_;
    fetcher_ = std::make_unique<PolicyFetcher>(options);
  }

  absl::StatusOr<std::string> Fetch(const v1::PolicyOffer& offer) {
    std::string place(std::min<uint64_t>(offer.payload_bytes(), 1 << 20), '?');
    const absl::Status status =
        fetcher_->FetchPolicy(channel_, offer, absl::MakeSpan(place.data(), place.size()), [this] { return wanted_; });
    if (!status.ok()) return status;
    return place;
  }

  FakePolicyService service_{300};
  absl::Time now_ = absl::UnixEpoch();
  bool wanted_ = true;
  absl::Time unwanted_from_ = absl::InfiniteFuture();
  Metrics metrics_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<PolicyFetcher> fetcher_;
};

TEST_F(PolicyFetcherTest, FetchesAnOfferedVersion) {
  const auto payload = Fetch(service_.Offer("job-1", 3));
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(*payload, std::string(1000, 'w'));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_weight_bytes_total 1000"));
}

TEST_F(PolicyFetcherTest, ADamagedChunkIsAskedForAgain) {
  service_.DamageNext(2);
  const auto payload = Fetch(service_.Offer("job-1", 3));
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(*payload, std::string(1000, 'w'));
  EXPECT_THAT(service_.offsets(), ElementsAre(0, 300, 300));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_weight_checksum_mismatch_total 2"));
}

TEST_F(PolicyFetcherTest, AForgedPayloadIsFetchedFromTheStart) {
  service_.ForgeNext(1);
  const auto payload = Fetch(service_.Offer("job-1", 3));
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(*payload, std::string(1000, 'w'));
  EXPECT_THAT(service_.offsets(), ElementsAre(0, 0));
}

TEST_F(PolicyFetcherTest, DamageWithoutEndIsDataLoss) {
  service_.ForgeNext(1'000'000);
  const absl::Status status = Fetch(service_.Offer("job-1", 3)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_LE(now_, absl::UnixEpoch() + absl::Minutes(10));
}

TEST_F(PolicyFetcherTest, WhatIsNotKeptIsNotFound) {
  v1::PolicyOffer offer = service_.Offer("job-1", 3);
  offer.set_policy_version(2);
  EXPECT_EQ(Fetch(offer).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(PolicyFetcherTest, AnOfferWithoutLengthOrChecksumCannotBeVerified) {
  v1::PolicyOffer offer = service_.Offer("job-1", 3);
  offer.clear_checksum();
  EXPECT_EQ(Fetch(offer).status().code(), absl::StatusCode::kInvalidArgument);
  offer = service_.Offer("job-1", 3);
  offer.set_payload_bytes(0);
  EXPECT_EQ(Fetch(offer).status().code(), absl::StatusCode::kInvalidArgument);
  offer.set_payload_bytes(uint64_t{1} << 60);
  EXPECT_EQ(Fetch(offer).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PolicyFetcherTest, AFetchThatIsNoLongerWantedEnds) {
  wanted_ = false;
  EXPECT_EQ(Fetch(service_.Offer("job-1", 3)).status().code(), absl::StatusCode::kCancelled);
}

// It used to go on for the ten minutes of its budget, while the actor's new rank waited for it.
TEST_F(PolicyFetcherTest, AFetchFromADeadRankEndsWhenItIsNoLongerWanted) {
  const v1::PolicyOffer offer = service_.Offer("job-1", 3);
  server_->Shutdown(absl::ZeroDuration());
  unwanted_from_ = now_ + absl::Milliseconds(200);
  EXPECT_EQ(Fetch(offer).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(now_, absl::UnixEpoch() + absl::Seconds(10));
}

TEST_F(PolicyFetcherTest, TheCatalogIsCheckedByItsVersion) {
  const auto trie = Trie::Build(2, {3, 5, 4, 5, 3, 5});
  ASSERT_TRUE(trie.ok());
  service_.PutCatalog(CatalogToJson(*trie) + std::string(500, ' '));
  service_.DamageNext(1);
  const auto fetched = fetcher_->FetchCatalog(channel_, "job-1", trie->version(), [] { return true; });
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ((*fetched)->version(), trie->version());
  EXPECT_EQ(service_.catalog_fetches(), 2);
  EXPECT_EQ(fetcher_->FetchCatalog(channel_, "job-1", "other", [] { return true; }).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::actor

// Decoding on a device: what the processor's path finds, without waiting before the end. On the fake device.
#include "common/decode/device_decode.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/common/model/model_testing.h"
#include "tests/testing/fake_device/fake_device.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

constexpr int kCodes = 5;

class DeviceDecodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (TestPlacement().device.is_cuda()) GTEST_SKIP() << kNotBesideAGpu;
  }

  std::unique_ptr<Policy> Placed(const at::Device& device, at::ScalarType compute = at::kFloat) const {
    std::unique_ptr<Policy> policy = Policy::Create(Config(), trie_, 3).value();
    Placement placement;
    placement.device = device;
    placement.compute = compute;
    EXPECT_TRUE(policy->Place(placement).ok());
    return policy;
  }

  PolicyConfig Config() const {
    PolicyConfig config = testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
    config.initializer_range = 0.5;  // far from uniform, so that there is something to choose
    return config;
  }

  // Ragged prompts; one may produce all, one not its history, one nothing at all.
  std::vector<DecodePrompt> Prompts() const {
    std::vector<DecodePrompt> prompts(4);
    prompts[0].input = {1, MergedItemEntry(3), MergedItemEntry(0), MergedItemEntry(11)};
    prompts[1].input = {1, MergedItemEntry(7)};
    prompts[1].excluded_leaves = {2, 7, 8, 9};
    prompts[2].input = {1, MergedItemEntry(5), MergedItemEntry(6)};
    for (int32_t leaf = 0; leaf < trie_->num_leaves(); ++leaf) prompts[2].excluded_leaves.push_back(leaf);
    prompts[3].input = {1};
    for (size_t b = 0; b < prompts.size(); ++b) prompts[b].seed = 40 + b;
    prompts[0].target_leaf = 4;
    prompts[3].target_leaf = 9;
    return prompts;
  }

  static DecodePlan Everything() {
    DecodePlan plan;
    plan.beams = 9;
    plan.samples = 7;
    plan.temperature = 1.3;
    plan.unconstrained_beams = 6;
    return plan;
  }

  static void ExpectSame(const std::vector<Completion>& got, const std::vector<Completion>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) ExpectSame(got[i], want[i]);
  }
  static void ExpectSame(const Completion& got, const Completion& want) {
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_EQ(got.leaf, want.leaf);
    ASSERT_EQ(got.log_probs_full.size(), want.log_probs_full.size());
    ASSERT_EQ(got.log_probs_trie.size(), want.log_probs_trie.size());
    for (size_t t = 0; t < want.log_probs_full.size(); ++t) {
      EXPECT_NEAR(got.log_probs_full[t], want.log_probs_full[t], 2e-4);
    }
    for (size_t t = 0; t < want.log_probs_trie.size(); ++t) {
      EXPECT_NEAR(got.log_probs_trie[t], want.log_probs_trie[t], 2e-4);
    }
  }

  const std::shared_ptr<const Trie> trie_ = testing::RandomTrie(40, kCodes, 2);
};

TEST_F(DeviceDecodeTest, TheCompletionsAreThoseOfTheProcessor) {
  const auto kernels = Placed(at::kCPU), device = Placed(FakeDevice());
  for (const LogProbSpace space : {LogProbSpace::kFull, LogProbSpace::kTrie}) {
    DecodePlan plan = Everything();
    plan.beam_space = space;
    const auto want = Decode(*kernels, *trie_, Prompts(), plan), got = Decode(*device, *trie_, Prompts(), plan);
    ASSERT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
    for (size_t b = 0; b < want->size(); ++b) {
      SCOPED_TRACE(b);
      ExpectSame((*got)[b].beams, (*want)[b].beams);
      ExpectSame((*got)[b].samples, (*want)[b].samples);
      ExpectSame((*got)[b].unconstrained, (*want)[b].unconstrained);
      ExpectSame((*got)[b].target, (*want)[b].target);
      EXPECT_EQ((*got)[b].samples.size(), b == 2 ? 0u : 7u);
    }
  }
}

// All that is chosen comes back in one copy; nothing before.
TEST_F(DeviceDecodeTest, AWholeCallWaitsOnce) {
  const auto policy = Placed(FakeDevice());
  DecodePlan beams, samples;
  beams.beams = 8;
  samples.samples = 8;
  for (const DecodePlan& plan : {beams, samples, Everything()}) {
    const FakeDeviceWaits waits;
    ASSERT_TRUE(Decode(*policy, *trie_, Prompts(), plan).ok());
    EXPECT_EQ(waits.count(), 1);
  }
}

TEST_F(DeviceDecodeTest, Bf16DecodesWithoutMoreWaits) {
  const auto policy = Placed(FakeDevice(), at::kBFloat16);
  const FakeDeviceWaits waits;
  const auto results = Decode(*policy, *trie_, Prompts(), Everything());
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].beams.size(), 9u);
  EXPECT_EQ(waits.count(), 1);
}

// With equal logits everywhere the order is that of the tokens, as on the processor.
TEST_F(DeviceDecodeTest, TiesGoToLowerTokens) {
  const auto kernels = Placed(at::kCPU), device = Placed(FakeDevice());
  {
    const at::NoGradGuard no_grad;
    kernels->parameters().zero_();
    device->parameters().zero_();
  }
  DecodePlan plan;
  plan.beams = 6;
  plan.unconstrained_beams = 6;
  const auto want = Decode(*kernels, *trie_, Prompts(), plan), got = Decode(*device, *trie_, Prompts(), plan);
  ASSERT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
  for (size_t b = 0; b < want->size(); ++b) {
    ExpectSame((*got)[b].beams, (*want)[b].beams);
    ExpectSame((*got)[b].unconstrained, (*want)[b].unconstrained);
  }
}

TEST_F(DeviceDecodeTest, AnotherCatalogTakesOtherTables) {
  const auto policy = Placed(FakeDevice());
  const auto other = testing::RandomTrie(12, kCodes, 9);
  std::vector<DecodePrompt> prompts(1);
  prompts[0].input = {1};
  DecodePlan plan;
  plan.beams = 64;
  EXPECT_EQ(Decode(*policy, *trie_, prompts, plan)->front().beams.size(), static_cast<size_t>(trie_->num_leaves()));
  EXPECT_EQ(Decode(*policy, *other, prompts, plan)->front().beams.size(), static_cast<size_t>(other->num_leaves()));
}

TEST_F(DeviceDecodeTest, TheFakeDeviceSeesReadsMixturesAndTouches) {
  const at::Tensor x = at::arange(6, at::TensorOptions().device(FakeDevice()));
  {
    const FakeDeviceWaits waits;
    EXPECT_EQ((x + x).sum().item<int64_t>(), 30);
    EXPECT_TRUE(x.to(at::kCPU).equal(at::arange(6)));
    EXPECT_EQ(at::arange(6).to(FakeDevice(), /*non_blocking=*/true).numel(), 6);
    EXPECT_EQ(waits.count(), 2);
    EXPECT_EQ(at::arange(6).to(FakeDevice()).numel(), 6);
    EXPECT_EQ(waits.count(), 3);
  }
  EXPECT_ANY_THROW(x + at::arange(6));
  EXPECT_ANY_THROW(x.index_select(0, at::arange(2)));
  EXPECT_DEATH(*x.mutable_data_ptr<int64_t>() = 1, "");
}

}  // namespace
}  // namespace sluice

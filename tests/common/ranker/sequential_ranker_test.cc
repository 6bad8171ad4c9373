#include "common/ranker/sequential_ranker.h"

#include <torch/types.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

SequentialRankerConfig TinyConfig() {
  return {.num_items = 7, .hidden_size = 8, .num_layers = 2, .num_heads = 2, .max_positions = 4};
}

class SequentialRankerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = JoinPath(::testing::TempDir(), "sequential_ranker_" + name);
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ranker_ = SequentialRanker::Create(TinyConfig(), /*seed=*/11).value();
    // Weights far from their small initial values, so that every part of the model matters.
    Random random(3);
    for (const auto& [name, weight] : ranker_->Weights()) {
      float* values = weight.data_ptr<float>();
      for (int64_t i = 0; i < weight.numel(); ++i) values[i] += static_cast<float>(0.5 * random.Normal());
    }
  }
  void TearDown() override { RemoveAll(folder_).IgnoreError(); }

  std::string folder_;
  std::unique_ptr<SequentialRanker> ranker_;
};

// The model written as loops over doubles, from its description alone.
std::vector<double> SlowLogits(const SequentialRanker& ranker, const std::vector<int32_t>& history) {
  const SequentialRankerConfig& config = ranker.config();
  const int d = static_cast<int>(config.hidden_size), heads = static_cast<int>(config.num_heads), width = d / heads;
  std::map<std::string, std::vector<double>> w;
  for (const auto& [name, weight] : ranker.Weights()) {
    const at::Tensor flat = weight.detach().to(at::kDouble).contiguous().view({-1});
    w[name].assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
  }
  const int n = static_cast<int>(std::min<int64_t>(config.max_positions, static_cast<int64_t>(history.size())));
  const auto linear = [&](const std::vector<double>& x, const std::string& name) {
    const std::vector<double>& matrix = w[name + ".weight"];
    std::vector<double> y = w[name + ".bias"];
    for (size_t o = 0; o < y.size(); ++o) {
      for (size_t i = 0; i < x.size(); ++i) y[o] += matrix[o * x.size() + i] * x[i];
    }
    return y;
  };
  const auto norm = [&](const std::vector<double>& x, const std::string& name) {
    double mean = 0, variance = 0;
    for (const double v : x) mean += v / d;
    for (const double v : x) variance += (v - mean) * (v - mean) / d;
    std::vector<double> y(x.size());
    for (int i = 0; i < d; ++i) {
      y[i] = (x[i] - mean) / std::sqrt(variance + 1e-5) * w[name + ".weight"][i] + w[name + ".bias"][i];
    }
    return y;
  };
  std::vector<std::vector<double>> x(n, std::vector<double>(d));
  for (int p = 0; p < n; ++p) {
    const int item = history[history.size() - n + p];
    for (int i = 0; i < d; ++i) {
      x[p][i] = w["item_embedding.weight"][item * d + i] +
                w["position_embedding.weight"][(config.max_positions - n + p) * d + i];
    }
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "blocks." + std::to_string(layer) + ".";
    std::vector<std::vector<double>> qkv(n);
    for (int p = 0; p < n; ++p) qkv[p] = linear(norm(x[p], prefix + "norm1"), prefix + "attention");
    std::vector<std::vector<double>> next = x;
    for (int p = 0; p < n; ++p) {
      std::vector<double> mixed(d, 0.0);
      for (int h = 0; h < heads; ++h) {
        std::vector<double> weight(p + 1);
        double total = 0;
        for (int k = 0; k <= p; ++k) {  // causal
          double dot = 0;
          for (int i = 0; i < width; ++i) dot += qkv[p][h * width + i] * qkv[k][d + h * width + i];
          total += weight[k] = std::exp(dot / std::sqrt(width));
        }
        for (int k = 0; k <= p; ++k) {
          for (int i = 0; i < width; ++i) mixed[h * width + i] += weight[k] / total * qkv[k][2 * d + h * width + i];
        }
      }
      const std::vector<double> out = linear(mixed, prefix + "output");
      for (int i = 0; i < d; ++i) next[p][i] += out[i];
      std::vector<double> expanded = linear(norm(next[p], prefix + "norm2"), prefix + "expand");
      for (double& v : expanded) v = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
      const std::vector<double> contracted = linear(expanded, prefix + "contract");
      for (int i = 0; i < d; ++i) next[p][i] += contracted[i];
    }
    x = next;
  }
  const std::vector<double> hidden = norm(x[n - 1], "final_norm");
  std::vector<double> logits(config.num_items, 0.0);
  for (int item = 0; item < config.num_items; ++item) {
    for (int i = 0; i < d; ++i) logits[item] += hidden[i] * w["item_embedding.weight"][item * d + i];
  }
  return logits;
}

TEST_F(SequentialRankerTest, ScoresOfARaggedBatchEqualTheSlowModel) {
  const std::vector<std::vector<int32_t>> histories = {{3}, {1, 2, 6, 0}, {5, 5, 4, 1, 2, 6}, {0, 3}};
  const std::vector<std::vector<int32_t>> items = {{0, 6}, {2}, {1, 1, 3, 4}, {}};
  const auto scores = ranker_->Score(histories, items);
  ASSERT_TRUE(scores.ok()) << scores.status();
  const at::Tensor all = ranker_->ScoreAll(histories).value();
  for (size_t row = 0; row < histories.size(); ++row) {
    const std::vector<double> want = SlowLogits(*ranker_, histories[row]);
    ASSERT_EQ((*scores)[row].size(), items[row].size());
    for (size_t i = 0; i < items[row].size(); ++i) EXPECT_NEAR((*scores)[row][i], want[items[row][i]], 2e-5);
    for (int item = 0; item < 7; ++item) {
      EXPECT_NEAR(all[static_cast<int64_t>(row)][item].item<double>(), want[item], 2e-5);
    }
  }
}

TEST_F(SequentialRankerTest, SavedAndLoadedRankerGivesTheSameScoresAndVersion) {
  ASSERT_TRUE(ranker_->Save(folder_).ok());
  const auto loaded = SequentialRanker::Load(folder_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->Digest(), ranker_->Digest());
  const std::vector<std::vector<int32_t>> history = {{1, 2}}, items = {{0, 1, 2, 3, 4, 5, 6}};
  EXPECT_EQ((*loaded)->Score(history, items).value(), ranker_->Score(history, items).value());
}

TEST_F(SequentialRankerTest, SeedDecidesTheWeights) {
  const std::string first = SequentialRanker::Create(TinyConfig(), 1).value()->Digest();
  EXPECT_EQ(SequentialRanker::Create(TinyConfig(), 1).value()->Digest(), first);
  EXPECT_NE(SequentialRanker::Create(TinyConfig(), 2).value()->Digest(), first);
}

TEST_F(SequentialRankerTest, BadInputIsRefusedByPlace) {
  const std::vector<std::vector<int32_t>> one = {{1}}, with_empty = {{1}, {}}, two = {{1}, {1}}, beyond = {{7}},
                                          negative = {{-1}};
  const absl::Status empty = ranker_->Score(with_empty, two).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(empty.message()), HasSubstr("history 1 is empty"));
  EXPECT_EQ(ranker_->Score(beyond, one).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ranker_->Score(one, negative).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ranker_->Score(one, two).status().code(), absl::StatusCode::kInvalidArgument);
  SequentialRankerConfig config = TinyConfig();
  config.num_heads = 3;
  EXPECT_EQ(SequentialRanker::Create(config, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SequentialRankerTest, DamagedFoldersAreRefused) {
  EXPECT_EQ(SequentialRanker::Load(folder_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(ranker_->Save(folder_).ok());
  const std::string weights = JoinPath(folder_, "model.safetensors"), config = JoinPath(folder_, "config.json");
  const std::string good_weights = ReadFile(weights).value(), good_config = ReadFile(config).value();

  ASSERT_TRUE(WriteFileAtomically(weights, absl::string_view(good_weights).substr(0, good_weights.size() - 4)).ok());
  EXPECT_EQ(SequentialRanker::Load(folder_).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFileAtomically(weights, absl::string_view(good_weights)).ok());
  // Another size, a huge one (which must not be allocated first), contradictions, and no object at all.
  for (const auto& [from, to] : {std::pair<std::string, std::string>("\"num_items\": 7", "\"num_items\": 8"),
                                 {"\"num_items\": 7", "\"num_items\": 200000000"},
                                 {"\"max_positions\": 4", "\"max_positions\": 5"},
                                 {"\"num_heads\": 2", "\"num_heads\": 3"},
                                 {"\"num_layers\": 2", "\"num_layers\": 1"},
                                 {"\"num_layers\": 2", "\"num_layers\": 3"},
                                 {"{", "["}}) {
    std::string bad = good_config;
    bad.replace(bad.find(from), from.size(), to);
    ASSERT_TRUE(WriteFileAtomically(config, absl::string_view(bad)).ok());
    EXPECT_EQ(SequentialRanker::Load(folder_).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
  ASSERT_TRUE(WriteFileAtomically(config, absl::string_view(good_config)).ok());
  EXPECT_TRUE(SequentialRanker::Load(folder_).ok());
}

TEST_F(SequentialRankerTest, WeightsThatAreNotFiniteAreRefused) {
  ranker_->item_embedding().data_ptr<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(ranker_->Save(folder_).ok());
  const absl::Status status = SequentialRanker::Load(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("item_embedding"));
}

}  // namespace
}  // namespace sluice

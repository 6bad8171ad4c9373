// The loops of every instruction set that this processor has, against plain double loops. What they compute together
// is tested on whole policies in tests/common/model; here it is that the sets agree, also at sizes that fill no
// register.
#include "common/model/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice {
namespace {

std::vector<float> RandomValues(Random* random, int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random->Normal());
  return values;
}

class KernelsTest : public ::testing::Test {
 protected:
  KernelsTest() { count_ = AvailableKernels<float>(tables_); }
  const KernelTable<float>* tables_[3];
  int count_ = 0;
  Random random_{5};
};

TEST_F(KernelsTest, TheBaselineIsAlwaysThereAndTheWidestIsTaken) {
  ASSERT_GE(count_, 1);
  EXPECT_EQ(std::string(tables_[count_ - 1]->name), "baseline");
  EXPECT_EQ(&Kernels<float>(), tables_[0]);
}

TEST_F(KernelsTest, NormsMatchTheirDefinitionAtOddWidths) {
  for (const int64_t width : {1, 7, 16, 33, 128}) {
    const std::vector<float> x = RandomValues(&random_, 3 * width), weight = RandomValues(&random_, width);
    for (int k = 0; k < count_; ++k) {
      std::vector<float> y(3 * width), inverse(3);
      tables_[k]->rms_norm(0, 3, width, 1e-6f, x.data(), weight.data(), y.data(), inverse.data());
      for (int64_t r = 0; r < 3; ++r) {
        double squares = 0;
        for (int64_t d = 0; d < width; ++d) squares += std::pow(static_cast<double>(x[r * width + d]), 2);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
        for (int64_t d = 0; d < width; ++d) {
          const double wanted = x[r * width + d] * scale * weight[d];
          EXPECT_NEAR(y[r * width + d], wanted, 1e-5 * (1 + std::abs(wanted))) << tables_[k]->name;
        }
      }
    }
  }
}

TEST_F(KernelsTest, GatedSiluIsRightFromFarBelowZeroToFarAbove) {
  const std::vector<float> gate = {-1000, -90, -20, -1, -1e-6f, 0, 1e-6f, 1, 20, 90, 1000};
  const int64_t width = static_cast<int64_t>(gate.size());
  std::vector<float> rows(gate);
  for (int64_t i = 0; i < width; ++i) rows.push_back(2);
  for (int k = 0; k < count_; ++k) {
    std::vector<float> y(width);
    tables_[k]->gated_silu(0, 1, width, rows.data(), y.data());
    for (int64_t i = 0; i < width; ++i) {
      const double wanted = 2 * static_cast<double>(gate[i]) / (1 + std::exp(-static_cast<double>(gate[i])));
      EXPECT_NEAR(y[i], wanted, 1e-6 * (std::abs(wanted) + 1e-28)) << tables_[k]->name << " at " << gate[i];
    }
  }
}

TEST_F(KernelsTest, NotANumberStaysNotANumber) {
  const std::vector<float> rows = {NAN, 1};
  for (int k = 0; k < count_; ++k) {
    float y = 0;
    tables_[k]->gated_silu(0, 1, 1, rows.data(), &y);
    EXPECT_TRUE(std::isnan(y)) << tables_[k]->name;
  }
}

// One group: `shared` keys, queries that see a growing number of them, some with own rows.
struct AttentionCase {
  HeadShape shape;
  int64_t shared, queries, own;
};

TEST_F(KernelsTest, AttentionMatchesPlainLoops) {
  for (const AttentionCase& c : {AttentionCase{{4, 2, 6}, 5, 7, 3}, AttentionCase{{2, 2, 32}, 40, 13, 2},
                                 AttentionCase{{3, 1, 50}, 33, 4, 0}, AttentionCase{{1, 1, 2}, 1, 1, 1}}) {
    const int64_t width = c.shape.fused_width(), rows = c.shared + c.queries + c.own;
    const std::vector<float> fused = RandomValues(&random_, rows * width);
    const float* keys = fused.data() + c.shape.query_width();
    const float* values = keys + c.shape.key_width();
    std::vector<int64_t> own_rows;
    for (int64_t j = 0; j < c.own; ++j) own_rows.push_back(c.shared + c.queries + j);
    std::vector<QueryRow> queries;
    for (int64_t i = 0; i < c.queries; ++i) {
      queries.push_back({c.shared + i, 1 + i % c.shared, own_rows.data(), i % (c.own + 1)});
    }
    AttentionInput<float> input;
    input.shape = c.shape;
    input.scale = 1 / std::sqrt(static_cast<float>(c.shape.head_dim));
    input.queries = {fused.data(), width};
    input.shared_keys = input.own_keys = {keys, width};
    input.shared_values = input.own_values = {values, width};
    const AttentionGroup group{0, c.shared, queries.data(), c.queries};
    for (int k = 0; k < count_; ++k) {
      std::vector<float> out(rows * c.shape.query_width()), log_sums(rows * c.shape.heads);
      std::vector<float> scratch(AttentionScratch(c.shape, c.shared, c.own));
      tables_[k]->attend(input, group, {out.data(), c.shape.query_width()}, log_sums.data(), scratch.data());
      for (const QueryRow& query : queries) {
        for (int64_t h = 0; h < c.shape.heads; ++h) {
          const int64_t kv = h / (c.shape.heads / c.shape.kv_heads) * c.shape.head_dim;
          std::vector<int64_t> seen;
          for (int64_t j = 0; j < query.shared_visible; ++j) seen.push_back(j);
          for (int64_t j = 0; j < query.own_visible; ++j) seen.push_back(own_rows[j]);
          double sum = 0;
          std::vector<double> wanted(c.shape.head_dim);
          for (const int64_t row : seen) {
            double score = 0;
            for (int64_t d = 0; d < c.shape.head_dim; ++d) {
              score += static_cast<double>(fused[query.row * width + h * c.shape.head_dim + d]) *
                       static_cast<double>(keys[row * width + kv + d]);
            }
            const double weight = std::exp(score * static_cast<double>(input.scale));
            sum += weight;
            for (int64_t d = 0; d < c.shape.head_dim; ++d) {
              wanted[d] += weight * static_cast<double>(values[row * width + kv + d]);
            }
          }
          EXPECT_NEAR(log_sums[query.row * c.shape.heads + h], std::log(sum), 1e-4) << tables_[k]->name;
          for (int64_t d = 0; d < c.shape.head_dim; ++d) {
            EXPECT_NEAR(out[query.row * c.shape.query_width() + h * c.shape.head_dim + d], wanted[d] / sum, 1e-5)
                << tables_[k]->name << " row " << query.row << " head " << h;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice

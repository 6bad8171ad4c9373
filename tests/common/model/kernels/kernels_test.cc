// The loops of every instruction set that this processor has, against plain double loops. What they compute together
// is tested on whole policies in tests/common/model; here it is that the sets agree, also at sizes that fill no
// register.
#include "common/model/kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
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

TEST_F(KernelsTest, NormalisersOfLogitsMatchTheirDefinitionAndShowWhatIsNotFinite) {
  for (const int64_t width : {1, 15, 16, 17, 256, 1027}) {
    std::vector<float> x = RandomValues(&random_, 3 * width);
    for (int64_t i = 0; i < width; ++i) x[i] += 300;  // neither overflows nor underflows
    x[width] = -400;
    std::vector<double> wanted;
    for (int64_t r = 0; r < 3; ++r) {
      double largest = x[r * width], sum = 0;
      for (int64_t i = 0; i < width; ++i) largest = std::max(largest, static_cast<double>(x[r * width + i]));
      for (int64_t i = 0; i < width; ++i) sum += std::exp(static_cast<double>(x[r * width + i]) - largest);
      wanted.push_back(largest + std::log(sum));
    }
    for (int k = 0; k < count_; ++k) {
      std::vector<float> out(3);
      tables_[k]->log_sum_exp(0, 3, width, x.data(), out.data());
      for (int64_t r = 0; r < 3; ++r) {
        EXPECT_NEAR(out[r], wanted[r], 1e-6 * (1 + std::abs(wanted[r]))) << tables_[k]->name << " width " << width;
      }
      for (const float damage : {std::nanf(""), INFINITY}) {
        for (const int64_t at : {int64_t{0}, width / 2, width - 1}) {
          std::vector<float> damaged(x.begin(), x.begin() + width);
          damaged[at] = damage;
          tables_[k]->log_sum_exp(0, 1, width, damaged.data(), out.data());
          EXPECT_FALSE(std::isfinite(out[0])) << tables_[k]->name << " width " << width << " at " << at;
        }
      }
    }
  }
}

TEST_F(KernelsTest, NormalisersOverListedColumnsAndTheirGradientsMatchTheirDefinition) {
  constexpr int64_t kWidth = 203;
  const std::vector<float> x = RandomValues(&random_, 3 * kWidth);
  // 1, 70 and no columns.
  std::vector<int32_t> columns = {200};
  for (int32_t i = 0; i < 70; ++i) columns.push_back(2 * i + 5);
  const std::vector<int64_t> first = {0, 1, 71, 71};
  const std::vector<float> grad_out = {0.5f, -2.0f, 0.0f};
  for (int k = 0; k < count_; ++k) {
    std::vector<float> listed(3), all(3), grad(3 * kWidth);
    tables_[k]->log_sum_exp_of(0, 3, kWidth, x.data(), first.data(), columns.data(), listed.data());
    tables_[k]->log_sum_exp(0, 3, kWidth, x.data(), all.data());
    tables_[k]->log_sum_exp_backward(0, 3, kWidth, x.data(), all.data(), grad_out.data(), grad.data());
    std::vector<float> both = grad;
    tables_[k]->log_sum_exp_of_backward(0, 3, kWidth, x.data(), first.data(), columns.data(), listed.data(),
                                        grad_out.data(), both.data());
    EXPECT_EQ(listed[2], -INFINITY);
    for (int64_t r = 0; r < 3; ++r) {
      std::vector<double> p(kWidth), in_list(kWidth, 0);
      double sum = 0, list_sum = 0;
      for (int64_t c = 0; c < kWidth; ++c) sum += p[c] = std::exp(static_cast<double>(x[r * kWidth + c]));
      for (int64_t i = first[r]; i < first[r + 1]; ++i) list_sum += in_list[columns[i]] = p[columns[i]];
      if (list_sum > 0) {
        EXPECT_NEAR(listed[r], std::log(list_sum), 1e-5) << tables_[k]->name;
      }
      for (int64_t c = 0; c < kWidth; ++c) {
        const double wanted = grad_out[r] * p[c] / sum;
        EXPECT_NEAR(grad[r * kWidth + c], wanted, 1e-6) << tables_[k]->name;
        const double added = list_sum > 0 ? grad_out[r] * in_list[c] / list_sum : 0;
        EXPECT_NEAR(both[r * kWidth + c], wanted + added, 2e-6) << tables_[k]->name;
      }
    }
  }
}

TEST_F(KernelsTest, GatheredExponentialsMatchTheirDefinition) {
  const std::vector<float> x = RandomValues(&random_, 1027);
  for (const int64_t count : {1, 3, 16, 40, 256, 700}) {
    std::vector<int32_t> index;
    for (int64_t i = 0; i < count; ++i) index.push_back(static_cast<int32_t>(random_.Below(1027)));
    for (const float scale : {1.0f, 0.4f}) {
      float highest = x[index[0]];
      for (const int32_t i : index) highest = std::max(highest, x[i]);
      for (int k = 0; k < count_; ++k) {
        std::vector<float> values(count);
        float found = 0;
        const double sum = tables_[k]->gather_exp(x.data(), index.data(), count, scale, values.data(), &found);
        EXPECT_EQ(found, highest);
        double wanted_sum = 0;
        for (int64_t i = 0; i < count; ++i) {
          const double wanted = std::exp((static_cast<double>(x[index[i]]) - highest) * scale);
          EXPECT_NEAR(values[i], wanted, 1e-6) << tables_[k]->name << " count " << count;
          wanted_sum += wanted;
        }
        EXPECT_NEAR(sum, wanted_sum, 1e-6 * wanted_sum) << tables_[k]->name << " count " << count;
      }
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

// Everything the backward pass runs, on one set of numbers; results one after the other.
template <typename T>
std::vector<T> RunAll(const KernelTable<T>& table) {
  Random random(11);
  auto values = [&](int64_t count) {
    std::vector<T> result(count);
    for (T& value : result) value = static_cast<T>(random.Normal());
    return result;
  };
  const HeadShape shape{4, 2, 22};
  const int64_t rows = 9, width = shape.fused_width(), half = shape.head_dim / 2, turned_width = 6 * shape.head_dim;
  const std::vector<T> fused = values(rows * width), norms = values(2 * shape.head_dim);
  const std::vector<T> cosine = values(4 * half), sine = values(4 * half);
  const std::vector<int32_t> position = {0, 1, 2, 3, 0, 1, 2, 3, 3};
  std::vector<T> turned(rows * turned_width), moved(rows * shape.key_width());
  table.rotate(0, rows, shape, fused.data(), position.data(), cosine.data(), sine.data(), T(1e-6), norms.data(),
               norms.data() + shape.head_dim, {turned.data(), turned_width},
               {turned.data() + shape.query_width(), turned_width}, {moved.data(), shape.key_width()});

  // Rows 0 to 4 are shared keys; 5 to 8 are two branches of two rows.
  const std::vector<int64_t> own = {5, 6, 7, 8};
  std::vector<QueryRow> queries;
  for (int64_t p = 0; p < 5; ++p) queries.push_back({p, p + 1, nullptr, 0});
  for (int64_t t = 0; t < 4; ++t) queries.push_back({5 + t, 2 + t / 2, own.data() + t / 2 * 2, 1 + t % 2});
  const AttentionGroup group{0, 5, queries.data(), rows};
  AttentionInput<T> input;
  input.shape = shape;
  input.scale = T(.2);
  input.queries = {turned.data(), turned_width};
  input.shared_keys = input.own_keys = {turned.data() + shape.query_width(), turned_width};
  input.shared_values = input.own_values = {moved.data(), shape.key_width()};
  std::vector<T> out(rows * shape.query_width()), log_sums(rows * shape.heads);
  std::vector<T> scratch(AttentionScratch(shape, 5, 2));
  table.attend(input, group, {out.data(), shape.query_width()}, log_sums.data(), scratch.data());

  const std::vector<T> grad_out = values(rows * shape.query_width());
  std::vector<T> grad_turned(turned.size()), grad_moved(moved.size()), grad_fused(fused.size());
  std::vector<T> grad_norms(norms.size());
  const Strided<T> grad_keys{grad_turned.data() + shape.query_width(), turned_width};
  table.attend_backward(input, group, {out.data(), shape.query_width()}, log_sums.data(),
                        {grad_out.data(), shape.query_width()}, {grad_turned.data(), turned_width}, grad_keys,
                        {grad_moved.data(), shape.key_width()}, scratch.data());
  table.rotate_backward(0, rows, shape, fused.data(), position.data(), cosine.data(), sine.data(), T(1e-6),
                        norms.data(), norms.data() + shape.head_dim, {grad_turned.data(), turned_width},
                        {grad_keys.data, grad_keys.stride}, grad_fused.data(), grad_norms.data(),
                        grad_norms.data() + shape.head_dim);

  const std::vector<T> weight = values(13), x = values(2 * 13), grad_y = values(2 * 13);
  std::vector<T> y(x.size()), inverse(2), grad_x(x.size()), grad_weight(13);
  table.rms_norm(0, 2, 13, T(1e-6), x.data(), weight.data(), y.data(), inverse.data());
  table.rms_norm_backward(0, 2, 13, x.data(), weight.data(), inverse.data(), grad_y.data(), grad_x.data(),
                          grad_weight.data());
  std::vector<T> grad_gates(2 * 26);
  const std::vector<T> gates = values(2 * 26);
  table.gated_silu_backward(0, 2, 13, gates.data(), grad_y.data(), grad_gates.data());

  const std::vector<int64_t> first = {0, 1, 3};
  const std::vector<int32_t> tokens = {2, 0, 2}, leaves = {-1, 1};
  const std::vector<T> token_table = values(3 * 13), item_table = values(2 * 13);
  std::vector<T> token_grad(token_table.size()), item_grad(item_table.size()), embedded(2 * 13);
  const EmbeddingRows embedding{first.data(), tokens.data(), leaves.data()};
  table.embed(embedding, 0, 2, 13, token_table.data(), item_table.data(), embedded.data());
  table.embed_backward(embedding, 2, 0, 13, 13, grad_y.data(), token_grad.data(), item_grad.data());

  std::vector<T> all;
  for (const std::vector<T>* part :
       {&turned, &moved, &out, &log_sums, &grad_turned, &grad_moved, &grad_fused, &grad_norms, &y, &grad_x,
        &grad_weight, &grad_gates, &embedded, &token_grad, &item_grad}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

template <typename T>
void ExpectAllSetsAgree(double tolerance) {
  const KernelTable<T>* tables[3];
  const int count = AvailableKernels<T>(tables);
  const std::vector<T> wanted = RunAll(*tables[0]);
  for (int k = 1; k < count; ++k) {
    const std::vector<T> got = RunAll(*tables[k]);
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], tolerance * (1 + std::abs(wanted[i])))
          << tables[k]->name << " against " << tables[0]->name << ", value " << i;
    }
  }
}

TEST_F(KernelsTest, InstructionSetsAgreeForwardsAndBackwards) {
  ExpectAllSetsAgree<double>(1e-12);
  ExpectAllSetsAgree<float>(2e-5);
}

}  // namespace
}  // namespace sluice

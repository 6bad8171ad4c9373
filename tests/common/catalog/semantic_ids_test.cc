#include "common/catalog/semantic_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <Eigen/Dense>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Users who stay inside one of `communities` blocks of `size` items; leave-one-out.
Dataset::Contents CommunityContents(int communities, int size, int users, uint64_t seed) {
  Dataset::Contents contents;
  Random random(seed);
  for (int item = 0; item < communities * size; ++item) contents.item_names.push_back(absl::StrCat(item));
  contents.first_event = {0};
  for (int user = 0; user < users; ++user) {
    contents.user_names.push_back(absl::StrCat("u", user));
    const int length = 8;
    for (int i = 0; i < length; ++i) {
      contents.event_item.push_back(user % communities * size + static_cast<int32_t>(random.Below(size)));
      contents.event_split.push_back(i + 1 == length   ? SplitLabel::kTest
                                     : i + 2 == length ? SplitLabel::kValidation
                                                       : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  return contents;
}

double Cosine(const Matrix& vectors, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < vectors.columns; ++i) {
    sum += static_cast<double>(vectors.values[a * vectors.columns + i]) * vectors.values[b * vectors.columns + i];
  }
  return sum;
}

TEST(FactorizationTest, OfFullWidthItIsTheDenseDecomposition) {
  const Dataset::Contents contents = CommunityContents(2, 6, 30, 5);
  const int items = 12;
  // The definition, dense and in double.
  Eigen::MatrixXd counts = Eigen::MatrixXd::Zero(items, items);
  for (size_t user = 0; user < contents.user_names.size(); ++user) {
    const int64_t begin = contents.first_event[user];
    for (int64_t a = begin; a < begin + 6; ++a) {  // six of eight events are for training
      for (int64_t b = a + 1; b < begin + 6 && b <= a + 4; ++b) {
        if (contents.event_item[a] == contents.event_item[b]) continue;
        counts(contents.event_item[a], contents.event_item[b]) += 1.0 / static_cast<double>(b - a);
        counts(contents.event_item[b], contents.event_item[a]) += 1.0 / static_cast<double>(b - a);
      }
    }
  }
  const Eigen::VectorXd sums = counts.rowwise().sum();
  const Eigen::ArrayXd plain = sums.array() / sums.sum();
  const Eigen::ArrayXd powered = sums.array().pow(0.75) / sums.array().pow(0.75).sum();
  Eigen::MatrixXd information = Eigen::MatrixXd::Zero(items, items);
  for (int a = 0; a < items; ++a) {
    for (int b = 0; b < items; ++b) {
      if (counts(a, b) == 0) continue;
      const double share = counts(a, b) / sums.sum();
      const double one = std::log(share / (plain[a] * powered[b]));
      const double other = std::log(share / (plain[b] * powered[a]));
      information(a, b) = std::max(0.0, (one + other) / 2);
    }
  }
  // Vectors U sqrt(S) have the products U S U^T, whatever the signs of U.
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(information, Eigen::ComputeFullU);
  const Eigen::MatrixXd products = svd.matrixU() * svd.singularValues().asDiagonal() * svd.matrixU().transpose();
  const Matrix vectors = FactorizeCooccurrence(contents, items, 3);
  ASSERT_EQ(vectors.columns, items);
  for (int a = 0; a < items; ++a) {
    for (int b = 0; b < items; ++b) {
      EXPECT_NEAR(Cosine(vectors, a, b), products(a, b) / std::sqrt(products(a, a) * products(b, b)), 1e-4);
    }
  }
}

TEST(FactorizationTest, ItemsOfOneCommunityAreClose) {
  const Matrix vectors = FactorizeCooccurrence(CommunityContents(5, 20, 500, 6), 5, 1);
  for (int64_t a = 0; a < 100; ++a) {
    EXPECT_NEAR(Cosine(vectors, a, a), 1, 1e-5);
    for (int64_t b = 0; b < a; ++b) {
      EXPECT_EQ(Cosine(vectors, a, b) > 0.6, a / 20 == b / 20) << a << " " << b << " " << Cosine(vectors, a, b);
    }
  }
}

TEST(FactorizationTest, HeldOutEventsDoNotCount) {
  Dataset::Contents contents = CommunityContents(3, 10, 60, 7);
  const Matrix before = FactorizeCooccurrence(contents, 8, 1);
  for (size_t i = 0; i < contents.event_item.size(); ++i) {
    if (contents.event_split[i] != SplitLabel::kTrain) contents.event_item[i] = 0;
  }
  EXPECT_EQ(FactorizeCooccurrence(contents, 8, 1).values, before.values);
  contents.event_item[0] = (contents.event_item[0] + 15) % 30;
  EXPECT_NE(FactorizeCooccurrence(contents, 8, 1).values, before.values);
}

TEST(FactorizationTest, ALonelyItemGetsADirectionOfItsOwn) {
  Dataset::Contents contents = CommunityContents(2, 10, 40, 8);
  contents.item_names.push_back("lonely");
  contents.item_names.push_back("lonely too");
  const Matrix vectors = FactorizeCooccurrence(contents, 16, 1);
  EXPECT_NEAR(Cosine(vectors, 20, 20), 1, 1e-5);
  EXPECT_LT(std::abs(Cosine(vectors, 20, 21)), 0.99);
  // No training event at all: still finite.
  for (SplitLabel& label : contents.event_split) label = SplitLabel::kTest;
  for (const float value : FactorizeCooccurrence(contents, 4, 1).values) EXPECT_TRUE(std::isfinite(value));
}

// 4 x 4 clusters of `each` points: coarse centres far apart, fine ones near, points nearer.
Matrix NestedClusters(int each, uint64_t seed) {
  Random random(seed);
  std::vector<float> directions;
  for (int i = 0; i < 8 * 16; ++i) directions.push_back(static_cast<float>(random.Normal()));
  Matrix vectors = {16 * each, 16, {}};
  for (int64_t item = 0; item < vectors.rows; ++item) {
    for (int i = 0; i < 16; ++i) {
      vectors.values.push_back(10 * directions[item % 4 * 16 + i] + directions[(4 + item / 4 % 4) * 16 + i] +
                               0.01f * static_cast<float>(random.Normal()));
    }
  }
  return vectors;
}

TEST(QuantizationTest, NestedClustersBecomeLevels) {
  QuantizeOptions options;
  options.levels = 2;
  options.codes = 4;
  options.unique_level = false;
  int found = 0;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    options.seed = seed;
    std::vector<double> residual_share;
    const auto table = QuantizeResidually(NestedClusters(5, 3), options, &residual_share);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_GT(residual_share[0], residual_share[1]);
    // Item i is in coarse cluster i % 4 and fine cluster i / 4 % 4 of it.
    bool same = true;
    for (int64_t a = 0; a < 80; ++a) {
      for (int64_t b = 0; b < a; ++b) {
        const bool coarse = table->item_codes[a * 2] == table->item_codes[b * 2];
        const bool both = coarse && table->item_codes[a * 2 + 1] == table->item_codes[b * 2 + 1];
        same = same && coarse == (a % 4 == b % 4) && both == (a % 16 == b % 16);
      }
    }
    found += same ? 1 : 0;
  }
  EXPECT_GE(found, 3) << "k-means may end in a local optimum, but not usually";
}

TEST(QuantizationTest, EveryItemHasItsNearestCode) {
  // With one level the centroids are the means of their items, and no item is nearer to another mean: what Lloyd
  // converges to.
  Random random(4);
  Matrix vectors = {300, 3, {}};
  for (int i = 0; i < 900; ++i) vectors.values.push_back(static_cast<float>(random.Normal()));
  QuantizeOptions options;
  options.levels = 1;
  options.codes = 16;
  options.iterations = 1000;
  options.unique_level = false;
  const auto table = QuantizeResidually(vectors, options);
  ASSERT_TRUE(table.ok());
  std::vector<std::vector<double>> mean(16, std::vector<double>(3, 0));
  std::vector<int> count(16, 0);
  for (int64_t item = 0; item < 300; ++item) {
    ++count[table->item_codes[item]];
    for (int i = 0; i < 3; ++i) mean[table->item_codes[item]][i] += vectors.values[item * 3 + i];
  }
  EXPECT_THAT(count, Each(::testing::Gt(0)));
  for (int64_t item = 0; item < 300; ++item) {
    std::vector<double> distance(16, 0);
    for (int code = 0; code < 16; ++code) {
      for (int i = 0; i < 3; ++i) {
        distance[code] += std::pow(mean[code][i] / count[code] - vectors.values[item * 3 + i], 2);
      }
    }
    EXPECT_LE(distance[table->item_codes[item]], *std::min_element(distance.begin(), distance.end()) + 1e-5);
  }
}

TEST(QuantizationTest, TheSeedDecides) {
  const Matrix vectors = NestedClusters(20, 9);
  QuantizeOptions options;
  options.levels = 3;
  options.codes = 8;
  const auto first = QuantizeResidually(vectors, options);
  EXPECT_EQ(QuantizeResidually(vectors, options)->item_codes, first->item_codes);
  options.seed = 2;
  EXPECT_NE(QuantizeResidually(vectors, options)->item_codes, first->item_codes);
}

TEST(QuantizationTest, TheUniqueLevelTellsItemsApart) {
  const Matrix vectors = NestedClusters(5, 3);
  QuantizeOptions options;
  options.levels = 2;
  options.codes = 8;
  const auto table = QuantizeResidually(vectors, options);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->levels, 3);
  const SidQuality quality = MeasureSids(*table);
  EXPECT_EQ(quality.semantic_ids, 80);
  EXPECT_EQ(quality.colliding_items, 0);
  EXPECT_THAT(table->item_codes, Each(::testing::AllOf(::testing::Ge(0), ::testing::Lt(8))));
  // Unique already: no level is added.
  options.levels = 3;
  options.codes = 64;
  EXPECT_EQ(QuantizeResidually(vectors, options)->levels, 3);
}

TEST(QuantizationTest, AFullSemanticIdSendsItemsToTheNextOne) {
  // Centroids 0 and 10; the first SID holds two of the three items at 0.
  QuantizeOptions options;
  options.levels = 1;
  options.codes = 2;
  const auto table = QuantizeResidually({4, 1, {0, 0, 0, 10}}, options);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->levels, 2);
  EXPECT_EQ(MeasureSids(*table).semantic_ids, 4);
  EXPECT_EQ(table->item_codes[0], table->item_codes[2]);
  EXPECT_NE(table->item_codes[0], table->item_codes[4]);
  const auto full = QuantizeResidually({5, 1, {0, 0, 0, 10, 10}}, options);
  EXPECT_EQ(full.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(full.status().message()), HasSubstr("set more codes or levels"));
}

TEST(QuantizationTest, EqualVectorsAndFewVectorsAreNoTrouble) {
  QuantizeOptions options;
  options.unique_level = false;
  options.levels = 2;
  const auto equal = QuantizeResidually({3, 2, {1, 2, 1, 2, 1, 2}}, options);
  ASSERT_TRUE(equal.ok());
  EXPECT_THAT(equal->item_codes, Each(0));
  EXPECT_EQ(MeasureSids(*equal).colliding_items, 3);
  EXPECT_EQ(QuantizeResidually({1, 1, {5}}, options)->item_codes.size(), 2);
  EXPECT_EQ(QuantizeResidually({0, 1, {}}, options).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(QuantizeResidually({2, 1, {1}}, options).status().code(), absl::StatusCode::kInvalidArgument);
  options.codes = 1;
  EXPECT_EQ(QuantizeResidually({1, 1, {5}}, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(QuantizationTest, MoreVectorsThanTheSampleAreAllCoded) {
  // 2 codes: trained on 512 of 2,000 vectors, two clusters far apart.
  Matrix vectors = {2000, 1, {}};
  for (int i = 0; i < 2000; ++i) vectors.values.push_back(static_cast<float>(i % 2 * 100) + 0.001f * i);
  QuantizeOptions options;
  options.levels = 1;
  options.codes = 2;
  options.unique_level = false;
  const auto table = QuantizeResidually(vectors, options);
  ASSERT_TRUE(table.ok());
  for (int i = 2; i < 2000; ++i) EXPECT_EQ(table->item_codes[i], table->item_codes[i % 2]);
  EXPECT_NE(table->item_codes[0], table->item_codes[1]);
}

TEST(SidQualityTest, NumbersOfASmallTableAreTheOnesByHand) {
  const SidQuality quality = MeasureSids({2, 4, {0, 1, 0, 1, 0, 2, 3, 1}});
  EXPECT_EQ(quality.items, 4);
  EXPECT_EQ(quality.semantic_ids, 3);
  EXPECT_EQ(quality.colliding_items, 2);
  EXPECT_EQ(quality.largest_collision, 2);
  EXPECT_THAT(quality.used_codes, ElementsAre(2, 2));
  EXPECT_NEAR(quality.entropy_bits[0], 0.8112781, 1e-6);  // shares 3/4 and 1/4
}

class AssignTest : public ::testing::Test {
 protected:
  AssignTest()
      : path_(absl::StrCat(::testing::TempDir(), "/assign_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid())) {
    prepared_.contents = CommunityContents(4, 8, 80, 2);
    for (int item = 0; item < 32; ++item) prepared_.log_item.push_back(item + 1);  // item 0 of the log fell out
  }
  ~AssignTest() override { EXPECT_TRUE(RemoveAll(path_).ok()); }

  const std::string path_;
  PreparedEvents prepared_;
};

TEST_F(AssignTest, FactorisedEventsMakeAWholeDataSet) {
  SemanticIdOptions options;
  options.vector_dim = 8;
  options.quantize.codes = 16;
  options.quantize.levels = 2;
  const auto quality = AssignSemanticIds(options, 33, &prepared_);
  ASSERT_TRUE(quality.ok()) << quality.status();
  EXPECT_EQ(quality->colliding_items, 0);
  EXPECT_EQ(quality->residual_share.size(), 2);
  EXPECT_THAT(prepared_.contents.notes.back(), HasSubstr("factorised co-occurrence"));
  const auto dataset = Dataset::FromContents(prepared_.contents);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->trie().num_leaves(), 32);
}

TEST_F(AssignTest, GivenVectorsAreTakenByTheLogsNumbers) {
  // Row r is far out for r = 1 and equal for the others; row 0 belongs to an item that fell out.
  std::vector<float> rows(33, 1);
  rows[0] = 500;
  rows[1] = 1000;
  ASSERT_TRUE(WriteNpy(path_, {33, 1}, rows).ok());
  SemanticIdOptions options;
  options.item_vectors = path_;
  options.quantize.levels = 2;
  options.quantize.unique_level = false;
  Matrix used;
  const auto quality = AssignSemanticIds(options, 33, &prepared_, &used);
  ASSERT_TRUE(quality.ok()) << quality.status();
  EXPECT_EQ(used.rows, 32);
  EXPECT_EQ(used.columns, 1);
  EXPECT_EQ(used.values[0], 1000);  // item 0 is row 1
  EXPECT_EQ(used.values[1], 1);
  EXPECT_EQ(quality->semantic_ids, 2);
  EXPECT_EQ(quality->colliding_items, 31);
  EXPECT_NE(prepared_.contents.item_codes[0], prepared_.contents.item_codes[2]) << "item 0 is row 1";
  const auto wrong = AssignSemanticIds(options, 40, &prepared_);
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("has 33 rows, want one for each of the 40 items"));
}

TEST_F(AssignTest, AnIndexFileKeepsItsCollisions) {
  std::string text = "{";
  for (int item = 0; item < 32; ++item)
    absl::StrAppend(&text, item > 0 ? "," : "", "\"", item, "\":[1,2,", item / 2, "]");
  ASSERT_TRUE(WriteFileAtomically(path_, text + "}").ok());
  SemanticIdOptions options;
  options.index = path_;
  const auto quality = AssignSemanticIds(options, 33, &prepared_);
  ASSERT_TRUE(quality.ok()) << quality.status();
  EXPECT_EQ(prepared_.contents.levels, 3);
  EXPECT_EQ(quality->colliding_items, 32);
  EXPECT_THAT(prepared_.contents.notes.back(), HasSubstr("32 items share theirs"));
  options.item_vectors = path_;
  EXPECT_THAT(std::string(AssignSemanticIds(options, 33, &prepared_).status().message()), HasSubstr("both set"));
}

}  // namespace
}  // namespace sluice

#include "common/random/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::Not;

// The known-answer tests that the authors of Random123 publish for philox4x32 with 10 rounds (file kat_vectors).
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(RandomTest, TheSameSeedAndStreamRepeatTheirDraws) {
  Random first(7, 3);
  Random second(7, 3);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(first(), second());
}

TEST(RandomTest, ACopyRepeatsTheDrawsOfItsOriginal) {
  Random original(7);
  original();  // odd position: the copy must carry the half-used block
  Random copy = original;
  for (int i = 0; i < 10; ++i) ASSERT_EQ(original(), copy());
}

TEST(RandomTest, SeedsAndStreamsOpenDifferentSequences) {
  std::set<uint64_t> firsts;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    for (uint64_t stream = 0; stream < 30; ++stream) firsts.insert(Random(seed, stream)());
  }
  EXPECT_EQ(firsts.size(), 900u);
}

TEST(RandomTest, UniformStaysInItsIntervalWithTheRightMoments) {
  Random random(11);
  constexpr int kDraws = 100000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.Uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 1.0 / 2, 0.005);  // five standard errors
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.005);
}

TEST(RandomTest, BelowIsUniformByAChiSquareTest) {
  Random random(5);
  constexpr int kBins = 7, kDraws = 70000;
  std::array<int, kBins> count{};
  for (int i = 0; i < kDraws; ++i) ++count[random.Below(kBins)];
  constexpr double kExpected = kDraws / 7.0;
  double chi_square = 0;
  for (const int c : count) chi_square += (c - kExpected) * (c - kExpected) / kExpected;
  EXPECT_LT(chi_square, 22.46);  // 99.9 % point with 6 degrees of freedom
}

TEST(RandomTest, BelowOneIsZeroAndHugeBoundsAreKept) {
  Random random(5);
  constexpr uint64_t kHuge = (uint64_t{1} << 63) + 1;  // half of the draws are rejected
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(random.Below(1), 0u);
    ASSERT_LT(random.Below(kHuge), kHuge);
  }
}

TEST(RandomTest, NormalHasMeanZeroAndVarianceOne) {
  Random random(13);
  constexpr int kDraws = 100000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.Normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.016);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.023);
}

TEST(RandomTest, DrivesStandardAlgorithms) {
  std::vector<int> values(50);
  std::iota(values.begin(), values.end(), 0);
  std::vector<int> shuffled = values;
  std::shuffle(shuffled.begin(), shuffled.end(), Random(3));
  EXPECT_THAT(shuffled, Not(::testing::ContainerEq(values)));
  EXPECT_THAT(shuffled, ::testing::UnorderedElementsAreArray(values));
}

TEST(DeriveSeedTest, LabelsTheirOrderAndTheirNumberMatter) {
  EXPECT_EQ(DeriveSeed(9, {}), 9u);
  const std::set<uint64_t> seeds = {DeriveSeed(9, {}),     DeriveSeed(9, {0}),    DeriveSeed(9, {0, 0}),
                                    DeriveSeed(9, {1, 2}), DeriveSeed(9, {2, 1}), DeriveSeed(10, {1, 2})};
  EXPECT_EQ(seeds.size(), 6u);
}

TEST(DeriveSeedTest, NeighbouringOrdinalsShareNoSeed) {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t ordinal = 0; ordinal < 1000; ++ordinal) seeds.insert(DeriveSeed(seed, {ordinal}));
  }
  EXPECT_EQ(seeds.size(), 10000u);
}

// Brute force: every index of the range is hit exactly once. Sizes around the powers of four, where the number of
// bits of the network changes.
TEST(PermutedIndexTest, IsABijectionForEverySize) {
  for (const uint64_t size : {1u, 2u, 3u, 4u, 5u, 15u, 16u, 17u, 63u, 64u, 65u, 255u, 256u, 257u, 1000u, 4099u}) {
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{0x123456789abcdef}}) {
      std::vector<int> hits(size, 0);
      for (uint64_t i = 0; i < size; ++i) {
        const uint64_t image = PermutedIndex(seed, size, i);
        ASSERT_LT(image, size);
        ++hits[image];
      }
      ASSERT_THAT(hits, ::testing::Each(1)) << "size " << size << ", seed " << seed;
    }
  }
}

TEST(PermutedIndexTest, WorksOnRangesThatFillSixtyFourBits) {
  std::set<uint64_t> images;
  constexpr uint64_t kSize = ~uint64_t{0};
  for (uint64_t i = 0; i < 1000; ++i) images.insert(PermutedIndex(1, kSize, kSize - 1 - i));
  EXPECT_EQ(images.size(), 1000u);
}

TEST(PermutedIndexTest, AnotherSeedGivesAnotherOrder) {
  int same = 0;
  for (uint64_t i = 0; i < 1000; ++i) same += PermutedIndex(1, 1000, i) == PermutedIndex(2, 1000, i);
  EXPECT_LT(same, 10);  // one is expected by chance
}

// Where an index lands over many seeds must look uniform. A network of 2-bit halves failed this for small ranges.
TEST(PermutedIndexTest, PlacesAreUniformOverSeedsByAChiSquareTest) {
  constexpr int kSize = 10, kSeeds = 20000;
  for (const uint64_t index : {0, 1, 9}) {
    std::array<int, kSize> count{};
    for (uint64_t seed = 0; seed < kSeeds; ++seed) ++count[PermutedIndex(seed, kSize, index)];
    double chi_square = 0;
    for (const int c : count) chi_square += (c - 2000.0) * (c - 2000.0) / 2000.0;
    EXPECT_LT(chi_square, 27.88) << "index " << index;  // 99.9 % point with 9 degrees of freedom
  }
}

}  // namespace
}  // namespace sluice

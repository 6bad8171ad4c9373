#include "actor/rollout/dynamic_sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "common/random/random.h"

namespace sluice::actor {
namespace {

std::vector<Completion> Drawn(const std::vector<int32_t>& leaves) {
  std::vector<Completion> drawn;
  for (const int32_t leaf : leaves) drawn.emplace_back().leaf = leaf;
  return drawn;
}

std::vector<int32_t> Select(const std::vector<int32_t>& leaves, int32_t target, int group_size) {
  std::vector<int32_t> kept;
  for (const Completion& completion : SelectDynamic(Drawn(leaves), target, group_size)) kept.push_back(completion.leaf);
  return kept;
}

using Leaves = std::vector<int32_t>;

TEST(DynamicSamplingTest, DrawsHalfAsManyMore) {
  EXPECT_EQ(DynamicDraws(16), 24);
  EXPECT_EQ(DynamicDraws(5), 8);
  EXPECT_EQ(DynamicDraws(1), 2);
}

TEST(DynamicSamplingTest, TheTargetsCopiesComeFirstThenOneOfEachByFrequencyThenRepeats) {
  // 7 is the target, drawn twice; 4 three times, 9 twice, 2 and 5 once.
  const Leaves drawn = {2, 4, 7, 9, 4, 5, 9, 7, 4};
  EXPECT_EQ(Select(drawn, 7, 4), (Leaves{7, 7, 4, 9}));
  EXPECT_EQ(Select(drawn, 7, 6), (Leaves{7, 7, 4, 9, 2, 5}));
  EXPECT_EQ(Select(drawn, 7, 8), (Leaves{7, 7, 4, 9, 2, 5, 4, 9}));
  EXPECT_EQ(Select(drawn, 7, 9), (Leaves{7, 7, 4, 9, 2, 5, 4, 9, 4}));
  EXPECT_EQ(Select(drawn, 1, 5), (Leaves{4, 7, 9, 2, 5}));   // a target that was not drawn: 7 came before 9
  EXPECT_EQ(Select(drawn, -1, 5), (Leaves{4, 7, 9, 2, 5}));  // no target
}

TEST(DynamicSamplingTest, TheGroupIsTheTargetAloneIfNothingElseFits) {
  EXPECT_EQ(Select({3, 3, 3, 1, 3, 3}, 3, 4), (Leaves{3, 3, 3, 3}));
  EXPECT_EQ(Select({3, 3}, 3, 4), (Leaves{3, 3}));
  EXPECT_EQ(Select({}, 3, 4), Leaves{});
}

TEST(DynamicSamplingTest, HoldsAsManyDistinctOnesAsCanBeAndNeverInventsACopy) {
  Random random(3);
  for (int trial = 0; trial < 500; ++trial) {
    const int group_size = 2 + static_cast<int>(random.Below(8));
    Leaves drawn;
    for (int i = 0; i < DynamicDraws(group_size); ++i) drawn.push_back(static_cast<int32_t>(random.Below(6)));
    const Leaves kept = Select(drawn, 0, group_size);
    ASSERT_EQ(kept.size(), static_cast<size_t>(group_size));
    std::map<int32_t, int> had, has;
    for (const int32_t leaf : drawn) ++had[leaf];
    for (const int32_t leaf : kept) ++has[leaf];
    for (const auto& [leaf, count] : has) ASSERT_LE(count, had[leaf]);
    ASSERT_EQ(has[0], std::min(had[0], group_size));
    had.erase(0);
    has.erase(0);
    const int room = group_size - static_cast<int>(std::count(kept.begin(), kept.end(), 0));
    ASSERT_EQ(static_cast<int>(has.size()), std::min(room, static_cast<int>(had.size())));
    // What was left out was drawn no more often than what came in.
    for (const auto& [out, times] : had) {
      if (has.contains(out)) continue;
      for (const auto& [in, unused] : has) ASSERT_LE(times, had[in]);
    }
  }
}

TEST(DynamicSamplingTest, CompletionsKeepWhatWasRecordedOfThem) {
  std::vector<Completion> drawn = Drawn({1, 2, 1});
  drawn[2].log_probs_full = {-3};
  drawn[1].log_probs_full = {-1};
  const std::vector<Completion> kept = SelectDynamic(drawn, 2, 3);
  EXPECT_EQ(kept[0].log_probs_full, std::vector<float>{-1});
  EXPECT_EQ(kept[2].log_probs_full, std::vector<float>{-3});
}

}  // namespace
}  // namespace sluice::actor

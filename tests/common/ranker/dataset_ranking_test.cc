#include "common/ranker/dataset_ranking.h"

#include <torch/types.h>

#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;

// Three users of one catalog of 6 items; the last event of each is test, the one before it validation.
std::shared_ptr<const Dataset> MakeDataset() {
  Dataset::Contents contents;
  contents.name = "tiny";
  contents.first_event = {0, 4, 8, 12};
  contents.event_item = {0, 1, 2, 3, /**/ 1, 2, 3, 4, /**/ 5, 0, 4, 2};
  for (int user = 0; user < 3; ++user) {
    contents.user_names.push_back("user" + std::to_string(user));
    for (const SplitLabel label :
         {SplitLabel::kTrain, SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest}) {
      contents.event_split.push_back(label);
    }
  }
  for (int item = 0; item < 6; ++item) {
    contents.item_names.push_back("item" + std::to_string(item));
    contents.item_codes.push_back(item / 2);
    contents.item_codes.push_back(item % 2);
  }
  contents.levels = 2;
  contents.codes = 3;
  return Dataset::FromContents(contents).value();
}

TEST(DatasetRankingTest, OnlyTrainingEventsAreTrainedOn) {
  EXPECT_THAT(TrainingSequences(*MakeDataset()), ElementsAre(ElementsAre(0, 1), ElementsAre(1, 2), ElementsAre(5, 0)));
}

TEST(DatasetRankingTest, HitRateEqualsSortingEveryItem) {
  const auto dataset = MakeDataset();
  const auto ranker =
      SequentialRanker::Create({.num_items = 6, .hidden_size = 4, .num_layers = 1, .num_heads = 1, .max_positions = 20},
                               /*seed=*/3)
          .value();
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTest);
  ASSERT_EQ(examples.size(), 3u);
  for (int cutoff = 1; cutoff <= 4; ++cutoff) {
    int hits = 0;
    for (const Example& example : examples) {
      const absl::Span<const int32_t> seen = dataset->History(example);
      const std::vector<std::vector<int32_t>> history = {{seen.begin(), seen.end()}};
      const at::Tensor scores = ranker->ScoreAll(history).value();
      std::vector<std::pair<float, int>> order;
      for (int item = 0; item < 6; ++item) {
        if (std::count(seen.begin(), seen.end(), item) == 0) order.emplace_back(-scores[0][item].item<float>(), item);
      }
      std::sort(order.begin(), order.end());
      for (int i = 0; i < std::min<int>(cutoff, static_cast<int>(order.size())); ++i) {
        hits += order[i].second == dataset->Target(example) ? 1 : 0;
      }
    }
    EXPECT_DOUBLE_EQ(SequentialHitRate(*ranker, *dataset, examples, cutoff).value(), hits / 3.0) << cutoff;
  }
}

TEST(DatasetRankingTest, RankerOfAnotherCatalogIsRefused) {
  const auto dataset = MakeDataset();
  const auto ranker =
      SequentialRanker::Create({.num_items = 7, .hidden_size = 4, .num_layers = 1, .num_heads = 1}, /*seed=*/3).value();
  EXPECT_EQ(SequentialHitRate(*ranker, *dataset, dataset->Examples(SplitLabel::kTest), 10).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SequentialHitRate(*ranker, *dataset, {}, 10).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice

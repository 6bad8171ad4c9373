#include "learner/evaluate/example_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::learner {
namespace {

using testing::ElementsAre;

ExampleLists At(uint64_t step) {
  return {.step = step,
          .users = {{.user = "u1",
                     .position = 3,
                     .history = {"a", "b \"quoted\""},
                     .target = "c",
                     .target_rank = 2,
                     .items = {{"d", -0.5}, {"c", std::nullopt}}}}};
}

std::vector<uint64_t> Steps(const std::vector<ExampleLists>& lists) {
  std::vector<uint64_t> steps;
  for (const ExampleLists& at : lists) steps.push_back(at.step);
  return steps;
}

TEST(ExampleFileTest, TheTextHoldsAllOfIt) {
  const std::vector<ExampleLists> lists = {At(0), At(40)};
  const auto read = ExamplesFromJson(ExamplesToJson(lists));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, lists);
}

TEST(ExampleFileTest, OtherTextIsRefused) {
  for (const char* text :
       {"", "[]", "{}", "{\"sluice_examples\": 2, \"lists\": []}", "{\"sluice_examples\": 1, \"lists\": [{}]}"}) {
    EXPECT_EQ(ExamplesFromJson(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

TEST(ExampleFileTest, TheFirstAndTheLatestListsStay) {
  std::vector<ExampleLists> kept;
  for (const uint64_t step : {0, 20, 40}) KeepExamples(At(step), &kept);
  EXPECT_THAT(Steps(kept), ElementsAre(0, 40));
  // Resumed from step 30: what was seen at 40 is abandoned.
  KeepExamples(At(35), &kept);
  EXPECT_THAT(Steps(kept), ElementsAre(0, 35));
  // Begun anew.
  KeepExamples(At(0), &kept);
  EXPECT_THAT(Steps(kept), ElementsAre(0));
}

TEST(ExampleFileTest, UsersAreSpreadEvenly) {
  EXPECT_THAT(ShownPlaces(80), ElementsAre(0, 10, 20, 30, 40, 50, 60, 70));
  EXPECT_THAT(ShownPlaces(3), ElementsAre(0, 1, 2));
  EXPECT_THAT(ShownPlaces(0), ElementsAre());
}

}  // namespace
}  // namespace sluice::learner

#include "reward_server/ranker_mapping/mapped_ranker.h"

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "reward_server/ranker/score_groups.h"
#include "tests/testing/fake_tensor_model.h"
#include "tests/testing/mapping_text.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// score = 10 item + the first item of the history.
absl::StatusOr<std::vector<Tensor>> Honest(const std::vector<Tensor>& inputs) {
  const std::vector<double> history = NumbersOf(inputs[1]), items = NumbersOf(inputs[2]);
  const size_t width = history.size() / items.size();
  std::vector<double> scores;
  for (size_t i = 0; i < items.size(); ++i) scores.push_back(10 * items[i] + history[i * width]);
  return std::vector<Tensor>{MakeTensor("score", TensorType::kFp32, {static_cast<int64_t>(items.size())}, scores)};
}

class MappedRankerTest : public ::testing::Test {
 protected:
  void Make(const std::string& text, FakeTensorModel::Function function) {
    const auto mapping = ParseRankerMapping(text, "m.yaml", "");
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    ranker_ = std::make_unique<MappedRanker>(QueryEncoder::Create(*mapping, TinyDataset()).value(),
                                             std::make_unique<FakeTensorModel>(std::move(function)),
                                             [] { return absl::UnixEpoch(); });
  }
  GroupResult Score() {
    GroupToScore group;
    group.ordinal = 5;
    group.user = 0;
    group.history = {1};
    group.target = 3;
    group.candidates = {{0}, {1, 2}};
    return ScoreGroups(*ranker_, {&group})[0];
  }

  std::unique_ptr<MappedRanker> ranker_;
  const std::string golden_ = MappingWith(
      "score: {}", "score: {}\ngolden: {groups: [{user: 0, history: [2], items: [1, 3], scores: {score: [12, 32]}}]}");
};

TEST_F(MappedRankerTest, ScoresAndEchoesAVersionOfMappingColumnsAndModel) {
  Make(kMappingText, Honest);
  const GroupResult result = Score();
  ASSERT_EQ(result.status, GroupStatus::kOk) << result.error;
  EXPECT_THAT(result.heads[0].scores, ElementsAre(1, 21));
  EXPECT_EQ(result.heads[0].target, 31);
  EXPECT_EQ(ranker_->version().size(), 64u);
  const std::string version = ranker_->version();
  Make(MappingWith("{from: history}", "{from: history, length: 1}"), Honest);
  EXPECT_NE(ranker_->version(), version);
}

TEST_F(MappedRankerTest, ManyQueriesAreOneCallAndAnswersStayWithTheirQueries) {
  int calls = 0;
  Make(kMappingText, [&](const std::vector<Tensor>& inputs) {
    ++calls;
    return Honest(inputs);
  });
  const std::vector<ItemQuery> queries = {{.user = 0, .history = {1}, .items = {0, 1}},
                                          {.user = -1, .history = {2}, .items = {3}}};
  const auto answers = ranker_->Score(queries);
  EXPECT_EQ(calls, 1);
  EXPECT_THAT((*answers[0])[0], ElementsAre(1, 11));
  EXPECT_THAT((*answers[1])[0], ElementsAre(32));
}

TEST_F(MappedRankerTest, AQueryThatWasCutIsPutTogetherAgain) {
  Make(MappingWith("inputs:", "max_pairs: 2\ninputs:"), Honest);
  const auto answers = ranker_->Score({{{.user = 0, .history = {1}, .items = {0, 1, 2, 3, 0}}}});
  EXPECT_THAT((*answers[0])[0], ElementsAre(1, 11, 21, 31, 1));
}

TEST_F(MappedRankerTest, AFailedCallFailsItsOwnQueriesAlone) {
  int calls = 0;
  Make(MappingWith("inputs:", "max_pairs: 2\ninputs:"),
       [&](const std::vector<Tensor>& inputs) -> absl::StatusOr<std::vector<Tensor>> {
         if (++calls == 2) return absl::InvalidArgumentError("no");
         return Honest(inputs);
       });
  const std::vector<ItemQuery> queries(3, {.user = 0, .history = {1}, .items = {0, 1}});
  const auto answers = ranker_->Score(queries);
  EXPECT_TRUE(answers[0].ok());
  // What a server says of its request is no verdict on the group.
  EXPECT_EQ(answers[1].status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(answers[2].ok());
}

TEST_F(MappedRankerTest, MissingDoubledAndWrongOutputsFailTheGroup) {
  const auto said = [&](std::vector<Tensor> outputs) {
    Make(kMappingText, [&](const std::vector<Tensor>&) { return outputs; });
    const GroupResult result = Score();
    EXPECT_EQ(result.status, GroupStatus::kFailed);
    EXPECT_TRUE(result.heads.empty());
    return result.error;
  };
  const Tensor good = MakeTensor("score", TensorType::kFp32, {4}, {1, 2, 3, 4});
  EXPECT_THAT(said({}), HasSubstr("answered without output 'score'"));
  EXPECT_THAT(said({good, good}), HasSubstr("answered output 'score' twice"));
  EXPECT_THAT(said({MakeTensor("score", TensorType::kFp32, {3}, {1, 2, 3})}), HasSubstr("has shape [3], want [4]"));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double value : {nan, std::numeric_limits<double>::infinity(), 1e300}) {
    Make(kMappingText, [&](const std::vector<Tensor>&) {
      return std::vector<Tensor>{MakeTensor("score", TensorType::kFp64, {4}, {1, value, 3, 4})};
    });
    const GroupResult result = Score();
    EXPECT_EQ(result.status, GroupStatus::kNotFinite) << value;
    EXPECT_TRUE(result.heads.empty());
  }
}

TEST_F(MappedRankerTest, GoldenScoresThatAgreeLetItServe) {
  Make(golden_, Honest);
  EXPECT_TRUE(ranker_->Check().ok());
  EXPECT_EQ(Score().status, GroupStatus::kOk);
}

TEST_F(MappedRankerTest, AModelThatChangedIsRefusedUntilItAgreesAgain) {
  double shift = 0;
  absl::Status down;
  Make(golden_, [&](const std::vector<Tensor>& inputs) -> absl::StatusOr<std::vector<Tensor>> {
    if (!down.ok()) return down;
    auto outputs = Honest(inputs);
    const std::vector<double> scores = NumbersOf((*outputs)[0]);
    std::vector<double> shifted;
    for (const double score : scores) shifted.push_back(score + shift);
    (*outputs)[0] = MakeTensor("score", TensorType::kFp32, (*outputs)[0].shape, shifted);
    return outputs;
  });
  ASSERT_TRUE(ranker_->Check().ok());
  shift = 1;
  const absl::Status status = ranker_->Check();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("head score of item 1 after user 0's history is 13, m.yaml:9:"));
  const GroupResult refused = Score();
  EXPECT_EQ(refused.status, GroupStatus::kFailed);
  EXPECT_THAT(refused.error, HasSubstr("this is another model than the mapping was written for"));

  down = absl::UnavailableError("down");  // says nothing about its scores
  EXPECT_EQ(ranker_->Check().code(), absl::StatusCode::kUnavailable);
  down = absl::OkStatus();
  EXPECT_EQ(Score().status, GroupStatus::kFailed);
  shift = 0;
  EXPECT_TRUE(ranker_->Check().ok());
  EXPECT_EQ(Score().status, GroupStatus::kOk);
}

TEST_F(MappedRankerTest, WithoutGoldenGroupsAScoreMustBeFinite) {
  Make(kMappingText, [](const std::vector<Tensor>&) {
    return std::vector<Tensor>{MakeTensor("score", TensorType::kFp32, {1}, {std::numeric_limits<double>::quiet_NaN()})};
  });
  EXPECT_THAT(std::string(ranker_->Check().message()), HasSubstr("is not a finite number"));
}

TEST_F(MappedRankerTest, GoldenGroupsOfAnotherDataSetAreTheMappingsMistake) {
  Make(MappingWith("score: {}", "score: {}\ngolden: {groups: [{history: [2], items: [4], scores: {score: [1]}}]}"),
       Honest);
  EXPECT_EQ(ranker_->Check().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::reward

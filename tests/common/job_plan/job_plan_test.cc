#include "common/job_plan/job_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/spec/spec.h"

namespace sluice {
namespace {

using testing::HasSubstr;

// Two users of three events each, the last one held out: two training examples, each with one item of history.
class PlanJobTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = JoinPath(testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    Dataset::Contents contents;
    contents.name = "two users";
    contents.item_names = {"a", "b", "c"};
    contents.user_names = {"u", "v"};
    contents.first_event = {0, 3, 6};
    contents.event_item = {0, 1, 2, 2, 1, 0};
    contents.event_split = {SplitLabel::kTrain, SplitLabel::kTrain, SplitLabel::kTest,
                            SplitLabel::kTrain, SplitLabel::kTrain, SplitLabel::kTest};
    contents.item_codes = {0, 0, 0, 1, 1, 0};
    contents.levels = 2;
    contents.codes = 4;
    contents.max_history = 5;
    const absl::Status written = Dataset::Write(JoinPath(folder_, "data"), contents);
    ASSERT_TRUE(written.ok()) << written;
  }

  nlohmann::ordered_json Plan(const std::string& rest, int ranks, int threads = 1) {
    const auto spec = ResolveSpec("data: " + JoinPath(folder_, "data") + "\n" + rest, "test", {});
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() ? PlanJob(spec->effective, ranks, threads) : nlohmann::ordered_json();
  }

  std::string folder_;
};

TEST_F(PlanJobTest, CountsWhatAnRlJobWillDo) {
  const auto plan = Plan(
      "kind: rl\nmodel: {hidden_size: 16, layers: 1, heads: 2, kv_heads: 2}\n"
      "rl: {steps: 10, groups_per_step: 32, group_size: 4, lease_groups: 8, staleness: 1, gate: {negatives: 2}}\n",
      2);
  const auto& counts = plan.at("counts");
  EXPECT_EQ(counts.at("prompts"), 320);
  EXPECT_EQ(counts.at("completions_a_step"), 128);
  EXPECT_EQ(counts.at("groups_open_at_most"), 64);
  EXPECT_EQ(counts.at("leases_a_step"), 4);
  EXPECT_EQ(counts.at("training_examples"), 2);
  EXPECT_EQ(counts.at("tokens_sampled_a_step"), 256);
  // Begin token and one item; the target and four completions of one row each.
  EXPECT_EQ(counts.at("positions_trained_a_step_at_most"), 32 * (2 + 5));
  EXPECT_TRUE(plan.at("unknown").empty()) << plan.at("unknown");
  for (const char* who : {"learner_rank", "actor"}) {
    double sum = 0;
    for (const auto& part : plan.at(who).at("parts")) sum += part.at("bytes").get<double>();
    EXPECT_NEAR(sum, plan.at(who).at("total_bytes").get<double>(), 8);
  }
  EXPECT_THAT(PlanText(plan), HasSubstr("# Memory of a learner rank, beside about 192 MB"));
}

TEST_F(PlanJobTest, MoreRanksShareTheRowsOfAStep) {
  const std::string rest = "kind: rl\nrl: {groups_per_step: 64}\n";
  const auto bytes = [](const nlohmann::ordered_json& plan, const std::string& name) {
    for (const auto& part : plan.at("learner_rank").at("parts")) {
      if (part.at("name") == name) return part.at("bytes").get<double>();
    }
    return -1.0;
  };
  const auto one = Plan(rest, 1), two = Plan(rest, 2);
  EXPECT_NEAR(bytes(one, "activations"), 2 * bytes(two, "activations"), 2);
  EXPECT_EQ(bytes(one, "moments"), bytes(two, "moments"));
  // Each thread has gradients of its own.
  const auto threads = Plan(rest, 1, 3);
  EXPECT_EQ(bytes(threads, "gradients"), 3 * bytes(one, "gradients"));
  EXPECT_EQ(bytes(threads, "activations"), bytes(one, "activations"));
  EXPECT_THAT(PlanText(threads), HasSubstr("# Plan on 1 learner rank of 3 threads:"));
}

TEST_F(PlanJobTest, SaysWhenTheStepDoesNotDivideByTheRanks) {
  EXPECT_THAT(Plan("kind: rl\nrl: {groups_per_step: 64}\n", 3).at("unknown").dump(), HasSubstr("no multiple of ranks"));
}

TEST_F(PlanJobTest, CountsAnSftJobAndAnEvaluation) {
  const auto sft = Plan("kind: sft\nsft: {passes: 3, targets_per_step: 1}\n", 1);
  EXPECT_EQ(sft.at("counts").at("targets_a_pass"), 2);
  EXPECT_EQ(sft.at("counts").at("steps_at_most"), 6);
  EXPECT_GT(sft.at("learner_rank").at("total_bytes").get<double>(), 0);
  const auto evaluate = Plan("kind: evaluate\nmodel: {path: nowhere}\n", 1);
  EXPECT_EQ(evaluate.at("counts").at("users"), 2);
  EXPECT_THAT(evaluate.at("unknown").dump(), HasSubstr("no model at 'nowhere'"));
}

TEST_F(PlanJobTest, ReadsTheModelsOwnConfig) {
  ASSERT_TRUE(MakeDirectories(JoinPath(folder_, "run/export/best")).ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folder_, "run/export/best/config.json"),
                                  R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 16,
                                      "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1})")
                  .ok());
  const auto plan = Plan("kind: rl\nmodel: {path: " + JoinPath(folder_, "run") + "}\n", 1);
  // Embedding and output matrix 2 * 256, norms 3 * 16, q k v o 4 * 256, MLP 3 * 256.
  EXPECT_EQ(plan.at("counts").at("parameters"), 2 * 256 + 48 + 1024 + 768);
}

}  // namespace
}  // namespace sluice

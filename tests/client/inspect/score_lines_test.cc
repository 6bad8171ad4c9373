#include "client/inspect/score_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "common/catalog/vocabulary.h"
#include "common/decode/decode.h"

namespace sluice {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

constexpr SidVocabulary kVocabulary{2, 3};

// Items 0 to 4; 3 and 4 share a semantic ID.
std::shared_ptr<const Trie> SmallTrie() {
  return std::make_shared<const Trie>(*Trie::Build(2, std::vector<int32_t>{3, 6, 3, 7, 4, 6, 5, 8, 5, 8}));
}

class ScoreLinesTest : public testing::Test {
 protected:
  ScoreLinesTest() : trie_(SmallTrie()) {
    PolicyConfig config;
    config.vocab_size = kVocabulary.size();
    config.hidden_size = 16;
    config.intermediate_size = 16;
    config.num_layers = 1;
    config.num_heads = 2;
    config.num_kv_heads = 2;
    config.head_dim = 8;
    config.max_positions = 12;
    config.initializer_range = 0.5;
    config.begin_token = SidVocabulary::kBegin;
    policy_ = *Policy::Create(config, trie_, 3);
    options_.beams = 3;
  }

  absl::Status Run(const std::string& input) {
    std::istringstream in(input);
    std::ostringstream out;
    const absl::Status status = ScoreLines(in, "input.jsonl", *policy_, *trie_, options_, out);
    answers_.clear();
    std::istringstream lines(out.str());
    for (std::string line; std::getline(lines, line);) answers_.push_back(json::parse(line));
    return status;
  }
  void ExpectBad(const std::string& line, const std::string& message) {
    const absl::Status status = Run("{\"prompt\": [1]}\n\n" + line + "\n{\"prompt\": [1]}\n");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(status.message()), HasSubstr("input.jsonl:3: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(answers_, SizeIs(1));  // what came before is answered, what comes after is not
  }

  std::shared_ptr<const Trie> trie_;
  std::unique_ptr<Policy> policy_;
  ScoreOptions options_;
  std::vector<json> answers_;
};

TEST_F(ScoreLinesTest, AnswersHoldLogProbabilitiesInBothSpacesAndBeamsWithTheirItems) {
  const absl::Status status = Run(R"({"prompt": [1, 3, 7], "completions": [[5, 8], [5, 6]]})");
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_THAT(answers_, SizeIs(1));
  const json& answer = answers_[0];
  DecodePrompt prompt;
  prompt.input = {1, 3, 7};
  const auto scored = *ScoreCompletions(*policy_, *trie_, {prompt}, {{{5, 8}, {5, 6}}});
  EXPECT_EQ(answer["log_probs_full"][0], json(scored[0][0].log_probs_full));
  EXPECT_EQ(answer["log_probs_trie"][0], json(scored[0][0].log_probs_trie));
  EXPECT_THAT(answer["log_probs_full"][1], SizeIs(2));
  EXPECT_TRUE(answer["log_probs_trie"][1].is_null());  // [5, 6] is no item
  ASSERT_THAT(answer["beams"], SizeIs(3));
  const auto beams = *ConstrainedBeamSearch(*policy_, *trie_, {prompt}, 3, LogProbSpace::kFull);
  for (size_t i = 0; i < 3; ++i) {
    const std::vector<float>& full = beams[0][i].log_probs_full;
    EXPECT_EQ(answer["beams"][i]["tokens"], json(beams[0][i].tokens));
    EXPECT_NEAR(answer["beams"][i]["log_prob"].get<double>(), std::accumulate(full.begin(), full.end(), 0.0), 1e-6);
    const bool shared = beams[0][i].tokens == std::vector<int32_t>{5, 8};
    EXPECT_EQ(answer["beams"][i]["items"].size(), shared ? 2 : 1);
  }
}

TEST_F(ScoreLinesTest, BeamsFollowTheirSpaceAndWidth) {
  options_.space = LogProbSpace::kTrie;
  options_.beams = 4;
  ASSERT_TRUE(Run(R"({"prompt": [1]})").ok());
  double mass = 0;
  for (const json& beam : answers_[0]["beams"]) mass += std::exp(beam["log_prob"].get<double>());
  EXPECT_NEAR(mass, 1, 1e-5);  // all semantic IDs, normalised over the legal ones
  options_.beams = 0;
  ASSERT_TRUE(Run(R"({"prompt": [1]})").ok());
  EXPECT_THAT(answers_[0]["beams"], SizeIs(0));
}

TEST_F(ScoreLinesTest, AHistoryIsEncodedAsTheModelDoesIt) {
  ASSERT_TRUE(Run("{\"history\": [1, 4], \"completions\": [[3, 6]]}\n"
                  "{\"prompt\": [1, 3, 7, 5, 8], \"completions\": [[3, 6]]}\n")
                  .ok());
  EXPECT_EQ(answers_[0], answers_[1]);
}

TEST_F(ScoreLinesTest, AnswersComeInTheOrderOfTheLinesWhateverTheBatch) {
  std::string input;
  for (int i = 0; i < 7; ++i) input += "{\"prompt\": [1, " + std::to_string(2 + i) + "], \"completions\": [[3, 6]]}\n";
  options_.batch_lines = 3;
  ASSERT_TRUE(Run(input).ok());
  const std::vector<json> batched = answers_;
  options_.batch_lines = 1;
  ASSERT_TRUE(Run(input).ok());
  ASSERT_THAT(batched, SizeIs(7));
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(batched[i]["log_probs_full"][0][1].get<double>(), answers_[i]["log_probs_full"][0][1].get<double>(),
                1e-5);
  }
  EXPECT_NE(answers_[0]["log_probs_full"], answers_[1]["log_probs_full"]);
}

TEST_F(ScoreLinesTest, BadLinesAreNamedWithTheirNumber) {
  ExpectBad("{\"prompt\": [1", "want a JSON object");
  ExpectBad("[1]", "want a JSON object");
  ExpectBad("{\"prompts\": [1]}", "unknown key \"prompts\"");
  ExpectBad("{\"completions\": []}", "one of the keys");
  ExpectBad("{\"prompt\": [1], \"history\": [1]}", "one of the keys");
  ExpectBad("{\"prompt\": []}", "at least one id");
  ExpectBad("{\"prompt\": [1, 9]}", "has 9, which is not an id from 0 to 8");
  ExpectBad("{\"prompt\": [1, \"a\"]}", "has \"a\"");
  ExpectBad("{\"history\": [5]}", "from 0 to 4");
  ExpectBad("{\"prompt\": [1], \"completions\": [[3], []]}", "at least one id");
  ExpectBad("{\"prompt\": [1], \"completions\": 3}", "must be a list");
  ExpectBad("{\"prompt\": [1,1,1,1,1,1,1,1,1,1,1,1]}", "the model has 12");
  options_.max_completions = 1;
  ExpectBad("{\"prompt\": [1], \"completions\": [[3], [4]]}", "at most 1 lists");
  options_.max_line_bytes = 30;
  ExpectBad("{\"prompt\": [1],                                           }", "longer than 30 bytes");
}

TEST_F(ScoreLinesTest, AnOutputThatFailsIsAnError) {
  std::istringstream in("{\"prompt\": [1]}\n");
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  EXPECT_FALSE(ScoreLines(in, "input.jsonl", *policy_, *trie_, options_, out).ok());
}

}  // namespace
}  // namespace sluice

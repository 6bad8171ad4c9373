// sluice-inspect as a user runs it: what it prints and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "common/file/file.h"
#include "common/model/policy.h"

namespace sluice {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct Ended {
  int code = -1;
  std::string output;  // standard output and error together
};

Ended Inspect(const std::string& arguments) {
  const std::string command = std::string(SLUICE_BINARY_DIR) + "/bin/sluice-inspect " + arguments + " 2>&1";
  Ended ended;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return ended;
  std::array<char, 4096> buffer;
  while (const size_t bytes = fread(buffer.data(), 1, buffer.size(), pipe)) ended.output.append(buffer.data(), bytes);
  const int status = pclose(pipe);
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ended;
}

class InspectBinaryTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/inspect_binary_test";
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_ + "/model").ok());
    PolicyConfig config;
    config.vocab_size = 9;
    config.hidden_size = 8;
    config.intermediate_size = 8;
    config.num_layers = 1;
    config.num_heads = 1;
    config.num_kv_heads = 1;
    config.head_dim = 8;
    config.max_positions = 16;
    ASSERT_TRUE((*Policy::Create(config, nullptr, 1))->Save(folder_ + "/model").ok());
    Write("items.json", "[[3, 6], [3, 7], [4, 6]]");
    Write("lines.jsonl", "{\"prompt\": [1, 3], \"completions\": [[4, 6]]}\n{\"prompt\": [1]}\n");
  }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/" + name, text).ok());
  }
  Ended Score(const std::string& input, const std::string& more = "") {
    return Inspect("score --model " + folder_ + "/model --items " + folder_ + "/items.json --input " + input + " " +
                   more);
  }

  std::string folder_;
};

TEST_F(InspectBinaryTest, ScoresLinesOfAFileOrOfStandardInput) {
  const Ended ended = Score(folder_ + "/lines.jsonl", "-o jsonl --beams 2 --space trie");
  ASSERT_EQ(ended.code, 0) << ended.output;
  const size_t end = ended.output.find('\n');
  const json first = json::parse(ended.output.substr(0, end));
  const json second = json::parse(ended.output.substr(end + 1));
  EXPECT_EQ(first["log_probs_full"][0].size(), 2);
  EXPECT_EQ(first["beams"].size(), 2);
  EXPECT_EQ(second["log_probs_full"].size(), 0);
  const Ended piped = Score("- <" + folder_ + "/lines.jsonl", "--beams 2 --space trie");
  EXPECT_EQ(piped.output, ended.output);
}

TEST_F(InspectBinaryTest, ScoresInBf16NearlyAsInFp32) {
  const auto first = [&](const std::string& more) {
    const Ended ended = Score(folder_ + "/lines.jsonl", "--beams 2 " + more);
    EXPECT_EQ(ended.code, 0) << ended.output;
    return json::parse(ended.output.substr(0, ended.output.find('\n')));
  };
  const json exact = first(""), rounded = first("--device cpu --precision bf16");
  for (const size_t token : {0, 1}) {
    const double want = exact["log_probs_full"][0][token], got = rounded["log_probs_full"][0][token];
    EXPECT_NEAR(got, want, 0.05);
    EXPECT_NE(got, want);
  }
  EXPECT_EQ(rounded["beams"].size(), 2);
}

TEST_F(InspectBinaryTest, DescribesAModelAndACatalog) {
  const Ended model = Inspect("model " + folder_ + "/model");
  EXPECT_EQ(model.code, 0);
  EXPECT_THAT(model.output, HasSubstr("model.embed_tokens.weight"));
  const Ended trie = Inspect("trie " + folder_ + "/items.json -o json");
  EXPECT_EQ(trie.code, 0);
  EXPECT_EQ(json::parse(trie.output)["semantic_ids"], 3);
}

TEST_F(InspectBinaryTest, ExitCodesTellWhoMustAct) {
  EXPECT_EQ(Inspect("").code, 2);
  EXPECT_EQ(Inspect("trie").code, 2);
  EXPECT_EQ(Score(folder_ + "/lines.jsonl", "--space half").code, 2);
  EXPECT_EQ(Score(folder_ + "/lines.jsonl", "--beams -1").code, 2);
  EXPECT_EQ(Score(folder_ + "/gone.jsonl").code, 3);
  EXPECT_EQ(Inspect("model " + folder_ + "/gone").code, 3);
  EXPECT_EQ(Inspect("--help").code, 0);

  Write("bad.jsonl", "{\"prompt\": [1]}\n{\"prompt\": [99]}\n");
  const Ended bad = Score(folder_ + "/bad.jsonl");
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.output, HasSubstr("bad.jsonl:2: \"prompt\" has 99"));

  const std::string weights = folder_ + "/model/model.safetensors";
  const std::string bytes = *ReadFile(weights);
  Write("model/model.safetensors", bytes.substr(0, bytes.size() - 4));
  const Ended truncated = Score(folder_ + "/lines.jsonl");
  EXPECT_EQ(truncated.code, 3);
  EXPECT_THAT(truncated.output, HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace sluice

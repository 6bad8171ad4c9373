#include "reward_server/ranker_mapping/mapping.h"

#include <string>
#include <vector>

#include "common/file/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/mapping_text.h"

namespace sluice::reward {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<RankerMapping> Parse(const std::string& text) { return ParseRankerMapping(text, "m.yaml", "folder"); }

std::string Refused(const std::string& text) {
  const auto mapping = Parse(text);
  EXPECT_EQ(mapping.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(mapping.status().message());
}

TEST(MappingTest, TheShortestOneHasTheDefaultsOfThePage) {
  const auto mapping = Parse(kMappingText);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->name, "mine");
  EXPECT_EQ(mapping->kind, RankerMapping::Kind::kOpenInference);
  EXPECT_EQ(mapping->remote.address, "127.0.0.1:8001");
  EXPECT_EQ(mapping->remote.version, "");
  EXPECT_EQ(mapping->remote.deadline, absl::Seconds(5));
  EXPECT_EQ(mapping->remote.calls, 4);
  EXPECT_FALSE(mapping->remote.typed_contents);
  EXPECT_EQ(mapping->layout, Layout::kPairs);
  ASSERT_EQ(mapping->inputs.size(), 3u);
  EXPECT_EQ(mapping->inputs[1].name, "history");
  EXPECT_EQ(mapping->inputs[1].from, InputSource::kHistory);
  EXPECT_EQ(mapping->inputs[1].type, TensorType::kInt64);
  EXPECT_EQ(mapping->inputs[1].pad, -1);
  EXPECT_EQ(mapping->heads(), std::vector<std::string>{"score"});
  EXPECT_EQ(mapping->outputs[0].output, "score");
}

TEST(MappingTest, EveryKeyIsRead) {
  const auto mapping = Parse(R"(
name: full
open_inference: {address: 'h:1', model: m, version: "3", deadline_s: 0.5, start_s: 2, calls: 7, contents: typed}
layout: users
max_pairs: 100
inputs:
  u: {from: user, type: INT32, offset: 1, unknown: 0}
  age: {from: user, type: FP32, column: age.npy, unknown: 0}
  h: {from: history, type: INT32, offset: 1, length: 20, pad: 0, pad_side: left}
  n: {from: history_length, type: INT32}
  mask: {from: history_mask, type: BOOL, length: 20}
  i: {from: item, type: INT32, pad: 0, last_dimension: true}
  price: {from: item, type: FP16, column: /data/price.npy, pad: 0}
  name: {from: item, type: BYTES}
  surface: {from: constant, type: INT8, value: 3}
outputs:
  score: {output: probabilities, column: 1}
  order: {output: probabilities, column: 2}
golden:
  tolerance: 0.01
  groups:
    - {user: 2, history: [1, 2], items: [3, 4], scores: {score: [0.5, -1], order: [1e-3, 7]}}
)");
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->remote.version, "3");
  EXPECT_TRUE(mapping->remote.typed_contents);
  EXPECT_EQ(mapping->layout, Layout::kUsers);
  EXPECT_EQ(mapping->inputs[1].column, "folder/age.npy");
  EXPECT_EQ(mapping->inputs[6].column, "/data/price.npy");
  EXPECT_TRUE(mapping->inputs[2].pad_left);
  EXPECT_EQ(mapping->inputs[8].value, 3);
  EXPECT_EQ(mapping->outputs[1].column, 2);
  ASSERT_EQ(mapping->golden.size(), 1u);
  EXPECT_EQ(mapping->golden[0].scores, (std::vector<std::vector<double>>{{0.5, -1}, {0.001, 7}}));
  EXPECT_EQ(mapping->golden[0].place, "m.yaml:22:7: golden.groups[0]");
}

TEST(MappingTest, ExportedModelsNameTheirFileAndPositions) {
  const auto mapping = Parse(
      MappingWith("open_inference: {address: '127.0.0.1:8001', model: ranker}", "aot_inductor: {file: ranker.pt2}"));
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->kind, RankerMapping::Kind::kAotInductor);
  EXPECT_EQ(mapping->file, "folder/ranker.pt2");
  EXPECT_EQ(mapping->outputs[0].output, "0");
  EXPECT_THAT(Refused(MappingWith("open_inference: {address: '127.0.0.1:8001', model: ranker}",
                                  "aot_inductor: {file: ranker.pt2, sha256: abc}")),
              HasSubstr("aot_inductor.sha256: want the 64 digits that sha256sum prints"));
}

TEST(MappingTest, EveryMistakeIsToldAtOnceWithItsPlace) {
  const std::string said = Refused(R"(name: a b
open_inference: {adress: 'h:1', model: m, calls: 0}
inputs:
  user: {from: usr, type: int64}
  item: {from: item, type: UINT8, value: 1}
outputs:
  click: {}
)");
  EXPECT_EQ(
      said,
      "m.yaml:1:7: name: want at most 64 letters, digits and _ - .\n"
      "m.yaml:2:17: open_inference.address: is missing; give it, such as address: 127.0.0.1:8001\n"
      "m.yaml:2:50: open_inference.calls: want a whole number from 1 to 1024, got '0'\n"
      "m.yaml:2:18: open_inference.adress: unknown key; did you mean address?\n"
      "m.yaml:4:16: inputs.user.from: want one of user, history, history_length, history_mask, item, constant, got "
      "'usr'; did you mean user?\n"
      "m.yaml:4:27: inputs.user.type: want one of BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, "
      "FP16, BF16, FP32, FP64, BYTES, got 'int64'; did you mean INT64?\n"
      "m.yaml:5:42: inputs.item.value: belongs to another kind of input; remove it, or mend inputs.item.from\n"
      "m.yaml:7:3: outputs: want the first head to be called score, got click; write 'score: {output: click}'");
}

TEST(MappingTest, WhatCannotWorkIsRefusedInWords) {
  const auto with = [](const std::string& piece, const std::string& other) {
    return Refused(MappingWith(piece, other));
  };
  EXPECT_THAT(with("open_inference: {address: '127.0.0.1:8001', model: ranker}", ""),
              HasSubstr("want exactly one of open_"));
  EXPECT_THAT(with("inputs:", "torchscript: {file: f.pt}\ninputs:"), HasSubstr("want exactly one of open_"));
  EXPECT_THAT(with("  item: {from: item}\n", ""), HasSubstr("no score could depend on the item"));
  EXPECT_THAT(with("{from: history}", "{from: history, type: UINT32}"),
              HasSubstr("inputs.history.pad: is missing, and its default -1 is no UINT32"));
  EXPECT_THAT(with("{from: history}", "{from: history, length: 0}"), HasSubstr("want a whole number from 1 to 16384"));
  EXPECT_THAT(with("{from: history}", "{from: history, length: 3}\n  mask: {from: history_mask}"),
              HasSubstr("want one length"));
  EXPECT_THAT(with("{from: user}", "{from: history_length, type: BYTES}"), HasSubstr("BYTES are names"));
  EXPECT_THAT(with("{from: user}", "{from: constant, type: INT8, value: 300}"), HasSubstr("is no INT8"));
  EXPECT_THAT(with("{from: user}", "{}"), HasSubstr("inputs.user.from: is missing"));
  EXPECT_THAT(with("score: {}", "score: {}\ngolden: {groups: [{history: [1], items: [1, 2], scores: {score: [1]}}]}"),
              HasSubstr("want 2 numbers of head score, one an item, got 1"));
  EXPECT_THAT(with("score: {}", "score: {}\ngolden: {groups: []}"), HasSubstr("want a list of 1 to 64 groups"));
  EXPECT_THAT(Refused("name: ["), HasSubstr("not valid YAML"));
  EXPECT_THAT(Refused("[]"), HasSubstr("want keys and values"));
  EXPECT_THAT(Refused(std::string(2 << 20, ' ')), HasSubstr("a ranker mapping has at most"));
}

TEST(MappingTest, TheDigestKnowsWhatDecidesScoresAndNothingElse) {
  const std::string digest = Parse(kMappingText)->digest;
  EXPECT_EQ(Parse(MappingWith("127.0.0.1:8001", "other:9"))->digest, digest);
  EXPECT_EQ(Parse(MappingWith("model: ranker", "model: ranker, calls: 9, deadline_s: 1"))->digest, digest);
  EXPECT_NE(Parse(MappingWith("model: ranker", "model: other"))->digest, digest);
  EXPECT_NE(Parse(MappingWith("{from: history}", "{from: history, length: 5}"))->digest, digest);
  EXPECT_NE(Parse(MappingWith("score: {}", "score: {column: 1}"))->digest, digest);
}

TEST(MappingTest, TheExamplesOfThePageAreMappings) {
  const std::string page = ReadFile(SLUICE_SOURCE_DIR "/docs/ranker_mapping.md").value();
  const std::string open = "```yaml\n";
  int examples = 0;
  for (size_t at = page.find(open); at != std::string::npos; at = page.find(open, at)) {
    at += open.size();
    const std::string text = page.substr(at, page.find("```", at) - at);
    if (text.rfind("name:", 0) != 0) continue;  // a part of one
    ++examples;
    const auto mapping = Parse(text);
    EXPECT_TRUE(mapping.ok()) << mapping.status();
  }
  EXPECT_EQ(examples, 2);
}

TEST(MappingTest, AFileIsReadWithItsFolderAndAMissingOneIsNotFound) {
  const std::string folder = JoinPath(::testing::TempDir(), "ranker_mapping");
  ASSERT_TRUE(MakeDirectories(folder).ok());
  const std::string path = JoinPath(folder, "m.yaml");
  ASSERT_TRUE(WriteFileAtomically(path, MappingWith("{from: item}", "{from: item, column: c.npy}")).ok());
  const auto mapping = ReadRankerMapping(path);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->inputs[2].column, JoinPath(folder, "c.npy"));
  ASSERT_TRUE(RemoveAll(folder).ok());
  EXPECT_EQ(ReadRankerMapping(path).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice::reward

#include "reward_server/ranker_mapping/query_encoder.h"

#include <limits>
#include <string>
#include <vector>

#include "common/catalog/npy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_tensor_model.h"
#include "tests/testing/mapping_text.h"
#include "tests/testing/temporary_folder.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class QueryEncoderTest : public ::testing::Test {
 protected:
  absl::StatusOr<QueryEncoder> Make(const std::string& text) {
    const auto mapping = ParseRankerMapping(text, "m.yaml", folder_.path());
    if (!mapping.ok()) return mapping.status();
    return QueryEncoder::Create(*mapping, TinyDataset());
  }
  // The tensors of the only call.
  std::vector<Tensor> Encode(const std::string& text, const std::vector<ItemQuery>& queries) {
    const auto encoder = Make(text);
    EXPECT_TRUE(encoder.ok()) << encoder.status();
    std::vector<absl::Status> statuses;
    const auto calls = encoder->Plan(queries, &statuses);
    EXPECT_EQ(calls.size(), 1u);
    return encoder->Encode(queries, calls[0]);
  }
  template <typename T>
  void Save(const std::string& name, std::vector<int64_t> shape, const std::vector<T>& values) {
    ASSERT_TRUE(WriteNpy(folder_ / name, shape, values).ok());
  }

  const TemporaryFolder folder_;
  const std::vector<ItemQuery> two_ = {{.user = 0, .history = {1, 2, 3}, .items = {0, 3}},
                                       {.user = -1, .history = {2}, .items = {1}}};
};

TEST_F(QueryEncoderTest, PairsRepeatTheUserForEachItem) {
  const auto tensors = Encode(kMappingText, two_);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_THAT(tensors[0].shape, ElementsAre(3));
  EXPECT_THAT(NumbersOf(tensors[0]), ElementsAre(0, 0, -1));
  EXPECT_THAT(tensors[1].shape, ElementsAre(3, 3));
  EXPECT_THAT(NumbersOf(tensors[1]), ElementsAre(1, 2, 3, 1, 2, 3, 2, -1, -1));
  EXPECT_THAT(tensors[2].shape, ElementsAre(3));
  EXPECT_THAT(NumbersOf(tensors[2]), ElementsAre(0, 3, 1));
}

TEST_F(QueryEncoderTest, UsersComeOnceWithTheirItemsPadded) {
  const auto tensors = Encode(MappingWith("inputs:", "layout: users\ninputs:"), two_);
  EXPECT_THAT(NumbersOf(tensors[0]), ElementsAre(0, -1));
  EXPECT_THAT(tensors[1].shape, ElementsAre(2, 3));
  EXPECT_THAT(NumbersOf(tensors[1]), ElementsAre(1, 2, 3, 2, -1, -1));
  EXPECT_THAT(tensors[2].shape, ElementsAre(2, 2));
  EXPECT_THAT(NumbersOf(tensors[2]), ElementsAre(0, 3, 1, -1));
}

TEST_F(QueryEncoderTest, HistoriesAreCutShiftedAndPaddedAsTheMappingSays) {
  const auto tensors = Encode(MappingWith("{from: history}",
                                          "{from: history, type: INT32, length: 2, offset: 1, pad: 0, pad_side: left}\n"
                                          "  count: {from: history_length, type: FP32}\n"
                                          "  mask: {from: history_mask, type: BOOL, length: 2, pad_side: left}"),
                              two_);
  EXPECT_THAT(tensors[1].shape, ElementsAre(3, 2));
  EXPECT_THAT(NumbersOf(tensors[1]), ElementsAre(3, 4, 3, 4, 0, 3));
  EXPECT_THAT(NumbersOf(tensors[2]), ElementsAre(2, 2, 1));
  EXPECT_THAT(NumbersOf(tensors[3]), ElementsAre(1, 1, 1, 1, 0, 1));
}

TEST_F(QueryEncoderTest, NamesTravelAsBytes) {
  const auto tensors = Encode(MappingWith("{from: user}", "{from: user, type: BYTES}"), two_);
  EXPECT_EQ(tensors[0].raw, std::string("\x01\0\0\0a\x01\0\0\0a\0\0\0\0", 14));  // nobody: an empty name
}

TEST_F(QueryEncoderTest, ColumnsAreLookedUpByNumber) {
  Save<float>("price.npy", {4}, {0.5, 1.5, 2.5, 3.5});
  Save<int64_t>("kind.npy", {4, 2}, {10, 11, 20, 21, 30, 31, 40, 41});
  Save<double>("age.npy", {1}, {33});
  const auto tensors = Encode(MappingWith("history: {from: history}\n  item: {from: item}",
                                          "history: {from: history, length: 2}\n"
                                          "  item: {from: item, type: FP32, column: price.npy}\n"
                                          "  kind: {from: history, column: kind.npy, length: 2, pad: 7}\n"
                                          "  age: {from: user, type: FP64, column: age.npy, unknown: -5}\n"
                                          "  one: {from: constant, type: UINT8, value: 1, last_dimension: true}"),
                              two_);
  EXPECT_THAT(NumbersOf(tensors[2]), ElementsAre(0.5, 3.5, 1.5));
  EXPECT_THAT(tensors[3].shape, ElementsAre(3, 2, 2));
  EXPECT_THAT(NumbersOf(tensors[3]), ElementsAre(30, 31, 40, 41, 30, 31, 40, 41, 30, 31, 7, 7));
  EXPECT_THAT(NumbersOf(tensors[4]), ElementsAre(33, 33, -5));
  EXPECT_THAT(tensors[5].shape, ElementsAre(3, 1));
}

TEST_F(QueryEncoderTest, ColumnsThatDoNotFitAreRefusedByTheirKey) {
  const auto refused = [&](const std::string& input) {
    const auto made = Make(MappingWith("{from: item}", input));
    EXPECT_FALSE(made.ok()) << input;
    return std::string(made.status().message());
  };
  Save<float>("three.npy", {3}, {1, 2, 3});
  Save<float>("nan.npy", {4}, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()});
  Save<int32_t>("large.npy", {4}, {1, 2, 3, 300});
  EXPECT_THAT(refused("{from: item, type: FP32, column: three.npy}"),
              HasSubstr("inputs.item.column: want an array [4] or [4, n], a row an item of the data set, got [3]"));
  EXPECT_THAT(refused("{from: item, type: FP32, column: nan.npy}"), HasSubstr("holds nan, which is no FP32"));
  EXPECT_THAT(refused("{from: item, type: UINT8, column: large.npy}"), HasSubstr("holds 300, which is no UINT8"));
  EXPECT_THAT(refused("{from: item, type: FP32, column: none.npy}"), HasSubstr("none.npy"));
  EXPECT_THAT(refused("{from: item, type: BOOL}"), HasSubstr("inputs.item.type: BOOL does not hold the number 3"));
}

TEST_F(QueryEncoderTest, AnUnknownUserWithoutAValueFailsAlone) {
  const auto encoder = Make(MappingWith("{from: user}", "{from: user, type: UINT32}"));
  std::vector<absl::Status> statuses;
  const auto calls = encoder->Plan(two_, &statuses);
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(statuses[1].message()), HasSubstr("inputs.user has no value for that; give it unknown"));
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].pairs, 2);
}

TEST_F(QueryEncoderTest, CallsAreCutBetweenQueriesAndWithinThoseThatAreTooLarge) {
  const auto encoder = Make(MappingWith("inputs:", "max_pairs: 4\ninputs:"));
  const std::vector<ItemQuery> queries = {{.user = 0, .history = {0}, .items = {0, 1, 2}},
                                          {.user = 0, .history = {0}, .items = {3, 2}},
                                          {.user = 0, .history = {0}, .items = {}},
                                          {.user = 0, .history = {0}, .items = {0, 1, 2, 3, 0, 1, 2, 3, 0}}};
  std::vector<absl::Status> statuses;
  const auto calls = encoder->Plan(queries, &statuses);
  std::vector<int64_t> pairs;
  std::vector<size_t> seen(queries.size(), 0);
  for (const ModelCall& call : calls) {
    pairs.push_back(call.pairs);
    for (const QuerySlice& slice : call.slices) {
      EXPECT_EQ(slice.first, seen[slice.query]);
      seen[slice.query] += slice.count;
    }
  }
  EXPECT_THAT(pairs, ElementsAre(3, 2, 4, 4, 1));
  for (size_t q = 0; q < queries.size(); ++q) EXPECT_EQ(seen[q], queries[q].items.size());
}

TEST_F(QueryEncoderTest, ACallNeverExceedsItsBytes) {
  const auto encoder = Make(MappingWith("inputs:", "max_pairs: 1000000\ninputs:"));
  // 16,000 items of history are 128,000 bytes a pair: 65 pairs fit in 8 MiB.
  const std::vector<ItemQuery> queries = {
      {.user = 0, .history = std::vector<int32_t>(16000, 1), .items = std::vector<int32_t>(200, 1)}};
  std::vector<absl::Status> statuses;
  int64_t pairs = 0;
  for (const ModelCall& call : encoder->Plan(queries, &statuses)) {
    int64_t bytes = 0;
    for (const Tensor& tensor : encoder->Encode(queries, call)) bytes += static_cast<int64_t>(tensor.raw.size());
    EXPECT_LE(bytes, kMaxCallBytes);
    pairs += call.pairs;
  }
  EXPECT_EQ(pairs, 200);
}

class DecodeTest : public QueryEncoderTest {
 protected:
  absl::StatusOr<std::vector<float>> Decode(const Tensor& tensor, const std::string& output = "{}",
                                            const std::string& layout = "pairs") {
    std::string text = MappingWith("score: {}", "score: " + output);
    const auto encoder = Make(text.insert(0, "layout: " + layout + "\n"));
    EXPECT_TRUE(encoder.ok()) << encoder.status();
    std::vector<absl::Status> statuses;
    const auto calls = encoder->Plan(two_, &statuses);
    return encoder->Decode(encoder->mapping().outputs[0], tensor, calls[0]);
  }
  std::string Refused(const Tensor& tensor, const std::string& output = "{}", const std::string& layout = "pairs") {
    const auto scores = Decode(tensor, output, layout);
    EXPECT_EQ(scores.status().code(), absl::StatusCode::kDataLoss);
    return std::string(scores.status().message());
  }
};

TEST_F(DecodeTest, ScoresOfEveryTypeAndLayoutComeInTheOrderOfTheQueries) {
  const auto fp32 = TensorType::kFp32;
  EXPECT_THAT(*Decode(MakeTensor("score", fp32, {3}, {1, 2, 3})), ElementsAre(1, 2, 3));
  EXPECT_THAT(*Decode(MakeTensor("score", fp32, {3, 1}, {1, 2, 3})), ElementsAre(1, 2, 3));
  EXPECT_THAT(*Decode(MakeTensor("score", TensorType::kBf16, {3}, {1, 2, 3})), ElementsAre(1, 2, 3));
  EXPECT_THAT(*Decode(MakeTensor("score", TensorType::kInt64, {3}, {1, 2, 3})), ElementsAre(1, 2, 3));
  EXPECT_THAT(*Decode(MakeTensor("score", TensorType::kFp64, {3, 2}, {1, 10, 2, 20, 3, 30}), "{column: 1}"),
              ElementsAre(10, 20, 30));
  // [B, K] with the second user's padded place in the middle of nowhere.
  EXPECT_THAT(*Decode(MakeTensor("score", fp32, {2, 2}, {1, 2, 3, -9}), "{}", "users"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*Decode(MakeTensor("score", fp32, {2, 2, 2}, {1, 10, 2, 20, 3, 30, 0, 0}), "{column: 1}", "users"),
              ElementsAre(10, 20, 30));
}

TEST_F(DecodeTest, WhatWasNotAskedForIsRefusedNotRead) {
  const auto fp32 = TensorType::kFp32;
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {2}, {1, 2})), HasSubstr("has shape [2], want [3] for 3 pairs"));
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {3, 1, 1}, {1, 2, 3})), HasSubstr("has shape [3, 1, 1]"));
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {3, 2}, {1, 2, 3, 4, 5, 6})), HasSubstr("asks for no column of it"));
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {3, 2}, {1, 2, 3, 4, 5, 6}), "{column: 2}"),
              HasSubstr("asks for column 2"));
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {3}, {1, 2})), HasSubstr("has 8 bytes, want 12"));
  EXPECT_THAT(Refused(MakeTensor("score", fp32, {3}, {1, 2, 3, 4})), HasSubstr("has 16 bytes, want 12"));
  EXPECT_THAT(Refused({"score", TensorType::kBytes, {3}, "xyz"}), HasSubstr("of type BYTES"));
  EXPECT_THAT(Refused({"score", fp32, {3, -1}, ""}), HasSubstr("has shape [3, -1]"));
  EXPECT_THAT(Refused({"score", fp32, {3, int64_t{1} << 62}, ""}, "{column: 0}"), HasSubstr("too large"));
  EXPECT_THAT(Refused({"score", fp32, {}, ""}), HasSubstr("has shape []"));
}

using PromisesTest = QueryEncoderTest;

TEST_F(PromisesTest, AModelThatTakesWhatTheMappingGivesIsWelcome) {
  const auto encoder = Make(kMappingText);
  EXPECT_TRUE(encoder
                  ->CheckPromises({{"user", "INT64", {-1}}, {"history", "INT64", {-1, -1}}, {"item", "INT64", {-1}}},
                                  {{"score", "FP32", {-1}}})
                  .ok());
  EXPECT_TRUE(encoder->CheckPromises({}, {}).ok());
  EXPECT_TRUE(encoder->CheckPromises({}, {{"score", "FP32", {-1, 1}}, {"more", "BYTES", {-1}}}).ok());
}

TEST_F(PromisesTest, EveryMismatchNamesItsKeyAndTheRemedy) {
  const auto encoder = Make(kMappingText);
  const absl::Status status = encoder->CheckPromises(
      {{"user", "INT32", {-1}}, {"history", "INT64", {-1, 20}}, {"items", "INT64", {8}}}, {{"scores", "FP32", {-1}}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string said(status.message());
  EXPECT_THAT(
      said,
      HasSubstr("m.yaml:4:9: inputs.user.type: the model wants INT32, the mapping gives INT64; write type: INT32\n"));
  EXPECT_THAT(said, HasSubstr("inputs.history: the model wants shape [-1, 20], the mapping gives [-1, -1]"));
  EXPECT_THAT(said, HasSubstr("inputs.item: the model has no input of this name, it has user, history, items"));
  EXPECT_THAT(said, HasSubstr("m.yaml: inputs.items: is missing; the model wants it, INT64 [8]"));
  EXPECT_THAT(said, HasSubstr("outputs.score.output: the model has no output 'score', it has scores"));
  const absl::Status wide = encoder->CheckPromises({}, {{"score", "FP32", {-1, 2}}});
  EXPECT_THAT(std::string(wide.message()), HasSubstr("the model gives shape [-1, 2], want 1 dimensions"));
  const absl::Status text = encoder->CheckPromises({}, {{"score", "BYTES", {-1}}});
  EXPECT_THAT(std::string(text.message()), HasSubstr("want numbers, the model gives BYTES"));
}

}  // namespace
}  // namespace sluice::reward

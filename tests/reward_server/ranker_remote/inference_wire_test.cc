#include "reward_server/ranker_remote/inference_wire.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_tensor_model.h"
#include "tests/testing/mapping_text.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

::inference::ModelInferResponse Answer(const std::string& type, std::vector<int64_t> shape) {
  ::inference::ModelInferResponse answer;
  answer.set_model_name("ranker");
  answer.set_model_version("1");
  auto* output = answer.add_outputs();
  output->set_name("score");
  output->set_datatype(type);
  output->mutable_shape()->Assign(shape.begin(), shape.end());
  return answer;
}

std::string Refused(const ::inference::ModelInferResponse& answer) {
  const auto tensors = AnsweredTensors(answer);
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kDataLoss);
  return std::string(tensors.status().message());
}

TEST(InferenceWireTest, TypedContentsOfEveryFieldBecomeTheirDatatype) {
  const auto read = [](const std::string& type, auto&& fill) {
    auto answer = Answer(type, {2});
    fill(answer.mutable_outputs(0)->mutable_contents());
    const auto tensors = AnsweredTensors(answer);
    EXPECT_TRUE(tensors.ok()) << type << tensors.status();
    EXPECT_EQ(TensorTypeName((*tensors)[0].type), type);
    return NumbersOf((*tensors)[0]);
  };
  const auto ints = [](auto* c) { c->add_int_contents(-3), c->add_int_contents(4); };
  const auto uints = [](auto* c) { c->add_uint_contents(3), c->add_uint_contents(4); };
  for (const char* type : {"INT8", "INT16", "INT32"}) EXPECT_THAT(read(type, ints), ElementsAre(-3, 4));
  for (const char* type : {"UINT8", "UINT16", "UINT32"}) EXPECT_THAT(read(type, uints), ElementsAre(3, 4));
  EXPECT_THAT(read("BOOL", [](auto* c) { c->add_bool_contents(true), c->add_bool_contents(false); }),
              ElementsAre(1, 0));
  EXPECT_THAT(read("INT64", [](auto* c) { c->add_int64_contents(-3), c->add_int64_contents(4); }), ElementsAre(-3, 4));
  EXPECT_THAT(read("UINT64", [](auto* c) { c->add_uint64_contents(3), c->add_uint64_contents(4); }), ElementsAre(3, 4));
  EXPECT_THAT(read("FP32", [](auto* c) { c->add_fp32_contents(.5f), c->add_fp32_contents(4); }), ElementsAre(.5, 4));
  EXPECT_THAT(read("FP64", [](auto* c) { c->add_fp64_contents(.1), c->add_fp64_contents(4); }), ElementsAre(.1, 4));
}

TEST(InferenceWireTest, RawContentsBelongToTheirOutputs) {
  auto answer = Answer("BF16", {1});
  answer.add_raw_output_contents("\x80\x3f");
  auto* second = answer.add_outputs();
  second->set_name("text");
  second->set_datatype("BYTES");
  answer.add_raw_output_contents("anything");
  const auto tensors = AnsweredTensors(answer);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(NumbersOf((*tensors)[0]), ElementsAre(1));
  EXPECT_EQ((*tensors)[1].raw, "anything");
}

TEST(InferenceWireTest, ContradictionsAreRefused) {
  auto both = Answer("FP32", {1});
  both.mutable_outputs(0)->mutable_contents()->add_fp32_contents(1);
  both.add_raw_output_contents("1234");
  EXPECT_THAT(Refused(both), HasSubstr("has raw and typed contents"));

  auto other_field = Answer("FP32", {1});
  other_field.mutable_outputs(0)->mutable_contents()->add_fp64_contents(1);
  EXPECT_THAT(Refused(other_field), HasSubstr("contents in another field than that of FP32"));

  auto narrow = Answer("INT8", {1});
  narrow.mutable_outputs(0)->mutable_contents()->add_int_contents(200);
  EXPECT_THAT(Refused(narrow), HasSubstr("holds 200, which is no INT8"));

  EXPECT_THAT(Refused(Answer("FP16", {1})), HasSubstr("is of FP16 without raw contents"));
  EXPECT_THAT(Refused(Answer("FLOAT", {1})), HasSubstr("unknown datatype 'FLOAT'"));

  auto counts = Answer("FP32", {1});
  counts.add_raw_output_contents("1234");
  counts.add_raw_output_contents("1234");
  EXPECT_THAT(Refused(counts), HasSubstr("1 outputs with 2 raw contents"));

  ::inference::ModelInferResponse many;
  for (int i = 0; i <= kMaxAnsweredTensors; ++i) many.add_outputs();
  EXPECT_THAT(Refused(many), HasSubstr("want at most 256"));

  auto long_name = Answer("x", {1});
  long_name.mutable_outputs(0)->set_name(std::string(1 << 20, 'n'));
  EXPECT_LT(Refused(long_name).size(), 1000u);
}

TEST(InferenceWireTest, AnotherModelOrVersionIsNoAnswer) {
  const RankerMapping mapping = ParseRankerMapping(kMappingText, "m.yaml", "").value();
  EXPECT_TRUE(CheckAnswerer(mapping, "1", Answer("FP32", {1})).ok());
  EXPECT_EQ(CheckAnswerer(mapping, "2", Answer("FP32", {1})).code(), absl::StatusCode::kFailedPrecondition);
  auto other = Answer("FP32", {1});
  other.set_model_name("other");
  EXPECT_EQ(CheckAnswerer(mapping, "1", other).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(InferenceWireTest, RequestsCarryRawContentsForAllOrTypedOnes) {
  RankerMapping mapping =
      ParseRankerMapping(MappingWith("score: {}", "score: {column: 0}\n  click: {output: score, column: 1}"), "m", "")
          .value();
  std::vector<Tensor> inputs = {MakeTensor("a", TensorType::kInt64, {2}, {7, -8}),
                                MakeTensor("b", TensorType::kUint8, {1}, {9}),
                                MakeTensor("c", TensorType::kFp64, {1}, {.5})};
  inputs.push_back({"d", TensorType::kBytes, {2}, std::string("\x01\0\0\0x\0\0\0\0", 9)});
  const auto raw = InferRequest(mapping, inputs);
  EXPECT_EQ(raw.model_name(), "ranker");
  EXPECT_EQ(raw.raw_input_contents_size(), 4);
  EXPECT_EQ(raw.inputs(1).datatype(), "UINT8");
  EXPECT_FALSE(raw.inputs(0).has_contents());
  ASSERT_EQ(raw.outputs_size(), 1);  // two heads of one output
  mapping.remote.typed_contents = true;
  const auto typed = InferRequest(mapping, inputs);
  EXPECT_EQ(typed.raw_input_contents_size(), 0);
  EXPECT_THAT(typed.inputs(0).contents().int64_contents(), ElementsAre(7, -8));
  EXPECT_THAT(typed.inputs(1).contents().uint_contents(), ElementsAre(9));
  EXPECT_THAT(typed.inputs(2).contents().fp64_contents(), ElementsAre(.5));
  EXPECT_THAT(typed.inputs(3).contents().bytes_contents(), ElementsAre("x", ""));
}

}  // namespace
}  // namespace sluice::reward

#include "common/spec/spec.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/spec/spec_fields.h"

namespace sluice {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

constexpr char kRl[] = R"(
kind: rl
name: beauty
data: runs/beauty
rl:
  steps: 20
  group_size: 8
  gate:
    tau: 0.25
)";

TEST(SpecTest, GivenKeysWinAndTheRestGetsItsDefault) {
  const auto spec = ResolveSpec(kRl, "rl.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->effective.rl().steps(), 20);
  EXPECT_EQ(spec->effective.rl().gate().tau(), 0.25);
  EXPECT_EQ(spec->effective.rl().gate().rho(), 0.5);
  EXPECT_EQ(spec->effective.model().architecture(), v1::ARCHITECTURE_QWEN3);
  EXPECT_EQ(spec->effective.checkpoint().every(), 200);
  EXPECT_FALSE(spec->given.rl().has_groups_per_step());
}

TEST(SpecTest, EveryGivenKeyKnowsItsPlaceAndDefaultsHaveNone) {
  const auto spec = ResolveSpec(kRl, "rl.yaml");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->places.at("rl.gate.tau").ToString(), "rl.yaml:9:5");
  EXPECT_EQ(spec->places.count("rl.gate.rho"), 0u);
}

TEST(SpecTest, ASectionMayHaveDefaultsOfItsOwn) {
  const auto rl = ResolveSpec(kRl, "rl.yaml");
  const auto sft = ResolveSpec("kind: sft\ndata: d\n", "sft.yaml");
  ASSERT_TRUE(rl.ok() && sft.ok());
  EXPECT_EQ(rl->effective.rl().optimizer().learning_rate(), 3e-5);
  EXPECT_EQ(sft->effective.sft().optimizer().learning_rate(), 1e-3);
  EXPECT_EQ(rl->effective.rl().validation().every(), 50);
  EXPECT_EQ(sft->effective.sft().validation().every(), 1);
}

TEST(SpecTest, SectionsThatTheKindDoesNotReadStayAbsent) {
  const auto spec = ResolveSpec("kind: sft\ndata: d\n", "sft.yaml");
  ASSERT_TRUE(spec.ok());
  EXPECT_TRUE(spec->effective.has_sft());
  EXPECT_FALSE(spec->effective.has_rl());
  EXPECT_FALSE(spec->effective.has_prepare());
}

TEST(SpecTest, OverridesWinOverTheFileAndMakeSections) {
  const std::vector<std::string> overrides = {"rl.steps=7", "rl.reward.head=click", "name=a: b", "model.layers=2"};
  const auto spec = ResolveSpec(kRl, "rl.yaml", overrides);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->effective.rl().steps(), 7);
  EXPECT_EQ(spec->effective.rl().reward().head(), "click");
  EXPECT_EQ(spec->effective.name(), "a: b");
  EXPECT_EQ(spec->effective.model().layers(), 2);
  EXPECT_EQ(spec->places.at("rl.steps").ToString(), "--set rl.steps=7");
  EXPECT_EQ(spec->places.at("rl").ToString(), "rl.yaml:5:1");
}

TEST(SpecTest, MistakesInOverridesNameTheOverride) {
  const std::vector<std::string> overrides = {"rl.stebs=7", "nonsense"};
  const auto spec = ResolveSpec(kRl, "rl.yaml", overrides);
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr("--set rl.stebs=7: rl.stebs: unknown key; did you mean steps?"));
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("--set nonsense: want key=value, such as rl.steps=50"));
}

TEST(SpecTest, OnlyAMarketThatIsAskedForGetsDefaults) {
  const auto events = ResolveSpec("kind: prepare\nprepare: {events: e}\n", "s.yaml");
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_FALSE(events->effective.prepare().has_market());
  EXPECT_FALSE(events->effective.prepare().ranker().has_bias());
  // An empty section asks for one.
  for (const char* text : {"kind: prepare\nprepare: {market: {}}\n", "kind: prepare\nprepare:\n  market:\n"}) {
    const auto market = ResolveSpec(text, "s.yaml");
    ASSERT_TRUE(market.ok()) << market.status();
    EXPECT_EQ(market->effective.prepare().market().regions(), 16);
    EXPECT_FALSE(market->effective.prepare().has_events());
    EXPECT_FALSE(market->effective.prepare().has_sids());
    EXPECT_FALSE(market->effective.prepare().has_split());
  }
}

TEST(SpecTest, SecondsMayBeWrittenAsATime) {
  const auto spec = ResolveSpec("kind: sft\ndata: d\ntime_limit_s: 1h30m\n", "s.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->effective.time_limit_s(), 5400);
}

TEST(SpecTest, EffectiveTextReadsBackToTheSameMessage) {
  for (const char* text :
       {kRl, "kind: sft\ndata: d\n", "kind: evaluate\ndata: 'a b'\nmodel: {path: m}\n",
        "kind: prepare\nprepare: {events: e.csv, min_rating: 3.5, sids: {index: i.json}}\n",
        "kind: prepare\nprepare: {events: e.csv, sids: {item_vectors: v.npy}}\n",
        "kind: prepare\nprepare: {events: e.csv, ranker: {bias: {missing: 0.5}}}\n",
        "kind: prepare\nprepare: {market: {regions: 8}, max_history: 10}\n",
        "kind: rl\ndata: d\nrl: {prompt_split: reserved, reward: {ranker: \"truth:pop~@log:0.5\"}}\n"}) {
    const auto spec = ResolveSpec(text, "s.yaml");
    ASSERT_TRUE(spec.ok()) << spec.status();
    const std::string printed = SpecToYaml(spec->effective);
    const auto back = ResolveSpec(printed, "printed.yaml");
    ASSERT_TRUE(back.ok()) << back.status() << "\n" << printed;
    EXPECT_TRUE(MessageDifferencer::Equals(back->given, spec->effective)) << printed;
    EXPECT_TRUE(MessageDifferencer::Equals(back->effective, spec->effective)) << printed;
    EXPECT_EQ(SpecDigest(back->effective), SpecDigest(spec->effective));
  }
}

// Gives every scalar of a message an awkward value, so that printing cannot lose one.
void SetEverything(Message* message) {
  const auto& reflection = *message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->field(i);
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        SetEverything(reflection.MutableMessage(message, field));
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.SetInt32(message, field, -1000 - i);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection.SetUInt64(message, field, std::numeric_limits<uint64_t>::max() - i);
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        reflection.SetDouble(message, field, 0.1 + i * 1e-7);
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(message, field, i % 2 == 0);
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        reflection.SetEnum(message, field, field->enum_type()->value(field->enum_type()->value_count() - 1));
        break;
      default:
        reflection.SetString(message, field, absl::StrCat("- te\"xt # ", i, ": \\"));
    }
  }
}

TEST(SpecTest, EveryKeyOfTheSchemaSurvivesTheText) {
  v1::JobSpec spec;
  SetEverything(&spec);
  std::vector<SpecProblem> problems;
  const YamlNode tree = ParseYamlTree(SpecToYaml(spec), "all.yaml", &problems);
  ASSERT_TRUE(problems.empty());
  const std::function<void(const YamlNode&, const Message&)> compare = [&](const YamlNode& node, const Message& want) {
    ASSERT_EQ(static_cast<int>(node.entries.size()), want.GetDescriptor()->field_count());
    for (const YamlNode::Entry& entry : node.entries) {
      const FieldDescriptor* field = want.GetDescriptor()->FindFieldByName(entry.key);
      ASSERT_NE(field, nullptr);
      if (IsSection(*field)) {
        compare(entry.value, want.GetReflection()->GetMessage(want, field));
        continue;
      }
      std::unique_ptr<Message> got(want.New());
      EXPECT_EQ(ReadScalar(entry.value, *field, got.get()), "") << entry.key;
      EXPECT_EQ(ScalarText(*got, *field), ScalarText(want, *field)) << entry.key;
    }
  };
  compare(tree, spec);
}

TEST(SpecTest, EqualJobsHaveEqualDigestsHoweverWritten) {
  const auto a = ResolveSpec("kind: sft\ndata: d\nsft: {passes: 3}\n", "a.yaml");
  const auto b = ResolveSpec("# other\nsft:\n  passes: 3\n  dropout: 0.10\ndata: \"d\"\nkind: sft\n", "b.yaml");
  const auto c = ResolveSpec("kind: sft\ndata: d\nsft: {passes: 4}\n", "c.yaml");
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(SpecDigest(a->effective), SpecDigest(b->effective));
  EXPECT_NE(SpecDigest(a->effective), SpecDigest(c->effective));
}

TEST(SpecTest, WhatMayChangeOnResumeDoesNotChangeTheResumeDigest) {
  const auto a = ResolveSpec("kind: sft\ndata: d\n", "a.yaml");
  const auto b = ResolveSpec(
      "kind: sft\ndata: d\ntime_limit_s: 9\nsft: {validation: {every: 5}}\ncheckpoint: {keep: 7}\n", "b.yaml");
  const auto c = ResolveSpec("kind: sft\ndata: d\nseed: 2\n", "c.yaml");
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_NE(SpecDigest(a->effective), SpecDigest(b->effective));
  EXPECT_EQ(ResumeDigest(a->effective), ResumeDigest(b->effective));
  EXPECT_NE(ResumeDigest(a->effective), ResumeDigest(c->effective));
}

TEST(SpecTest, AnIndexMaySayHowManyCodesALevelHas) {
  const auto spec =
      ResolveSpec("kind: prepare\nprepare:\n  events: e\n  sids: {index: i.json, codes: 1024}\n", "a.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->effective.prepare().sids().codes(), 1024);
}

TEST(SpecTest, CompletingAnEffectiveSpecChangesNothing) {
  const auto spec = ResolveSpec(kRl, "rl.yaml");
  ASSERT_TRUE(spec.ok());
  const auto again = CompleteSpec(spec->effective);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*again, spec->effective));
}

TEST(SpecTest, AMessageIsHeldToTheSameRulesAsText) {
  v1::JobSpec spec;
  spec.set_kind(v1::JOB_KIND_RL);
  spec.mutable_rl()->set_group_size(1);
  spec.mutable_rl()->mutable_gate()->set_rho(std::numeric_limits<double>::quiet_NaN());
  spec.mutable_rl()->mutable_gate()->set_ties(static_cast<v1::GateTies>(99));
  spec.mutable_sft();
  const absl::Status status = CompleteSpec(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "sft: a job of kind rl does not read this; remove it\n"
            "rl.group_size: want 2 to 1024, got 1\n"
            "rl.gate.rho: want a finite number, got nan\n"
            "rl.gate.ties: want one of pessimistic, average; got the number 99\n"
            "data: required: a job of kind rl needs the folder of a prepared data set");
}

TEST(SpecTest, FieldsOfANewerClientAreRefused) {
  v1::JobSpec spec;
  spec.set_kind(v1::JOB_KIND_SFT);
  spec.set_data("d");
  v1::SftSpec* sft = spec.mutable_sft();
  sft->GetReflection()->MutableUnknownFields(sft)->AddVarint(900, 1);
  EXPECT_THAT(std::string(CompleteSpec(spec).status().message()), HasSubstr("sft: holds a field that this version"));
}

TEST(SpecTest, EveryKeyIsDocumentedAndEveryDefaultIsValid) {
  std::set<std::string> paths;
  for (const SpecKey& key : ExplainSpec()) {
    EXPECT_TRUE(paths.insert(key.path).second) << key.path;
    EXPECT_FALSE(key.doc.empty()) << key.path;
  }
  EXPECT_TRUE(paths.count("rl.gate.tau"));
  for (const char* text : {"kind: rl\ndata: d\n", "kind: sft\ndata: d\n", "kind: evaluate\ndata: d\nmodel: {path: m}\n",
                           "kind: prepare\nprepare: {events: e.csv}\n"}) {
    const auto spec = ResolveSpec(text, "s.yaml");
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(CompleteSpec(spec->effective).ok());
  }
}

TEST(SpecTest, ExplainShowsWhatApplies) {
  std::map<std::string, SpecKey> keys;
  for (const SpecKey& key : ExplainSpec()) keys[key.path] = key;
  EXPECT_EQ(keys.at("rl.optimizer.learning_rate").default_value, "0.00003");
  EXPECT_EQ(keys.at("sft.optimizer.learning_rate").default_value, "0.001");
  EXPECT_EQ(keys.at("rl.gate.tau").range, "0 to 1");
  EXPECT_EQ(keys.at("kind").type, "one of prepare, sft, rl, evaluate");
  EXPECT_TRUE(keys.at("kind").required);
  EXPECT_TRUE(keys.at("rl.gate").is_section);
  EXPECT_EQ(keys.at("time_limit_s").unit, "seconds");
}

}  // namespace
}  // namespace sluice

#include "learner/rpc/options_from_spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "common/spec/spec.h"
#include "common/spec/spec_fields.h"

namespace sluice::learner {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Sets a scalar to something other than what it holds.
void Change(Message* message, const FieldDescriptor* field) {
  const auto& reflection = *message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.SetInt32(message, field, reflection.GetInt32(*message, field) + 1);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.SetUInt64(message, field, reflection.GetUInt64(*message, field) + 1);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.SetDouble(message, field, reflection.GetDouble(*message, field) + 0.015625);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.SetBool(message, field, !reflection.GetBool(*message, field));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.SetString(message, field, reflection.GetString(*message, field) + "x");
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int values = field->enum_type()->value_count() - 1;  // without the unspecified one
      return reflection.SetEnumValue(message, field, reflection.GetEnumValue(*message, field) % values + 1);
    }
    default:
      FAIL() << field->full_name();
  }
}

// Calls `visit` with the path and place of every scalar below `message`.
void VisitScalars(Message* message, const std::string& path,
                  const std::function<void(const std::string&, Message*, const FieldDescriptor*)>& visit) {
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->field(i);
    const std::string field_path = JoinSpecPath(path, field->name());
    if (IsSection(*field)) {
      VisitScalars(message->GetReflection()->MutableMessage(message, field), field_path, visit);
    } else {
      visit(field_path, message, field);
    }
  }
}

// Every section with its defaults, as no job has them together.
v1::JobSpec Everything() {
  v1::JobSpec all;
  for (const char* text :
       {"kind: rl\ndata: d\nrl: {gate: {kind: combined}, advantage: {sibling_weight: 1}, reward: {kind: ranking}, "
        "policy_loss: {kind: ppo}, sampler: value_guided, value: {loss_weight: 1}}\n"
        "model: {value_head: true}\n",
        "kind: sft\ndata: d\n", "kind: evaluate\ndata: d\nmodel: {path: m}\n",
        "kind: prepare\nprepare: {events: e.csv, ranker: {bias: {missing: 1, position: 1}}}\n",
        "kind: prepare\nprepare: {market: {}}\n"}) {
    all.MergeFrom(ResolveSpec(text, "s.yaml").value().effective);
  }
  return all;
}

TEST(OptionsFromSpecTest, EveryKeyOfTheSpecReachesTheOptions) {
  v1::JobSpec spec = Everything();
  const JobOptions before = CopyOptions(spec);
  std::vector<JobOptions> changed;
  VisitScalars(&spec, "", [&](const std::string& path, Message* section, const FieldDescriptor* field) {
    const std::unique_ptr<Message> kept(section->New());
    kept->CopyFrom(*section);
    Change(section, field);
    const JobOptions after = CopyOptions(spec);
    EXPECT_FALSE(after == before) << path << " changes nothing";
    for (const JobOptions& other : changed) EXPECT_FALSE(after == other) << path << " does what another key does";
    changed.push_back(after);
    section->CopyFrom(*kept);
  });
  EXPECT_GT(changed.size(), 90u);
}

TEST(OptionsFromSpecTest, DefaultsOfSpecAndOptionsAgree) {
  JobOptions want;
  EXPECT_TRUE(CopyOptions(v1::JobSpec()) == want);

  const absl::StatusOr<JobOptions> rl = OptionsFromSpec(ResolveSpec("kind: rl\ndata: d\n", "s.yaml").value().given);
  ASSERT_TRUE(rl.ok()) << rl.status();
  want.kind = JobKind::kRl;
  want.data = "d";
  EXPECT_TRUE(*rl == want);

  const absl::StatusOr<JobOptions> prepare =
      OptionsFromSpec(ResolveSpec("kind: prepare\nprepare: {events: e}\n", "s.yaml").value().given);
  ASSERT_TRUE(prepare.ok());
  want.kind = JobKind::kPrepare;
  want.data = "";
  want.prepare.events = "e";
  EXPECT_TRUE(*prepare == want);

  // A generated market has the defaults of its options.
  const absl::StatusOr<JobOptions> market =
      OptionsFromSpec(ResolveSpec("kind: prepare\nprepare: {market: {}}\n", "s.yaml").value().given);
  ASSERT_TRUE(market.ok()) << market.status();
  want.prepare.events = "";
  want.prepare.market.emplace();
  EXPECT_TRUE(*market == want);

  const absl::StatusOr<JobOptions> evaluate =
      OptionsFromSpec(ResolveSpec("kind: evaluate\ndata: d\nmodel: {path: m}\n", "s.yaml").value().given);
  ASSERT_TRUE(evaluate.ok());
  want = JobOptions();
  want.kind = JobKind::kEvaluate;
  want.data = "d";
  want.model.path = "m";
  EXPECT_TRUE(*evaluate == want);
}

TEST(OptionsFromSpecTest, ValuesArriveWhereTheyBelong) {
  const auto spec = ResolveSpec(R"(
kind: rl
name: n
seed: 5
data: d
time_limit_s: 60
model: {architecture: llama, hidden_size: 64, layers: 3, heads: 8, kv_heads: 2, encoder: codes}
rl:
  steps: 11
  groups_per_step: 24
  group_size: 12
  objective: mixture
  sampler: sample
  grpo_space: full
  nll_space: trie
  nll_reduction: sum
  prompt_split: reserved
  staleness: 1
  on_reward_outage: fail
  gate: {tau: 0.25, rho: 0.75, negatives: 2, difficulty: teacher_forced, ties: average, zone: pool, normalization: admitted, head_pool: group}
  mixing: convex
  lambda: 0.5
  advantage: {kind: recast, target_bound: true, global_weight: 0.5}
  policy_loss: {kind: ecpo, ratio: sequence_mean, clip_high: 0.28, mean: step}
  kl: {beta: 0.001, reference: mixed, mix_every: 64}
  reward: {ranker: sequential, head: click, deadline_s: 2}
  optimizer: {learning_rate: 0.5, beta1: 0.25}
checkpoint: {every: 7, keep: 3}
)",
                                "s.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const JobOptions options = OptionsFromSpec(spec->given).value();
  JobOptions want;
  want.kind = JobKind::kRl;
  want.name = "n";
  want.seed = 5;
  want.data = "d";
  want.time_limit_s = 60;
  want.model.architecture = "llama";
  want.model.hidden_size = 64;
  want.model.layers = 3;
  want.model.heads = 8;
  want.model.kv_heads = 2;
  want.model.merged_encoder = false;
  want.rl.steps = 11;
  want.rl.groups_per_step = 24;
  want.rl.group_size = 12;
  want.rl.objective = ObjectiveKind::kMixture;
  want.rl.sampler = SamplerKind::kSample;
  want.rl.grpo_space = LogProbSpace::kFull;
  want.rl.nll_space = LogProbSpace::kTrie;
  want.rl.nll_reduction = NllReduction::kSum;
  want.rl.prompt_split = PromptSplit::kReserved;
  want.rl.staleness = 1;
  want.rl.on_reward_outage = OnFailure::kFail;
  want.rl.gate.tau = 0.25;
  want.rl.gate.rho = 0.75;
  want.rl.gate.negatives = 2;
  want.rl.gate.difficulty = DifficultyMode::kTeacherForced;
  want.rl.gate.ties = GateTies::kAverage;
  want.rl.gate.zone = GateZone::kPool;
  want.rl.gate.normalization = GateNormalization::kAdmitted;
  want.rl.gate.head_pool = GateHeadPool::kGroup;
  want.rl.mixing = Mixing::kConvex;
  want.rl.lambda = 0.5;
  want.rl.advantage.kind = AdvantageKind::kRecast;
  want.rl.advantage.target_bound = true;
  want.rl.advantage.global_weight = 0.5;
  want.rl.policy_loss.kind = PolicyLossKind::kEcpo;
  want.rl.policy_loss.ratio = RatioLevel::kSequenceMean;
  want.rl.policy_loss.clip_high = 0.28;
  want.rl.policy_loss.mean = TokenMean::kStep;
  want.rl.kl.beta = 0.001;
  want.rl.kl.reference = ReferenceKind::kMixed;
  want.rl.kl.mix_every = 64;
  want.rl.reward.ranker = "sequential";
  want.rl.reward.head = "click";
  want.rl.reward.deadline_s = 2;
  want.rl.optimizer.learning_rate = 0.5;
  want.rl.optimizer.beta1 = 0.25;
  want.checkpoint.every = 7;
  want.checkpoint.keep = 3;
  EXPECT_TRUE(options == want);
}

TEST(OptionsFromSpecTest, ValueOptionsArriveAndTheSearchResolvesItsDefaults) {
  const auto spec = ResolveSpec(R"(
kind: rl
data: d
model: {path: m, value_head: true, value_hidden_size: 48}
rl:
  group_size: 16
  sampler: value_guided
  value: {loss_weight: 0.5, gamma: 0.9, step_weights: 0.3 0.5 1 1, bootstrap: first_token_wrong, embedding: own_item}
  value_search: {entropy_weight: 0.2, exploration: 0.5, widening: 2, widening_power: 0.25}
  reward: {kind: semantic}
  item_vectors: v.npy
)",
                                "s.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const JobOptions options = OptionsFromSpec(spec->given).value();
  EXPECT_TRUE(options.model.value_head);
  EXPECT_EQ(options.model.value_hidden_size, 48);
  EXPECT_EQ(options.rl.sampler, SamplerKind::kValueGuided);
  EXPECT_EQ(options.rl.reward.kind, RewardKind::kSemantic);
  EXPECT_EQ(options.rl.item_vectors, "v.npy");
  const ValueOptions want{0.5, 0.9, "0.3 0.5 1 1", Bootstrap::kFirstTokenWrong, StepEmbedding::kOwnItem};
  EXPECT_TRUE(options.rl.value == want);
  const ValueSearchOptions search = ResolvedSearch(options.rl, 4);
  EXPECT_EQ(search.initial_width, 8);
  EXPECT_EQ(search.budget, 48);  // what 16 beams of 4 levels forward
  EXPECT_EQ(search.results, 16);
  EXPECT_EQ(search.entropy_weight, 0.2);
  EXPECT_EQ(search.exploration, 0.5);
  EXPECT_EQ(search.widening, 2);
  EXPECT_EQ(search.widening_power, 0.25);
  // The defaults pay for their beam at every size.
  for (int group_size = 2; group_size < 40; ++group_size) {
    for (int levels = 2; levels < 6; ++levels) {
      RlOptions defaults;
      defaults.group_size = group_size;
      EXPECT_TRUE(ResolvedSearch(defaults, levels).Validate(levels).ok()) << group_size << ", " << levels;
    }
  }
}

TEST(OptionsFromSpecTest, ABadSpecIsRefused) {
  v1::JobSpec spec;
  spec.set_kind(v1::JOB_KIND_SFT);
  EXPECT_EQ(OptionsFromSpec(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::learner

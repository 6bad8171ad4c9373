// Settings of the learner's jobs as plain structs: what the job spec (proto/sluice/v1/spec.proto, where every field
// is documented with unit, default and range) means to code that sees no protobuf. learner/rpc fills them.
#ifndef SLUICE_LEARNER_OPTIONS_OPTIONS_H_
#define SLUICE_LEARNER_OPTIONS_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "common/market/market_options.h"
#include "common/types/group.h"
#include "common/value_search/value_search.h"

namespace sluice::learner {

struct OptimizerOptions {
  double learning_rate = 1e-3;
  double warmup_fraction = 0.03;
  double final_fraction = 0;
  double weight_decay = 0.05;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_norm = 1;
  bool operator==(const OptimizerOptions&) const = default;
};

struct ValidationOptions {
  int every = 1;
  int users = 2000;  // 0: all
  int beams = 20;
  int patience = 0;
  bool exclude_history = true;
  bool operator==(const ValidationOptions&) const = default;
};

struct CheckpointOptions {
  int every = 200;
  int keep = 2;
  int keep_best = 0;
  bool behind = true;
  std::string mirror;  // URL; empty: none
  bool operator==(const CheckpointOptions&) const = default;
};

struct ModelOptions {
  std::string path;  // empty: new, from the fields below
  std::string architecture = "qwen3";
  int hidden_size = 128;
  int layers = 4;
  int heads = 4;
  int kv_heads = 4;
  int head_dim = 0;
  int intermediate_size = 0;
  bool tie_embeddings = true;
  double rope_theta = 10000;
  bool merged_encoder = true;
  bool item_embedding = true;
  bool value_head = false;    // rl: also added to a model from `path`
  int value_hidden_size = 0;  // 0: the model's width
  bool operator==(const ModelOptions&) const = default;
};

struct SftOptions {
  int passes = 24;
  int targets_per_step = 650;
  double dropout = 0.1;
  double reverse_probability = 0.3;
  double delete_sequence_probability = 0.5;
  double delete_probability = 0.3;
  double item_loss_weight = 0;  // 0: codes alone
  OptimizerOptions optimizer;
  ValidationOptions validation;
  bool operator==(const SftOptions&) const = default;
};

enum class ObjectiveKind { kGated, kNllOnly, kGrpoOnly, kMixture };
enum class DifficultyMode { kList, kTeacherForced };
enum class GateTies { kPessimistic, kAverage };
enum class GateZone { kGroup, kPool, kQuantile, kOutside };
enum class GateHeadPool { kPool, kGroup };
enum class GateControl { kNone, kRandom, kEqualDose, kThin };
enum class GateKind { kAdaGrpo, kHistory, kOwnCross, kPooled, kCombined, kOracle };
enum class GateSingleTest { kHistory, kOwnCross };
enum class Mixing { kAdditive, kConvex };
enum class RewardKind { kRanker, kRule, kRanking, kRankingOnly, kPrefix, kSemantic };
// The denominator of the ranking reward.
enum class RankingDenominator {
  kAllSlots,       // all G places, the target's own included: what ReRe's released code does
  kNegativesOnly,  // the places of the negatives: the equation as printed
};
// The ranking reward of a group without the target.
enum class RankingNoHit {
  kZero,      // 0 everywhere, so the group moves nothing: the released code
  kPenalize,  // negatives are penalised as in any other group: the equation as printed
};
enum class AdvantageKind { kZScore, kRecast };
enum class SiblingMean { kPerNode, kPerCandidate, kPerActiveToken };
enum class TokenMean { kGroup, kStep };
enum class ReferenceKind { kNone, kFrozen, kMixed };
enum class GateNormalization { kAll, kAdmitted };
enum class NllReduction { kMean, kSum };
// Which events the prompts of an rl job are drawn from.
enum class PromptSplit { kTrain, kValidation, kTest, kReserved };
enum class OnFailure { kNllOnly, kHold, kFail };

struct GateOptions {
  double tau = 0.3;
  double rho = 0.5;
  int negatives = 4;
  DifficultyMode difficulty = DifficultyMode::kList;
  GateTies ties = GateTies::kPessimistic;
  GateZone zone = GateZone::kGroup;
  GateHeadPool head_pool = GateHeadPool::kPool;
  bool use_difficulty = true;
  bool use_head = true;
  bool use_suppression = true;
  GateNormalization normalization = GateNormalization::kAll;
  GateControl control = GateControl::kNone;
  double control_rate = 0;  // 0: the step's own
  GateKind kind = GateKind::kAdaGrpo;
  std::optional<double> threshold;  // absent: the kind's own (gate.h)
  int history_items = 10;
  GateSingleTest single_test = GateSingleTest::kHistory;
  double pool_weight = 0.25;
  int pool_groups = 30;
  double pool_decay = 0.99;
  double target_dose = 0;  // 0: lambda is fixed
  double dose_range = 4;
  bool operator==(const GateOptions&) const = default;
};

// What the policy-gradient term is a function of; learner/objective/policy_terms.h has the equations.
enum class PolicyLossKind { kReinforce, kPpo, kTruncated, kEcpo, kGbpo, kSaGcpo };
enum class RatioLevel { kToken, kSequenceMean, kSequence };

struct PolicyLossOptions {
  PolicyLossKind kind = PolicyLossKind::kReinforce;
  RatioLevel ratio = RatioLevel::kToken;
  double clip_low = 0.2;
  double clip_high = 0.2;
  double truncation = 2;
  double ecpo_delta = 0.1;
  double soft_positive = 1;
  double soft_negative = 0.95;
  TokenMean mean = TokenMean::kGroup;
  bool operator==(const PolicyLossOptions&) const = default;
};

struct KlOptions {
  double beta = 0;
  ReferenceKind reference = ReferenceKind::kNone;
  int mix_every = 512;
  double mix = 0.6;
  bool operator==(const KlOptions&) const = default;
};

struct AdvantageOptions {
  AdvantageKind kind = AdvantageKind::kZScore;
  double global_weight = 1;
  double sibling_weight = 0;
  SiblingMean sibling_mean = SiblingMean::kPerNode;
  bool target_bound = false;
  double window_rank = 0;  // 0: no window
  double window_temperature = 1;
  double window_threshold = 0;
  bool operator==(const AdvantageOptions&) const = default;
};

enum class NewRankerVersion { kRefuse, kFollow };

// learner/ledger/reward_health.h and reward_watch.h have the meaning.
struct RewardHealthSettings {
  double window_s = 10;
  double silence_s = 15;
  double brownout_share = 0.01;
  double outage_share = 0.5;
  std::optional<double> slow_s;  // absent: half of the deadline
  double probe_s = 5;
  double probe_max_s = 60;
  int successes = 20;
  int ramp_steps = 10;
  double canary_s = 15;
  NewRankerVersion on_new_version = NewRankerVersion::kRefuse;
  bool operator==(const RewardHealthSettings&) const = default;
};

struct RewardOptions {
  RewardKind kind = RewardKind::kRanker;
  std::string ranker = "blend";
  std::string head = "score";
  bool mean_of_items = false;
  double deadline_s = 5;
  RankingDenominator denominator = RankingDenominator::kAllSlots;
  RankingNoHit no_hit = RankingNoHit::kZero;
  std::optional<double> floor;
  bool positive_to_max = false;
  double park_s = 30;
  RewardHealthSettings health;
  bool operator==(const RewardOptions&) const = default;
};

// When a value's target looks ahead.
enum class Bootstrap {
  kAlways,           // y_l = r_l + gamma V(s_{l+1}), the last level y_L = r_L: the paper
  kFirstTokenWrong,  // only where the first token is not the target's; else y_l = r_l: the released code
};
// Whose embedding stands for a prefix that is not the target's.
enum class StepEmbedding {
  kPrefixMean,  // the mean over the group's completions with that prefix: the paper
  kOwnItem,     // the completion's own item: the released code
};

struct ValueOptions {
  double loss_weight = 0;
  double gamma = 0.99;
  std::string step_weights;  // numbers separated by spaces; learner/objective/step_rewards.h reads them
  Bootstrap bootstrap = Bootstrap::kAlways;
  StepEmbedding embedding = StepEmbedding::kPrefixMean;
  bool operator==(const ValueOptions&) const = default;
};

struct RlOptions {
  int steps = 200;
  int groups_per_step = 64;
  int group_size = 16;
  ObjectiveKind objective = ObjectiveKind::kGated;
  Mixing mixing = Mixing::kAdditive;
  double lambda = 3;
  double negative_weight = 0;
  bool target_in_group = true;
  bool exclude_history = true;
  SamplerKind sampler = SamplerKind::kBeam;
  double temperature = 1;
  LogProbSpace grpo_space = LogProbSpace::kTrie;
  LogProbSpace nll_space = LogProbSpace::kFull;
  NllReduction nll_reduction = NllReduction::kMean;
  GateOptions gate;
  RewardOptions reward;
  AdvantageOptions advantage;
  PolicyLossOptions policy_loss;
  KlOptions kl;
  ValueOptions value;
  // Widths and budget 0: ResolvedSearch says what they mean.
  ValueSearchOptions value_search{.initial_width = 0, .results = 0, .budget = 0};
  std::string item_vectors = "policy";
  OptimizerOptions optimizer{.learning_rate = 3e-5};
  ValidationOptions validation{.every = 50};
  double dropout = 0;
  int staleness = 2;
  int lease_groups = 8;
  double lease_deadline_s = 60;
  int max_attempts = 5;
  OnFailure on_reward_outage = OnFailure::kHold;
  double operational_share = 0.2;
  int operational_steps = 50;
  double operational_s = 600;
  PromptSplit prompt_split = PromptSplit::kTrain;
  bool record = false;
  int record_mib = 256;
  bool operator==(const RlOptions&) const = default;
};

// True if the gate looks at scores: every kind but the oracle, and AdaGRPO's unless both of its tests are off.
inline bool GateNeedsScores(const GateOptions& gate) {
  if (gate.kind == GateKind::kAdaGrpo) return gate.use_head || gate.use_suppression;
  return gate.kind != GateKind::kOracle;
}

// True if the gate keeps means over regions from step to step.
inline bool GatePools(const GateOptions& gate) {
  return gate.kind == GateKind::kPooled || gate.kind == GateKind::kCombined;
}

// True if the gate tests the ranker on the prompt's own history.
inline bool GateNeedsHistory(const GateOptions& gate) {
  return gate.kind == GateKind::kHistory ||
         (gate.kind == GateKind::kCombined && gate.single_test == GateSingleTest::kHistory);
}

// True if an rl job has groups scored: only the ranker's reward and the gate's tests of the ranker need that.
inline bool NeedsScores(const RlOptions& options) {
  if (options.objective == ObjectiveKind::kNllOnly) return false;
  return options.reward.kind == RewardKind::kRanker ||
         (options.objective == ObjectiveKind::kGated && GateNeedsScores(options.gate));
}

// True if items of the history are scored beside the group: for the gate, or for the record of one that is scored.
inline bool NeedsHistoryScores(const RlOptions& options) {
  if (!NeedsScores(options)) return false;
  return options.record || (options.objective == ObjectiveKind::kGated && GateNeedsHistory(options.gate));
}

// The search of sampler value_guided for semantic IDs of `levels`: by default half as wide a beam to start with as the
// group is large, and as many forward tokens as a beam of the group's size takes.
inline ValueSearchOptions ResolvedSearch(const RlOptions& options, int levels) {
  ValueSearchOptions search = options.value_search;
  search.results = options.group_size;
  if (search.initial_width == 0) search.initial_width = options.group_size / 2;
  if (search.budget == 0) search.budget = (levels - 1) * options.group_size;
  return search;
}

enum class UserParity { kAll, kEven, kOdd };

struct EvaluateOptions {
  bool test_split = true;  // false: validation
  int users = 0;
  int beams = 50;
  int unconstrained_beams = 10;
  bool exclude_history = true;
  bool baseline = true;
  UserParity user_parity = UserParity::kAll;
  double head_share = 0.5;
  bool operator==(const EvaluateOptions&) const = default;
};

struct SidOptions {
  std::string index;
  std::string item_vectors;
  std::string model;
  int levels = 3;
  int codes = 256;
  bool unique_level = true;
  int vector_dim = 64;
  int iterations = 30;
  bool operator==(const SidOptions&) const = default;
};

struct ExposureBiasOptions {
  double missing = 0;
  double position = 0;
  int slate = 20;
  bool operator==(const ExposureBiasOptions&) const = default;
};

struct RankerTrainingOptions {
  bool sequential = true;
  int hidden_size = 64;
  int layers = 2;
  int heads = 2;
  double dropout = 0.2;
  int passes = 10;
  double learning_rate = 1e-3;
  int batch_users = 128;
  double time_limit_s = 0;
  std::optional<ExposureBiasOptions> bias;  // absent: trained on the log as it is
  bool operator==(const RankerTrainingOptions&) const = default;
};

struct PrepareOptions {
  std::string events;
  std::string format = "auto";  // auto, inter, json, csv
  std::string user_column = "user";
  std::string item_column = "item";
  std::string rating_column;
  std::string timestamp_column = "timestamp";
  std::optional<double> min_rating;
  int min_user_events = 5;
  int min_item_events = 5;
  bool leave_one_out = true;  // false: chronological
  double validation_fraction = 0.1;
  double test_fraction = 0.1;
  int max_history = 20;
  std::string output;
  SidOptions sids;
  RankerTrainingOptions ranker;
  int rl_events = 0;
  std::optional<MarketOptions> market;  // absent: events are read
  bool operator==(const PrepareOptions&) const = default;
};

enum class JobKind { kPrepare, kSft, kRl, kEvaluate };

struct JobOptions {
  std::string name = "job";
  JobKind kind = JobKind::kSft;
  uint64_t seed = 1;
  std::string data;
  double time_limit_s = 0;
  ModelOptions model;
  PrepareOptions prepare;
  SftOptions sft;
  RlOptions rl;
  EvaluateOptions evaluate;
  CheckpointOptions checkpoint;
  bool operator==(const JobOptions&) const = default;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OPTIONS_OPTIONS_H_

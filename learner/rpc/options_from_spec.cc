#include "learner/rpc/options_from_spec.h"

#include <string>

#include "common/spec/spec.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// Enums arrive checked: CompleteSpec refuses any other value.

std::string ArchitectureName(v1::Architecture architecture) {
  switch (architecture) {
    case v1::ARCHITECTURE_QWEN2:
      return "qwen2";
    case v1::ARCHITECTURE_LLAMA:
      return "llama";
    default:
      return "qwen3";
  }
}

std::string FormatName(v1::InputFormat format) {
  switch (format) {
    case v1::INPUT_FORMAT_INTER:
      return "inter";
    case v1::INPUT_FORMAT_JSON:
      return "json";
    case v1::INPUT_FORMAT_CSV:
      return "csv";
    default:
      return "auto";
  }
}

JobKind Convert(v1::JobKind kind) {
  switch (kind) {
    case v1::JOB_KIND_PREPARE:
      return JobKind::kPrepare;
    case v1::JOB_KIND_RL:
      return JobKind::kRl;
    case v1::JOB_KIND_EVALUATE:
      return JobKind::kEvaluate;
    default:
      return JobKind::kSft;
  }
}

ObjectiveKind Convert(v1::Objective objective) {
  switch (objective) {
    case v1::OBJECTIVE_NLL_ONLY:
      return ObjectiveKind::kNllOnly;
    case v1::OBJECTIVE_GRPO_ONLY:
      return ObjectiveKind::kGrpoOnly;
    case v1::OBJECTIVE_MIXTURE:
      return ObjectiveKind::kMixture;
    default:
      return ObjectiveKind::kGated;
  }
}

UserParity Convert(v1::EvaluateSpec::UserParity parity) {
  switch (parity) {
    case v1::EvaluateSpec::USER_PARITY_EVEN:
      return UserParity::kEven;
    case v1::EvaluateSpec::USER_PARITY_ODD:
      return UserParity::kOdd;
    default:
      return UserParity::kAll;
  }
}

PromptSplit Convert(v1::PromptSplit split) {
  switch (split) {
    case v1::PROMPT_SPLIT_VALIDATION:
      return PromptSplit::kValidation;
    case v1::PROMPT_SPLIT_TEST:
      return PromptSplit::kTest;
    case v1::PROMPT_SPLIT_RESERVED:
      return PromptSplit::kReserved;
    default:
      return PromptSplit::kTrain;
  }
}

NewRankerVersion Convert(v1::NewRankerVersion on_new_version) {
  return on_new_version == v1::NEW_RANKER_VERSION_FOLLOW ? NewRankerVersion::kFollow : NewRankerVersion::kRefuse;
}

OnFailure Convert(v1::OnFailure on_failure) {
  switch (on_failure) {
    case v1::ON_FAILURE_NLL_ONLY:
      return OnFailure::kNllOnly;
    case v1::ON_FAILURE_FAIL:
      return OnFailure::kFail;
    default:
      return OnFailure::kHold;
  }
}

SamplerKind Convert(v1::Sampler sampler) {
  switch (sampler) {
    case v1::SAMPLER_SAMPLE:
      return SamplerKind::kSample;
    case v1::SAMPLER_VALUE_GUIDED:
      return SamplerKind::kValueGuided;
    case v1::SAMPLER_DYNAMIC:
      return SamplerKind::kDynamic;
    default:
      return SamplerKind::kBeam;
  }
}

LogProbSpace Convert(v1::LogProbSpace space) {
  return space == v1::LOG_PROB_SPACE_FULL ? LogProbSpace::kFull : LogProbSpace::kTrie;
}

NllReduction Convert(v1::NllReduction reduction) {
  return reduction == v1::NLL_REDUCTION_SUM ? NllReduction::kSum : NllReduction::kMean;
}

DifficultyMode Convert(v1::DifficultyMode mode) {
  return mode == v1::DIFFICULTY_MODE_TEACHER_FORCED ? DifficultyMode::kTeacherForced : DifficultyMode::kList;
}

GateTies Convert(v1::GateTies ties) {
  return ties == v1::GATE_TIES_AVERAGE ? GateTies::kAverage : GateTies::kPessimistic;
}

GateZone Convert(v1::GateZone zone) {
  switch (zone) {
    case v1::GATE_ZONE_POOL:
      return GateZone::kPool;
    case v1::GATE_ZONE_QUANTILE:
      return GateZone::kQuantile;
    case v1::GATE_ZONE_OUTSIDE:
      return GateZone::kOutside;
    default:
      return GateZone::kGroup;
  }
}

GateHeadPool Convert(v1::GateHeadPool pool) {
  return pool == v1::GATE_HEAD_POOL_GROUP ? GateHeadPool::kGroup : GateHeadPool::kPool;
}

GateControl Convert(v1::GateControl control) {
  switch (control) {
    case v1::GATE_CONTROL_RANDOM:
      return GateControl::kRandom;
    case v1::GATE_CONTROL_EQUAL_DOSE:
      return GateControl::kEqualDose;
    case v1::GATE_CONTROL_THIN:
      return GateControl::kThin;
    default:
      return GateControl::kNone;
  }
}

GateKind Convert(v1::GateKind kind) {
  switch (kind) {
    case v1::GATE_KIND_HISTORY:
      return GateKind::kHistory;
    case v1::GATE_KIND_OWN_CROSS:
      return GateKind::kOwnCross;
    case v1::GATE_KIND_POOLED:
      return GateKind::kPooled;
    case v1::GATE_KIND_COMBINED:
      return GateKind::kCombined;
    case v1::GATE_KIND_ORACLE:
      return GateKind::kOracle;
    default:
      return GateKind::kAdaGrpo;
  }
}

GateSingleTest Convert(v1::GateSingleTest test) {
  return test == v1::GATE_SINGLE_TEST_OWN_CROSS ? GateSingleTest::kOwnCross : GateSingleTest::kHistory;
}

Mixing Convert(v1::Mixing mixing) { return mixing == v1::MIXING_CONVEX ? Mixing::kConvex : Mixing::kAdditive; }

RewardKind Convert(v1::RewardKind kind) {
  switch (kind) {
    case v1::REWARD_KIND_RULE:
      return RewardKind::kRule;
    case v1::REWARD_KIND_RANKING:
      return RewardKind::kRanking;
    case v1::REWARD_KIND_RANKING_ONLY:
      return RewardKind::kRankingOnly;
    case v1::REWARD_KIND_PREFIX:
      return RewardKind::kPrefix;
    case v1::REWARD_KIND_SEMANTIC:
      return RewardKind::kSemantic;
    default:
      return RewardKind::kRanker;
  }
}

RankingDenominator Convert(v1::RankingDenominator denominator) {
  return denominator == v1::RANKING_DENOMINATOR_NEGATIVES_ONLY ? RankingDenominator::kNegativesOnly
                                                               : RankingDenominator::kAllSlots;
}

RankingNoHit Convert(v1::RankingNoHit no_hit) {
  return no_hit == v1::RANKING_NO_HIT_PENALIZE ? RankingNoHit::kPenalize : RankingNoHit::kZero;
}

AdvantageKind Convert(v1::AdvantageKind kind) {
  return kind == v1::ADVANTAGE_KIND_RECAST ? AdvantageKind::kRecast : AdvantageKind::kZScore;
}

SiblingMean Convert(v1::SiblingMean mean) {
  switch (mean) {
    case v1::SIBLING_MEAN_PER_CANDIDATE:
      return SiblingMean::kPerCandidate;
    case v1::SIBLING_MEAN_PER_ACTIVE_TOKEN:
      return SiblingMean::kPerActiveToken;
    default:
      return SiblingMean::kPerNode;
  }
}

PolicyLossKind Convert(v1::PolicyLossKind kind) {
  switch (kind) {
    case v1::POLICY_LOSS_KIND_PPO:
      return PolicyLossKind::kPpo;
    case v1::POLICY_LOSS_KIND_TRUNCATED:
      return PolicyLossKind::kTruncated;
    case v1::POLICY_LOSS_KIND_ECPO:
      return PolicyLossKind::kEcpo;
    case v1::POLICY_LOSS_KIND_GBPO:
      return PolicyLossKind::kGbpo;
    case v1::POLICY_LOSS_KIND_SA_GCPO:
      return PolicyLossKind::kSaGcpo;
    default:
      return PolicyLossKind::kReinforce;
  }
}

RatioLevel Convert(v1::RatioLevel level) {
  switch (level) {
    case v1::RATIO_LEVEL_SEQUENCE_MEAN:
      return RatioLevel::kSequenceMean;
    case v1::RATIO_LEVEL_SEQUENCE:
      return RatioLevel::kSequence;
    default:
      return RatioLevel::kToken;
  }
}

TokenMean Convert(v1::TokenMean mean) { return mean == v1::TOKEN_MEAN_STEP ? TokenMean::kStep : TokenMean::kGroup; }

ReferenceKind Convert(v1::ReferenceKind kind) {
  switch (kind) {
    case v1::REFERENCE_KIND_FROZEN:
      return ReferenceKind::kFrozen;
    case v1::REFERENCE_KIND_MIXED:
      return ReferenceKind::kMixed;
    default:
      return ReferenceKind::kNone;
  }
}

GateNormalization Convert(v1::GateNormalization normalization) {
  return normalization == v1::GATE_NORMALIZATION_ADMITTED ? GateNormalization::kAdmitted : GateNormalization::kAll;
}

void Copy(const v1::OptimizerSpec& spec, OptimizerOptions* options) {
  if (spec.has_learning_rate()) options->learning_rate = spec.learning_rate();
  if (spec.has_warmup_fraction()) options->warmup_fraction = spec.warmup_fraction();
  if (spec.has_final_fraction()) options->final_fraction = spec.final_fraction();
  if (spec.has_weight_decay()) options->weight_decay = spec.weight_decay();
  if (spec.has_beta1()) options->beta1 = spec.beta1();
  if (spec.has_beta2()) options->beta2 = spec.beta2();
  if (spec.has_clip_norm()) options->clip_norm = spec.clip_norm();
}

void Copy(const v1::ValidationSpec& spec, ValidationOptions* options) {
  if (spec.has_every()) options->every = spec.every();
  if (spec.has_users()) options->users = spec.users();
  if (spec.has_beams()) options->beams = spec.beams();
  if (spec.has_patience()) options->patience = spec.patience();
  if (spec.has_exclude_history()) options->exclude_history = spec.exclude_history();
}

void Copy(const v1::CheckpointSpec& spec, CheckpointOptions* options) {
  if (spec.has_every()) options->every = spec.every();
  if (spec.has_keep()) options->keep = spec.keep();
  if (spec.has_keep_best()) options->keep_best = spec.keep_best();
  if (spec.has_behind()) options->behind = spec.behind();
  if (spec.has_mirror()) options->mirror = spec.mirror();
}

void Copy(const v1::ModelSpec& spec, ModelOptions* options) {
  if (spec.has_path()) options->path = spec.path();
  if (spec.has_architecture()) options->architecture = ArchitectureName(spec.architecture());
  if (spec.has_hidden_size()) options->hidden_size = spec.hidden_size();
  if (spec.has_layers()) options->layers = spec.layers();
  if (spec.has_heads()) options->heads = spec.heads();
  if (spec.has_kv_heads()) options->kv_heads = spec.kv_heads();
  if (spec.has_head_dim()) options->head_dim = spec.head_dim();
  if (spec.has_intermediate_size()) options->intermediate_size = spec.intermediate_size();
  if (spec.has_tie_embeddings()) options->tie_embeddings = spec.tie_embeddings();
  if (spec.has_rope_theta()) options->rope_theta = spec.rope_theta();
  if (spec.has_encoder()) options->merged_encoder = spec.encoder() == v1::PROMPT_ENCODER_MERGED;
  if (spec.has_item_embedding()) options->item_embedding = spec.item_embedding();
  if (spec.has_value_head()) options->value_head = spec.value_head();
  if (spec.has_value_hidden_size()) options->value_hidden_size = spec.value_hidden_size();
}

void Copy(const v1::SidSpec& spec, SidOptions* options) {
  if (spec.has_index()) options->index = spec.index();
  if (spec.has_item_vectors()) options->item_vectors = spec.item_vectors();
  if (spec.has_model()) options->model = spec.model();
  if (spec.has_levels()) options->levels = spec.levels();
  if (spec.has_codes()) options->codes = spec.codes();
  if (spec.has_unique_level()) options->unique_level = spec.unique_level();
  if (spec.has_vector_dim()) options->vector_dim = spec.vector_dim();
  if (spec.has_iterations()) options->iterations = spec.iterations();
}

void Copy(const v1::ExposureBiasSpec& spec, ExposureBiasOptions* options) {
  if (spec.has_missing()) options->missing = spec.missing();
  if (spec.has_position()) options->position = spec.position();
  if (spec.has_slate()) options->slate = spec.slate();
}

void Copy(const v1::RankerTrainingSpec& spec, RankerTrainingOptions* options) {
  if (spec.has_sequential()) options->sequential = spec.sequential();
  if (spec.has_hidden_size()) options->hidden_size = spec.hidden_size();
  if (spec.has_layers()) options->layers = spec.layers();
  if (spec.has_heads()) options->heads = spec.heads();
  if (spec.has_dropout()) options->dropout = spec.dropout();
  if (spec.has_passes()) options->passes = spec.passes();
  if (spec.has_learning_rate()) options->learning_rate = spec.learning_rate();
  if (spec.has_batch_users()) options->batch_users = spec.batch_users();
  if (spec.has_time_limit_s()) options->time_limit_s = spec.time_limit_s();
  if (spec.has_bias()) Copy(spec.bias(), &options->bias.emplace());
}

void Copy(const v1::MarketSpec& spec, MarketOptions* options) {
  if (spec.has_regions()) options->regions = spec.regions();
  if (spec.has_cells()) options->cells = spec.cells();
  if (spec.has_items_per_cell()) options->items_per_cell = spec.items_per_cell();
  if (spec.has_leaf_codes()) options->leaf_codes = spec.leaf_codes();
  if (spec.has_dim()) options->dim = spec.dim();
  if (spec.has_cell_weight()) options->cell_weight = spec.cell_weight();
  if (spec.has_item_weight()) options->item_weight = spec.item_weight();
  if (spec.has_popularity_exponent()) options->popularity_exponent = spec.popularity_exponent();
  if (spec.has_utility_scale()) options->utility_scale = spec.utility_scale();
  if (spec.has_second_weight()) options->second_weight = spec.second_weight();
  if (spec.has_own_weight()) options->own_weight = spec.own_weight();
  if (spec.has_slate()) options->slate = spec.slate();
  if (spec.has_position_bias()) options->position_bias = spec.position_bias();
  if (spec.has_history()) options->history = spec.history();
  if (spec.has_sft_users()) options->sft_users = spec.sft_users();
  if (spec.has_rl_users()) options->rl_users = spec.rl_users();
  if (spec.has_heldout_users()) options->heldout_users = spec.heldout_users();
}

void Copy(const v1::PrepareSpec& spec, PrepareOptions* options) {
  if (spec.has_events()) options->events = spec.events();
  if (spec.has_format()) options->format = FormatName(spec.format());
  if (spec.has_user_column()) options->user_column = spec.user_column();
  if (spec.has_item_column()) options->item_column = spec.item_column();
  if (spec.has_rating_column()) options->rating_column = spec.rating_column();
  if (spec.has_timestamp_column()) options->timestamp_column = spec.timestamp_column();
  if (spec.has_min_rating()) options->min_rating = spec.min_rating();
  if (spec.has_min_user_events()) options->min_user_events = spec.min_user_events();
  if (spec.has_min_item_events()) options->min_item_events = spec.min_item_events();
  if (spec.has_split()) options->leave_one_out = spec.split() == v1::SPLIT_KIND_LEAVE_ONE_OUT;
  if (spec.has_validation_fraction()) options->validation_fraction = spec.validation_fraction();
  if (spec.has_test_fraction()) options->test_fraction = spec.test_fraction();
  if (spec.has_max_history()) options->max_history = spec.max_history();
  if (spec.has_output()) options->output = spec.output();
  Copy(spec.sids(), &options->sids);
  Copy(spec.ranker(), &options->ranker);
  if (spec.has_rl_events()) options->rl_events = spec.rl_events();
  if (spec.has_market()) Copy(spec.market(), &options->market.emplace());
}

void Copy(const v1::SftSpec& spec, SftOptions* options) {
  if (spec.has_passes()) options->passes = spec.passes();
  if (spec.has_targets_per_step()) options->targets_per_step = spec.targets_per_step();
  if (spec.has_dropout()) options->dropout = spec.dropout();
  if (spec.has_reverse_probability()) options->reverse_probability = spec.reverse_probability();
  if (spec.has_delete_sequence_probability()) options->delete_sequence_probability = spec.delete_sequence_probability();
  if (spec.has_delete_probability()) options->delete_probability = spec.delete_probability();
  if (spec.has_item_loss_weight()) options->item_loss_weight = spec.item_loss_weight();
  Copy(spec.optimizer(), &options->optimizer);
  Copy(spec.validation(), &options->validation);
}

void Copy(const v1::GateSpec& spec, GateOptions* options) {
  if (spec.has_tau()) options->tau = spec.tau();
  if (spec.has_rho()) options->rho = spec.rho();
  if (spec.has_negatives()) options->negatives = spec.negatives();
  if (spec.has_difficulty()) options->difficulty = Convert(spec.difficulty());
  if (spec.has_ties()) options->ties = Convert(spec.ties());
  if (spec.has_zone()) options->zone = Convert(spec.zone());
  if (spec.has_use_difficulty()) options->use_difficulty = spec.use_difficulty();
  if (spec.has_use_head()) options->use_head = spec.use_head();
  if (spec.has_use_suppression()) options->use_suppression = spec.use_suppression();
  if (spec.has_normalization()) options->normalization = Convert(spec.normalization());
  if (spec.has_head_pool()) options->head_pool = Convert(spec.head_pool());
  if (spec.has_control()) options->control = Convert(spec.control());
  if (spec.has_control_rate()) options->control_rate = spec.control_rate();
  if (spec.has_kind()) options->kind = Convert(spec.kind());
  if (spec.has_threshold()) options->threshold = spec.threshold();
  if (spec.has_history_items()) options->history_items = spec.history_items();
  if (spec.has_single_test()) options->single_test = Convert(spec.single_test());
  if (spec.has_pool_weight()) options->pool_weight = spec.pool_weight();
  if (spec.has_pool_groups()) options->pool_groups = spec.pool_groups();
  if (spec.has_pool_decay()) options->pool_decay = spec.pool_decay();
  if (spec.has_target_dose()) options->target_dose = spec.target_dose();
  if (spec.has_dose_range()) options->dose_range = spec.dose_range();
}

void Copy(const v1::RewardHealthSpec& spec, RewardHealthSettings* options) {
  if (spec.has_window_s()) options->window_s = spec.window_s();
  if (spec.has_silence_s()) options->silence_s = spec.silence_s();
  if (spec.has_brownout_share()) options->brownout_share = spec.brownout_share();
  if (spec.has_outage_share()) options->outage_share = spec.outage_share();
  if (spec.has_slow_s()) options->slow_s = spec.slow_s();
  if (spec.has_probe_s()) options->probe_s = spec.probe_s();
  if (spec.has_probe_max_s()) options->probe_max_s = spec.probe_max_s();
  if (spec.has_successes()) options->successes = spec.successes();
  if (spec.has_ramp_steps()) options->ramp_steps = spec.ramp_steps();
  if (spec.has_canary_s()) options->canary_s = spec.canary_s();
  if (spec.has_on_new_version()) options->on_new_version = Convert(spec.on_new_version());
}

void Copy(const v1::RewardSpec& spec, RewardOptions* options) {
  if (spec.has_ranker()) options->ranker = spec.ranker();
  if (spec.has_head()) options->head = spec.head();
  if (spec.has_mean_of_items()) options->mean_of_items = spec.mean_of_items();
  if (spec.has_deadline_s()) options->deadline_s = spec.deadline_s();
  if (spec.has_kind()) options->kind = Convert(spec.kind());
  if (spec.has_denominator()) options->denominator = Convert(spec.denominator());
  if (spec.has_no_hit()) options->no_hit = Convert(spec.no_hit());
  if (spec.has_floor()) options->floor = spec.floor();
  if (spec.has_positive_to_max()) options->positive_to_max = spec.positive_to_max();
  if (spec.has_park_s()) options->park_s = spec.park_s();
  Copy(spec.health(), &options->health);
}

void Copy(const v1::AdvantageSpec& spec, AdvantageOptions* options) {
  if (spec.has_kind()) options->kind = Convert(spec.kind());
  if (spec.has_global_weight()) options->global_weight = spec.global_weight();
  if (spec.has_sibling_weight()) options->sibling_weight = spec.sibling_weight();
  if (spec.has_sibling_mean()) options->sibling_mean = Convert(spec.sibling_mean());
  if (spec.has_target_bound()) options->target_bound = spec.target_bound();
  if (spec.has_window_rank()) options->window_rank = spec.window_rank();
  if (spec.has_window_temperature()) options->window_temperature = spec.window_temperature();
  if (spec.has_window_threshold()) options->window_threshold = spec.window_threshold();
}

void Copy(const v1::PolicyLossSpec& spec, PolicyLossOptions* options) {
  if (spec.has_kind()) options->kind = Convert(spec.kind());
  if (spec.has_ratio()) options->ratio = Convert(spec.ratio());
  if (spec.has_clip_low()) options->clip_low = spec.clip_low();
  if (spec.has_clip_high()) options->clip_high = spec.clip_high();
  if (spec.has_truncation()) options->truncation = spec.truncation();
  if (spec.has_ecpo_delta()) options->ecpo_delta = spec.ecpo_delta();
  if (spec.has_soft_positive()) options->soft_positive = spec.soft_positive();
  if (spec.has_soft_negative()) options->soft_negative = spec.soft_negative();
  if (spec.has_mean()) options->mean = Convert(spec.mean());
}

void Copy(const v1::KlSpec& spec, KlOptions* options) {
  if (spec.has_beta()) options->beta = spec.beta();
  if (spec.has_reference()) options->reference = Convert(spec.reference());
  if (spec.has_mix_every()) options->mix_every = spec.mix_every();
  if (spec.has_mix()) options->mix = spec.mix();
}

Bootstrap Convert(v1::ValueBootstrap bootstrap) {
  return bootstrap == v1::VALUE_BOOTSTRAP_FIRST_TOKEN_WRONG ? Bootstrap::kFirstTokenWrong : Bootstrap::kAlways;
}

StepEmbedding Convert(v1::ValueEmbedding embedding) {
  return embedding == v1::VALUE_EMBEDDING_OWN_ITEM ? StepEmbedding::kOwnItem : StepEmbedding::kPrefixMean;
}

void Copy(const v1::ValueSpec& spec, ValueOptions* options) {
  if (spec.has_loss_weight()) options->loss_weight = spec.loss_weight();
  if (spec.has_gamma()) options->gamma = spec.gamma();
  if (spec.has_step_weights()) options->step_weights = spec.step_weights();
  if (spec.has_bootstrap()) options->bootstrap = Convert(spec.bootstrap());
  if (spec.has_embedding()) options->embedding = Convert(spec.embedding());
}

void Copy(const v1::ValueSearchSpec& spec, ValueSearchOptions* options) {
  if (spec.has_initial_width()) options->initial_width = spec.initial_width();
  if (spec.has_budget()) options->budget = spec.budget();
  if (spec.has_entropy_weight()) options->entropy_weight = spec.entropy_weight();
  if (spec.has_exploration()) options->exploration = spec.exploration();
  if (spec.has_widening()) options->widening = spec.widening();
  if (spec.has_widening_power()) options->widening_power = spec.widening_power();
}

void Copy(const v1::RlSpec& spec, RlOptions* options) {
  if (spec.has_steps()) options->steps = spec.steps();
  if (spec.has_groups_per_step()) options->groups_per_step = spec.groups_per_step();
  if (spec.has_group_size()) options->group_size = spec.group_size();
  if (spec.has_objective()) options->objective = Convert(spec.objective());
  if (spec.has_lambda()) options->lambda = spec.lambda();
  if (spec.has_negative_weight()) options->negative_weight = spec.negative_weight();
  if (spec.has_target_in_group()) options->target_in_group = spec.target_in_group();
  if (spec.has_exclude_history()) options->exclude_history = spec.exclude_history();
  if (spec.has_sampler()) options->sampler = Convert(spec.sampler());
  if (spec.has_temperature()) options->temperature = spec.temperature();
  if (spec.has_grpo_space()) options->grpo_space = Convert(spec.grpo_space());
  if (spec.has_nll_space()) options->nll_space = Convert(spec.nll_space());
  if (spec.has_nll_reduction()) options->nll_reduction = Convert(spec.nll_reduction());
  Copy(spec.gate(), &options->gate);
  Copy(spec.reward(), &options->reward);
  if (spec.has_mixing()) options->mixing = Convert(spec.mixing());
  Copy(spec.advantage(), &options->advantage);
  Copy(spec.policy_loss(), &options->policy_loss);
  Copy(spec.kl(), &options->kl);
  Copy(spec.value(), &options->value);
  Copy(spec.value_search(), &options->value_search);
  if (spec.has_item_vectors()) options->item_vectors = spec.item_vectors();
  Copy(spec.optimizer(), &options->optimizer);
  Copy(spec.validation(), &options->validation);
  if (spec.has_dropout()) options->dropout = spec.dropout();
  if (spec.has_staleness()) options->staleness = spec.staleness();
  if (spec.has_lease_groups()) options->lease_groups = spec.lease_groups();
  if (spec.has_lease_deadline_s()) options->lease_deadline_s = spec.lease_deadline_s();
  if (spec.has_max_attempts()) options->max_attempts = spec.max_attempts();
  if (spec.has_on_reward_outage()) options->on_reward_outage = Convert(spec.on_reward_outage());
  if (spec.has_operational_share()) options->operational_share = spec.operational_share();
  if (spec.has_operational_steps()) options->operational_steps = spec.operational_steps();
  if (spec.has_operational_s()) options->operational_s = spec.operational_s();
  if (spec.has_prompt_split()) options->prompt_split = Convert(spec.prompt_split());
  if (spec.has_record()) options->record = spec.record();
  if (spec.has_record_mib()) options->record_mib = spec.record_mib();
}

void Copy(const v1::EvaluateSpec& spec, EvaluateOptions* options) {
  if (spec.has_split()) options->test_split = spec.split() == v1::EvaluateSpec::SPLIT_TEST;
  if (spec.has_users()) options->users = spec.users();
  if (spec.has_beams()) options->beams = spec.beams();
  if (spec.has_unconstrained_beams()) options->unconstrained_beams = spec.unconstrained_beams();
  if (spec.has_exclude_history()) options->exclude_history = spec.exclude_history();
  if (spec.has_baseline()) options->baseline = spec.baseline();
  if (spec.has_user_parity()) options->user_parity = Convert(spec.user_parity());
  if (spec.has_head_share()) options->head_share = spec.head_share();
}

}  // namespace

JobOptions CopyOptions(const v1::JobSpec& effective) {
  JobOptions options;
  if (effective.has_name()) options.name = effective.name();
  if (effective.has_kind()) options.kind = Convert(effective.kind());
  if (effective.has_seed()) options.seed = effective.seed();
  if (effective.has_data()) options.data = effective.data();
  if (effective.has_time_limit_s()) options.time_limit_s = effective.time_limit_s();
  Copy(effective.model(), &options.model);
  Copy(effective.prepare(), &options.prepare);
  Copy(effective.sft(), &options.sft);
  Copy(effective.rl(), &options.rl);
  Copy(effective.evaluate(), &options.evaluate);
  Copy(effective.checkpoint(), &options.checkpoint);
  return options;
}

absl::StatusOr<JobOptions> OptionsFromSpec(const v1::JobSpec& spec) {
  SLUICE_ASSIGN_OR_RETURN(const v1::JobSpec effective, CompleteSpec(spec));
  return CopyOptions(effective);
}

}  // namespace sluice::learner

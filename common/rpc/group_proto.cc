#include "common/rpc/group_proto.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

template <typename Repeated, typename T>
void Copy(const std::vector<T>& from, Repeated* to) {
  to->Assign(from.begin(), from.end());
}

template <typename Repeated>
auto Vector(const Repeated& from) {
  return std::vector<typename Repeated::value_type>(from.begin(), from.end());
}

v1::ScoreStatus StatusToProto(ScoreStatus status) {
  switch (status) {
    case ScoreStatus::kOk:
      return v1::SCORE_STATUS_OK;
    case ScoreStatus::kUnavailable:
      return v1::SCORE_STATUS_UNAVAILABLE;
    case ScoreStatus::kInvalid:
      return v1::SCORE_STATUS_INVALID;
    case ScoreStatus::kRejected:
      return v1::SCORE_STATUS_REJECTED;
    case ScoreStatus::kNotAsked:
      return v1::SCORE_STATUS_NOT_ASKED;
  }
  return v1::SCORE_STATUS_UNSPECIFIED;
}

absl::StatusOr<ScoreStatus> StatusFromProto(v1::ScoreStatus status) {
  switch (status) {
    case v1::SCORE_STATUS_OK:
      return ScoreStatus::kOk;
    case v1::SCORE_STATUS_UNAVAILABLE:
      return ScoreStatus::kUnavailable;
    case v1::SCORE_STATUS_INVALID:
      return ScoreStatus::kInvalid;
    case v1::SCORE_STATUS_REJECTED:
      return ScoreStatus::kRejected;
    case v1::SCORE_STATUS_NOT_ASKED:
      return ScoreStatus::kNotAsked;
    default:
      return absl::InvalidArgumentError(absl::StrCat("score_status ", static_cast<int>(status), " is not known"));
  }
}

}  // namespace

void ToProto(const Completion& completion, v1::Completion* proto) {
  Copy(completion.tokens, proto->mutable_tokens());
  proto->set_leaf(completion.leaf);
  Copy(completion.log_probs_full, proto->mutable_log_probs_full());
  Copy(completion.log_probs_trie, proto->mutable_log_probs_trie());
}

Completion FromProto(const v1::Completion& proto) {
  Completion completion;
  completion.tokens = Vector(proto.tokens());
  completion.leaf = proto.leaf();
  completion.log_probs_full = Vector(proto.log_probs_full());
  completion.log_probs_trie = Vector(proto.log_probs_trie());
  return completion;
}

void ToProto(const ScoredGroup& group, v1::ScoredGroup* proto) {
  proto->set_ordinal(group.ordinal);
  proto->set_attempt(group.attempt);
  proto->set_lease_id(group.lease_id);
  proto->set_behavior_version(group.behavior_version);
  proto->set_catalog_version(group.catalog_version);
  for (const Completion& completion : group.completions) ToProto(completion, proto->add_completions());
  proto->set_score_status(StatusToProto(group.score_status));
  proto->set_score_error(group.score_error);
  proto->set_ranker_version(group.ranker_version);
  for (const ScoreHead& head : group.heads) {
    v1::ScoreHead* to = proto->add_heads();
    to->set_name(head.name);
    Copy(head.completion_scores, to->mutable_completion_scores());
    to->set_target_score(head.target_score);
    Copy(head.negative_scores, to->mutable_negative_scores());
    Copy(head.history_scores, to->mutable_history_scores());
  }
  Copy(group.negative_leaves, proto->mutable_negative_leaves());
  Copy(group.target_log_probs_full, proto->mutable_target_log_probs_full());
  Copy(group.target_log_probs_trie, proto->mutable_target_log_probs_trie());
  proto->set_sample_seconds(group.sample_seconds);
  proto->set_score_seconds(group.score_seconds);
  Copy(group.history_items, proto->mutable_history_items());
}

absl::StatusOr<ScoredGroup> FromProto(const v1::ScoredGroup& proto) {
  ScoredGroup group;
  group.ordinal = proto.ordinal();
  group.attempt = proto.attempt();
  group.lease_id = proto.lease_id();
  group.behavior_version = proto.behavior_version();
  group.catalog_version = proto.catalog_version();
  for (const v1::Completion& completion : proto.completions()) group.completions.push_back(FromProto(completion));
  SLUICE_ASSIGN_OR_RETURN(group.score_status, StatusFromProto(proto.score_status()));
  group.score_error = proto.score_error();
  group.ranker_version = proto.ranker_version();
  for (const v1::ScoreHead& from : proto.heads()) {
    ScoreHead head;
    head.name = from.name();
    head.completion_scores = Vector(from.completion_scores());
    head.target_score = from.target_score();
    head.negative_scores = Vector(from.negative_scores());
    head.history_scores = Vector(from.history_scores());
    group.heads.push_back(std::move(head));
  }
  group.negative_leaves = Vector(proto.negative_leaves());
  group.target_log_probs_full = Vector(proto.target_log_probs_full());
  group.target_log_probs_trie = Vector(proto.target_log_probs_trie());
  group.sample_seconds = proto.sample_seconds();
  group.score_seconds = proto.score_seconds();
  group.history_items = Vector(proto.history_items());
  return group;
}

void ToProto(const DecodedPrompt& decoded, v1::DecodedPrompt* proto) {
  proto->set_ordinal(decoded.ordinal);
  proto->set_lease_id(decoded.lease_id);
  proto->set_behavior_version(decoded.behavior_version);
  for (const Completion& beam : decoded.constrained) ToProto(beam, proto->add_constrained());
  for (const Completion& beam : decoded.unconstrained) ToProto(beam, proto->add_unconstrained());
}

DecodedPrompt FromProto(const v1::DecodedPrompt& proto) {
  DecodedPrompt decoded;
  decoded.ordinal = proto.ordinal();
  decoded.lease_id = proto.lease_id();
  decoded.behavior_version = proto.behavior_version();
  for (const v1::Completion& beam : proto.constrained()) decoded.constrained.push_back(FromProto(beam));
  for (const v1::Completion& beam : proto.unconstrained()) decoded.unconstrained.push_back(FromProto(beam));
  return decoded;
}

void ToProto(const Prompt& prompt, v1::PromptToSample* proto) {
  proto->set_ordinal(prompt.ordinal);
  proto->set_attempt(prompt.attempt);
  proto->set_user(prompt.user);
  Copy(prompt.history, proto->mutable_history());
  proto->set_target(prompt.target);
  Copy(prompt.excluded, proto->mutable_excluded());
  Copy(prompt.leaves, proto->mutable_leaves());
}

Prompt FromProto(const v1::PromptToSample& proto) {
  Prompt prompt;
  prompt.ordinal = proto.ordinal();
  prompt.attempt = proto.attempt();
  prompt.user = proto.user();
  prompt.history = Vector(proto.history());
  prompt.target = proto.target();
  prompt.excluded = Vector(proto.excluded());
  prompt.leaves = Vector(proto.leaves());
  return prompt;
}

v1::Sampler ToProto(SamplerKind sampler) {
  switch (sampler) {
    case SamplerKind::kBeam:
      return v1::SAMPLER_BEAM;
    case SamplerKind::kSample:
      return v1::SAMPLER_SAMPLE;
    case SamplerKind::kValueGuided:
      return v1::SAMPLER_VALUE_GUIDED;
    case SamplerKind::kDynamic:
      return v1::SAMPLER_DYNAMIC;
  }
  return v1::SAMPLER_UNSPECIFIED;
}

absl::StatusOr<SamplerKind> FromProto(v1::Sampler sampler) {
  switch (sampler) {
    case v1::SAMPLER_BEAM:
      return SamplerKind::kBeam;
    case v1::SAMPLER_SAMPLE:
      return SamplerKind::kSample;
    case v1::SAMPLER_VALUE_GUIDED:
      return SamplerKind::kValueGuided;
    case v1::SAMPLER_DYNAMIC:
      return SamplerKind::kDynamic;
    default:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat("sampler ", static_cast<int>(sampler), " is not known"));
}

v1::LogProbSpace ToProto(LogProbSpace space) {
  return space == LogProbSpace::kFull ? v1::LOG_PROB_SPACE_FULL : v1::LOG_PROB_SPACE_TRIE;
}

absl::StatusOr<LogProbSpace> FromProto(v1::LogProbSpace space) {
  if (space == v1::LOG_PROB_SPACE_FULL) return LogProbSpace::kFull;
  if (space == v1::LOG_PROB_SPACE_TRIE) return LogProbSpace::kTrie;
  return absl::InvalidArgumentError(absl::StrCat("log-probability space ", static_cast<int>(space), " is not known"));
}

}  // namespace sluice

#include "actor/rpc/rollout_convert.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/group_proto.h"
#include "common/rpc/timestamp.h"
#include "common/status/status.h"

namespace sluice::actor {
namespace {

// Far above what any spec allows; keeps a damaged message from asking for the impossible.
constexpr uint32_t kMaxWidth = 1 << 16;

absl::Status CheckWidth(absl::string_view what, uint32_t value, uint32_t least) {
  if (value >= least && value <= kMaxWidth) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": want ", least, " to ", kMaxWidth, ", got ", value));
}

absl::Status CheckPositive(absl::string_view what, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": want a positive number, got ", value));
}

absl::StatusOr<ValueSearchOptions> FromProto(const v1::ValueSearch& proto) {
  SLUICE_RETURN_IF_ERROR(CheckWidth("value_search.initial_width", proto.initial_width(), 1));
  SLUICE_RETURN_IF_ERROR(CheckWidth("value_search.budget", proto.budget(), 1));
  ValueSearchOptions search;
  search.initial_width = static_cast<int>(proto.initial_width());
  search.budget = static_cast<int>(proto.budget());
  search.entropy_weight = proto.entropy_weight();
  search.exploration = proto.exploration();
  search.widening = proto.widening();
  search.widening_power = proto.widening_power();
  for (const double number : {search.entropy_weight, search.exploration, search.widening, search.widening_power}) {
    if (!std::isfinite(number)) return absl::InvalidArgumentError("value_search: a number is not finite");
  }
  // The rest depends on the catalog's levels and is checked with them; a search of one level needs the least.
  if (const absl::Status status = search.Validate(1); !status.ok()) return Annotate(status, "value_search");
  return search;
}

v1::ActorMessage StartResult(const LeaseBlock& block) {
  v1::ActorMessage message;
  message.mutable_result()->set_job_id(block.job_id);
  message.mutable_result()->set_epoch(block.epoch);
  return message;
}

void Fill(uint64_t ordinal, uint32_t attempt, uint64_t lease_id, const Abandoned& abandoned, v1::Abandoned* proto) {
  proto->set_ordinal(ordinal);
  proto->set_attempt(attempt);
  proto->set_lease_id(lease_id);
  proto->set_reason(abandoned.reason);
  proto->set_bad_data(abandoned.bad_data);
}

}  // namespace

absl::StatusOr<JobContext> FromProto(const v1::Welcome& proto) {
  JobContext job;
  job.job_id = proto.job_id();
  job.epoch = proto.epoch();
  job.model_config_json = proto.model_config_json();
  job.catalog_version = proto.catalog_version();
  SLUICE_ASSIGN_OR_RETURN(job.decode.sampler, sluice::FromProto(proto.decode().sampler()));
  SLUICE_RETURN_IF_ERROR(CheckWidth("group_size", proto.decode().group_size(), 1));
  job.decode.group_size = static_cast<int>(proto.decode().group_size());
  SLUICE_RETURN_IF_ERROR(CheckPositive("temperature", proto.decode().temperature()));
  job.decode.temperature = proto.decode().temperature();
  job.decode.exclude_history = proto.decode().exclude_history();
  SLUICE_ASSIGN_OR_RETURN(job.decode.beam_space, sluice::FromProto(proto.decode().beam_space()));
  if (job.decode.sampler == SamplerKind::kValueGuided) {
    SLUICE_ASSIGN_OR_RETURN(job.decode.value_search, FromProto(proto.decode().value_search()));
  }
  job.reward.enabled = proto.reward().enabled();
  job.reward.ranker = proto.reward().ranker();
  SLUICE_RETURN_IF_ERROR(CheckWidth("negatives", proto.reward().negatives(), 0));
  job.reward.negatives = static_cast<int>(proto.reward().negatives());
  job.reward.mean_of_items = proto.reward().mean_of_items();
  if (job.reward.enabled) SLUICE_RETURN_IF_ERROR(CheckPositive("reward.deadline_s", proto.reward().deadline_s()));
  job.reward.deadline = absl::Seconds(proto.reward().deadline_s());
  SLUICE_RETURN_IF_ERROR(CheckWidth("history_items", proto.reward().history_items(), 0));
  job.reward.history_items = static_cast<int>(proto.reward().history_items());
  return job;
}

absl::StatusOr<LeaseBlock> FromProto(const v1::Lease& proto, absl::Time received) {
  LeaseBlock block;
  block.job_id = proto.job_id();
  block.epoch = proto.epoch();
  block.lease_id = proto.lease_id();
  switch (proto.kind()) {
    case v1::LEASE_KIND_ROLLOUT:
      block.kind = LeaseKind::kRollout;
      break;
    case v1::LEASE_KIND_DECODE:
      block.kind = LeaseKind::kDecode;
      break;
    case v1::LEASE_KIND_SCORE:
      block.kind = LeaseKind::kScore;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("lease kind ", static_cast<int>(proto.kind()), " is not known"));
  }
  block.policy_version = proto.policy_version();
  block.exact_version = proto.exact_version();
  SLUICE_RETURN_IF_ERROR(CheckPositive("deadline_s", proto.deadline_s()));
  block.deadline = received + absl::Seconds(proto.deadline_s());
  block.seed = proto.seed();
  for (const v1::PromptToSample& prompt : proto.prompts()) {
    LeasedPrompt leased;
    leased.prompt = sluice::FromProto(prompt);
    leased.tokens.assign(prompt.prompt_tokens().begin(), prompt.prompt_tokens().end());
    block.prompts.push_back(std::move(leased));
  }
  SLUICE_RETURN_IF_ERROR(CheckWidth("constrained_beams", proto.constrained_beams(), 0));
  SLUICE_RETURN_IF_ERROR(CheckWidth("unconstrained_beams", proto.unconstrained_beams(), 0));
  block.constrained_beams = static_cast<int>(proto.constrained_beams());
  block.unconstrained_beams = static_cast<int>(proto.unconstrained_beams());
  return block;
}

v1::ActorMessage ToProto(const LeaseBlock& block, const PromptOutcome& outcome) {
  v1::ActorMessage message = StartResult(block);
  v1::Result* result = message.mutable_result();
  if (const auto* group = std::get_if<ScoredGroup>(&outcome.result)) {
    sluice::ToProto(*group, result->mutable_group());
  } else if (const auto* decoded = std::get_if<DecodedPrompt>(&outcome.result)) {
    sluice::ToProto(*decoded, result->mutable_decoded());
  } else {
    Fill(outcome.ordinal, outcome.attempt, outcome.lease_id, std::get<Abandoned>(outcome.result),
         result->mutable_abandoned());
  }
  return message;
}

v1::ActorLine ToProto(const JobLine& line) {
  v1::ActorLine proto;
  proto.set_job_id(line.job_id);
  proto.set_level(line.level);
  proto.set_text(line.text);
  SetTime(line.time, proto.mutable_time());
  return proto;
}

v1::ActorMessage GiveBack(const LeaseBlock& block, size_t i, const std::string& reason) {
  v1::ActorMessage message = StartResult(block);
  const Prompt& prompt = block.prompts[i].prompt;
  Fill(prompt.ordinal, prompt.attempt, block.lease_id, Abandoned{reason, /*bad_data=*/false},
       message.mutable_result()->mutable_abandoned());
  return message;
}

}  // namespace sluice::actor

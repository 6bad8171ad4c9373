#include "learner/rpc/rollout_convert.h"

#include <utility>
#include <vector>

#include "common/rpc/group_proto.h"
#include "common/rpc/timestamp.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

v1::LeaseKind ToProto(LeaseKind kind) {
  switch (kind) {
    case LeaseKind::kRollout:
      return v1::LEASE_KIND_ROLLOUT;
    case LeaseKind::kDecode:
      return v1::LEASE_KIND_DECODE;
    case LeaseKind::kScore:
      break;
  }
  return v1::LEASE_KIND_SCORE;
}

void Fill(const WelcomeMessage& message, v1::RankMessage* proto) {
  const HubJob& job = *message.job;
  v1::Welcome* welcome = proto->mutable_welcome();
  welcome->set_job_id(job.job_id);
  welcome->set_epoch(job.epoch);
  welcome->set_model_config_json(job.model_config_json);
  welcome->set_catalog_version(job.catalog_version);
  v1::DecodeSettings* decode = welcome->mutable_decode();
  decode->set_sampler(sluice::ToProto(job.options.sampler));
  decode->set_group_size(static_cast<uint32_t>(job.options.group_size));
  decode->set_temperature(job.options.temperature);
  decode->set_exclude_history(job.options.exclude_history);
  decode->set_beam_space(sluice::ToProto(job.beam_space));
  if (job.options.sampler == SamplerKind::kValueGuided) {
    const ValueSearchOptions search = ResolvedSearch(job.options, job.levels);
    v1::ValueSearch* value_search = decode->mutable_value_search();
    value_search->set_initial_width(static_cast<uint32_t>(search.initial_width));
    value_search->set_budget(static_cast<uint32_t>(search.budget));
    value_search->set_entropy_weight(search.entropy_weight);
    value_search->set_exploration(search.exploration);
    value_search->set_widening(search.widening);
    value_search->set_widening_power(search.widening_power);
  }
  v1::RewardSettings* reward = welcome->mutable_reward();
  reward->set_enabled(job.scored());
  reward->set_ranker(job.options.reward.ranker);
  reward->set_negatives(static_cast<uint32_t>(job.options.gate.negatives));
  reward->set_mean_of_items(job.options.reward.mean_of_items);
  reward->set_deadline_s(job.options.reward.deadline_s);
  if (NeedsHistoryScores(job.options)) reward->set_history_items(static_cast<uint32_t>(job.options.gate.history_items));
}

void Fill(const OfferMessage& message, v1::RankMessage* proto) {
  v1::PolicyOffer* offer = proto->mutable_policy_offer();
  offer->set_job_id(message.job_id);
  offer->set_policy_version(message.policy_version);
  offer->set_payload_bytes(message.payload_bytes);
  offer->set_checksum(message.checksum);
  offer->set_staged(message.staged);
  if (!message.staged || message.chunks == nullptr) return;
  offer->set_chunk_bytes(message.chunks->chunk_bytes);
  const std::vector<uint64_t>& checksums = message.chunks->checksums;
  offer->mutable_chunk_checksums()->Add(checksums.begin(), checksums.end());
}

void Fill(const TransferMessage& message, v1::RankMessage* proto) {
  v1::PolicyTransfer* transfer = proto->mutable_policy_transfer();
  transfer->set_job_id(message.job_id);
  transfer->set_policy_version(message.policy_version);
  transfer->set_source(message.source);
}

void Fill(const BroadcastMessage& message, v1::RankMessage* proto) {
  v1::PolicyBroadcast* broadcast = proto->mutable_policy_broadcast();
  broadcast->set_job_id(message.job_id);
  broadcast->set_policy_version(message.policy_version);
  broadcast->set_group_epoch(message.place.epoch);
  broadcast->set_group_rank(static_cast<uint32_t>(message.place.rank));
  broadcast->set_world_size(static_cast<uint32_t>(message.place.world_size));
  broadcast->set_timeout_s(absl::ToDoubleSeconds(message.timeout));
  broadcast->set_chunk_bytes(message.chunk_bytes);
}

void Fill(const CommitMessage& message, v1::RankMessage* proto) {
  proto->mutable_policy_commit()->set_job_id(message.job_id);
  proto->mutable_policy_commit()->set_policy_version(message.policy_version);
}

void Fill(const LeaseMessage& message, v1::RankMessage* proto) {
  v1::Lease* lease = proto->mutable_lease();
  lease->set_job_id(message.job_id);
  lease->set_epoch(message.epoch);
  lease->set_lease_id(message.lease_id);
  lease->set_kind(ToProto(message.kind));
  lease->set_policy_version(message.policy_version);
  lease->set_exact_version(message.exact_version);
  lease->set_deadline_s(absl::ToDoubleSeconds(message.deadline));
  lease->set_seed(message.seed);
  for (const Prompt& prompt : message.prompts) sluice::ToProto(prompt, lease->add_prompts());
  lease->set_constrained_beams(static_cast<uint32_t>(message.constrained_beams));
  lease->set_unconstrained_beams(static_cast<uint32_t>(message.unconstrained_beams));
}

void Fill(const AckMessage& message, v1::RankMessage* proto) {
  v1::Ack* ack = proto->mutable_ack();
  ack->set_ordinal(message.ordinal);
  ack->set_attempt(message.attempt);
  ack->set_accepted(message.accepted);
  ack->set_reason(message.reason);
}

void Fill(const JobEndedMessage& message, v1::RankMessage* proto) {
  proto->mutable_job_ended()->set_job_id(message.job_id);
}

}  // namespace

v1::RankMessage ToProto(const RankMessage& message) {
  v1::RankMessage proto;
  std::visit([&proto](const auto& of_kind) { Fill(of_kind, &proto); }, message);
  return proto;
}

absl::StatusOr<ActorResult> FromProto(const v1::Result& proto) {
  ActorResult result;
  result.job_id = proto.job_id();
  result.epoch = proto.epoch();
  switch (proto.outcome_case()) {
    case v1::Result::kGroup: {
      SLUICE_ASSIGN_OR_RETURN(ScoredGroup group, sluice::FromProto(proto.group()));
      result.outcome = std::move(group);
      return result;
    }
    case v1::Result::kAbandoned:
      result.outcome =
          AbandonedPrompt{proto.abandoned().ordinal(), proto.abandoned().attempt(), proto.abandoned().lease_id(),
                          proto.abandoned().reason(), proto.abandoned().bad_data()};
      return result;
    case v1::Result::kDecoded:
      result.outcome = sluice::FromProto(proto.decoded());
      return result;
    case v1::Result::OUTCOME_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a result has no outcome");
}

JobLine FromProto(const v1::ActorLine& proto, const std::string& source) {
  const bool known = proto.level() == "warning" || proto.level() == "error";
  return {proto.job_id(), source, known ? proto.level() : "info", proto.text(), TimeOf(proto.time())};
}

}  // namespace sluice::learner

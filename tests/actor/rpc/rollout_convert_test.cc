#include "actor/rpc/rollout_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace sluice::actor {
namespace {

using testing::HasSubstr;

v1::Welcome MakeWelcome() {
  v1::Welcome welcome;
  welcome.set_job_id("job-1");
  welcome.set_epoch(4);
  welcome.set_model_config_json("{}");
  welcome.set_catalog_version("c1");
  welcome.mutable_decode()->set_sampler(v1::SAMPLER_SAMPLE);
  welcome.mutable_decode()->set_group_size(8);
  welcome.mutable_decode()->set_temperature(0.5);
  welcome.mutable_decode()->set_exclude_history(true);
  welcome.mutable_decode()->set_beam_space(v1::LOG_PROB_SPACE_TRIE);
  welcome.mutable_reward()->set_enabled(true);
  welcome.mutable_reward()->set_ranker("blend");
  welcome.mutable_reward()->set_negatives(4);
  welcome.mutable_reward()->set_deadline_s(2.5);
  welcome.mutable_reward()->set_history_items(6);
  return welcome;
}

v1::Lease MakeLease() {
  v1::Lease lease;
  lease.set_job_id("job-1");
  lease.set_epoch(4);
  lease.set_lease_id(9);
  lease.set_kind(v1::LEASE_KIND_DECODE);
  lease.set_policy_version(3);
  lease.set_exact_version(true);
  lease.set_deadline_s(30);
  lease.set_seed(77);
  lease.set_constrained_beams(50);
  v1::PromptToSample* prompt = lease.add_prompts();
  prompt->set_ordinal(12);
  prompt->set_attempt(2);
  prompt->set_user(5);
  prompt->add_history(1);
  prompt->set_target(-1);
  prompt->add_prompt_tokens(8);
  return lease;
}

TEST(WelcomeTest, CarriesTheJob) {
  const auto job = FromProto(MakeWelcome());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->job_id, "job-1");
  EXPECT_EQ(job->epoch, 4u);
  EXPECT_EQ(job->decode.sampler, SamplerKind::kSample);
  EXPECT_EQ(job->decode.group_size, 8);
  EXPECT_EQ(job->reward.history_items, 6);
  EXPECT_EQ(job->decode.temperature, 0.5);
  EXPECT_TRUE(job->decode.exclude_history);
  EXPECT_EQ(job->decode.beam_space, LogProbSpace::kTrie);
  EXPECT_EQ(job->reward.ranker, "blend");
  EXPECT_EQ(job->reward.negatives, 4);
  EXPECT_EQ(job->reward.deadline, absl::Seconds(2.5));
}

v1::Welcome SearchingWelcome() {
  v1::Welcome welcome = MakeWelcome();
  welcome.mutable_decode()->set_sampler(v1::SAMPLER_VALUE_GUIDED);
  v1::ValueSearch* search = welcome.mutable_decode()->mutable_value_search();
  search->set_initial_width(6);
  search->set_budget(40);
  search->set_entropy_weight(0.25);
  search->set_exploration(2);
  search->set_widening(3);
  search->set_widening_power(0.75);
  return welcome;
}

TEST(WelcomeTest, CarriesTheSearchByValue) {
  const auto job = FromProto(SearchingWelcome());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->decode.sampler, SamplerKind::kValueGuided);
  const ValueSearchOptions& search = job->decode.value_search;
  EXPECT_EQ(search.initial_width, 6);
  EXPECT_EQ(search.budget, 40);
  EXPECT_EQ(search.entropy_weight, 0.25);
  EXPECT_EQ(search.exploration, 2);
  EXPECT_EQ(search.widening, 3);
  EXPECT_EQ(search.widening_power, 0.75);
}

TEST(WelcomeTest, RefusesASearchThatCannotBe) {
  using Search = v1::ValueSearch;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::function<void(Search*)>> damages = {
      [](Search* s) { s->set_initial_width(0); },    [](Search* s) { s->set_initial_width(1 << 20); },
      [](Search* s) { s->set_budget(0); },           [](Search* s) { s->set_budget(5); },  // below the width
      [](Search* s) { s->set_budget(1 << 20); },     [](Search* s) { s->set_entropy_weight(-1); },
      [](Search* s) { s->set_widening(0); },         [](Search* s) { s->set_widening_power(1.5); },
      [nan](Search* s) { s->set_exploration(nan); }, [](Search* s) { s->Clear(); }};
  for (size_t i = 0; i < damages.size(); ++i) {
    v1::Welcome welcome = SearchingWelcome();
    damages[i](welcome.mutable_decode()->mutable_value_search());
    EXPECT_THAT(std::string(FromProto(welcome).status().message()), HasSubstr("value_search")) << i;
    welcome.mutable_decode()->set_sampler(v1::SAMPLER_BEAM);  // then it does not matter
    EXPECT_TRUE(FromProto(welcome).ok());
  }
}

TEST(WelcomeTest, RefusesWhatItDoesNotKnow) {
  v1::Welcome welcome = MakeWelcome();
  welcome.mutable_decode()->set_sampler(static_cast<v1::Sampler>(9));
  EXPECT_THAT(std::string(FromProto(welcome).status().message()), HasSubstr("sampler 9"));
  welcome = MakeWelcome();
  welcome.mutable_decode()->set_group_size(0);
  EXPECT_THAT(std::string(FromProto(welcome).status().message()), HasSubstr("group_size"));
  welcome = MakeWelcome();
  welcome.mutable_decode()->set_temperature(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(std::string(FromProto(welcome).status().message()), HasSubstr("temperature"));
  welcome = MakeWelcome();
  welcome.mutable_reward()->set_deadline_s(0);
  EXPECT_THAT(std::string(FromProto(welcome).status().message()), HasSubstr("deadline_s"));
  welcome.mutable_reward()->set_enabled(false);  // then it does not matter
  EXPECT_TRUE(FromProto(welcome).ok());
}

TEST(LeaseTest, CountsItsDeadlineFromReceipt) {
  const absl::Time received = absl::UnixEpoch() + absl::Hours(1);
  const auto block = FromProto(MakeLease(), received);
  ASSERT_TRUE(block.ok()) << block.status();
  EXPECT_EQ(block->deadline, received + absl::Seconds(30));
  EXPECT_EQ(block->kind, LeaseKind::kDecode);
  EXPECT_EQ(block->seed, 77u);
  EXPECT_TRUE(block->exact_version);
  EXPECT_EQ(block->constrained_beams, 50);
  ASSERT_EQ(block->prompts.size(), 1u);
  EXPECT_EQ(block->prompts[0].prompt.ordinal, 12u);
  EXPECT_EQ(block->prompts[0].prompt.attempt, 2u);
  EXPECT_EQ(block->prompts[0].prompt.target, -1);
  EXPECT_EQ(block->prompts[0].tokens, std::vector<int32_t>{8});
}

TEST(LeaseTest, RefusesWhatItDoesNotKnow) {
  v1::Lease lease = MakeLease();
  lease.clear_kind();
  EXPECT_FALSE(FromProto(lease, absl::UnixEpoch()).ok());
  lease = MakeLease();
  lease.set_deadline_s(-1);
  EXPECT_FALSE(FromProto(lease, absl::UnixEpoch()).ok());
  lease = MakeLease();
  lease.set_constrained_beams(1'000'000);
  EXPECT_FALSE(FromProto(lease, absl::UnixEpoch()).ok());
}

TEST(OutcomeTest, EachKindHasItsPlace) {
  const LeaseBlock block = FromProto(MakeLease(), absl::UnixEpoch()).value();
  ScoredGroup group;
  group.ordinal = 12;
  group.lease_id = 9;
  const v1::ActorMessage with_group = ToProto(block, PromptOutcome{12, 2, 9, group});
  EXPECT_EQ(with_group.result().job_id(), "job-1");
  EXPECT_EQ(with_group.result().epoch(), 4u);
  EXPECT_EQ(with_group.result().group().lease_id(), 9u);
  DecodedPrompt decoded;
  decoded.ordinal = 12;
  EXPECT_EQ(ToProto(block, PromptOutcome{12, 2, 9, decoded}).result().decoded().ordinal(), 12u);
  const v1::ActorMessage abandoned = ToProto(block, PromptOutcome{12, 2, 9, Abandoned{"empty history", true}});
  EXPECT_EQ(abandoned.result().abandoned().attempt(), 2u);
  EXPECT_TRUE(abandoned.result().abandoned().bad_data());
  const v1::Abandoned returned = GiveBack(block, 0, "draining").result().abandoned();
  EXPECT_EQ(returned.ordinal(), 12u);
  EXPECT_EQ(returned.attempt(), 2u);
  EXPECT_EQ(returned.lease_id(), 9u);
  EXPECT_FALSE(returned.bad_data());
}

}  // namespace
}  // namespace sluice::actor

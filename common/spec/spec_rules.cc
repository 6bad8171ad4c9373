#include "common/spec/spec_rules.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/market/market_options.h"
#include "common/market/truth_ranking.h"
#include "common/spec/spec_fields.h"

namespace sluice {
namespace {

std::string KindText(v1::JobKind kind) { return EnumText(*v1::JobKind_descriptor()->FindValueByNumber(kind)); }

// Which top-level sections a kind of job reads.
bool Reads(v1::JobKind kind, absl::string_view section) {
  switch (kind) {
    case v1::JOB_KIND_PREPARE:
      return section == "prepare";
    case v1::JOB_KIND_SFT:
      return section == "sft" || section == "model" || section == "data" || section == "checkpoint";
    case v1::JOB_KIND_RL:
      return section == "rl" || section == "model" || section == "data" || section == "checkpoint";
    case v1::JOB_KIND_EVALUATE:
      return section == "evaluate" || section == "model" || section == "data";
    default:
      return true;  // the kind itself is missing, which is reported
  }
}

bool IsOneOf(absl::string_view word, std::initializer_list<absl::string_view> words) {
  for (const absl::string_view candidate : words) {
    if (word == candidate) return true;
  }
  return false;
}

// ceil(fraction * size) as the gate counts places. The small term keeps 0.3 *
// 10 from becoming 4. A fraction out of its range is reported on its own, and
// must not overflow here.
int64_t CeilOf(double fraction, int64_t size) {
  fraction = std::isnan(fraction) ? 0 : std::clamp(fraction, 0.0, 1.0);
  return static_cast<int64_t>(std::ceil(fraction * static_cast<double>(size) - 1e-9));
}

// False also when `parts` is out of its range, which is reported on its own.
bool LeavesRemainder(int64_t whole, int64_t parts) { return parts > 0 && whole % parts != 0; }

void CheckModel(const v1::ModelSpec& model, const ReportRule& report) {
  if (!model.path().empty()) return;
  if (LeavesRemainder(model.heads(), model.kv_heads())) {
    report({"model.kv_heads", "model.heads"}, absl::StrCat("heads must be a multiple of kv_heads, but ", model.heads(),
                                                           " heads do not divide into ", model.kv_heads()));
  }
  if (model.head_dim() == 0 && LeavesRemainder(model.hidden_size(), model.heads())) {
    report({"model.heads", "model.hidden_size", "model.head_dim"},
           absl::StrCat("hidden_size ", model.hidden_size(), " does not divide into ", model.heads(),
                        " heads; change one of them, or give head_dim"));
    return;
  }
  if (model.heads() <= 0) return;  // reported as out of its range
  const int head_dim = model.head_dim() == 0 ? model.hidden_size() / model.heads() : model.head_dim();
  if (head_dim % 2 != 0) {
    report({model.head_dim() == 0 ? "model.heads" : "model.head_dim", "model.hidden_size"},
           absl::StrCat("rotary positions turn pairs of numbers, so the width "
                        "of a head must be even, got ",
                        head_dim));
  }
}

// Of a model at model.path the job looks itself, once it has opened it.
void CheckItemLoss(const v1::JobSpec& spec, const ReportRule& report) {
  if (spec.sft().item_loss_weight() > 0 && spec.model().path().empty() &&
      spec.model().encoder() != v1::PROMPT_ENCODER_MERGED) {
    report({"sft.item_loss_weight", "model.encoder"},
           "compares the vectors of items, and the encoder codes has none; want model.encoder merged, or "
           "item_loss_weight 0");
  }
}

void CheckMarket(const v1::MarketSpec& market, const ReportRule& report) {
  if (market.leaf_codes() < market.items_per_cell()) {
    report({"prepare.market.leaf_codes", "prepare.market.items_per_cell"},
           absl::StrCat("the ", market.items_per_cell(), " items of a cell need as many codes of level 3, got ",
                        market.leaf_codes(), "; raise leaf_codes, or lower items_per_cell"));
  }
  // In double: the product of three counts may not fit into a whole number.
  const double items = static_cast<double>(market.regions()) * market.cells() * market.items_per_cell();
  if (items > kMaxMarketItems) {
    report({"prepare.market.regions", "prepare.market.cells", "prepare.market.items_per_cell"},
           absl::StrCat("regions * cells * items_per_cell makes ", NumberText(items), " items, want at most ",
                        kMaxMarketItems));
  }
  const int64_t users = int64_t{market.sft_users()} + market.rl_users() + market.heldout_users();
  if (users > kMaxMarketUsers) {
    report(
        {"prepare.market.sft_users", "prepare.market.rl_users", "prepare.market.heldout_users"},
        absl::StrCat("sft_users + rl_users + heldout_users makes ", users, " users, want at most ", kMaxMarketUsers));
  }
}

void CheckPrepare(const v1::PrepareSpec& prepare, const ReportRule& report) {
  if (prepare.split() == v1::SPLIT_KIND_CHRONOLOGICAL) {
    const double held_out = prepare.validation_fraction() + prepare.test_fraction();
    if (held_out >= 1) {
      report({"prepare.test_fraction", "prepare.validation_fraction"},
             "validation_fraction and test_fraction together leave no events "
             "for training");
    }
  }
  if (prepare.has_market()) CheckMarket(prepare.market(), report);
  const v1::RankerTrainingSpec& ranker = prepare.ranker();
  if (ranker.has_bias() && ranker.bias().missing() == 0 && ranker.bias().position() == 0) {
    report({"prepare.ranker.bias"},
           "a bias of missing 0 and position 0 loses no event; give one of the two, or remove the section");
  }
  if (LeavesRemainder(ranker.hidden_size(), ranker.heads())) {
    report({"prepare.ranker.heads", "prepare.ranker.hidden_size"},
           absl::StrCat("hidden_size ", ranker.hidden_size(), " does not divide into ", ranker.heads(), " heads"));
  }
}

// AdaGRPO's tests of the ranker by the target decide, or are pooled.
bool TestsTarget(v1::GateKind kind) {
  return kind == v1::GATE_KIND_UNSPECIFIED || kind == v1::GATE_KIND_ADAGRPO || kind == v1::GATE_KIND_POOLED ||
         kind == v1::GATE_KIND_COMBINED;
}

// A test of pairs with cross-sample negatives decides.
bool ComparesNegatives(v1::GateKind kind) {
  return kind == v1::GATE_KIND_HISTORY || kind == v1::GATE_KIND_OWN_CROSS || kind == v1::GATE_KIND_COMBINED;
}

void CheckDrawable(const v1::RlSpec& rl, const ReportRule& report) {
  const int64_t group = rl.group_size();
  const int64_t negatives = rl.gate().negatives();
  const int64_t others = (static_cast<int64_t>(rl.lease_groups()) - 1) * group;
  if (negatives > others) {
    report({"rl.lease_groups", "rl.gate.negatives", "rl.group_size"},
           absl::StrCat("negatives come from the other groups of a lease, which hold ", others, " completions, so ",
                        negatives,
                        " cannot be drawn and the gate could never open; raise "
                        "lease_groups"));
  }
}

void CheckGate(const v1::RlSpec& rl, const ReportRule& report) {
  const v1::GateSpec& gate = rl.gate();
  const int64_t group = rl.group_size();
  const int64_t negatives = gate.negatives();
  const bool tests_target = TestsTarget(gate.kind());
  if ((gate.use_difficulty() || (tests_target && gate.use_head())) && CeilOf(gate.tau(), group) < 1) {
    report({"rl.gate.tau", "rl.group_size"},
           "the head has ceil(tau * group_size) = 0 places, so the gate could "
           "never open; raise tau");
  }
  if (gate.has_threshold() && gate.threshold() >= 1) {
    report({"rl.gate.threshold"}, "no share is above 1, so the gate could never open; want a threshold below 1");
  }
  if (gate.control() == v1::GATE_CONTROL_THIN && gate.control_rate() == 0) {
    report({"rl.gate.control", "rl.gate.control_rate"},
           "thin lets a part of the open groups through and needs its rate; want a control_rate above 0");
  }
  if (ComparesNegatives(gate.kind())) {
    if (negatives < 1) {
      report({"rl.gate.negatives", "rl.gate.kind"},
             "this kind of gate compares with other samples' rollouts and needs at least 1 negative, got 0");
    } else {
      CheckDrawable(rl, report);
    }
  }
  if (!tests_target || !gate.use_suppression()) return;
  if (negatives < 1) {
    report({"rl.gate.negatives", "rl.gate.use_suppression"},
           "the suppression test needs at least 1 negative, got 0; ask for some, or set use_suppression to false");
  }
  if (!ComparesNegatives(gate.kind())) CheckDrawable(rl, report);
  // Every negative must lie in the zone, so the zone must hold them all. The
  // pool is the group, the target, the negatives.
  if (gate.zone() == v1::GATE_ZONE_QUANTILE || gate.zone() == v1::GATE_ZONE_OUTSIDE) return;
  const bool of_group = gate.zone() == v1::GATE_ZONE_GROUP;
  const int64_t zone = CeilOf(gate.rho(), of_group ? group : group + 1 + negatives);
  if (negatives > zone) {
    report({"rl.gate.negatives", "rl.gate.rho", "rl.gate.zone", "rl.group_size"},
           absl::StrCat(negatives, " negatives cannot all rank in the bottom zone of ceil(rho * ",
                        of_group ? "group_size" : "pool", ") = ", zone,
                        " places, so the gate could never open; want at most ", zone, " negatives, or a larger rho"));
  }
}

// Options of the objective that contradict one another.
void CheckObjective(const v1::RlSpec& rl, const ReportRule& report) {
  const v1::GateSpec& gate = rl.gate();
  const bool controlled = gate.control() == v1::GATE_CONTROL_RANDOM || gate.control() == v1::GATE_CONTROL_EQUAL_DOSE ||
                          gate.control() == v1::GATE_CONTROL_THIN;
  if (controlled && rl.objective() != v1::OBJECTIVE_GATED) {
    report(
        {"rl.gate.control", "rl.objective"},
        "a control stands in for the gate's verdicts, and only the objective gated has any; want rl.objective gated, "
        "or rl.gate.control none");
  }
  if (gate.control() == v1::GATE_CONTROL_EQUAL_DOSE && gate.normalization() == v1::GATE_NORMALIZATION_ADMITTED) {
    report({"rl.gate.control", "rl.gate.normalization"},
           "the mean over the admitted divides the equal dose out again; want rl.gate.normalization all");
  }
  if (gate.kind() != v1::GATE_KIND_ADAGRPO && rl.objective() != v1::OBJECTIVE_GATED) {
    report({"rl.gate.kind", "rl.objective"},
           "only the objective gated asks a gate; want rl.objective gated, or no rl.gate.kind");
  }
  if (gate.target_dose() > 0) {
    if (rl.objective() != v1::OBJECTIVE_GATED) {
      report({"rl.gate.target_dose", "rl.objective"},
             "the dose is lambda times the rate of the gate, and only the objective gated has one; want rl.objective "
             "gated, or rl.gate.target_dose 0");
    }
    if (rl.lambda() == 0) {
      report({"rl.gate.target_dose", "rl.lambda"}, "no factor makes a dose of lambda 0; want a lambda above 0");
    }
    if (rl.mixing() == v1::MIXING_CONVEX) {
      report({"rl.gate.target_dose", "rl.mixing"},
             "the lambda of a convex mixture is a share and cannot follow a dose; want rl.mixing additive");
    }
    if (gate.control() == v1::GATE_CONTROL_EQUAL_DOSE) {
      report({"rl.gate.target_dose", "rl.gate.control"},
             "equal_dose sets a dose of its own; want rl.gate.target_dose 0, or another control");
    }
    if (gate.normalization() == v1::GATE_NORMALIZATION_ADMITTED) {
      report({"rl.gate.target_dose", "rl.gate.normalization"},
             "the mean over the admitted divides the rate out of the dose; want rl.gate.normalization all");
    }
  }
  if (rl.mixing() == v1::MIXING_CONVEX) {
    if (rl.objective() == v1::OBJECTIVE_GRPO_ONLY || rl.objective() == v1::OBJECTIVE_NLL_ONLY) {
      report({"rl.mixing", "rl.objective"},
             "a convex mixture is of NLL and GRPO, but the objective has one of the two; want rl.objective gated or "
             "mixture, or rl.mixing additive");
    }
    if (rl.lambda() > 1) {
      report({"rl.lambda", "rl.mixing"}, absl::StrCat("the NLL of a convex mixture weighs 1 - lambda = ",
                                                      NumberText(1 - rl.lambda()), " < 0; want lambda of at most 1"));
    }
  }
  const bool has_reference = rl.kl().reference() != v1::REFERENCE_KIND_NONE;
  if (rl.kl().beta() > 0 && !has_reference) {
    report({"rl.kl.beta", "rl.kl.reference"},
           absl::StrCat("beta ", NumberText(rl.kl().beta()),
                        " > 0 asks for a KL to a reference policy, and there is none; want rl.kl.reference frozen or "
                        "mixed, or beta 0"));
  }
  if (rl.kl().beta() == 0 && has_reference) {
    report({"rl.kl.reference", "rl.kl.beta"},
           "a reference policy costs a pass a step and, at beta 0, moves nothing; want rl.kl.beta > 0, or "
           "rl.kl.reference none");
  }
  const v1::AdvantageSpec& advantage = rl.advantage();
  if (advantage.sibling_weight() > 0) {
    if (rl.sampler() != v1::SAMPLER_BEAM && rl.sampler() != v1::SAMPLER_VALUE_GUIDED) {
      report({"rl.advantage.sibling_weight", "rl.sampler"},
             "siblings are branches of one tree of beams or of a search, and independent samples hardly share "
             "prefixes; want rl.sampler beam or value_guided, or sibling_weight 0");
    }
    if (rl.policy_loss().mean() == v1::TOKEN_MEAN_STEP) {
      report({"rl.advantage.sibling_weight", "rl.policy_loss.mean"},
             "the sibling term is a mean over the group by definition; want rl.policy_loss.mean group, or "
             "sibling_weight 0");
    }
  }
  if (advantage.kind() == v1::ADVANTAGE_KIND_RECAST && !rl.target_in_group()) {
    report({"rl.advantage.kind", "rl.target_in_group"},
           "recast repairs groups without a hit by the target; want rl.target_in_group true");
  }
  if (advantage.window_rank() > 0 && rl.negative_weight() == 0) {
    report(
        {"rl.advantage.window_rank", "rl.negative_weight"},
        "the window weighs negative advantages, which rl.negative_weight 0 drops; want a negative_weight above 0, or "
        "window_rank 0");
  }
  if (advantage.window_rank() > rl.group_size()) {
    report({"rl.advantage.window_rank", "rl.group_size"},
           absl::StrCat("the window stands at place ", NumberText(advantage.window_rank()), " of a list of ",
                        rl.group_size(), "; want at most ", rl.group_size()));
  }
}

// Held-out events may be judged, never trained on.
void CheckPromptSplit(const v1::RlSpec& rl, const ReportRule& report) {
  if (rl.prompt_split() != v1::PROMPT_SPLIT_VALIDATION && rl.prompt_split() != v1::PROMPT_SPLIT_TEST) return;
  if (rl.optimizer().learning_rate() > 0) {
    report({"rl.prompt_split", "rl.optimizer.learning_rate"},
           absl::StrCat("a learning rate of ", NumberText(rl.optimizer().learning_rate()),
                        " would train on the held-out events; want rl.optimizer.learning_rate 0, or "
                        "rl.prompt_split train"));
  }
  if (rl.objective() != v1::OBJECTIVE_GATED) {
    report(
        {"rl.prompt_split", "rl.objective"},
        "held-out events are only there to be judged by the gate; want rl.objective gated, or rl.prompt_split train");
  }
}

// What is wrong with the numbers of step_weights, or "".
std::string CheckStepWeights(absl::string_view text) {
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    double weight = 0;
    if (!absl::SimpleAtod(word, &weight) || !std::isfinite(weight) || weight < 0) {
      return absl::StrCat("want numbers of at least 0, one a level, separated by spaces, got \"", word, "\"");
    }
  }
  return "";
}

// A value head, what trains it and what reads it.
void CheckValue(const v1::JobSpec& spec, const ReportRule& report) {
  const v1::RlSpec& rl = spec.rl();
  const bool trained = rl.value().loss_weight() > 0;
  const bool read = rl.sampler() == v1::SAMPLER_VALUE_GUIDED;
  const bool head = spec.model().value_head();
  if (trained && !head) {
    report({"rl.value.loss_weight", "model.value_head"},
           "the value loss trains a value head, and the policy has none; want model.value_head true, or loss_weight 0");
  }
  if (read && !head) {
    report({"rl.sampler", "model.value_head"},
           "value_guided searches by the policy's value head, and it has none; want model.value_head true, or another "
           "sampler");
  }
  if (head && !trained && !read) {
    report({"model.value_head", "rl.value.loss_weight", "rl.sampler"},
           "nothing trains or reads the value head; want rl.value.loss_weight above 0 or rl.sampler value_guided, or "
           "value_head false");
  }
  if (trained && rl.objective() == v1::OBJECTIVE_NLL_ONLY) {
    report({"rl.value.loss_weight", "rl.objective"},
           "the value loss learns from the group's completions, which nll_only does not look at; want another "
           "rl.objective, or loss_weight 0");
  }
  if (const std::string wrong = CheckStepWeights(rl.value().step_weights()); !wrong.empty()) {
    report({"rl.value.step_weights"}, wrong);
  }
  const v1::ValueSearchSpec& search = rl.value_search();
  if (read && search.budget() > 0 && search.initial_width() > search.budget()) {
    report({"rl.value_search.budget", "rl.value_search.initial_width"},
           absl::StrCat("a beam of width ", search.initial_width(), " costs as many forward tokens a level, so ",
                        search.budget(), " do not pay for it; raise the budget or narrow the beam"));
  }
}

void CheckRewardHealth(const v1::RewardHealthSpec& health, const ReportRule& report) {
  if (health.brownout_share() > health.outage_share()) {
    report({"rl.reward.health.brownout_share", "rl.reward.health.outage_share"},
           absl::StrCat("a brown-out comes before an outage, but its share ", health.brownout_share(),
                        " is above the outage's ", health.outage_share()));
  }
  if (health.probe_s() > health.probe_max_s()) {
    report({"rl.reward.health.probe_s", "rl.reward.health.probe_max_s"},
           absl::StrCat("the first wait of ", health.probe_s(), " s is longer than the longest of ",
                        health.probe_max_s(), " s"));
  }
}

void CheckRl(const v1::RlSpec& rl, const ReportRule& report) {
  CheckPromptSplit(rl, report);
  CheckRewardHealth(rl.reward().health(), report);
  if (LeavesRemainder(rl.groups_per_step(), rl.lease_groups())) {
    const int64_t lease = rl.lease_groups();
    const int64_t nearest = std::max<int64_t>(1, rl.groups_per_step() / lease) * lease;
    report({"rl.groups_per_step", "rl.lease_groups"},
           absl::StrCat("a step is made of whole leases, but ", rl.groups_per_step(),
                        " groups do not divide into leases of ", rl.lease_groups(), "; use ", nearest, " or ",
                        nearest + lease));
  }
  if (rl.objective() == v1::OBJECTIVE_GATED) CheckGate(rl, report);
  if (IsTruthRankingName(rl.reward().ranker())) {
    const absl::StatusOr<TruthRankingOptions> ranking = ParseTruthRanking(rl.reward().ranker());
    if (!ranking.ok()) report({"rl.reward.ranker"}, std::string(ranking.status().message()));
  }
  CheckObjective(rl, report);
}

}  // namespace

std::string WhyUnused(const v1::JobSpec& given, const std::string& path) {
  const v1::JobKind kind = given.kind();
  if (IsOneOf(path, {"prepare", "sft", "rl", "evaluate", "model", "data", "checkpoint"}) && !Reads(kind, path)) {
    return absl::StrCat("a job of kind ", KindText(kind), " does not read this; remove it");
  }
  if (IsOneOf(path, {"model.value_head", "model.value_hidden_size"})) {
    if (kind != v1::JOB_KIND_RL && kind != v1::JOB_KIND_UNSPECIFIED) {
      return "only rl trains and reads a value head; remove it";
    }
    if (path == "model.value_hidden_size" && !given.model().value_head()) {
      return "is the width of a value head; give model.value_head true, or remove it";
    }
  } else if (absl::StartsWith(path, "model.") && path != "model.path" && given.model().has_path()) {
    return "describes a new model, but model.path names one that exists; "
           "remove one of the two";
  }
  const v1::PrepareSpec& prepare = given.prepare();
  // Without these sections nothing of them happens, so they get no defaults.
  if (path == "prepare.market" && !prepare.has_market()) return "is not asked for";
  if (path == "prepare.ranker.bias" && !prepare.ranker().has_bias()) return "is not asked for";
  if (prepare.has_market() && path != "prepare" && absl::StartsWith(path, "prepare.") &&
      !absl::StartsWith(path, "prepare.market") && !absl::StartsWith(path, "prepare.ranker") &&
      !IsOneOf(path, {"prepare.max_history", "prepare.output"})) {
    return "is about events that are read, but prepare.market generates them, with their semantic IDs and split; "
           "remove one of the two";
  }
  if (path == "prepare.rl_events" && prepare.split() == v1::SPLIT_KIND_CHRONOLOGICAL) {
    return "keeps a user's latest training events for rl, which only prepare.split leave_one_out does; remove it";
  }
  if (path == "prepare.ranker.bias" && prepare.ranker().has_sequential() && !prepare.ranker().sequential()) {
    return "is of the sequential ranker's log, but prepare.ranker.sequential is false; remove one of the two";
  }
  if (path == "prepare.ranker.bias.slate" && !(prepare.ranker().bias().position() > 0)) {
    return "is the slate of the position bias; give prepare.ranker.bias.position, or remove it";
  }
  if (absl::StartsWith(path, "prepare.sids.")) {
    const absl::string_view key = absl::StripPrefix(path, "prepare.sids.");
    if (given.prepare().sids().has_index() && key != "index" && key != "codes" && key != "unique_level") {
      return "describes how semantic IDs are made, but prepare.sids.index "
             "names a file of them; remove one of the two";
    }
    if (given.prepare().sids().has_item_vectors() && key == "vector_dim") {
      return "is the width of factorised vectors, but "
             "prepare.sids.item_vectors names a file of them; remove one of "
             "the two";
    }
  }
  if (absl::StartsWith(path, "rl.policy_loss.")) {
    const absl::string_view key = absl::StripPrefix(path, "rl.policy_loss.");
    const v1::PolicyLossKind loss = given.rl().policy_loss().kind();
    const bool clips = loss == v1::POLICY_LOSS_KIND_PPO || loss == v1::POLICY_LOSS_KIND_ECPO;
    if ((IsOneOf(key, {"clip_low", "clip_high"}) && !clips) ||
        (key == "truncation" && loss != v1::POLICY_LOSS_KIND_TRUNCATED) ||
        (key == "ecpo_delta" && loss != v1::POLICY_LOSS_KIND_ECPO) ||
        (IsOneOf(key, {"soft_positive", "soft_negative"}) && loss != v1::POLICY_LOSS_KIND_SA_GCPO)) {
      return "belongs to another kind of rl.policy_loss; give that kind, or remove it";
    }
    const bool reinforce = loss == v1::POLICY_LOSS_KIND_UNSPECIFIED || loss == v1::POLICY_LOSS_KIND_REINFORCE;
    if (key == "ratio" && reinforce) {
      return "reinforce compares with no other policy; give another rl.policy_loss.kind, or remove it";
    }
  }
  if (IsOneOf(path, {"rl.kl.mix_every", "rl.kl.mix"}) && given.rl().kl().reference() != v1::REFERENCE_KIND_MIXED) {
    return "moves a mixed reference; give rl.kl.reference mixed, or remove it";
  }
  const bool ranked = given.rl().reward().kind() == v1::REWARD_KIND_RANKING ||
                      given.rl().reward().kind() == v1::REWARD_KIND_RANKING_ONLY;
  if (IsOneOf(path, {"rl.reward.denominator", "rl.reward.no_hit"}) && !ranked) {
    return "belongs to the ranking reward; give rl.reward.kind ranking or ranking_only, or remove it";
  }
  const bool ranker = !given.rl().reward().has_kind() || given.rl().reward().kind() == v1::REWARD_KIND_RANKER;
  if (IsOneOf(path, {"rl.reward.floor", "rl.reward.positive_to_max"}) && !ranker) {
    return "changes the ranker's scores, which are not the reward; remove it, or rl.reward.kind";
  }
  if (path == "rl.gate.control_rate" && given.rl().gate().control() != v1::GATE_CONTROL_RANDOM &&
      given.rl().gate().control() != v1::GATE_CONTROL_EQUAL_DOSE &&
      given.rl().gate().control() != v1::GATE_CONTROL_THIN) {
    return "is the rate of a control; give rl.gate.control random, equal_dose or thin, or remove it";
  }
  if (absl::StartsWith(path, "rl.gate.")) {
    const absl::string_view key = absl::StripPrefix(path, "rl.gate.");
    const v1::GateSpec& gate = given.rl().gate();
    if (IsOneOf(key, {"rho", "zone", "head_pool", "use_head", "use_suppression"}) && !TestsTarget(gate.kind())) {
      return "belongs to AdaGRPO's tests of the ranker, which this kind of gate does not ask; give rl.gate.kind "
             "adagrpo, pooled or combined, or remove it";
    }
    if (key == "threshold" && (gate.kind() == v1::GATE_KIND_UNSPECIFIED || gate.kind() == v1::GATE_KIND_ADAGRPO ||
                               gate.kind() == v1::GATE_KIND_ORACLE)) {
      return "is compared with an estimate of reliability, which this kind of gate has none of; give rl.gate.kind "
             "history, own_cross, pooled or combined, or remove it";
    }
    if (IsOneOf(key, {"single_test", "pool_weight"}) && gate.kind() != v1::GATE_KIND_COMBINED) {
      return "belongs to rl.gate.kind combined; give that kind, or remove it";
    }
    if (IsOneOf(key, {"pool_groups", "pool_decay"}) && gate.kind() != v1::GATE_KIND_POOLED &&
        gate.kind() != v1::GATE_KIND_COMBINED) {
      return "belongs to the regions' means; give rl.gate.kind pooled or combined, or remove it";
    }
    const bool tests_history =
        gate.kind() == v1::GATE_KIND_HISTORY ||
        (gate.kind() == v1::GATE_KIND_COMBINED && gate.single_test() != v1::GATE_SINGLE_TEST_OWN_CROSS);
    if (key == "history_items" && !tests_history && !given.rl().record()) {
      return "counts items of the history to score, which nothing asks for; give rl.gate.kind history, rl.record true, "
             "or remove it";
    }
    if (key == "dose_range" && !(gate.target_dose() > 0)) {
      return "bounds dose control; give rl.gate.target_dose, or remove it";
    }
  }
  if (path == "rl.record_mib" && !given.rl().record()) {
    return "bounds the record; give rl.record true, or remove it";
  }
  if (absl::StartsWith(path, "rl.advantage.window_") && path != "rl.advantage.window_rank" &&
      !(given.rl().advantage().window_rank() > 0)) {
    return "shapes the window; give rl.advantage.window_rank, or remove it";
  }
  if (path == "rl.advantage.sibling_mean" && !(given.rl().advantage().sibling_weight() > 0)) {
    return "belongs to the sibling term; give rl.advantage.sibling_weight, or remove it";
  }
  const bool has_value_loss = given.rl().value().loss_weight() > 0;
  if (absl::StartsWith(path, "rl.value.") && path != "rl.value.loss_weight" && !has_value_loss) {
    return "belongs to the value loss; give rl.value.loss_weight, or remove it";
  }
  if (absl::StartsWith(path, "rl.value_search.") && given.rl().sampler() != v1::SAMPLER_VALUE_GUIDED) {
    return "belongs to the search by value; give rl.sampler value_guided, or remove it";
  }
  if (path == "rl.item_vectors" && given.rl().reward().kind() != v1::REWARD_KIND_SEMANTIC && !has_value_loss) {
    return "is read by the semantic reward and the value loss alone; give rl.reward.kind semantic or "
           "rl.value.loss_weight, or remove it";
  }
  if (path == "rl.validation.patience") return "only sft ends by patience; remove it";
  return "";
}

void CheckRules(const v1::JobSpec& effective, const ReportRule& report) {
  const v1::JobKind kind = effective.kind();
  if (Reads(kind, "data") && effective.data().empty()) {
    report({"data"},
           absl::StrCat("required: a job of kind ", KindText(kind), " needs the folder of a prepared data set"));
  }
  if (kind == v1::JOB_KIND_EVALUATE && effective.model().path().empty()) {
    report({"model.path"}, "required: a job of kind evaluate needs the folder of a trained model");
  }
  if (effective.model().has_path() && effective.model().path().empty()) {
    report({"model.path"}, "want a folder; leave the key out for a new model");
  }
  if (Reads(kind, "model")) CheckModel(effective.model(), report);
  if (kind == v1::JOB_KIND_PREPARE) CheckPrepare(effective.prepare(), report);
  if (kind == v1::JOB_KIND_SFT) CheckItemLoss(effective, report);
  if (kind == v1::JOB_KIND_RL) {
    CheckRl(effective.rl(), report);
    CheckValue(effective, report);
  }
}

}  // namespace sluice

// A corpus of wrong specs and the exact words that people get for them.
#include <gtest/gtest.h>

#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/spec/spec.h"

namespace sluice {
namespace {

struct BadSpec {
  const char* name;
  std::string yaml;
  std::string message;
};

// A valid rl job with something put below "rl:".
std::string Rl(const std::string& lines) { return absl::StrCat("kind: rl\ndata: d\nrl:\n", lines); }

std::vector<BadSpec> Corpus() {
  std::string deep = "kind: sft\ndata: d\nsft: ";
  for (int i = 0; i < 5000; ++i) deep += "{a: ";
  return {
      {"Empty", "", "s.yaml: kind: required, but not given: one of prepare, sft, rl, evaluate"},
      {"OnlyAComment", "# nothing\n", "s.yaml: kind: required, but not given: one of prepare, sft, rl, evaluate"},
      {"AList", "- kind: sft\n", "s.yaml:1:1: want keys and values, such as 'name: mine', at the top"},
      {"AWord", "sft\n", "s.yaml:1:1: want keys and values, such as 'name: mine', at the top"},
      {"UnknownKind", "kind: sftt\ndata: d\n",
       "s.yaml:1:7: kind: want one of prepare, sft, rl, evaluate; got \"sftt\"; did you mean sft?"},
      {"KindInUpperCase", "kind: SFT\ndata: d\n",
       "s.yaml:1:7: kind: want one of prepare, sft, rl, evaluate; got \"SFT\"; did you mean sft?"},
      {"MisspeltKey", Rl("  group_sise: 8\n"), "s.yaml:4:3: rl.group_sise: unknown key; did you mean group_size?"},
      {"MisspeltSection", "kind: rl\ndata: d\nrll: {}\n", "s.yaml:3:1: rll: unknown key; did you mean rl?"},
      {"KeyOfAnotherSection", Rl("  tau: 0.2\n"), "s.yaml:4:3: rl.tau: unknown key here; there is rl.gate.tau"},
      {"KeyOfNowhere", "kind: rl\ndata: d\nrl: {gate: {colour: red}}\n",
       "s.yaml:3:13: rl.gate.colour: unknown key; rl.gate has tau, rho, negatives, difficulty, ties, zone, "
       "use_difficulty, use_head, use_suppression, normalization, head_pool, control, control_rate, kind, threshold, "
       "history_items, single_test, pool_weight, pool_groups, pool_decay, target_dose, dose_range"},
      {"TextForAWholeNumber", Rl("  steps: many\n"), "s.yaml:4:10: rl.steps: want a whole number, got \"many\""},
      {"FractionForAWholeNumber", Rl("  steps: 1.5\n"), "s.yaml:4:10: rl.steps: want a whole number, got \"1.5\""},
      {"QuotedNumber", Rl("  steps: \"20\"\n"),
       "s.yaml:4:10: rl.steps: want a whole number, got the text \"20\"; remove the quotes"},
      {"HugeWholeNumber", Rl("  steps: 3000000000\n"),
       "s.yaml:4:10: rl.steps: want a whole number of at most 2147483647 in size, got 3000000000"},
      {"NegativeSeed", "kind: sft\ndata: d\nseed: -1\n",
       "s.yaml:3:7: seed: want a whole number from 0 to 18446744073709551615, got \"-1\""},
      {"BelowTheRange", Rl("  group_size: 1\n"), "s.yaml:4:3: rl.group_size: want 2 to 1024, got 1"},
      {"AboveTheRange", Rl("  gate:\n    tau: 1.5\n"), "s.yaml:5:5: rl.gate.tau: want 0 to 1, got 1.5"},
      {"BelowAHalfOpenRange", Rl("  lambda: -0.5\n"), "s.yaml:4:3: rl.lambda: want at least 0, got -0.5"},
      {"NotANumber", Rl("  lambda: .nan\n"), "s.yaml:4:11: rl.lambda: want a finite number, got .nan"},
      {"Infinity", Rl("  lambda: .inf\n"), "s.yaml:4:11: rl.lambda: want a finite number, got .inf"},
      {"Overflow", Rl("  lambda: 1e999\n"), "s.yaml:4:11: rl.lambda: want a finite number, got \"1e999\""},
      {"YesForTrue", Rl("  target_in_group: yes\n"),
       "s.yaml:4:20: rl.target_in_group: want true or false, got \"yes\""},
      {"BadTime", "kind: sft\ndata: d\ntime_limit_s: 5 minutes\n",
       "s.yaml:3:15: time_limit_s: want a number of seconds, or a time such as 90s, 15m, 1h30m, got \"5 minutes\""},
      {"ValueForASection", "kind: rl\ndata: d\nrl: 5\n",
       "s.yaml:3:5: rl: want a section: keys and values, indented below"},
      {"ListForAValue", Rl("  steps: [1, 2]\n"), "s.yaml:4:10: rl.steps: want a whole number, got a list"},
      {"SectionForAValue", Rl("  steps: {a: 1}\n"), "s.yaml:4:10: rl.steps: want a whole number, got a section"},
      {"NothingForAValue", Rl("  steps:\n"),
       "s.yaml:4:3: rl.steps: want a whole number, got nothing; leave the key out to get the default"},
      {"KeyTwice", "kind: sft\ndata: d\ndata: e\n", "s.yaml:3:1: key data is given twice; first on line 2"},
      {"Alias", "kind: sft\nname: &a x\ndata: *a\n", "s.yaml:3:7: aliases are not allowed here; write the value out"},
      {"Tag", "kind: !!python/object sft\ndata: d\n",
       "s.yaml:1:7: tags are not allowed here (tag:yaml.org,2002:python/object); write the plain value"},
      {"TwoDocuments", "kind: sft\ndata: d\n---\nkind: rl\n",
       "s.yaml:4:1: a second document begins here; a file holds one job spec"},
      {"TooDeep", deep, "s.yaml:3:66: nested deeper than 16 levels; this is not a job spec"},
      {"ComplexKey", "? [a, b]\n: c\n", "s.yaml:1:3: a key must be a plain word"},
      {"ColonWithoutQuotes", "kind: sft\ndata: a: b\n",
       "s.yaml:2:8: not valid YAML: a ':' where no value may stand (missing quotes?)"},
      {"BadIndentation", "kind: sft\n  data: d\n",
       "s.yaml:2:7: not valid YAML: a ':' where no value may stand (missing quotes?)"},
      {"ControlCharacter", "kind: sft\ndata: \"a\\nb\"\n",
       "s.yaml:2:1: data: want text on one line without control characters"},
      {"ZeroByte", std::string("kind: sft\0", 10), "s.yaml: byte 9 is zero; this is not a text file"},
      {"DataMissing", "kind: sft\n",
       "s.yaml: data: required: a job of kind sft needs the folder of a prepared data set"},
      {"EventsMissing", "kind: prepare\nprepare:\n  max_history: 10\n",
       "s.yaml:2:1: prepare.events: required, but not given"},
      {"ModelMissing", "kind: evaluate\ndata: d\n",
       "s.yaml: model.path: required: a job of kind evaluate needs the folder of a trained model"},
      {"SectionOfAnotherKind", "kind: sft\ndata: d\nrl:\n  steps: 3\n",
       "s.yaml:3:1: rl: a job of kind sft does not read this; remove it"},
      {"DataForPrepare", "kind: prepare\ndata: d\nprepare: {events: e}\n",
       "s.yaml:2:1: data: a job of kind prepare does not read this; remove it"},
      {"PathBesideANewModel", "kind: sft\ndata: d\nmodel:\n  path: m\n  layers: 2\n",
       "s.yaml:5:3: model.layers: describes a new model, but model.path names one that exists; remove one of the two"},
      {"HeadsAndKvHeads", "kind: sft\ndata: d\nmodel:\n  heads: 4\n  kv_heads: 3\n",
       "s.yaml:5:3: model.kv_heads: heads must be a multiple of kv_heads, but 4 heads do not divide into 3"},
      {"ZeroKvHeads", "kind: sft\ndata: d\nmodel:\n  kv_heads: 0\n",
       "s.yaml:4:3: model.kv_heads: want 1 to 256, got 0"},
      {"ZeroHeads", "kind: sft\ndata: d\nmodel:\n  heads: 0\n", "s.yaml:4:3: model.heads: want 1 to 256, got 0"},
      {"WidthAndHeads", "kind: sft\ndata: d\nmodel:\n  hidden_size: 130\n",
       "s.yaml:4:3: model.hidden_size: hidden_size 130 does not divide into 4 heads; change one of them, or give "
       "head_dim"},
      {"OddHeads", "kind: sft\ndata: d\nmodel:\n  head_dim: 7\n",
       "s.yaml:4:3: model.head_dim: rotary positions turn pairs of numbers, so the width of a head must be even, got "
       "7"},
      {"ItemLossWithoutItemVectors", "kind: sft\ndata: d\nmodel: {encoder: codes}\nsft: {item_loss_weight: 1}\n",
       "s.yaml:4:7: sft.item_loss_weight: compares the vectors of items, and the encoder codes has none; want "
       "model.encoder merged, or item_loss_weight 0"},
      {"StepsOfBrokenLeases", Rl("  groups_per_step: 60\n"),
       "s.yaml:4:3: rl.groups_per_step: a step is made of whole leases, but 60 groups do not divide into leases of 8; "
       "use 56 or 64"},
      {"TooManyNegatives", Rl("  group_size: 6\n"),
       "s.yaml:4:3: rl.group_size: 4 negatives cannot all rank in the bottom zone of ceil(rho * group_size) = 3 "
       "places, "
       "so the gate could never open; want at most 3 negatives, or a larger rho"},
      {"NoHead", Rl("  gate: {tau: 0}\n"),
       "s.yaml:4:10: rl.gate.tau: the head has ceil(tau * group_size) = 0 places, so the gate could never open; raise "
       "tau"},
      {"LeaseOfOne", Rl("  lease_groups: 1\n"),
       "s.yaml:4:3: rl.lease_groups: negatives come from the other groups of a lease, which hold 0 completions, so 4 "
       "cannot be drawn and the gate could never open; raise lease_groups"},
      {"PatienceInRl", Rl("  validation: {patience: 3}\n"),
       "s.yaml:4:16: rl.validation.patience: only sft ends by patience; remove it"},
      {"NothingToTrainOn",
       "kind: prepare\nprepare: {events: e, split: chronological, test_fraction: 0.5, validation_fraction: 0.5}\n",
       "s.yaml:2:44: prepare.test_fraction: validation_fraction and test_fraction together leave no events for "
       "training"},
      {"IndexBesideLevels", "kind: prepare\nprepare:\n  events: e\n  sids: {index: i.json, levels: 4}\n",
       "s.yaml:4:25: prepare.sids.levels: describes how semantic IDs are made, but prepare.sids.index names a file of "
       "them; remove one of the two"},
      {"KlWithoutReference", Rl("  kl:\n    beta: 0.001\n"),
       "s.yaml:5:5: rl.kl.beta: beta 0.001 > 0 asks for a KL to a reference policy, and there is none; want "
       "rl.kl.reference frozen or mixed, or beta 0"},
      {"ReferenceWithoutKl", Rl("  kl: {reference: frozen}\n"),
       "s.yaml:4:8: rl.kl.reference: a reference policy costs a pass a step and, at beta 0, moves nothing; want "
       "rl.kl.beta > 0, or rl.kl.reference none"},
      {"TrainingOnTheTestSplit", Rl("  prompt_split: test\n"),
       "s.yaml:4:3: rl.prompt_split: a learning rate of 0.00003 would train on the held-out events; want "
       "rl.optimizer.learning_rate 0, or rl.prompt_split train"},
      {"JudgingWithoutAGate", Rl("  prompt_split: test\n  objective: mixture\n  optimizer: {learning_rate: 0}\n"),
       "s.yaml:4:3: rl.prompt_split: held-out events are only there to be judged by the gate; want rl.objective gated, "
       "or rl.prompt_split train"},
      {"MixOfAFrozenReference", Rl("  kl: {beta: 0.1, reference: frozen, mix: 0.5}\n"),
       "s.yaml:4:38: rl.kl.mix: moves a mixed reference; give rl.kl.reference mixed, or remove it"},
      {"ConvexBeyondOne", Rl("  mixing: convex\n  lambda: 1.5\n"),
       "s.yaml:5:3: rl.lambda: the NLL of a convex mixture weighs 1 - lambda = -0.5 < 0; want lambda of at most 1"},
      {"ConvexOfOneTerm", Rl("  mixing: convex\n  lambda: 0.5\n  objective: grpo_only\n"),
       "s.yaml:4:3: rl.mixing: a convex mixture is of NLL and GRPO, but the objective has one of the two; want "
       "rl.objective gated or mixture, or rl.mixing additive"},
      {"SiblingsWithoutBeams", Rl("  sampler: sample\n  advantage: {sibling_weight: 1}\n"),
       "s.yaml:5:15: rl.advantage.sibling_weight: siblings are branches of one tree of beams or of a search, and "
       "independent samples hardly share prefixes; want rl.sampler beam or value_guided, or sibling_weight 0"},
      {"ValueLossWithoutAHead", Rl("  value: {loss_weight: 1}\n"),
       "s.yaml:4:11: rl.value.loss_weight: the value loss trains a value head, and the policy has none; want "
       "model.value_head true, or loss_weight 0"},
      {"SearchWithoutAHead", Rl("  sampler: value_guided\n"),
       "s.yaml:4:3: rl.sampler: value_guided searches by the policy's value head, and it has none; want "
       "model.value_head true, or another sampler"},
      {"HeadWithoutUse", "kind: rl\ndata: d\nmodel: {value_head: true}\n",
       "s.yaml:3:9: model.value_head: nothing trains or reads the value head; want rl.value.loss_weight above 0 or "
       "rl.sampler value_guided, or value_head false"},
      {"ValueLossOfNllOnly",
       "kind: rl\ndata: d\nmodel: {value_head: true}\nrl: {objective: nll_only, value: "
       "{loss_weight: 1}}\n",
       "s.yaml:4:35: rl.value.loss_weight: the value loss learns from the group's completions, which nll_only does not "
       "look at; want another rl.objective, or loss_weight 0"},
      {"HeadOfSft", "kind: sft\ndata: d\nmodel: {value_head: true}\n",
       "s.yaml:3:9: model.value_head: only rl trains and reads a value head; remove it"},
      {"WidthOfNoHead", "kind: rl\ndata: d\nmodel: {value_hidden_size: 32}\n",
       "s.yaml:3:9: model.value_hidden_size: is the width of a value head; give model.value_head true, or remove it"},
      {"GammaOfNoValueLoss", Rl("  value: {gamma: 0.9}\n"),
       "s.yaml:4:11: rl.value.gamma: belongs to the value loss; give rl.value.loss_weight, or remove it"},
      {"StepWeightsInWords",
       "kind: rl\ndata: d\nmodel: {value_head: true}\nrl: {value: {loss_weight: 1, "
       "step_weights: 0.3 half 1}}\n",
       "s.yaml:4:30: rl.value.step_weights: want numbers of at least 0, one a level, separated by spaces, got "
       "\"half\""},
      {"BudgetOfNoSearch", Rl("  value_search: {budget: 40}\n"),
       "s.yaml:4:18: rl.value_search.budget: belongs to the search by value; give rl.sampler value_guided, or remove "
       "it"},
      {"BudgetBelowTheBeam",
       "kind: rl\ndata: d\nmodel: {value_head: true}\nrl: {sampler: value_guided, value_search: "
       "{initial_width: 9, budget: 8}}\n",
       "s.yaml:4:62: rl.value_search.budget: a beam of width 9 costs as many forward tokens a level, so 8 do not pay "
       "for it; raise the budget or narrow the beam"},
      {"SiblingsOfDynamicSamples", Rl("  sampler: dynamic\n  advantage: {sibling_weight: 1}\n"),
       "s.yaml:5:15: rl.advantage.sibling_weight: siblings are branches of one tree of beams or of a search, and "
       "independent samples hardly share prefixes; want rl.sampler beam or value_guided, or sibling_weight 0"},
      {"VectorsOfNobody", Rl("  item_vectors: v.npy\n"),
       "s.yaml:4:3: rl.item_vectors: is read by the semantic reward and the value loss alone; give rl.reward.kind "
       "semantic or rl.value.loss_weight, or remove it"},
      {"SiblingsOverTheStep", Rl("  advantage: {sibling_weight: 1}\n  policy_loss: {mean: step}\n"),
       "s.yaml:4:15: rl.advantage.sibling_weight: the sibling term is a mean over the group by definition; want "
       "rl.policy_loss.mean group, or sibling_weight 0"},
      {"RecastWithoutTheTarget", Rl("  target_in_group: false\n  advantage: {kind: recast}\n"),
       "s.yaml:5:15: rl.advantage.kind: recast repairs groups without a hit by the target; want rl.target_in_group "
       "true"},
      {"WindowOfDroppedNegatives", Rl("  advantage: {window_rank: 2}\n"),
       "s.yaml:4:15: rl.advantage.window_rank: the window weighs negative advantages, which rl.negative_weight 0 "
       "drops; want a negative_weight above 0, or window_rank 0"},
      {"WindowBeyondTheList",
       Rl("  negative_weight: 1\n  group_size: 4\n  gate: {tau: 0.5, negatives: 2}\n"
          "  advantage: {window_rank: 5}\n"),
       "s.yaml:7:15: rl.advantage.window_rank: the window stands at place 5 of a list of 4; want at most 4"},
      {"ControlWithoutAGate", Rl("  objective: mixture\n  gate: {control: random}\n"),
       "s.yaml:5:10: rl.gate.control: a control stands in for the gate's verdicts, and only the objective gated has "
       "any; want rl.objective gated, or rl.gate.control none"},
      {"EqualDoseOverTheAdmitted", Rl("  gate: {control: equal_dose, normalization: admitted}\n"),
       "s.yaml:4:10: rl.gate.control: the mean over the admitted divides the equal dose out again; want "
       "rl.gate.normalization all"},
      {"RateOfNoControl", Rl("  gate: {control_rate: 0.1}\n"),
       "s.yaml:4:10: rl.gate.control_rate: is the rate of a control; give rl.gate.control random, equal_dose or thin, "
       "or remove it"},
      {"ZoneOfAHistoryGate", Rl("  gate: {kind: history, rho: 0.4}\n"),
       "s.yaml:4:25: rl.gate.rho: belongs to AdaGRPO's tests of the ranker, which this kind of gate does not ask; give "
       "rl.gate.kind adagrpo, pooled or combined, or remove it"},
      {"ThresholdOfAdaGrpo", Rl("  gate: {threshold: 0.8}\n"),
       "s.yaml:4:10: rl.gate.threshold: is compared with an estimate of reliability, which this kind of gate has none "
       "of; give rl.gate.kind history, own_cross, pooled or combined, or remove it"},
      {"ThresholdThatNothingPasses", Rl("  gate: {kind: history, threshold: 1}\n"),
       "s.yaml:4:25: rl.gate.threshold: no share is above 1, so the gate could never open; want a threshold below 1"},
      {"WeightOfNoCombination", Rl("  gate: {kind: history, pool_weight: 0.4}\n"),
       "s.yaml:4:25: rl.gate.pool_weight: belongs to rl.gate.kind combined; give that kind, or remove it"},
      {"RegionsOfASingleTest", Rl("  gate: {kind: own_cross, pool_groups: 4}\n"),
       "s.yaml:4:27: rl.gate.pool_groups: belongs to the regions' means; give rl.gate.kind pooled or combined, or "
       "remove it"},
      {"HistoryThatNobodyAsksFor", Rl("  gate: {history_items: 4}\n"),
       "s.yaml:4:10: rl.gate.history_items: counts items of the history to score, which nothing asks for; give "
       "rl.gate.kind history, rl.record true, or remove it"},
      {"NothingToCompareWith", Rl("  gate: {kind: own_cross, negatives: 0}\n"),
       "s.yaml:4:27: rl.gate.negatives: this kind of gate compares with other samples' rollouts and needs at least 1 "
       "negative, got 0"},
      {"ThinByHowMuch", Rl("  gate: {control: thin}\n"),
       "s.yaml:4:10: rl.gate.control: thin lets a part of the open groups through and needs its rate; want a "
       "control_rate above 0"},
      {"KindOfNoGate", Rl("  objective: mixture\n  gate: {kind: history}\n"),
       "s.yaml:5:10: rl.gate.kind: only the objective gated asks a gate; want rl.objective gated, or no rl.gate.kind"},
      {"RangeOfNoDose", Rl("  gate: {dose_range: 2}\n"),
       "s.yaml:4:10: rl.gate.dose_range: bounds dose control; give rl.gate.target_dose, or remove it"},
      {"TwoDoses", Rl("  gate: {target_dose: 0.3, control: equal_dose}\n"),
       "s.yaml:4:10: rl.gate.target_dose: equal_dose sets a dose of its own; want rl.gate.target_dose 0, or another "
       "control"},
      {"DoseOfAConvexMixture", Rl("  lambda: 0.5\n  mixing: convex\n  gate: {target_dose: 0.3}\n"),
       "s.yaml:6:10: rl.gate.target_dose: the lambda of a convex mixture is a share and cannot follow a dose; want "
       "rl.mixing additive"},
      {"DoseOfNothing", Rl("  lambda: 0\n  gate: {target_dose: 0.3}\n"),
       "s.yaml:5:10: rl.gate.target_dose: no factor makes a dose of lambda 0; want a lambda above 0"},
      {"BoundOfNoRecord", Rl("  record_mib: 4\n"),
       "s.yaml:4:3: rl.record_mib: bounds the record; give rl.record true, or remove it"},
      {"NoNegativesForSuppression", Rl("  gate: {negatives: 0}\n"),
       "s.yaml:4:10: rl.gate.negatives: the suppression test needs at least 1 negative, got 0; ask for some, or set "
       "use_suppression to false"},
      {"ClipOfReinforce", Rl("  policy_loss: {clip_high: 0.3}\n"),
       "s.yaml:4:17: rl.policy_loss.clip_high: belongs to another kind of rl.policy_loss; give that kind, or remove "
       "it"},
      {"RatioOfReinforce", Rl("  policy_loss: {ratio: sequence}\n"),
       "s.yaml:4:17: rl.policy_loss.ratio: reinforce compares with no other policy; give another rl.policy_loss.kind, "
       "or remove it"},
      {"DenominatorOfTheRule", Rl("  reward: {kind: rule, denominator: all_slots}\n"),
       "s.yaml:4:24: rl.reward.denominator: belongs to the ranking reward; give rl.reward.kind ranking or "
       "ranking_only, or remove it"},
      {"FloorOfTheRule", Rl("  reward: {kind: rule, floor: 0.1}\n"),
       "s.yaml:4:24: rl.reward.floor: changes the ranker's scores, which are not the reward; remove it, or "
       "rl.reward.kind"},
      {"ShapeOfNoWindow", Rl("  advantage: {window_temperature: 2}\n"),
       "s.yaml:4:15: rl.advantage.window_temperature: shapes the window; give rl.advantage.window_rank, or remove it"},
      {"MeanOfNoSiblings", Rl("  advantage: {sibling_mean: per_candidate}\n"),
       "s.yaml:4:15: rl.advantage.sibling_mean: belongs to the sibling term; give rl.advantage.sibling_weight, or "
       "remove it"},
      {"EventsBesideAMarket", "kind: prepare\nprepare:\n  events: e\n  market: {regions: 4}\n",
       "s.yaml:3:3: prepare.events: is about events that are read, but prepare.market generates them, with their "
       "semantic IDs and split; remove one of the two"},
      {"SidsBesideAMarket", "kind: prepare\nprepare:\n  market: {}\n  sids: {levels: 3}\n",
       "s.yaml:4:3: prepare.sids: is about events that are read, but prepare.market generates them, with their "
       "semantic IDs and split; remove one of the two"},
      {"CellsWithoutCodes", "kind: prepare\nprepare:\n  market: {items_per_cell: 20}\n",
       "s.yaml:3:12: prepare.market.items_per_cell: the 20 items of a cell need as many codes of level 3, got 16; "
       "raise leaf_codes, or lower items_per_cell"},
      {"MarketBeyondTheLimit", "kind: prepare\nprepare:\n  market: {regions: 60000, cells: 60000}\n",
       "s.yaml:3:12: prepare.market.regions: regions * cells * items_per_cell makes 28800000000 items, want at most "
       "134217728"},
      {"MoreUsersThanTheLimit",
       "kind: prepare\nprepare:\n  market: {sft_users: 100000000, rl_users: 100000000, heldout_users: 100000000}\n",
       "s.yaml:3:12: prepare.market.sft_users: sft_users + rl_users + heldout_users makes 300000000 users, want at "
       "most 268435456"},
      {"ReservedOfAChronologicalSplit", "kind: prepare\nprepare: {events: e, split: chronological, rl_events: 1}\n",
       "s.yaml:2:44: prepare.rl_events: keeps a user's latest training events for rl, which only prepare.split "
       "leave_one_out does; remove it"},
      {"BiasOfNothing", "kind: prepare\nprepare: {events: e, ranker: {bias: {}}}\n",
       "s.yaml:2:31: prepare.ranker.bias: a bias of missing 0 and position 0 loses no event; give one of the two, or "
       "remove the section"},
      {"BiasWithoutARanker", "kind: prepare\nprepare: {events: e, ranker: {sequential: false, bias: {missing: 1}}}\n",
       "s.yaml:2:50: prepare.ranker.bias: is of the sequential ranker's log, but prepare.ranker.sequential is false; "
       "remove one of the two"},
      {"SlateOfNoPositionBias", "kind: prepare\nprepare: {events: e, ranker: {bias: {missing: 1, slate: 5}}}\n",
       "s.yaml:2:50: prepare.ranker.bias.slate: is the slate of the position bias; give "
       "prepare.ranker.bias.position, or remove it"},
      {"TruthOfNoKind", Rl("  reward: {ranker: \"truth:pops:0.5\"}\n"),
       "s.yaml:4:12: rl.reward.ranker: \"truth:pops:0.5\": no kind of error is called \"pops\"; want truth, or "
       "truth:KIND:SHARE with KIND one of pop, fine, cell, noise and SHARE above 0 and at most 1; after the kind may "
       "stand ~ (noise on the right part), then @log (good at logged choices), as in truth:pop:0.5, "
       "truth:fine~@log:0.8"},
      {"ManyAtOnce", "kind: rl\nseed: x\nrl:\n  stepz: 1\n  group_size: 1\n  gate:\n    ties: fair\n",
       "s.yaml: data: required: a job of kind rl needs the folder of a prepared data set\n"
       "s.yaml:2:7: seed: want a whole number from 0 to 18446744073709551615, got \"x\"\n"
       "s.yaml:4:3: rl.stepz: unknown key; did you mean steps?\n"
       "s.yaml:5:3: rl.group_size: want 2 to 1024, got 1\n"
       "s.yaml:7:11: rl.gate.ties: want one of pessimistic, average; got \"fair\""},
  };
}

class BadSpecsTest : public testing::TestWithParam<BadSpec> {};

TEST_P(BadSpecsTest, IsRefusedInTheseWords) {
  const auto spec = ResolveSpec(GetParam().yaml, "s.yaml");
  ASSERT_FALSE(spec.ok());
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(spec.status().message()), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(Corpus, BadSpecsTest, testing::ValuesIn(Corpus()),
                         [](const testing::TestParamInfo<BadSpec>& info) { return std::string(info.param.name); });

TEST(SpecLimitsTest, TextBeyondTheLimitIsRefusedUnread) {
  const std::string text(kMaxSpecBytes + 1, '#');
  EXPECT_EQ(ResolveSpec(text, "big.yaml").status().message(),
            "big.yaml: a job spec has at most 1048576 bytes, this one has 1048577");
}

TEST(SpecLimitsTest, TooManyValuesAreRefused) {
  std::string text = "kind: sft\n";
  for (int i = 0; i < 12000; ++i) absl::StrAppend(&text, "k", i, ": 1\n");
  EXPECT_EQ(ResolveSpec(text, "long.yaml").status().message(),
            "long.yaml:5000:8: more than 10000 values; this is not a job spec");
}

// Text that somebody cut, doubled or garbled: it is refused in words or read, never more.
TEST(SpecLimitsTest, GarbledTextNeverHarms) {
  const std::string valid =
      "kind: rl\nname: \"a \\\"b\\\" c\"\ndata: 'd e'\nseed: 7 # comment\nrl:\n  steps: 20\n  gate: {tau: 0.25, rho: "
      "0.5}\n"
      "  reward:\n    head: click\n    deadline_s: 1m30s\n";
  ASSERT_TRUE(ResolveSpec(valid, "s.yaml").ok()) << ResolveSpec(valid, "s.yaml").status();
  const std::string pieces[] = {
      ":",  "\n",   "  ",    "{",  "}", "[", "]",  "&a ",  "*a",   "!!x ", "|\n",  ">-\n", "? ",
      "- ", "%TAG", "---\n", "\"", "'", "#", "\t", "\xff", "\xc3", "~",    "<<: ", ",",    std::string(300, '{')};
  Random random(20240607);
  int accepted = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string text = valid;
    const uint64_t edits = 1 + random.Below(4);
    for (uint64_t i = 0; i < edits; ++i) {
      const size_t at = random.Below(text.size() + 1);
      switch (random.Below(3)) {
        case 0:
          text.insert(at, pieces[random.Below(std::size(pieces))]);
          break;
        case 1:
          text.erase(at, random.Below(8));
          break;
        default:
          text.insert(at, text.substr(random.Below(text.size() + 1), random.Below(20)));
      }
    }
    const auto spec = ResolveSpec(text, "s.yaml");
    if (spec.ok()) {
      ++accepted;
      const auto again = ResolveSpec(SpecToYaml(spec->effective), "s.yaml");
      ASSERT_TRUE(again.ok()) << again.status() << "\n" << text;
      EXPECT_EQ(SpecDigest(again->effective), SpecDigest(spec->effective)) << text;
    } else {
      EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
    }
  }
  EXPECT_GT(accepted, 50);  // else the rounds test one thing only
}

}  // namespace
}  // namespace sluice

#include "learner/run/evaluate_policy.h"

#include <torch/types.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/catalog/exclusion.h"
#include "common/collective/sums.h"
#include "common/cooccurrence/cooccurrence.h"
#include "common/decode/decode.h"
#include "common/status/status.h"
#include "learner/run/prompt_order.h"

namespace sluice::learner {
namespace {

// Width of the lists that the co-occurrence rule is judged by: the largest cutoff.
constexpr int kRuleDepth = 50;

// How long a rank works between two meetings with the others.
constexpr absl::Duration kSlice = absl::Seconds(1);
// Blocks that wait for actors at once; more would only take memory.
constexpr int kBlocksAhead = 64;

std::vector<int32_t> SortedEventsBefore(const Dataset& dataset, const Example& example) {
  const absl::Span<const int32_t> events = dataset.Events(example.user).first(static_cast<size_t>(example.position));
  std::vector<int32_t> sorted(events.begin(), events.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

bool Contains(absl::Span<const int32_t> sorted, int32_t value) {
  return std::binary_search(sorted.begin(), sorted.end(), value);
}

// Codes that two semantic IDs have in common, from the first level on.
int32_t SharedCodes(const Trie& trie, int32_t a, int32_t b) {
  const absl::Span<const int32_t> x = trie.TokensOfLeaf(a), y = trie.TokensOfLeaf(b);
  return static_cast<int32_t>(std::mismatch(x.begin(), x.end(), y.begin()).first - x.begin());
}

// What the list's codes say of target and diversity.
void CompareCodes(const Trie& trie, int32_t target_leaf, PromptOutcome* outcome) {
  const std::vector<int32_t>& leaves = outcome->top_leaves;
  double distance = 0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const int32_t shared = SharedCodes(trie, leaves[i], target_leaf);
    if (i == 0) outcome->shared_first = shared;
    outcome->shared_top = std::max(outcome->shared_top, shared);
    for (size_t j = 0; j < i; ++j)
      distance += 1 - SharedCodes(trie, leaves[i], leaves[j]) / static_cast<double>(trie.levels());
  }
  const size_t pairs = leaves.size() * (leaves.size() - 1) / 2;
  if (leaves.size() >= 2) outcome->diversity = distance / static_cast<double>(pairs);
}

}  // namespace

PromptOutcome JudgeBeams(const Trie& trie, int32_t target, absl::Span<const int32_t> excluded,
                         absl::Span<const Completion> constrained, absl::Span<const Completion> unconstrained) {
  PromptOutcome outcome;
  const int32_t target_leaf = trie.LeafOfItem(target);
  int32_t item_rank = 0;
  int32_t sid_rank = 0;
  for (const Completion& completion : constrained) {
    const float log_prob = std::accumulate(completion.log_probs_full.begin(), completion.log_probs_full.end(), 0.0F);
    bool any = false;
    for (const int32_t item : trie.ItemsOfLeaf(completion.leaf)) {
      if (Contains(excluded, item)) continue;
      any = true;
      ++item_rank;
      if (item == target) outcome.item_rank = item_rank;
      if (item_rank > kTopOfList) continue;
      outcome.top_items.push_back(item);
      outcome.top_log_probs.push_back(log_prob);
    }
    if (!any) continue;
    ++sid_rank;
    if (completion.leaf == target_leaf) outcome.sid_rank = sid_rank;
    if (sid_rank <= kTopOfList) outcome.top_leaves.push_back(completion.leaf);
  }
  CompareCodes(trie, target_leaf, &outcome);
  const auto invalid = [&](int first) {
    return static_cast<int32_t>(std::count_if(unconstrained.begin(), unconstrained.begin() + first,
                                              [](const Completion& completion) { return completion.leaf < 0; }));
  };
  outcome.unconstrained = std::min(static_cast<int32_t>(unconstrained.size()), kTopOfList);
  outcome.invalid = invalid(outcome.unconstrained);
  if (unconstrained.size() >= static_cast<size_t>(kWideBeams)) {
    outcome.unconstrained_wide = kWideBeams;
    outcome.invalid_wide = invalid(kWideBeams);
  }
  return outcome;
}

void JudgeByTruth(const MarketTruth* truth, PromptOutcome* outcome) {
  if (truth == nullptr || !truth->exact_metrics()) return;
  const MarketTruth::ListValue value = truth->ValueOf(outcome->user, outcome->top_items);
  outcome->true_mass = value.mass;
  outcome->true_utility = value.utility;
}

CatalogShape ShapeOf(const Dataset& dataset, double head_share) {
  std::vector<int64_t> events(static_cast<size_t>(dataset.num_items()), 0);
  for (int32_t user = 0; user < dataset.num_users(); ++user) {
    for (const int32_t item : dataset.TrainingEvents(user)) ++events[static_cast<size_t>(item)];
  }
  return {.num_leaves = dataset.trie().num_leaves(),
          .levels = dataset.trie().levels(),
          .head = HeadItems(events, head_share)};
}

namespace {

// One rank's examples, cut into blocks: each is decoded by this rank or by one of its actors, and judged here.
class ShareOfRank {
 public:
  ShareOfRank(Policy& policy, const Dataset& dataset, std::vector<Example> examples, const EvaluationSettings& settings)
      : policy_(policy),
        dataset_(dataset),
        settings_(settings),
        examples_(std::move(examples)),
        order_(examples_.size()),
        outcomes_(examples_.size()) {
    // Prompts of one block have similar lengths, so that little of the padded attention is wasted.
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      return dataset_.History(examples_[a]).size() < dataset_.History(examples_[b]).size();
    });
  }
  ~ShareOfRank() {
    if (actors_ != nullptr) actors_->CloseDecode();
  }
  ShareOfRank(const ShareOfRank&) = delete;
  ShareOfRank& operator=(const ShareOfRank&) = delete;

  absl::Status Open();
  // Goes on until all is done or a slice of time has passed.
  absl::Status Work();

  size_t done() const { return done_; }
  size_t by_actors() const { return by_actors_; }
  // In the order of the examples; complete when all are done.
  const std::vector<PromptOutcome>& outcomes() const { return outcomes_; }

 private:
  size_t block_size() const { return static_cast<size_t>(settings_.batch_prompts); }
  uint64_t num_blocks() const { return (order_.size() + block_size() - 1) / block_size(); }
  // The examples of a block, as indices of examples_.
  absl::Span<const size_t> Block(uint64_t block) const {
    return absl::MakeConstSpan(order_).subspan(block * block_size(), block_size());
  }
  std::vector<int32_t> Excluded(const Example& example) const {
    return settings_.exclude_history ? SortedEventsBefore(dataset_, example) : std::vector<int32_t>();
  }
  std::vector<Prompt> PromptsOf(uint64_t block) const;
  absl::Status DecodeHere(uint64_t block);
  void Judge(size_t index, absl::Span<const Completion> constrained, absl::Span<const Completion> unconstrained) {
    const Example& example = examples_[index];
    outcomes_[index] =
        JudgeBeams(dataset_.trie(), dataset_.Target(example), Excluded(example), constrained, unconstrained);
    outcomes_[index].user = example.user;
    outcomes_[index].position = example.position;
    JudgeByTruth(dataset_.truth(), &outcomes_[index]);
    ++done_;
  }

  Policy& policy_;
  const Dataset& dataset_;
  const EvaluationSettings& settings_;
  const std::vector<Example> examples_;
  std::vector<size_t> order_;
  std::vector<PromptOutcome> outcomes_;
  EvalSource* actors_ = nullptr;  // with an open call
  uint64_t begun_ = 0;            // blocks that somebody works on, or that wait for somebody
  size_t done_ = 0;               // examples
  size_t by_actors_ = 0;          // of them
};

absl::Status ShareOfRank::Open() {
  if (settings_.actors.source == nullptr) return absl::OkStatus();
  DecodeCall call;
  call.policy_version = settings_.actors.policy_version;
  call.constrained_beams = settings_.beams;
  call.unconstrained_beams = settings_.unconstrained_beams;
  SLUICE_RETURN_IF_ERROR(settings_.actors.source->OpenDecode(call));
  actors_ = settings_.actors.source;
  return absl::OkStatus();
}

std::vector<Prompt> ShareOfRank::PromptsOf(uint64_t block) const {
  std::vector<Prompt> prompts;
  for (const size_t index : Block(block)) {
    const Example& example = examples_[index];
    const absl::Span<const int32_t> history = dataset_.History(example);
    Prompt prompt;
    prompt.ordinal = index;
    prompt.user = example.user;
    prompt.history.assign(history.begin(), history.end());
    prompt.excluded = Excluded(example);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

absl::Status ShareOfRank::DecodeHere(uint64_t block) {
  c10::InferenceMode inference;
  const absl::Span<const size_t> indices = Block(block);
  std::vector<DecodePrompt> prompts(indices.size());
  for (size_t i = 0; i < indices.size(); ++i) {
    const Example& example = examples_[indices[i]];
    SLUICE_ASSIGN_OR_RETURN(prompts[i].input, policy_.EncodePrompt(dataset_.History(example)));
    prompts[i].excluded_leaves = ExcludedLeaves(dataset_.trie(), Excluded(example));
  }
  // Both kinds of beams in one call: the prompts are prefilled once.
  DecodePlan plan;
  plan.beams = settings_.beams;
  plan.beam_space = LogProbSpace::kFull;
  plan.unconstrained_beams = settings_.unconstrained_beams;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodeResult> decoded, Decode(policy_, dataset_.trie(), prompts, plan));
  for (size_t i = 0; i < indices.size(); ++i) Judge(indices[i], decoded[i].beams, decoded[i].unconstrained);
  return absl::OkStatus();
}

absl::Status ShareOfRank::Work() {
  const absl::Time until = settings_.now() + kSlice;
  while (done_ < examples_.size()) {
    std::optional<uint64_t> mine;
    if (actors_ == nullptr) {
      mine = begun_++;
    } else {
      while (begun_ < num_blocks() && actors_->waiting_blocks() < kBlocksAhead) {
        actors_->AddBlock(begun_, PromptsOf(begun_));
        ++begun_;
      }
      mine = actors_->TakeForRank();
    }
    if (mine) SLUICE_RETURN_IF_ERROR(DecodeHere(*mine));
    const absl::Duration left = std::max(absl::ZeroDuration(), until - settings_.now());
    if (actors_ != nullptr) {
      // With nothing to do itself the rank waits: for beams, or for a block that comes back.
      SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodedBlock> decoded,
                              actors_->TakeDecoded(mine ? absl::ZeroDuration() : left));
      for (const DecodedBlock& block : decoded) {
        const absl::Span<const size_t> indices = Block(block.block);
        for (size_t i = 0; i < indices.size(); ++i) {
          Judge(indices[i], block.prompts[i].constrained, block.prompts[i].unconstrained);
        }
        by_actors_ += indices.size();
      }
    }
    if (settings_.now() >= until) break;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RankingMetrics> EvaluatePolicy(Policy& policy, const Dataset& dataset,
                                              absl::Span<const Example> examples, const EvaluationSettings& settings,
                                              Collective& collective, std::vector<PromptOutcome>* outcomes,
                                              const std::function<absl::Status(const EvaluationProgress&)>& look) {
  ShareOfRank share(policy, dataset,
                    ExamplesOfRank({examples.begin(), examples.end()}, collective.rank(), collective.world_size()),
                    settings);
  SLUICE_RETURN_IF_ERROR(share.Open());
  // Ranks meet once a slice: one that is done early must not be taken for dead while another still decodes.
  EvaluationProgress progress;
  progress.total = static_cast<int64_t>(examples.size());
  do {
    SLUICE_RETURN_IF_ERROR(share.Work());
    std::vector<double> counts = {static_cast<double>(share.done()), static_cast<double>(share.by_actors())};
    SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &counts));
    progress.done = static_cast<int64_t>(counts[0]);
    progress.by_actors = static_cast<int64_t>(counts[1]);
    SLUICE_RETURN_IF_ERROR(look(progress));
  } while (progress.done < progress.total);

  RankingMetrics metrics(ShapeOf(dataset, settings.head_share), settings.beams);
  for (const PromptOutcome& outcome : share.outcomes()) metrics.Add(outcome);
  if (outcomes != nullptr) *outcomes = share.outcomes();
  std::vector<double> sums = metrics.ToSums();
  SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &sums));
  SLUICE_RETURN_IF_ERROR(metrics.SetSums(sums));
  return metrics;
}

namespace {

// The whole numbers of an outcome that travel between ranks, in one fixed order.
std::array<int32_t*, 10> Numbers(PromptOutcome* outcome) {
  return {&outcome->user,          &outcome->position,     &outcome->item_rank,
          &outcome->sid_rank,      &outcome->shared_first, &outcome->shared_top,
          &outcome->unconstrained, &outcome->invalid,      &outcome->unconstrained_wide,
          &outcome->invalid_wide};
}
// The numbers that may be absent.
std::array<std::optional<double>*, 3> MaybeNumbers(PromptOutcome* outcome) {
  return {&outcome->diversity, &outcome->true_mass, &outcome->true_utility};
}
// Those, and whether each of the latter is there.
constexpr size_t kNumbers = 10 + 2 * 3;
// Examples in one all-reduce: 4 MB.
constexpr size_t kGatheredTogether = size_t{1} << 15;

}  // namespace

absl::StatusOr<std::vector<PromptOutcome>> GatherOutcomes(Collective& collective, std::vector<PromptOutcome> mine,
                                                          size_t total) {
  if (collective.world_size() == 1) return mine;
  const size_t world = static_cast<size_t>(collective.world_size()), rank = static_cast<size_t>(collective.rank());
  std::vector<PromptOutcome> all(total);
  for (size_t first = 0; first < total; first += kGatheredTogether) {
    const size_t end = std::min(total, first + kGatheredTogether);
    // Each rank fills its own examples' places: a sum with zeros is a copy.
    std::vector<double> numbers((end - first) * kNumbers, 0);
    for (size_t i = 0; i < mine.size(); ++i) {
      const size_t example = rank + i * world;
      if (example < first || example >= end) continue;
      double* next = numbers.data() + (example - first) * kNumbers;
      for (const int32_t* const number : Numbers(&mine[i])) *next++ = *number;
      for (const std::optional<double>* const number : MaybeNumbers(&mine[i])) {
        *next++ = number->value_or(0);
        *next++ = number->has_value() ? 1 : 0;
      }
    }
    SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &numbers));
    const double* next = numbers.data();
    for (size_t example = first; example < end; ++example) {
      for (int32_t* const number : Numbers(&all[example])) *number = static_cast<int32_t>(*next++);
      for (std::optional<double>* const number : MaybeNumbers(&all[example])) {
        const double value = *next++;
        if (*next++ > 0) *number = value;
      }
    }
  }
  return all;
}

std::vector<OutcomeRow> OutcomeRows(const Dataset& dataset, absl::Span<const Example> examples,
                                    std::vector<PromptOutcome> outcomes, bool exclude_history) {
  SLUICE_CHECK(outcomes.size() == examples.size(), "one outcome an example");
  const std::shared_ptr<const Cooccurrence> rule = Cooccurrence::FromDataset(dataset);
  std::vector<OutcomeRow> rows(examples.size());
  for (size_t i = 0; i < examples.size(); ++i) {
    const int32_t target = dataset.Target(examples[i]);
    const std::vector<int32_t> seen =
        exclude_history ? SortedEventsBefore(dataset, examples[i]) : std::vector<int32_t>();
    rows[i].outcome = std::move(outcomes[i]);
    rows[i].history = examples[i].position;
    rows[i].popularity = rule->popularity(target);
    rows[i].rule_rank = rule->RankOf(dataset.History(examples[i]), seen, target);
  }
  return rows;
}

ExampleLists ListsToShow(const Dataset& dataset, uint64_t step, absl::Span<const PromptOutcome> outcomes) {
  ExampleLists lists = {.step = step, .users = {}};
  for (const size_t place : ShownPlaces(outcomes.size())) {
    const PromptOutcome& outcome = outcomes[place];
    const Example example = {.user = outcome.user, .position = outcome.position};
    ExampleList& list = lists.users.emplace_back();
    list.user = dataset.user_name(outcome.user);
    list.position = outcome.position;
    for (const int32_t item : dataset.History(example)) list.history.push_back(dataset.item_name(item));
    list.target = dataset.item_name(dataset.Target(example));
    list.target_rank = outcome.item_rank;
    for (size_t i = 0; i < outcome.top_items.size(); ++i) {
      ListedItem& item = list.items.emplace_back();
      item.name = dataset.item_name(outcome.top_items[i]);
      if (i < outcome.top_log_probs.size()) item.log_prob = outcome.top_log_probs[i];
    }
  }
  return lists;
}

void AddTruthColumns(OutcomeTable* table) {
  const auto known = [](const OutcomeRow& row) { return row.outcome.true_mass && row.outcome.true_utility; };
  if (table->setting.beams < kTopOfList || !std::all_of(table->rows.begin(), table->rows.end(), known)) return;
  table->more_columns.push_back(absl::StrCat("mass@", kTopOfList));
  table->more_columns.push_back(absl::StrCat("utility@", kTopOfList));
  for (OutcomeRow& row : table->rows) {
    row.more.push_back(*row.outcome.true_mass);
    row.more.push_back(*row.outcome.true_utility);
  }
}

namespace {

// A list of items, best first, each its own entry: an item's SID rank is its place in the list of items.
PromptOutcome JudgeItems(const Dataset& dataset, const Example& example, absl::Span<const int32_t> items) {
  const Trie& trie = dataset.trie();
  PromptOutcome outcome;
  outcome.user = example.user;
  outcome.position = example.position;
  const int32_t target = dataset.Target(example);
  const int32_t target_leaf = trie.LeafOfItem(target);
  for (size_t i = 0; i < items.size(); ++i) {
    const int32_t leaf = trie.LeafOfItem(items[i]);
    const int32_t rank = static_cast<int32_t>(i) + 1;
    if (items[i] == target) outcome.item_rank = rank;
    if (outcome.sid_rank == 0 && leaf == target_leaf) outcome.sid_rank = rank;
    if (rank > kTopOfList) continue;
    outcome.top_leaves.push_back(leaf);
    outcome.top_items.push_back(items[i]);
  }
  CompareCodes(trie, target_leaf, &outcome);
  JudgeByTruth(dataset.truth(), &outcome);
  return outcome;
}

std::vector<int32_t> Seen(const Dataset& dataset, const Example& example, bool exclude_history) {
  return exclude_history ? SortedEventsBefore(dataset, example) : std::vector<int32_t>();
}

}  // namespace

RankingMetrics EvaluateTruth(const Dataset& dataset, absl::Span<const Example> examples, double head_share,
                             double popularity_weight, bool exclude_history) {
  const MarketTruth& truth = *dataset.truth();
  RankingMetrics metrics(ShapeOf(dataset, head_share), kRuleDepth);
  for (const Example& example : examples) {
    const std::vector<int32_t> seen = Seen(dataset, example, exclude_history);
    std::vector<int32_t> items =
        truth.TopItems(example.user, kRuleDepth + static_cast<int>(seen.size()), popularity_weight);
    std::erase_if(items, [&seen](int32_t item) { return Contains(seen, item); });
    if (items.size() > static_cast<size_t>(kRuleDepth)) items.resize(static_cast<size_t>(kRuleDepth));
    metrics.Add(JudgeItems(dataset, example, items));
  }
  return metrics;
}

RankingMetrics EvaluateCooccurrenceRule(const Dataset& dataset, absl::Span<const Example> examples, double head_share,
                                        std::vector<PromptOutcome>* outcomes, bool exclude_history) {
  const std::shared_ptr<const Cooccurrence> rule = Cooccurrence::FromDataset(dataset);
  RankingMetrics metrics(ShapeOf(dataset, head_share), kRuleDepth);
  for (const Example& example : examples) {
    const std::vector<int32_t> seen = Seen(dataset, example, exclude_history);
    PromptOutcome outcome = JudgeItems(dataset, example, rule->Recommend(dataset.History(example), seen, kRuleDepth));
    metrics.Add(outcome);
    if (outcomes != nullptr) outcomes->push_back(std::move(outcome));
  }
  return metrics;
}

}  // namespace sluice::learner

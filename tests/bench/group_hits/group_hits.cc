// Do groups that are found by value hold the target more often than beams do, at equal forward tokens?
//
//   group_hits --data FOLDER --model FOLDER [--split validation] [--users 2000] [--group 16] [--budgets 48,96]
//
// For every budget and the same prompts: a beam as wide as the budget pays for, and V-STAR's search under that budget,
// both cut to the group's size. Prints the share of groups with the target, what was spent, and the difference with a
// 95 % interval by paired bootstrap over prompts. Beside them, of the same trees: the most probable leaves in place of
// the most valued ones (is it the tree or the choice?), and all leaves (what a better choice could find).
// The model needs a value head; an rl job with rl.value.loss_weight trains one.
#include <torch/types.h>
#include <torch/utils.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/catalog/dataset.h"
#include "common/catalog/exclusion.h"
#include "common/decode/decode.h"
#include "common/decode/value_guided.h"
#include "common/model/policy.h"
#include "common/model_config/model_folder.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/evaluate/bootstrap.h"
#include "learner/run/prompt_order.h"

namespace sluice::learner {
namespace {

struct Arguments {
  std::string data;
  std::string model;
  std::string split = "validation";
  std::string space = "full";
  int users = 2000;
  int group = 16;
  int batch = 32;
  std::vector<int> budgets;  // empty: what a beam of the group's size forwards, twice and four times that
  bool exclude_history = false;
  int resamples = 2000;
  uint64_t seed = 1;
  int threads = 1;
  ValueSearchOptions search{.initial_width = 0};
};

const char* const kWays[] = {"beams", "value", "tree_by_probability", "tree"};

// One number a prompt and way: 1 if the group holds the target.
using Hits = std::map<std::string, std::vector<double>>;

bool Holds(const std::vector<Completion>& completions, size_t group, int32_t target) {
  const auto end = completions.begin() + static_cast<std::ptrdiff_t>(std::min(group, completions.size()));
  return std::any_of(completions.begin(), end, [target](const Completion& one) { return one.leaf == target; });
}

std::vector<Completion> ByProbability(std::vector<Completion> completions, LogProbSpace space) {
  const auto log_prob = [space](const Completion& one) {
    const std::vector<float>& parts = space == LogProbSpace::kFull ? one.log_probs_full : one.log_probs_trie;
    return std::accumulate(parts.begin(), parts.end(), 0.0);
  };
  std::stable_sort(completions.begin(), completions.end(),
                   [&](const Completion& a, const Completion& b) { return log_prob(a) > log_prob(b); });
  return completions;
}

class Comparison {
 public:
  Comparison(const Arguments& arguments, const Dataset& dataset, Policy& policy)
      : arguments_(arguments), dataset_(dataset), trie_(dataset.trie()), policy_(policy) {
    space_ = arguments.space == "full" ? LogProbSpace::kFull : LogProbSpace::kTrie;
  }

  absl::StatusOr<nlohmann::ordered_json> Run(const std::vector<Example>& examples, int budget) {
    Hits hits;
    int64_t beam_tokens = 0, search_tokens = 0;
    for (size_t first = 0; first < examples.size(); first += static_cast<size_t>(arguments_.batch)) {
      const size_t count = std::min(static_cast<size_t>(arguments_.batch), examples.size() - first);
      const absl::Span<const Example> some = absl::MakeConstSpan(examples).subspan(first, count);
      SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodePrompt> prompts, Prompts(some));

      DecodePlan plan;
      plan.beams = std::max(1, budget / std::max(1, trie_.levels() - 1));
      plan.beam_space = space_;
      int64_t before = policy_.work().appended;
      SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodeResult> beams, Decode(policy_, trie_, prompts, plan));
      beam_tokens += policy_.work().appended - before;

      ValueSearchOptions search = arguments_.search;
      if (search.initial_width == 0) search.initial_width = std::max(1, arguments_.group / 2);
      search.budget = budget;
      search.results = budget;  // every leaf of the tree
      before = policy_.work().appended;
      SLUICE_ASSIGN_OR_RETURN(const std::vector<ValueGuidedResult> found,
                              DecodeByValue(policy_, trie_, prompts, search));
      search_tokens += policy_.work().appended - before;

      const size_t group = static_cast<size_t>(arguments_.group);
      for (size_t b = 0; b < count; ++b) {
        const int32_t target = trie_.LeafOfItem(dataset_.Target(some[b]));
        const std::vector<Completion>& tree = found[b].completions;
        hits["beams"].push_back(Holds(beams[b].beams, group, target));
        hits["value"].push_back(Holds(tree, group, target));
        hits["tree_by_probability"].push_back(Holds(ByProbability(tree, space_), group, target));
        hits["tree"].push_back(Holds(tree, tree.size(), target));
      }
    }
    nlohmann::ordered_json row = {{"budget", budget}, {"prompts", examples.size()}, {"group", arguments_.group}};
    row["forward_tokens"] = {{"beams", PerPrompt(beam_tokens, examples)},
                             {"value", PerPrompt(search_tokens, examples)}};
    for (const char* way : kWays) {
      const std::vector<double>& of_way = hits[way];
      row["target_in_group"][way] =
          std::accumulate(of_way.begin(), of_way.end(), 0.0) / static_cast<double>(of_way.size());
    }
    for (const char* way : {"value", "tree_by_probability"}) {
      SLUICE_ASSIGN_OR_RETURN(
          const DifferenceInterval interval,
          PairedBootstrap(hits[way], hits["beams"], {.resamples = arguments_.resamples, .seed = arguments_.seed}));
      row["minus_beams"][way] = {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
    }
    return row;
  }

 private:
  static double PerPrompt(int64_t tokens, const std::vector<Example>& examples) {
    return static_cast<double>(tokens) / static_cast<double>(examples.size());
  }

  absl::StatusOr<std::vector<DecodePrompt>> Prompts(absl::Span<const Example> examples) const {
    std::vector<DecodePrompt> prompts;
    for (const Example& example : examples) {
      DecodePrompt& prompt = prompts.emplace_back();
      const absl::Span<const int32_t> history = dataset_.History(example);
      SLUICE_ASSIGN_OR_RETURN(prompt.input, policy_.EncodePrompt(history));
      if (arguments_.exclude_history) prompt.excluded_leaves = ExcludedLeaves(trie_, history);
      prompt.seed = DeriveSeed(arguments_.seed, {static_cast<uint64_t>(example.user)});
    }
    return prompts;
  }

  const Arguments& arguments_;
  const Dataset& dataset_;
  const Trie& trie_;
  Policy& policy_;
  LogProbSpace space_;
};

absl::Status Main(Arguments arguments) {
  torch::set_num_threads(arguments.threads);
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(arguments.data));
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(arguments.model));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, Policy::Load(folder, dataset->shared_trie()));
  const SplitLabel split = arguments.split == "test"    ? SplitLabel::kTest
                           : arguments.split == "train" ? SplitLabel::kTrain
                                                        : SplitLabel::kValidation;
  const std::vector<Example> examples = ChooseExamples(dataset->Examples(split), arguments.users, arguments.seed);
  if (examples.empty()) return absl::InvalidArgumentError("the split has no examples");
  if (arguments.budgets.empty()) {
    const int of_group = (dataset->trie().levels() - 1) * arguments.group;
    arguments.budgets = {of_group, 2 * of_group, 4 * of_group};
  }
  Comparison comparison(arguments, *dataset, *policy);
  for (const int budget : arguments.budgets) {
    SLUICE_ASSIGN_OR_RETURN(const nlohmann::ordered_json row, comparison.Run(examples, budget));
    std::printf("%s\n", row.dump().c_str());
    const auto& share = row["target_in_group"];
    const auto& difference = row["minus_beams"]["value"];
    std::fputs(absl::StrFormat("budget %4d: beams %.4f (%.1f tokens), value %.4f (%.1f tokens), difference %+.4f "
                               "[%+.4f, %+.4f]; by probability %.4f, whole tree %.4f\n",
                               budget, share["beams"].get<double>(), row["forward_tokens"]["beams"].get<double>(),
                               share["value"].get<double>(), row["forward_tokens"]["value"].get<double>(),
                               difference["mean"].get<double>(), difference["low"].get<double>(),
                               difference["high"].get<double>(), share["tree_by_probability"].get<double>(),
                               share["tree"].get<double>())
                   .c_str(),
               stderr);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace sluice::learner

int main(int argc, char** argv) {
  sluice::learner::Arguments arguments;
  CLI::App app("Shares of groups with the target, found by beams and by value, at equal forward tokens");
  app.add_option("--data", arguments.data, "Prepared data set")->required();
  app.add_option("--model", arguments.model, "Export with a value head, or a run folder")->required();
  app.add_option("--split", arguments.split)
      ->check(CLI::IsMember({"train", "validation", "test"}))
      ->capture_default_str();
  app.add_option("--users", arguments.users, "0: all")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--group", arguments.group, "G")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--budgets", arguments.budgets, "Forward tokens a prompt")->delimiter(',')->check(CLI::PositiveNumber);
  app.add_option("--space", arguments.space, "What beams are ordered by")
      ->check(CLI::IsMember({"full", "trie"}))
      ->capture_default_str();
  app.add_flag("--exclude-history", arguments.exclude_history, "Keep the history's items out of the groups");
  app.add_option("--initial-width", arguments.search.initial_width, "0: half of G");
  app.add_option("--entropy-weight", arguments.search.entropy_weight)->capture_default_str();
  app.add_option("--exploration", arguments.search.exploration)->capture_default_str();
  app.add_option("--widening", arguments.search.widening)->capture_default_str();
  app.add_option("--widening-power", arguments.search.widening_power)->capture_default_str();
  app.add_option("--batch", arguments.batch)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--resamples", arguments.resamples)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", arguments.seed)->capture_default_str();
  app.add_option("--threads", arguments.threads)->check(CLI::PositiveNumber)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = sluice::learner::Main(arguments);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

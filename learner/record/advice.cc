#include "learner/record/advice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr double kBarelyAboveChance = 0.6;
constexpr double kNoiseErrors = 3;
constexpr int kRegionGroups = 30;
// Above this share the gate has little to refuse, and its rate is what difficulty leaves.
constexpr double kMostlyReliable = 0.8;

// A mean that grows.
struct Mean {
  double count = 0;
  double sum = 0;
  double squares = 0;
  void Add(double value) {
    count += 1;
    sum += value;
    squares += value * value;
  }
  void Add(const std::optional<double>& value) {
    if (value) Add(*value);
  }
  double mean() const { return count > 0 ? sum / count : 0; }
  std::optional<double> optional() const { return count > 0 ? std::optional<double>(sum / count) : std::nullopt; }
  // Squared standard error of the mean.
  double error2() const { return count > 1 ? std::max(0.0, squares / count - mean() * mean()) / (count - 1) : 0; }
};

struct Sums {
  Mean difficult, single, target_place, own_cross, history, passes, reliable;
  Mean estimate;  // (single + target_place) / 2 of each group

  ReliabilitySummary Summary(std::string name) const {
    ReliabilitySummary summary;
    summary.name = std::move(name);
    summary.groups = static_cast<uint64_t>(difficult.count);
    summary.difficult = difficult.mean();
    summary.single = single.mean();
    summary.target_place = target_place.mean();
    summary.own_cross = own_cross.optional();
    summary.history = history.optional();
    summary.passes = passes.optional();
    summary.reliable = reliable.optional();
    return summary;
  }
};

// One scored group, as diagnosed.
struct Found {
  int32_t region = kNoRegion;
  GateDiagnostics diagnostics;
  std::optional<bool> reliable;
};

void Add(const Found& found, bool history_test, Sums* sums) {
  const GateDiagnostics& d = found.diagnostics;
  sums->difficult.Add(d.difficult ? 1 : 0);
  sums->single.Add(d.discriminable ? 1 : 0);
  sums->target_place.Add(d.target_place);
  sums->own_cross.Add(d.own_cross);
  sums->history.Add(d.history);
  GateOptions single;
  single.kind = history_test ? GateKind::kHistory : GateKind::kOwnCross;
  const std::optional<double>& test = history_test ? d.history : d.own_cross;
  if (test) sums->passes.Add(*test > *GateThreshold(single) ? 1 : 0);
  if (found.reliable) sums->reliable.Add(*found.reliable ? 1 : 0);
  if (d.target_place) sums->estimate.Add(((d.discriminable ? 1 : 0) + *d.target_place) / 2);
}

const char* PlaceOf(const GateDiagnostics& d) {
  if (!d.difficult) return "target in the head";
  return d.rank_policy > d.group_size ? "target absent" : "target in the tail";
}

// Variance of the regions' means beyond what sampling alone gives, and whether it is more than noise.
void CompareRegions(const std::map<int32_t, Sums>& regions, Advice* advice) {
  Mean means, noise;
  for (const auto& [region, sums] : regions) {
    if (region == kNoRegion || sums.estimate.count < kRegionGroups) continue;
    means.Add(sums.estimate.mean());
    noise.Add(sums.estimate.error2());
  }
  if (means.count < 2) return;
  const double between = means.error2() * means.count;  // sample variance
  const double excess = between - noise.mean();
  // The variance of a sample variance of n normal draws is 2 sigma^4 / (n - 1).
  const double noise_error = noise.mean() * std::sqrt(2 / (means.count - 1));
  advice->region_deviation = excess > 0 ? std::sqrt(excess) : 0;
  advice->regions_differ = excess > kNoiseErrors * noise_error;
}

GateOptions GateOfKind(const GateOptions& recorded, GateKind kind, bool history_test) {
  GateOptions gate = recorded;
  gate.control = GateControl::kNone;
  gate.control_rate = 0;
  gate.kind = kind;
  gate.single_test = history_test ? GateSingleTest::kHistory : GateSingleTest::kOwnCross;
  if (kind != recorded.kind) gate.threshold.reset();
  return gate;
}

std::string Percent(double share) { return absl::StrFormat("%.0f %%", 100 * share); }

void Choose(const RlOptions& recorded, double recorded_dose, Advice* advice) {
  const ReliabilitySummary& all = advice->all;
  const std::string test = advice->history_test ? "history test" : "own-against-cross test";
  const double mean = (advice->history_test ? all.history : all.own_cross).value_or(0);
  advice->because.push_back(
      advice->history_test
          ? absl::StrFormat(
                "history scores are there: the history test has as many labels as scored items; its mean is "
                "%.3f (.5 is chance)",
                mean)
          : absl::StrFormat("there are no history scores: the label-free test of own against cross rollouts stands in; "
                            "its mean is %.3f (.5 is chance)",
                            mean));
  if (mean <= kBarelyAboveChance) {
    advice->objective = ObjectiveKind::kNllOnly;
    advice->lambda = 0;
    advice->because.push_back(
        absl::StrFormat("at most %.2g: the scores are hardly about the user, and no choice of samples makes them so",
                        kBarelyAboveChance));
    return;
  }
  advice->because.push_back(
      absl::StrCat(Percent(all.passes.value_or(0)), " of the scored groups pass the ", test, " at its threshold"));
  const GateKind single = advice->history_test ? GateKind::kHistory : GateKind::kOwnCross;
  const GateKind kind = advice->regions_differ ? GateKind::kCombined : single;
  advice->because.push_back(
      advice->regions_differ
          ? absl::StrFormat("regions differ by more than noise (deviation %.3f beyond it): their means say what one "
                            "sample is too noisy to show",
                            advice->region_deviation)
          : "regions do not differ by more than noise, so their means add nothing");
  for (const ReplayOutcome& outcome : advice->gates) {
    if (outcome.gate.kind != kind) continue;
    advice->gate = outcome.gate;
    advice->rate = outcome.rate();
  }
  advice->lambda = recorded.lambda;
  if (advice->rate > 0 && recorded_dose > 0) {
    advice->equal_dose_lambda = recorded_dose / advice->rate;
    advice->because.push_back(absl::StrFormat(
        "lambda stays the recorded run's: where the truth is known, gates that admit more gained with their dose. Run "
        "lambda %.3g beside it, which has the recorded dose of %.3f: that difference is one of choice alone",
        *advice->equal_dose_lambda, recorded_dose));
  }
  if (all.passes.value_or(0) >= kMostlyReliable) {
    advice->because.push_back(absl::StrFormat(
        "most groups pass, so the gate has little to refuse: compare with a mixture at lambda %.3g, which has all of "
        "the dose",
        recorded.lambda));
  }
}

void AddLimits(const Advice& advice, Advice* out) {
  out->cannot_know = {
      "whether the ranker is right about items that nobody was shown: targets and histories were logged under "
      "exposure, "
      "and a ranker that follows exposure passes tests made of logged items",
      "errors inside the right taste: tests against other users' rollouts are blind where the ranker orders a user's "
      "own "
      "candidates wrongly; only the place of the target among them (target place) sees those, one label a group",
      "the gain on logged test data: where rankers differ in exposure, logged HR can fall while true relevance rises",
      "what the policy would have become under other verdicts: the groups are those of the recorded run",
  };
  if (advice.history_test) {
    out->cannot_know.push_back(
        "what a trained ranker remembers: history items are left out of its input, not out of its training data");
  }
}

std::string Optional(const std::optional<double>& value) { return value ? absl::StrFormat("%.3f", *value) : "-"; }

void AppendRow(const ReliabilitySummary& row, std::string* text) {
  absl::StrAppendFormat(text, "%-20s %7d %9.3f %7.3f %7.3f %9s %8s %7s %8s\n", row.name, row.groups, row.difficult,
                        row.single, row.target_place, Optional(row.own_cross), Optional(row.history),
                        Optional(row.passes), Optional(row.reliable));
}

nlohmann::ordered_json Json(const ReliabilitySummary& row) {
  nlohmann::ordered_json json = {{"name", row.name},
                                 {"groups", row.groups},
                                 {"difficult", row.difficult},
                                 {"single", row.single},
                                 {"target_place", row.target_place}};
  if (row.own_cross) json["own_cross"] = *row.own_cross;
  if (row.history) json["history"] = *row.history;
  if (row.passes) json["passes"] = *row.passes;
  if (row.reliable) json["reliable"] = *row.reliable;
  return json;
}

const char* ObjectiveName(ObjectiveKind kind) { return kind == ObjectiveKind::kNllOnly ? "nll_only" : "gated"; }

}  // namespace

absl::StatusOr<std::vector<GainRow>> ParseGains(absl::string_view csv) {
  constexpr absl::string_view kHeader = "error,share,gate,lambda,gain,low,high";
  std::vector<GainRow> rows;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(csv, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    if (rows.empty() && line == kHeader) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, ',');
    GainRow row;
    if (cells.size() != 7 || !absl::SimpleAtod(cells[1], &row.share) || !absl::SimpleAtod(cells[3], &row.lambda) ||
        !absl::SimpleAtod(cells[4], &row.gain) || !absl::SimpleAtod(cells[5], &row.low) ||
        !absl::SimpleAtod(cells[6], &row.high)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, ": want ", kHeader, " with numbers, got '", line, "'"));
    }
    row.error = cells[0];
    row.gate = cells[2];
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<Advice> Advise(const RecordedRun& run, const RlOptions& recorded,
                              const std::optional<std::vector<GainRow>>& gains) {
  if (!NeedsScores(recorded)) {
    return absl::FailedPreconditionError(
        "the recorded job asked no ranker; record one with rl.reward.kind ranker, if only for a few steps");
  }
  Advice advice;
  advice.steps = run.steps.size();
  // AdaGRPO's gate over every group gives the diagnostics that all kinds look at.
  RlOptions diagnose = recorded;
  diagnose.objective = ObjectiveKind::kGated;
  diagnose.gate = GateOfKind(recorded.gate, GateKind::kAdaGrpo, false);
  std::vector<Found> found;
  uint64_t with_history = 0;
  uint64_t admitted = 0;
  SLUICE_ASSIGN_OR_RETURN(const ReplayOutcome plain,
                          Replay(run, recorded, diagnose, [&](const GroupRecord& record, const GroupPlan& plan) {
                            if (record.gate_open) ++admitted;
                            if (!plan.has_scores || !plan.has_rewards) return;
                            found.push_back({record.region, plan.verdict.diagnostics, record.reliable});
                            if (plan.verdict.diagnostics.history) ++with_history;
                          }));
  advice.groups = plain.groups;
  advice.scored = found.size();
  if (found.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("none of the ", plain.groups, " recorded groups of ",
                                                      run.steps.size(), " whole steps has scores"));
  }
  advice.history_test = 2 * with_history >= found.size();

  Sums all;
  std::map<std::string, Sums> places;
  std::map<int32_t, Sums> regions;
  for (const Found& one : found) {
    Add(one, advice.history_test, &all);
    Add(one, advice.history_test, &places[PlaceOf(one.diagnostics)]);
    Add(one, advice.history_test, &regions[one.region]);
  }
  advice.all = all.Summary("all");
  for (const auto& [name, sums] : places) advice.by_difficulty.push_back(sums.Summary(name));
  for (const auto& [region, sums] : regions) {
    advice.by_region.push_back(sums.Summary(region == kNoRegion ? "no region" : absl::StrCat("region ", region)));
  }
  std::stable_sort(advice.by_region.begin(), advice.by_region.end(),
                   [](const ReliabilitySummary& a, const ReliabilitySummary& b) { return a.groups > b.groups; });
  CompareRegions(regions, &advice);

  for (const GateKind kind :
       {GateKind::kAdaGrpo, GateKind::kHistory, GateKind::kOwnCross, GateKind::kPooled, GateKind::kCombined}) {
    if (kind == GateKind::kHistory && !advice.history_test) continue;
    RlOptions wanted = recorded;
    wanted.objective = ObjectiveKind::kGated;
    wanted.gate = GateOfKind(recorded.gate, kind, advice.history_test);
    SLUICE_ASSIGN_OR_RETURN(const ReplayOutcome outcome, Replay(run, recorded, wanted));
    advice.gates.push_back(outcome);
  }
  const double recorded_rate = plain.groups > 0 ? static_cast<double>(admitted) / static_cast<double>(plain.groups) : 0;
  Choose(recorded, recorded.lambda * recorded_rate, &advice);
  AddLimits(advice, &advice);

  advice.has_gain_table = gains.has_value();
  if (!gains || advice.objective != ObjectiveKind::kGated) return advice;
  const double unreliable = 1 - advice.all.passes.value_or(0);
  double nearest = 2;
  for (const GainRow& row : *gains) {
    if (row.gate == GateKindName(advice.gate.kind)) nearest = std::min(nearest, std::abs(row.share - unreliable));
  }
  for (const GainRow& row : *gains) {
    if (row.gate == GateKindName(advice.gate.kind) && std::abs(row.share - unreliable) <= nearest + 1e-9) {
      advice.gains.push_back(row);
    }
  }
  return advice;
}

std::string AdviceText(const Advice& advice) {
  std::string text = absl::StrFormat("%d groups of %d steps, %d of them scored\n\nHow reliable the ranker looks\n",
                                     advice.groups, advice.steps, advice.scored);
  absl::StrAppendFormat(&text, "%-20s %7s %9s %7s %7s %9s %8s %7s %8s\n", "", "groups", "difficult", "adagrpo", "place",
                        "own_cross", "history", "passes", "reliable");
  AppendRow(advice.all, &text);
  for (const ReliabilitySummary& row : advice.by_difficulty) AppendRow(row, &text);
  constexpr size_t kShown = 32;  // JSON has them all
  for (size_t i = 0; i < std::min(kShown, advice.by_region.size()); ++i) AppendRow(advice.by_region[i], &text);
  if (advice.by_region.size() > kShown) {
    absl::StrAppendFormat(&text, "(%d more regions)\n", advice.by_region.size() - kShown);
  }
  absl::StrAppend(&text, "\nWhat each gate would have admitted\n", ReplayTable(advice.gates), "\nAdvice\n");
  if (advice.objective == ObjectiveKind::kNllOnly) {
    absl::StrAppend(&text, "  rl.objective: nll_only\n");
  } else {
    absl::StrAppendFormat(&text, "  rl.gate.kind: %s\n", GateKindName(advice.gate.kind));
    if (advice.gate.kind == GateKind::kCombined) {
      absl::StrAppendFormat(&text, "  rl.gate.single_test: %s\n", advice.history_test ? "history" : "own_cross");
    }
    absl::StrAppendFormat(&text, "  rl.gate.tau: %.3g\n  rl.lambda: %.3g\n  expected rate %.4f, dose %.4f\n",
                          advice.gate.tau, advice.lambda, advice.rate, advice.lambda * advice.rate);
  }
  for (const std::string& reason : advice.because) absl::StrAppend(&text, "  because ", reason, "\n");
  absl::StrAppend(&text, "\nExpected gain\n");
  if (!advice.has_gain_table) {
    absl::StrAppend(&text, "  unknown: no table of measured gains was given (--gains FILE)\n");
  } else if (advice.gains.empty()) {
    absl::StrAppend(&text, "  unknown: the table has no row for this gate\n");
  }
  for (const GainRow& row : advice.gains) {
    absl::StrAppendFormat(&text, "  ranker error '%s', unreliable share %.2g, lambda %.3g: %+.4g [%+.4g, %+.4g]\n",
                          row.error, row.share, row.lambda, row.gain, row.low, row.high);
  }
  absl::StrAppend(&text, "\nWhat this cannot know\n");
  for (const std::string& limit : advice.cannot_know) absl::StrAppend(&text, "  ", limit, "\n");
  return text;
}

nlohmann::ordered_json AdviceJson(const Advice& advice) {
  nlohmann::ordered_json json;
  json["steps"] = advice.steps;
  json["groups"] = advice.groups;
  json["scored"] = advice.scored;
  json["all"] = Json(advice.all);
  json["by_difficulty"] = nlohmann::ordered_json::array();
  for (const ReliabilitySummary& row : advice.by_difficulty) json["by_difficulty"].push_back(Json(row));
  json["by_region"] = nlohmann::ordered_json::array();
  for (const ReliabilitySummary& row : advice.by_region) json["by_region"].push_back(Json(row));
  json["regions_differ"] = advice.regions_differ;
  json["region_deviation"] = advice.region_deviation;
  json["gates"] = ReplayJson(advice.gates);
  nlohmann::ordered_json& advised = json["advice"];
  advised["objective"] = ObjectiveName(advice.objective);
  if (advice.objective == ObjectiveKind::kGated) {
    advised["kind"] = std::string(GateKindName(advice.gate.kind));
    advised["single_test"] = advice.history_test ? "history" : "own_cross";
    advised["tau"] = advice.gate.tau;
    advised["rate"] = advice.rate;
    advised["dose"] = advice.lambda * advice.rate;
  }
  advised["lambda"] = advice.lambda;
  if (advice.equal_dose_lambda) advised["equal_dose_lambda"] = *advice.equal_dose_lambda;
  advised["because"] = advice.because;
  json["gain_table"] = advice.has_gain_table;
  json["gains"] = nlohmann::ordered_json::array();
  for (const GainRow& row : advice.gains) {
    json["gains"].push_back({{"error", row.error},
                             {"share", row.share},
                             {"gate", row.gate},
                             {"lambda", row.lambda},
                             {"gain", row.gain},
                             {"low", row.low},
                             {"high", row.high}});
  }
  json["cannot_know"] = advice.cannot_know;
  return json;
}

}  // namespace sluice::learner

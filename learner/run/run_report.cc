#include "learner/run/run_report.h"

#include <torch/version.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/progress/progress.h"
#include "common/status/status.h"
#include "learner/evaluate/compare.h"
#include "learner/evaluate/example_file.h"
#include "learner/report/environment.h"
#include "learner/run/results.h"

namespace sluice::learner {
namespace {

constexpr char kRuleName[] = "Co-occurrence rule";
// Of semantic IDs whose accuracy by level is shown.
constexpr int kMostLevels = 8;

struct ChartPlan {
  const char* title;
  const char* note;
  bool stacked;
  std::vector<std::pair<const char*, const char*>> series;  // metric, unit
};

// The curves of a training run; those without a point are left out.
const std::vector<ChartPlan>& ChartPlans() {
  static const std::vector<ChartPlan>& plans = *new std::vector<ChartPlan>{
      {"Loss",
       "Mean over the target's tokens (NLL); the gated term (GRPO).",
       false,
       {{"loss/nll", "nats"}, {"loss/grpo", ""}}},
      {"Reward",
       "Of the completions as sampled, and of the logged target.",
       false,
       {{"reward/mean", ""}, {"reward/target_mean", ""}}},
      {"Admission by reason",
       "Share of the groups of a step whose gate was open, or why it was closed.",
       true,
       {{"gate/open", ""},
        {"gate/fixed_open", ""},
        {"gate/objective", ""},
        {"gate/difficulty", ""},
        {"gate/discriminability", ""},
        {"gate/negatives", ""},
        {"gate/stale", ""},
        {"gate/reward_unavailable", ""},
        {"gate/unsampled", ""},
        {"gate/catalog_changed", ""},
        {"gate/control_open", ""},
        {"gate/control_closed", ""},
        {"gate/reliability", ""},
        {"gate/history", ""},
        {"gate/truth", ""}}},
      {"Validation",
       "On held-out users, by constrained beams.",
       false,
       {{"validation/hr@10", ""}, {"validation/ndcg@10", ""}, {"validation/hallucination", ""}}},
      {"Staleness",
       "Learner version minus behaviour version when a group was trained.",
       false,
       {{"staleness/mean", "versions"}, {"staleness/max", "versions"}}},
      {"Groups",
       "",
       false,
       {{"group/zero_advantage_share", ""},
        {"group/target_sampled_share", ""},
        {"group/diversity", ""},
        {"group/gate_open_share", ""}}},
      {"KL to the reference policy", "Mean k3 a token of the admitted groups.", false, {{"kl/mean", "nats"}}},
      {"Actor against learner",
       "Absolute difference of log-probabilities of the same tokens under the same version.",
       false,
       {{"mismatch/mean", "nats"}, {"mismatch/max", "nats"}}},
      {"Optimizer", "", false, {{"gradient_norm", ""}}},
      {"Time of a step", "", false, {{"seconds/wait", "s"}, {"seconds/train", "s"}}},
  };
  return plans;
}

std::vector<ReportChart> Charts(const std::string& prefix, const std::vector<MetricsRow>& rows) {
  std::vector<ReportChart> charts;
  for (const ChartPlan& plan : ChartPlans()) {
    ReportChart chart;
    chart.title = prefix.empty() ? plan.title : absl::StrCat(prefix, ": ", plan.title);
    chart.note = plan.note;
    chart.stacked = plan.stacked;
    for (const auto& [metric, unit] : plan.series) {
      ReportSeries series;
      series.name = metric;
      series.unit = unit;
      double largest = 0;
      for (const MetricsRow& row : rows) {
        const auto found = row.values.find(metric);
        if (found == row.values.end()) continue;
        series.points.push_back({static_cast<double>(row.step), found->second});
        largest = std::max(largest, found->second);
      }
      // Reasons that never occurred would only fill the legend.
      if (series.points.empty() || (plan.stacked && largest == 0)) continue;
      chart.series.push_back(std::move(series));
    }
    if (!chart.series.empty()) charts.push_back(std::move(chart));
  }
  return charts;
}

ReportLedger Ledger(const std::map<std::string, double>& numbers) {
  const auto count = [&numbers](const char* name) {
    const auto found = numbers.find(name);
    return found == numbers.end() ? uint64_t{0} : static_cast<uint64_t>(found->second);
  };
  return {.issued = count("issued"),
          .trained = count("trained"),
          .dropped = count("dropped"),
          .failed = count("failed"),
          .cancelled = count("cancelled"),
          .open = count("open"),
          .frontier = count("frontier")};
}

// "validation/hr@10" -> "hr@10": the columns of a table.
std::map<std::string, double> WithoutPrefix(const std::map<std::string, double>& values) {
  std::map<std::string, double> stripped;
  for (const auto& [name, value] : values) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(name, absl::MaxSplits('/', 1));
    stripped[parts.second.empty() ? name : parts.second] = value;
  }
  return stripped;
}

std::string TextOr(const RunResults& results, const std::string& key, const std::string& fallback) {
  const auto found = results.texts.find(key);
  return found == results.texts.end() || found->second.empty() ? fallback : found->second;
}

using Format = ReportColumn::Format;

// Rows with at least one value in these columns; columns that no row has are left out.
ReportTable TableOf(const std::string& title, const std::string& note, const std::vector<ReportColumn>& columns,
                    const std::vector<ReportRow>& rows) {
  ReportTable table;
  table.title = title;
  table.note = note;
  for (const ReportColumn& column : columns) {
    const bool there = std::any_of(rows.begin(), rows.end(), [&column](const ReportRow& row) {
      return row.values.count(column.key) > 0 || row.texts.count(column.key) > 0;
    });
    if (there) table.columns.push_back(column);
  }
  if (!table.columns.empty()) table.rows = rows;
  return table;
}

// What an evaluation measures beside hits.
ReportTable ListsTable(const std::vector<ReportRow>& rows, int levels) {
  std::vector<ReportColumn> columns;
  for (int level = 1; level <= levels; ++level) {
    columns.push_back({absl::StrCat("level_", level, "_accuracy"), absl::StrCat("level ", level)});
    columns.push_back({absl::StrCat("level_", level, "_accuracy@10"), absl::StrCat("level ", level, " @10")});
  }
  for (const char* name : {"diversity", "coverage", "item_coverage", "head_coverage", "tail_coverage", "head_exposure",
                           "tail_exposure", "gini"}) {
    columns.push_back({name, absl::StrReplaceAll(name, {{"_", " "}})});
  }
  return TableOf(
      "Lists",
      "Of the first ten entries: agreement with the target's codes from the first level on (first entry; any of "
      "ten), distance of pairs, and how much of the catalog, of its head and of its tail they reach.",
      columns, rows);
}

// One kind of strata of several evaluations: HR@10, as table and curves.
struct Evaluation {
  std::string name;
  RunResults results;
  std::string folder;
};

void AppendStrata(const std::vector<Evaluation>& evaluations, const std::string& kind, const std::string& title,
                  const std::string& key, ReportData* report) {
  std::map<std::string, ReportRow> rows;
  ReportChart chart;
  chart.title = absl::StrCat("HR@10 by ", title);
  chart.x_label = title;
  std::vector<ReportColumn> columns = {{"prompts", "users", Format::kNumber},
                                       {"key_low", absl::StrCat(key, ", from"), Format::kNumber},
                                       {"key_high", "to", Format::kNumber}};
  for (const Evaluation& evaluation : evaluations) {
    ReportSeries series;
    series.name = evaluation.name;
    const std::string column = absl::StrCat("hr@10 ", columns.size());
    double place = 0;
    for (const auto& [group, values] : evaluation.results.numbers) {
      if (!absl::StartsWith(group, kind + "/")) continue;
      const std::string stratum = group.substr(kind.size() + 1);
      ReportRow& row = rows[stratum];
      row.name = stratum;
      row.values.insert(values.begin(), values.end());  // users and range: of the first that has it
      const auto hits = values.find("hr@10");
      if (hits == values.end()) continue;
      row.values[column] = hits->second;
      double tenth = 0;
      series.points.push_back({absl::SimpleAtod(stratum, &tenth) ? tenth : ++place, hits->second});
    }
    columns.push_back({column, absl::StrCat("HR@10 ", evaluation.name)});
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  if (rows.empty()) return;
  std::vector<ReportRow> sorted;
  for (auto& [stratum, row] : rows) sorted.push_back(std::move(row));
  report->tables.push_back(TableOf(absl::StrCat("By ", title), "", columns, sorted));
  if (!chart.series.empty()) report->charts.push_back(std::move(chart));
}

std::string IntervalText(const DifferenceInterval& interval, bool sign) {
  // An interval is not broken over lines.
  return absl::StrFormat(sign ? "%+.4f [%+.4f,\u00a0%+.4f]" : "%.4f [%.4f,\u00a0%.4f]", interval.mean, interval.low,
                         interval.high);
}

constexpr const char* kIntervalMetrics[] = {"hr@1", "hr@5", "hr@10", "hr@50", "ndcg@10"};

// Those that the outcomes have.
std::vector<std::string> IntervalMetrics(const OutcomeTable& outcomes) {
  std::vector<std::string> metrics;
  for (const char* metric : kIntervalMetrics) {
    if (ValuesOf(outcomes, metric).ok()) metrics.push_back(metric);
  }
  return metrics;
}

std::vector<ReportColumn> IntervalColumns(const std::vector<std::string>& metrics) {
  std::vector<ReportColumn> columns;
  for (const std::string& metric : metrics) columns.push_back({metric, absl::AsciiStrToUpper(metric)});
  return columns;
}

// The outcomes of every evaluation; empty if one has none.
absl::StatusOr<std::vector<ComparedArm>> OutcomesOf(const std::vector<Evaluation>& evaluations) {
  std::vector<ComparedArm> arms;
  for (const Evaluation& evaluation : evaluations) {
    const std::string path = JoinPath(evaluation.folder, RunFolder::kOutcomesFile);
    if (!PathExists(path)) return std::vector<ComparedArm>();
    SLUICE_ASSIGN_OR_RETURN(OutcomeTable table, ReadOutcomes(path));
    arms.push_back({evaluation.name, {std::move(table)}});
  }
  return arms;
}

// Every evaluation's own values with intervals.
absl::StatusOr<ReportTable> IntervalTable(const std::vector<ComparedArm>& arms) {
  const std::vector<std::string> metrics = IntervalMetrics(arms[0].runs[0]);
  std::vector<ReportRow> rows;
  size_t users = 0;
  for (const ComparedArm& arm : arms) {
    ReportRow& row = rows.emplace_back();
    row.name = arm.name;
    users = arm.runs[0].rows.size();
    for (const std::string& metric : metrics) {
      const absl::StatusOr<std::vector<double>> values = ValuesOf(arm.runs[0], metric);
      if (!values.ok() || values->empty()) continue;  // decoded with fewer beams
      const BootstrapOptions options;
      SLUICE_ASSIGN_OR_RETURN(std::vector<std::vector<double>> means,
                              BootstrapMeans({absl::MakeConstSpan(*values)}, options));
      const double mean = std::accumulate(values->begin(), values->end(), 0.0) / static_cast<double>(values->size());
      row.texts[metric] = IntervalText(PercentileInterval(mean, std::move(means[0]), options.confidence), false);
    }
  }
  return TableOf(
      "Intervals",
      absl::StrFormat("95 %% intervals by bootstrap over %s: how far a value may be off by the choice of users "
                      "alone. Of differences between runs they say little, as the users are the same.",
                      arms.size() == 1 ? absl::StrCat(users, " users") : std::string("the users")),
      IntervalColumns(metrics), rows);
}

// The differences to the first evaluation, user by user. Two or more.
ReportTable DifferenceTable(const std::vector<ComparedArm>& arms) {
  CompareOptions options;
  options.metrics = IntervalMetrics(arms[0].runs[0]);
  const absl::StatusOr<Comparison> comparison = Compare(arms, options);
  ReportTable table;
  table.title = absl::StrCat("Differences to ", arms[0].name);
  if (!comparison.ok()) {  // other users, say: there is nothing to show, and a reason
    table.note = absl::StrCat("Not compared: ", comparison.status().message());
    return table;
  }
  std::vector<ReportRow> rows(arms.size());
  for (size_t arm = 0; arm < arms.size(); ++arm) {
    rows[arm].name = arms[arm].name;
    if (arm > 0) continue;
    for (const ArmValue& value : comparison->values[arm])
      rows[arm].texts[value.metric] = IntervalText(value.mean, false);
  }
  int64_t real = 0;
  for (const ArmDifference& one : comparison->differences) {
    real += comparison->Real(one) ? 1 : 0;
    rows[one.arm].texts[one.metric] =
        absl::StrCat(IntervalText(one.difference, true), comparison->Real(one) ? "\u00a0**"
                                                         : one.real_alone()    ? "\u00a0*"
                                                                               : "");
  }
  return TableOf(
      table.title,
      absl::StrFormat("95 %% intervals by paired bootstrap over %d users; the first row holds its own values. %d "
                      "differences were looked at: ** (%d) is real after Holm's correction for that many, * only "
                      "if it had been the one that was looked at.",
                      comparison->users, comparison->differences.size(), real),
      IntervalColumns(options.metrics), rows);
}

// A run's lists with the name to show above them.
struct NamedLists {
  std::string name;
  ExampleLists lists;
};

// Examples of which lists are of the same user and target stand side by side.
void AppendExamples(const std::vector<NamedLists>& runs, ReportData* report) {
  std::map<std::pair<std::string, int32_t>, size_t> places;
  for (const NamedLists& run : runs) {
    for (const ExampleList& found : run.lists.users) {
      const auto [place, is_new] = places.try_emplace({found.user, found.position}, report->examples.size());
      if (is_new) {
        report->examples.push_back({.title = absl::StrCat("User ", found.user, ", event ", found.position + 1),
                                    .history = found.history,
                                    .target = found.target,
                                    .lists = {}});
      }
      ReportExample& example = report->examples[place->second];
      if (example.target != found.target) continue;  // another data set's user of that name
      ReportExample::List& list = example.lists.emplace_back();
      list.name = run.name;
      list.note = found.target_rank > 0 ? absl::StrCat("The target is at place ", found.target_rank, ".")
                                        : "The target is not in the list.";
      for (const ListedItem& item : found.items) {
        list.items.push_back({item.name, item.log_prob ? absl::StrFormat("%.2f", *item.log_prob) : ""});
      }
    }
  }
  report->examples_note =
      "Users evenly spread over those that were measured, chosen by their place and not by their lists. History, "
      "oldest "
      "first, and what the user chose next; the first items of each list, beside them the log-probability of the "
      "item's semantic ID in nats.";
}

// How to do the run again, beside the first.
void AppendCommands(const RunResults& results, const std::string& path, ReportData* report) {
  const std::string run =
      absl::StrCat("sluice-learner run ", JoinPath(path, "spec.yaml"), " --run-folder ", path, "-again");
  if (results.kind != "rl") {
    report->commands.push_back(run);
    return;
  }
  report->commands.push_back(
      absl::StrCat("sluice-reward --data ", TextOr(results, "data", "DATA"), " --address 127.0.0.1:7080 &"));
  report->commands.push_back(absl::StrCat(run, " --address 127.0.0.1:7081 &"));
  report->commands.push_back("sluice-actor --learner 127.0.0.1:7081 --reward 127.0.0.1:7080");
}

// The examples of a run, if it has kept any; a damaged file is no reason to have no report.
std::vector<ExampleLists> ReadExamples(const std::string& folder) {
  const absl::StatusOr<std::string> text = ReadFile(JoinPath(folder, RunFolder::kExamplesFile));
  if (!text.ok()) return {};
  absl::StatusOr<std::vector<ExampleLists>> lists = ExamplesFromJson(*text);
  return lists.ok() ? *std::move(lists) : std::vector<ExampleLists>();
}

// The stratified analysis of an rl job, as table and plot.
void AppendCells(const std::string& name, const RunResults& results, ReportData* report) {
  const std::pair<const char*, const char*> cells[] = {{"cell/all", "all"},
                                                       {"cell/d0_c0", "D 0, C 0"},
                                                       {"cell/d0_c1", "D 0, C 1"},
                                                       {"cell/d1_c0", "D 1, C 0"},
                                                       {"cell/d1_c1", "D 1, C 1"}};
  std::vector<ReportRow> rows;
  ReportChart chart;
  chart.title = absl::StrCat("Rank correction of ", name);
  chart.note = "Rank of the target under the policy minus under the ranker, mean.";
  chart.x_label = "cell";
  chart.series = {{"the job's ranker", "places", {}}, {"a random ranker", "places", {}}};
  for (const auto& [group, title] : cells) {
    const auto found = results.numbers.find(group);
    if (found == results.numbers.end()) return;
    rows.push_back({title, found->second});
    const double place = static_cast<double>(chart.categories.size());
    chart.categories.push_back(title);
    for (const auto& [series, key] : {std::pair(0, "rank_correction"), std::pair(1, "random_rank_correction")}) {
      const auto value = found->second.find(key);
      if (value != found->second.end())
        chart.series[static_cast<size_t>(series)].points.push_back({place, value->second});
    }
  }
  report->tables.push_back(TableOf(absl::StrCat("Difficulty and discriminability, ", name),
                                   "Groups that the gate judged, by its two tests. Beside them the same groups as a "
                                   "ranker that scores at random cuts "
                                   "them: the tests themselves select for a large correction, and only what goes "
                                   "beyond that column is the ranker's.",
                                   {{"groups", "groups", Format::kNumber},
                                    {"share", "share", Format::kPercent},
                                    {"rank_correction", "rank correction", Format::kNumber},
                                    {"random_share", "random: share", Format::kPercent},
                                    {"random_rank_correction", "random: rank correction", Format::kNumber}},
                                   rows));
  report->charts.push_back(std::move(chart));
}

}  // namespace

void AddEnvironment(const RunContext& context, RunResults* results) {
  const auto add = [results](const std::string& name, const std::string& value) {
    results->texts[absl::StrCat(kEnvironmentPrefix, name)] = value;
  };
  for (const ReportFact& fact : MachineFacts()) add(fact.name, fact.value);
  add("LibTorch", TORCH_VERSION);
  add("ranks", absl::StrCat(context.collective->world_size(), " of ", at::get_num_threads(), " threads, on ",
                            context.placement.device.str(), " in ",
                            context.placement.compute == at::kBFloat16 ? "bf16" : "fp32"));
  if (!context.spec_digest.empty()) add("digest of the spec", context.spec_digest);
}

absl::StatusOr<ReportData> BuildReport(const std::string& title, absl::Span<const std::string> run_folders) {
  ReportData report;
  report.title = title;
  std::vector<ReportRow> test_rows;
  std::vector<Evaluation> evaluations;
  std::vector<ReportTable> validation_tables;
  ReportData cells;                 // the tables and charts of the stratified analyses
  std::set<std::string> described;  // data sets
  std::set<std::pair<std::string, std::string>> surroundings;
  std::vector<NamedLists> trained, tested;  // lists of training jobs and of evaluations
  int training_runs = 0;
  std::vector<std::pair<std::string, std::vector<MetricsRow>>> curves;
  for (const std::string& path : run_folders) {
    if (!PathExists(JoinPath(path, "results.json"))) {
      return absl::NotFoundError(absl::StrCat("'", path,
                                              "' has no results.json: the run has not ended, or it is not "
                                              "a run folder"));
    }
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RunFolder> folder, RunFolder::Open(path));
    SLUICE_ASSIGN_OR_RETURN(const RunResults results, ReadResults(folder->results()));
    const std::string name = TextOr(results, "name", path);
    const auto numbers = [&results](const char* group) {
      const auto found = results.numbers.find(group);
      return found == results.numbers.end() ? std::map<std::string, double>() : found->second;
    };
    if (results.kind == "evaluate") {
      if (test_rows.empty() && results.numbers.count("baseline") > 0) {
        test_rows.push_back({kRuleName, numbers("baseline")});
      }
      test_rows.push_back({name, numbers("metrics")});
      evaluations.push_back({name, results, path});
    } else {
      SLUICE_ASSIGN_OR_RETURN(std::vector<MetricsRow> rows, folder->ReadMetrics());
      curves.emplace_back(name, std::move(rows));
      ++training_runs;
    }
    if (results.kind == "sft" || results.kind == "rl") {
      std::vector<ReportRow> rows;
      for (const char* which : {"start", "best", "final"}) {
        if (results.numbers.count(which) == 0) continue;
        rows.push_back({absl::StrCat(name, ", ", which), WithoutPrefix(numbers(which))});
      }
      if (!rows.empty()) {
        const auto run = numbers("run");
        if (run.count("admission_rate") > 0) rows.back().values["admission"] = run.at("admission_rate");
        ReportTable table = ClosingTable("Validation users, chosen once for the job; best by HR@10.", rows);
        table.title = absl::StrCat("Validation of ", name);
        validation_tables.push_back(std::move(table));
      }
      if (run_folders.size() == 1) report.summary = TextOr(results, "ending", "ended after its last step");
    }
    if (results.kind == "prepare") {
      std::vector<ReportRow> rows;
      for (const auto& [which, values] : results.numbers) {
        if (values.count("validation/hr@10") > 0) rows.push_back({which, WithoutPrefix(values)});
      }
      if (!rows.empty()) {
        ReportTable table = ClosingTable("Of the rankers that the data set brings, on its validation targets.", rows);
        table.title = absl::StrCat("Rankers of ", name);
        validation_tables.push_back(std::move(table));
      }
    }
    if (results.kind == "rl") {
      report.ledger = Ledger(numbers("ledger"));
      AppendCells(name, results, &cells);
    }
    const std::string data = TextOr(results, "data", "");
    if (!data.empty() && described.insert(data).second) report.data.push_back({"data set", data});
    for (const auto& [key, value] : numbers("data")) report.data.push_back({key, absl::StrFormat("%.0f", value)});
    for (const auto& [key, value] : numbers("sids")) report.data.push_back({key, absl::StrFormat("%.4g", value)});
    for (const auto& [key, value] : results.texts) {
      absl::string_view fact = key;
      if (absl::ConsumePrefix(&fact, kEnvironmentPrefix) && surroundings.emplace(fact, value).second) {
        report.environment.push_back({std::string(fact), value});
      }
    }
    for (ExampleLists& lists : ReadExamples(path)) {
      if (results.kind == "evaluate") {
        tested.push_back({name, std::move(lists)});
      } else {
        const char* const when = lists.step == 0 ? ", before (step " : ", step ";
        trained.push_back({absl::StrCat(name, when, lists.step, lists.step == 0 ? ")" : ""), std::move(lists)});
      }
    }
    const auto run = numbers("run");
    if (run.count("seconds") > 0) {
      report.environment.push_back({absl::StrCat("time of ", name), HumanDuration(absl::Seconds(run.at("seconds")))});
    }
    const absl::StatusOr<std::string> spec = ReadFile(JoinPath(path, "spec.yaml"));
    if (spec.ok()) absl::StrAppend(&report.spec_yaml, "# ", name, "\n", *spec, "\n");
    AppendCommands(results, path, &report);
  }
  for (const auto& [name, rows] : curves) {
    for (ReportChart& chart : Charts(training_runs > 1 ? name : "", rows)) report.charts.push_back(std::move(chart));
  }
  if (!test_rows.empty()) {
    report.tables.push_back(ClosingTable(
        "Items of the history are left out; hallucination is the share of invalid semantic IDs among the first ten "
        "unconstrained beams.",
        test_rows));
  }
  if (!evaluations.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<ComparedArm> arms, OutcomesOf(evaluations));
    if (!arms.empty()) {
      SLUICE_ASSIGN_OR_RETURN(ReportTable intervals, IntervalTable(arms));
      report.tables.push_back(std::move(intervals));
    }
    if (arms.size() > 1) report.tables.push_back(DifferenceTable(arms));
    ReportTable lists = ListsTable(test_rows, kMostLevels);
    if (!lists.columns.empty()) report.tables.push_back(std::move(lists));
    AppendStrata(evaluations, "difficulty_decile", "difficulty decile", "rank under the co-occurrence rule", &report);
    AppendStrata(evaluations, "popularity_decile", "popularity decile", "training events of the target", &report);
    AppendStrata(evaluations, "history", "events before the target", "events", &report);
  }
  // Evaluations are of the same users, validations of others in each job: side by side are the former, if there are
  // any.
  const std::vector<NamedLists>& examples = tested.empty() ? trained : tested;
  if (!examples.empty()) AppendExamples(examples, &report);
  for (ReportTable& table : validation_tables) report.tables.push_back(std::move(table));
  for (ReportTable& table : cells.tables) report.tables.push_back(std::move(table));
  for (ReportChart& chart : cells.charts) report.charts.push_back(std::move(chart));
  return report;
}

absl::Status WriteRunReport(const RunFolder& folder, const std::string& title) {
  const std::string paths[] = {folder.path()};
  SLUICE_ASSIGN_OR_RETURN(const ReportData report, BuildReport(title, paths));
  return WriteReport(folder.report(), report);
}

absl::StatusOr<double> MeanOfMetric(const RunFolder& folder, const std::string& name) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<MetricsRow> rows, folder.ReadMetrics());
  double sum = 0;
  int64_t count = 0;
  for (const MetricsRow& row : rows) {
    const auto found = row.values.find(name);
    if (found == row.values.end()) continue;
    sum += found->second;
    ++count;
  }
  if (count == 0) return absl::NotFoundError(absl::StrCat("no line of metrics.jsonl has '", name, "'"));
  return sum / static_cast<double>(count);
}

}  // namespace sluice::learner

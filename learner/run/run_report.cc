#include "learner/run/run_report.h"

#include <sys/utsname.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/progress/progress.h"
#include "common/status/status.h"
#include "learner/evaluate/compare.h"
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

std::vector<ReportFact> Environment() {
  std::vector<ReportFact> facts;
  utsname machine;
  if (uname(&machine) == 0) {
    facts.push_back({"system", absl::StrCat(machine.sysname, " ", machine.release, ", ", machine.machine)});
  }
  facts.push_back({"processors", absl::StrCat(std::thread::hardware_concurrency())});
  return facts;
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
  return absl::StrFormat(sign ? "%+.4f [%+.4f, %+.4f]" : "%.4f [%.4f, %.4f]", interval.mean, interval.low,
                         interval.high);
}

// Intervals of every evaluation, and of its difference to the first; nothing if outcomes are missing.
absl::StatusOr<std::optional<ReportTable>> IntervalTable(const std::vector<Evaluation>& evaluations) {
  constexpr const char* kMetrics[] = {"hr@1", "hr@10", "hr@50", "ndcg@10"};
  std::vector<ComparedArm> arms;
  for (const Evaluation& evaluation : evaluations) {
    const std::string path = JoinPath(evaluation.folder, RunFolder::kOutcomesFile);
    if (!PathExists(path)) return std::nullopt;
    SLUICE_ASSIGN_OR_RETURN(OutcomeTable table, ReadOutcomes(path));
    arms.push_back({evaluation.name, {std::move(table)}});
  }
  if (arms.size() < 2) return std::nullopt;
  CompareOptions options;
  for (const char* metric : kMetrics) {
    if (ValuesOf(arms[0].runs[0], metric).ok()) options.metrics.push_back(metric);
  }
  const absl::StatusOr<Comparison> comparison = Compare(arms, options);
  ReportTable table;
  table.title = absl::StrCat("Differences to ", evaluations[0].name);
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
    rows[one.arm].texts[one.metric] = absl::StrCat(IntervalText(one.difference, true), comparison->Real(one) ? " **"
                                                                                       : one.real_alone()    ? " *"
                                                                                                             : "");
  }
  std::vector<ReportColumn> columns;
  for (const std::string& metric : options.metrics) columns.push_back({metric, absl::AsciiStrToUpper(metric)});
  return TableOf(
      table.title,
      absl::StrFormat("95 %% intervals by paired bootstrap over %d users; the first row holds its own values. %d "
                      "differences were looked at: ** (%d) is real after Holm's correction for that many, * only "
                      "if it had been the one that was looked at.",
                      comparison->users, comparison->differences.size(), real),
      columns, rows);
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

std::string TextOr(const RunResults& results, const std::string& key, const std::string& fallback) {
  const auto found = results.texts.find(key);
  return found == results.texts.end() || found->second.empty() ? fallback : found->second;
}

}  // namespace

absl::StatusOr<ReportData> BuildReport(const std::string& title, absl::Span<const std::string> run_folders) {
  ReportData report;
  report.title = title;
  report.environment = Environment();
  std::vector<ReportRow> test_rows;
  std::vector<Evaluation> evaluations;
  std::vector<ReportTable> validation_tables;
  ReportData cells;                 // the tables and charts of the stratified analyses
  std::set<std::string> described;  // data sets
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
    if (results.kind == "rl") {
      report.ledger = Ledger(numbers("ledger"));
      AppendCells(name, results, &cells);
    }
    const std::string data = TextOr(results, "data", "");
    if (!data.empty() && described.insert(data).second) report.data.push_back({"data set", data});
    for (const auto& [key, value] : numbers("data")) report.data.push_back({key, absl::StrFormat("%.0f", value)});
    for (const auto& [key, value] : numbers("sids")) report.data.push_back({key, absl::StrFormat("%.4g", value)});
    const auto run = numbers("run");
    if (run.count("seconds") > 0) {
      report.environment.push_back({absl::StrCat("time of ", name), HumanDuration(absl::Seconds(run.at("seconds")))});
    }
    const absl::StatusOr<std::string> spec = ReadFile(JoinPath(path, "spec.yaml"));
    if (spec.ok()) absl::StrAppend(&report.spec_yaml, "# ", name, "\n", *spec, "\n");
    report.commands.push_back(absl::StrCat("sluice-learner run ", JoinPath(path, "spec.yaml")));
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
    SLUICE_ASSIGN_OR_RETURN(std::optional<ReportTable> intervals, IntervalTable(evaluations));
    if (intervals) report.tables.push_back(*std::move(intervals));
    ReportTable lists = ListsTable(test_rows, kMostLevels);
    if (!lists.columns.empty()) report.tables.push_back(std::move(lists));
    AppendStrata(evaluations, "difficulty_decile", "difficulty decile", "rank under the co-occurrence rule", &report);
    AppendStrata(evaluations, "popularity_decile", "popularity decile", "training events of the target", &report);
    AppendStrata(evaluations, "history", "events before the target", "events", &report);
  }
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

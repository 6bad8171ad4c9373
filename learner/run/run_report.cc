#include "learner/run/run_report.h"

#include <sys/utsname.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/progress/progress.h"
#include "common/status/status.h"
#include "learner/run/results.h"

namespace sluice::learner {
namespace {

constexpr char kRuleName[] = "Co-occurrence rule";

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
        {"gate/control_closed", ""}}},
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
  std::vector<ReportTable> validation_tables;
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
    if (results.kind == "rl") report.ledger = Ledger(numbers("ledger"));
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
  for (ReportTable& table : validation_tables) report.tables.push_back(std::move(table));
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

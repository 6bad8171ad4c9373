#include "learner/evaluate/compare.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

std::vector<std::string> DefaultMetrics(int beams) {
  std::vector<std::string> metrics;
  for (const char* family : {"hr", "ndcg", "mrr"}) {
    for (const int cutoff : kCutoffs) {
      if (cutoff <= beams) metrics.push_back(absl::StrCat(family, "@", cutoff));
    }
  }
  return metrics;
}

double Mean(absl::Span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Standard deviation with ddof 1.
double Deviation(absl::Span<const double> values) {
  const double mean = Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

std::string SettingText(const OutcomeSetting& setting) {
  return absl::StrCat("data ", setting.data.substr(0, 12), ", split ", setting.split, ", ", setting.beams, " beams, ",
                      setting.unconstrained_beams, " unconstrained, history ",
                      setting.exclude_history ? "left out" : "recommended");
}

absl::Status CheckPaired(const ComparedArm& first, const ComparedArm& arm, const OutcomeTable& run) {
  const OutcomeTable& want = first.runs[0];
  if (!(run.setting == want.setting)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", first.name, "' and '", arm.name, "' were not evaluated alike: ", SettingText(want.setting),
                     " against ", SettingText(run.setting), "; evaluate both with one spec"));
  }
  if (run.rows.size() != want.rows.size()) {
    return absl::InvalidArgumentError(absl::StrCat("'", first.name, "' was evaluated on ", want.rows.size(),
                                                   " users and '", arm.name, "' on ", run.rows.size(),
                                                   "; evaluate both with one evaluate.users, evaluate.user_parity and "
                                                   "seed"));
  }
  for (size_t i = 0; i < want.rows.size(); ++i) {
    const PromptOutcome &a = want.rows[i].outcome, &b = run.rows[i].outcome;
    if (a.user == b.user && a.position == b.position) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "'", first.name, "' and '", arm.name, "' were evaluated on other users: user ", a.user, " against user ",
        b.user, " in place ", i + 1, "; evaluate both with one evaluate.users, evaluate.user_parity and seed"));
  }
  return absl::OkStatus();
}

absl::Status CheckArms(absl::Span<const ComparedArm> arms, const CompareOptions& options) {
  if (arms.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat("a comparison wants at least two runs, got ", arms.size()));
  }
  for (const size_t against : options.against) {
    if (against < arms.size()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("there is no arm number ", against + 1, " to compare with, only ", arms.size()));
  }
  for (const ComparedArm& arm : arms) {
    if (arm.runs.empty()) return absl::InvalidArgumentError(absl::StrCat("the arm '", arm.name, "' has no runs"));
    for (const OutcomeTable& run : arm.runs) SLUICE_RETURN_IF_ERROR(CheckPaired(arms[0], arm, run));
  }
  if (arms[0].runs[0].rows.empty()) return absl::InvalidArgumentError("no user was evaluated");
  return absl::OkStatus();
}

// Of a mean of paired differences that is 0 in truth, by the normal approximation.
double PairedP(absl::Span<const double> treatment, absl::Span<const double> control) {
  std::vector<double> differences(treatment.size());
  for (size_t i = 0; i < differences.size(); ++i) differences[i] = treatment[i] - control[i];
  const double mean = Mean(differences);
  if (mean == 0 || differences.size() < 2) return 1;
  const double error = Deviation(differences) / std::sqrt(static_cast<double>(differences.size()));
  return error == 0 ? 0 : std::erfc(std::fabs(mean) / error / std::sqrt(2.0));
}

nlohmann::json IntervalJson(const DifferenceInterval& interval) {
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
}

}  // namespace

std::vector<double> HolmAdjusted(absl::Span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t place = 0; place < order.size(); ++place) {
    const double left = static_cast<double>(order.size() - place);
    largest = std::max(largest, std::min(1.0, left * p_values[order[place]]));
    adjusted[order[place]] = largest;
  }
  return adjusted;
}

absl::StatusOr<Comparison> Compare(absl::Span<const ComparedArm> arms, const CompareOptions& options) {
  SLUICE_RETURN_IF_ERROR(CheckArms(arms, options));
  const OutcomeTable& first = arms[0].runs[0];
  Comparison comparison;
  comparison.users = static_cast<int64_t>(first.rows.size());
  comparison.setting = first.setting;
  comparison.confidence = options.bootstrap.confidence;
  const std::vector<std::string> metrics =
      options.metrics.empty() ? DefaultMetrics(first.setting.beams) : options.metrics;

  // [arms * metrics][users], seeds averaged.
  std::vector<std::vector<double>> series;
  for (const ComparedArm& arm : arms) {
    comparison.names.push_back(arm.name);
    std::vector<ArmValue>& values = comparison.values.emplace_back();
    for (const std::string& metric : metrics) {
      ArmValue& value = values.emplace_back();
      value.metric = metric;
      std::vector<double>& average = series.emplace_back(first.rows.size(), 0.0);
      for (const OutcomeTable& run : arm.runs) {
        absl::StatusOr<std::vector<double>> of_run = ValuesOf(run, metric);
        if (!of_run.ok()) return Annotate(of_run.status(), absl::StrCat("'", arm.name, "'"));
        value.by_run.push_back(Mean(*of_run));
        for (size_t i = 0; i < average.size(); ++i) average[i] += (*of_run)[i] / static_cast<double>(arm.runs.size());
      }
      if (value.by_run.size() > 1) value.spread = Deviation(value.by_run);
    }
  }

  const std::vector<absl::Span<const double>> views(series.begin(), series.end());
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::vector<double>> means, BootstrapMeans(views, options.bootstrap));
  for (size_t arm = 0; arm < arms.size(); ++arm) {
    for (size_t m = 0; m < metrics.size(); ++m) {
      const size_t at = arm * metrics.size() + m;
      comparison.values[arm][m].mean = PercentileInterval(Mean(series[at]), means[at], comparison.confidence);
    }
  }
  std::vector<double> p_values;
  std::vector<bool> looked(arms.size(), false);  // at all of its differences
  for (const size_t against : options.against) {
    looked[against] = true;
    for (size_t arm = 0; arm < arms.size(); ++arm) {
      if (looked[arm]) continue;
      for (size_t m = 0; m < metrics.size(); ++m) {
        const size_t a = arm * metrics.size() + m, b = against * metrics.size() + m;
        std::vector<double> differences(means[a].size());
        for (size_t r = 0; r < differences.size(); ++r) differences[r] = means[a][r] - means[b][r];
        ArmDifference& one = comparison.differences.emplace_back();
        one.arm = arm;
        one.against = against;
        one.metric = metrics[m];
        one.difference =
            PercentileInterval(Mean(series[a]) - Mean(series[b]), std::move(differences), comparison.confidence);
        one.p = PairedP(series[a], series[b]);
        p_values.push_back(one.p);
      }
    }
  }
  const std::vector<double> adjusted = HolmAdjusted(p_values);
  for (size_t i = 0; i < adjusted.size(); ++i) comparison.differences[i].p_holm = adjusted[i];
  return comparison;
}

std::string ComparisonToText(const Comparison& comparison) {
  std::string text = absl::StrFormat(
      "%d users, %s split, %d beams; intervals of %g %% by paired bootstrap over users\n", comparison.users,
      comparison.setting.split, comparison.setting.beams, 100 * comparison.confidence);
  size_t against = comparison.names.size(), arm = against, alone = 0, real = 0;
  for (const ArmDifference& one : comparison.differences) {
    if (one.against != against || one.arm != arm) {
      against = one.against;
      arm = one.arm;
      absl::StrAppendFormat(&text, "\n%s against %s\n%-14s %8s %8s %9s %19s %8s %8s %8s\n", comparison.names[arm],
                            comparison.names[against], "", "against", "arm", "diff", "interval", "diff %", "p",
                            "p Holm");
    }
    double before = 0, after = 0;
    for (const ArmValue& value : comparison.values[against]) {
      if (value.metric == one.metric) before = value.mean.mean;
    }
    for (const ArmValue& value : comparison.values[arm]) {
      if (value.metric == one.metric) after = value.mean.mean;
    }
    const std::string relative = before == 0 ? "-" : absl::StrFormat("%+.1f", 100 * (after - before) / before);
    alone += one.real_alone() ? 1 : 0;
    real += comparison.Real(one) ? 1 : 0;
    absl::StrAppendFormat(&text, "%-14s %8.4f %8.4f %+9.4f [%+8.4f,%+8.4f] %8s %8.2g %8.2g  %s\n", one.metric, before,
                          after, one.difference.mean, one.difference.low, one.difference.high, relative, one.p,
                          one.p_holm,
                          comparison.Real(one) ? "real"
                          : one.real_alone()   ? "alone"
                                               : "");
  }
  absl::StrAppendFormat(
      &text,
      "\n%d differences were looked at: %d are real after Holm's correction for that many (`real`); the "
      "interval alone excludes 0 in %d (`alone` where only it does), and about %.1f would by chance.\n",
      comparison.differences.size(), real, alone,
      (1 - comparison.confidence) * static_cast<double>(comparison.differences.size()));
  return text;
}

std::string ComparisonToJson(const Comparison& comparison) {
  nlohmann::json document;
  document["users"] = comparison.users;
  document["split"] = comparison.setting.split;
  document["beams"] = comparison.setting.beams;
  document["data"] = comparison.setting.data;
  document["confidence"] = comparison.confidence;
  document["differences_looked_at"] = comparison.differences.size();
  document["arms"] = nlohmann::json::array();
  for (size_t arm = 0; arm < comparison.names.size(); ++arm) {
    nlohmann::json metrics = nlohmann::json::object();
    for (const ArmValue& value : comparison.values[arm]) {
      nlohmann::json& entry = metrics[value.metric] = IntervalJson(value.mean);
      entry["by_run"] = value.by_run;
      if (value.spread.has_value()) entry["spread"] = *value.spread;
    }
    document["arms"].push_back({{"name", comparison.names[arm]}, {"metrics", metrics}});
  }
  document["differences"] = nlohmann::json::array();
  for (const ArmDifference& one : comparison.differences) {
    nlohmann::json entry = IntervalJson(one.difference);
    entry["arm"] = comparison.names[one.arm];
    entry["against"] = comparison.names[one.against];
    entry["metric"] = one.metric;
    entry["p"] = one.p;
    entry["p_holm"] = one.p_holm;
    entry["real_alone"] = one.real_alone();
    entry["real"] = comparison.Real(one);
    document["differences"].push_back(std::move(entry));
  }
  return document.dump(1) + "\n";
}

}  // namespace sluice::learner

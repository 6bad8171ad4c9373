// Which differences between evaluated policies are real: the paired bootstrap over users, for several metrics and
// several arms at once, with a correction for how many differences were looked at.
//
// An arm is one way of training, with one evaluation a seed. Its value for a user is the mean over its seeds, so the
// bootstrap speaks of the users and not of chance in training; the spread over seeds is reported beside it. Pure
// functions; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_COMPARE_H_
#define SLUICE_LEARNER_EVALUATE_COMPARE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/evaluate/bootstrap.h"
#include "learner/evaluate/outcome_file.h"

namespace sluice::learner {

struct ComparedArm {
  std::string name;
  std::vector<OutcomeTable> runs;  // one a seed, at least one
};

struct CompareOptions {
  BootstrapOptions bootstrap;
  // Names as ValuesOf takes them; empty: hr, ndcg and mrr at every cutoff that the lists reach.
  std::vector<std::string> metrics;
  // Arms that every other one is compared with. Of two that are both among them the later is not compared with again:
  // no pair is looked at twice.
  std::vector<size_t> against = {0};
};

// One metric of one arm.
struct ArmValue {
  std::string metric;
  DifferenceInterval mean;       // over users, seeds averaged first, and its interval
  std::vector<double> by_run;    // each run's own mean
  std::optional<double> spread;  // standard deviation over runs (ddof 1); absent with one run
};

// One metric of an arm against another.
struct ArmDifference {
  size_t arm = 0;
  size_t against = 0;
  std::string metric;
  DifferenceInterval difference;  // arm - against
  // Two-sided, of the paired mean by the normal approximation: it has no floor as a count of resamples has, so that a
  // correction for many looks is possible. 1 where no user differs.
  double p = 1;
  double p_holm = 1;  // after Holm's correction over all differences of the comparison

  // What the interval says of this difference alone, as if it had been the only one looked at.
  bool real_alone() const { return difference.low > 0 || difference.high < 0; }
};

struct Comparison {
  int64_t users = 0;
  OutcomeSetting setting;
  double confidence = 0.95;
  std::vector<std::string> names;             // of the arms
  std::vector<std::vector<ArmValue>> values;  // [arms][metrics]
  std::vector<ArmDifference> differences;     // by `against`, then arm, then metric

  // After correction for all of them.
  bool Real(const ArmDifference& one) const { return one.p_holm < 1 - confidence; }
};

// InvalidArgument: fewer than two arms, an arm without runs, an arm to compare with that is not there, a metric that
// the outcomes do not hold, or evaluations that cannot be paired: other users, split, data set or beams; names both.
absl::StatusOr<Comparison> Compare(absl::Span<const ComparedArm> arms, const CompareOptions& options);

// Holm's step-down correction: adjusted p-values in the order of the given ones, each at most 1.
std::vector<double> HolmAdjusted(absl::Span<const double> p_values);

// For a terminal: the arms, the differences, and how many were looked at.
std::string ComparisonToText(const Comparison& comparison);
// The same for programs.
std::string ComparisonToJson(const Comparison& comparison);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_COMPARE_H_

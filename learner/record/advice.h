// Advice from recorded groups: how reliable the ranker looks, by region and difficulty, which gate, lambda and dose it
// would use and why, and what logged targets cannot say. Every number is of the record, but those of a gain table that
// is handed in. Pure functions; thread-safe.
//
// The rules, in order:
//   1. the single-sample test is the history test if at least half of the scored groups have history scores, else
//      own-against-cross;
//   2. mean of that test at most .6 (.5 is chance): nll_only, the scores are hardly about the user;
//   3. regions differ if, over those with 30 groups or more, the variance of their means of the pooled estimate is
//      more than its sampling noise by 3 standard errors of that noise: combined, else the single-sample gate;
//   4. lambda is the recorded run's: on the market of known truth the gates that admit more gained with their dose
//      (docs/market.md). `equal_dose_lambda` is for the control that has the recorded run's dose, and differs in choice
//      alone.
#ifndef SLUICE_LEARNER_RECORD_ADVICE_H_
#define SLUICE_LEARNER_RECORD_ADVICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "learner/options/options.h"
#include "learner/record/record_file.h"
#include "learner/record/replay.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice::learner {

// Means over some of the scored groups.
struct ReliabilitySummary {
  std::string name;  // "all", "region 12", "target in the head", ...
  uint64_t groups = 0;
  double difficult = 0;     // share
  double single = 0;        // share that passes AdaGRPO's test of the ranker
  double target_place = 0;  // mean share of own completions below the target
  std::optional<double> own_cross;
  std::optional<double> history;
  std::optional<double> passes;    // share above the single-sample test's threshold
  std::optional<double> reliable;  // share in truth, where that is known
};

// One row of a table of measured gains: CSV with the header `error,share,gate,lambda,gain,low,high`: a kind of ranker
// error, the share of unreliable prompts, the gate, lambda, and the gain over NLL alone with its interval.
struct GainRow {
  std::string error;
  double share = 0;
  std::string gate;
  double lambda = 0;
  double gain = 0;
  double low = 0;
  double high = 0;
};
// InvalidArgument names the line.
absl::StatusOr<std::vector<GainRow>> ParseGains(absl::string_view csv);

struct Advice {
  uint64_t steps = 0;
  uint64_t groups = 0;
  uint64_t scored = 0;
  ReliabilitySummary all;
  std::vector<ReliabilitySummary> by_difficulty;
  std::vector<ReliabilitySummary> by_region;  // most groups first
  bool history_test = false;                  // rule 1
  double region_deviation = 0;                // of the regions' means, beyond noise; 0: none
  bool regions_differ = false;
  std::vector<ReplayOutcome> gates;  // what each kind would have admitted
  // The advice itself.
  ObjectiveKind objective = ObjectiveKind::kGated;
  GateOptions gate;
  double rate = 0;
  double lambda = 0;
  std::optional<double> equal_dose_lambda;  // absent: the recorded run or the advised gate admits nothing
  std::vector<std::string> because;
  std::vector<std::string> cannot_know;
  std::vector<GainRow> gains;  // of the gate, at the shares nearest to the estimated one
  bool has_gain_table = false;
};

// gains: absent: no table. FailedPrecondition: the record has no scored group.
absl::StatusOr<Advice> Advise(const RecordedRun& run, const RlOptions& recorded,
                              const std::optional<std::vector<GainRow>>& gains);

std::string AdviceText(const Advice& advice);
nlohmann::ordered_json AdviceJson(const Advice& advice);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RECORD_ADVICE_H_

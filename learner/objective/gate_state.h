// What gates carry from step to step: how reliable the ranker looked in each region of the catalog, and the dose that
// the gate has let through. Plain sums, changed once a step and never while a step is judged, so that verdicts do not
// depend on the order of groups within a step nor on the number of ranks.
//
// A region is the level-1 code of most of a prompt's items: errors of a ranker that was trained on what was exposed
// are errors of regions, and a mean over a region's groups sees what one group is too noisy to show.
#ifndef SLUICE_LEARNER_OBJECTIVE_GATE_STATE_H_
#define SLUICE_LEARNER_OBJECTIVE_GATE_STATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "learner/options/options.h"

namespace sluice::learner {

inline constexpr int32_t kNoRegion = -1;

// The most frequent of the level-1 codes of a prompt's items, oldest first; of several as frequent the one that came
// last. kNoRegion of none.
int32_t RegionOf(absl::Span<const int32_t> level1_codes);

// What one judged group says of the ranker in its region.
struct GateObservation {
  int32_t region = kNoRegion;  // kNoRegion: nothing was learned
  double single = 0;           // 1: AdaGRPO's test of the ranker passed (head and suppression)
  double target_place = 0;     // share of own completions that the ranker puts below the target, in [0, 1]
};

class GateState {
 public:
  struct Region {
    double groups = 0;  // decayed, as the sums are
    double single = 0;
    double target_place = 0;
    bool operator==(const Region&) const = default;
  };
  struct Range {
    double low = 0;
    double high = 0;
  };

  // The mean of a region's two means, (single / groups + target_place / groups) / 2, in [0, 1]; none while it has
  // fewer than `min_groups`.
  std::optional<double> Estimate(int32_t region, int min_groups) const;
  // Over all regions that have an estimate; none unless at least two have, and differ.
  std::optional<Range> Estimates(int min_groups) const;
  // Where the region's estimate stands between the lowest (0) and the highest (1); none without an estimate or range.
  std::optional<double> Standing(int32_t region, int min_groups) const;

  // One step's observations in ordinal order over all ranks, after the sums have been multiplied by `decay`.
  void Observe(absl::Span<const GateObservation> step, double decay);

  // What lambda is multiplied by, 1 until a step was seen. Only dose control changes it.
  double lambda_scale() const { return lambda_scale_; }
  // Dose control after a step in which `rate` of the groups were admitted: the mean rate (weight .1 on the newest
  // step), then lambda_scale = target_dose / (lambda * mean rate) within [1 / dose_range, dose_range].
  void ControlDose(double rate, double lambda, const GateOptions& options);

  const std::map<int32_t, Region>& regions() const { return regions_; }
  bool operator==(const GateState&) const = default;

  // By name ("region/12/groups", "dose/rate", ...) behind `prefix`, for a checkpoint's numbers. Restore takes what is
  // there and forgets the rest.
  void Save(absl::string_view prefix, std::map<std::string, double>* numbers) const;
  void Restore(absl::string_view prefix, const std::map<std::string, double>& numbers);

 private:
  std::map<int32_t, Region> regions_;
  double dose_steps_ = 0;
  double mean_rate_ = 0;
  double lambda_scale_ = 1;
};

// A step's observations as numbers at their places, 0 elsewhere, and back: a sum over ranks is a copy, and every rank
// sees all of them in ordinal order. [3 * places].
std::vector<double> PackObservations(absl::Span<const GateObservation> observations, absl::Span<const size_t> places,
                                     size_t num_places);
std::vector<GateObservation> UnpackObservations(absl::Span<const double> numbers);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_GATE_STATE_H_

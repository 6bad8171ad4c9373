// Which prompt an ordinal is, and which ordinals a step and a rank have: pure functions of (seed, sizes, ordinal), so
// that a resumed or re-formed group continues the same order whatever happened in between.
#ifndef SLUICE_LEARNER_RUN_PROMPT_ORDER_H_
#define SLUICE_LEARNER_RUN_PROMPT_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/catalog/dataset.h"
#include "common/types/group.h"
#include "learner/options/options.h"

namespace sluice::learner {

// A half-open range of ordinals.
struct OrdinalRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

// Step k of a job with `groups_per_step` groups covers ordinals [k n, (k + 1) n), cut into equal consecutive slices.
OrdinalRange SliceOfStep(uint64_t step, uint64_t groups_per_step, int rank, int world_size);

// InvalidArgument unless every rank gets a whole number of lease blocks.
absl::Status ValidateSlices(int groups_per_step, int lease_groups, int world_size);

// The n-th draw of a job: passes over `examples`, each in its own seeded permutation.
class PromptOrder {
 public:
  // examples must not be empty; both must outlive this object.
  PromptOrder(const Dataset& dataset, const std::vector<Example>& examples, uint64_t seed)
      : dataset_(dataset), examples_(examples), seed_(seed) {}

  const Example& ExampleAt(uint64_t ordinal) const;
  Prompt At(uint64_t ordinal) const;
  std::vector<Prompt> Range(const OrdinalRange& range) const;

 private:
  const Dataset& dataset_;
  const std::vector<Example>& examples_;
  const uint64_t seed_;
};

// A fixed random choice of `count` examples (0 or more than there are: all), in their original order.
std::vector<Example> ChooseExamples(std::vector<Example> examples, int count, uint64_t seed);

// The examples of users with even or odd numbers, or all.
std::vector<Example> OfParity(std::vector<Example> examples, UserParity parity);

// Every world_size-th example, from `rank` on.
std::vector<Example> ExamplesOfRank(const std::vector<Example>& examples, int rank, int world_size);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_PROMPT_ORDER_H_

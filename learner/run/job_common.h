// What several kinds of jobs share: data set and policy from options, exports, closing files.
#ifndef SLUICE_LEARNER_RUN_JOB_COMMON_H_
#define SLUICE_LEARNER_RUN_JOB_COMMON_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/model/policy.h"
#include "learner/publish/policy_store.h"
#include "learner/run/evaluate_policy.h"
#include "learner/run/results.h"
#include "learner/run/run_context.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {

// Labels of the seeds that jobs derive from theirs; a new use takes a new number.
enum SeedLabel : uint64_t {
  kInitSeed = 1,
  kBatchSeed = 2,
  kDropoutSeed = 3,
  kValidationSeed = 4,
  kPromptSeed = 5,
  kLeaseSeed = 6,
  kPrepareSeed = 7,
  kControlSeed = 8,
  kRandomRankerSeed = 40,
};

// The configuration of a new policy for a data set.
absl::StatusOr<PolicyConfig> NewPolicyConfig(const ModelOptions& options, const Dataset& dataset);

// Loads options.model.path, or makes a new policy with weights drawn from the job's seed: the same on every rank.
// Placed where the context says.
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const RunContext& context, const Dataset& dataset);

// Writes the policy to export/<which> of the run folder: aside, then renamed over an earlier one. With it goes the
// tokenizer of the model that the job started from, if it has one.
absl::Status ExportPolicy(const RunContext& context, const Policy& policy, const RunFolder& folder,
                          const std::string& which);

// The fixed examples that a job validates on.
std::vector<Example> ValidationExamples(const RunContext& context, const Dataset& dataset, int users);

// Validation with the data set's validation targets; every rank returns the same. Names carry "validation/". `outcomes`
// receives this rank's own.
absl::StatusOr<std::map<std::string, double>> Validate(const RunContext& context, Policy& policy,
                                                       const Dataset& dataset, const std::vector<Example>& examples,
                                                       const ValidationOptions& options, const EvalActors& actors,
                                                       std::vector<PromptOutcome>* outcomes);

// Keeps the lists of a few users for the report, beside those that the job began with. What goes wrong is told in the
// log and stops nothing. Rank 0 only does anything.
void RecordExamples(const RunContext& context, const RunFolder& folder, ExampleLists latest);

// Offers the policy's weights to the actors under a version that no other weights of the job ever had: reserved by the
// first rank, told to the others. `last`: the version before it, from the checkpoint after a resumption; 0: there is
// none. Returns it. Collective.
absl::StatusOr<uint64_t> PublishPolicy(const RunContext& context, const Policy& policy, uint64_t last,
                                       GroupSource* source, SnapshotEncoder* encoder);

// Appends to metrics.jsonl and tells the monitor. Rank 0 only does anything.
absl::Status RecordMetrics(const RunContext& context, RunFolder* folder, uint64_t step, uint64_t total_steps,
                           double time_s, const std::map<std::string, double>& values);

// Brings metrics.jsonl to where the job goes on: to the checkpoint of `step`, or to nothing without one. Returns the
// values of the last validation that stays; none if there is none. Rank 0 only does anything.
absl::StatusOr<std::map<std::string, double>> RewindMetrics(const RunContext& context, RunFolder* folder,
                                                            std::optional<uint64_t> step);

// The end of a job on rank 0: results.json, the report, and where both and, if `results` names it, the best policy lie.
absl::Status WriteOutcome(const RunContext& context, const RunFolder& folder, RunResults results);

// Data sets, specs and settings of a job must be the ones its checkpoint was made with.
std::string DataDigest(const Dataset& dataset);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_JOB_COMMON_H_

// The validations of one training job: fixed users, the latest numbers, and which was the best.
#ifndef SLUICE_LEARNER_RUN_VALIDATION_H_
#define SLUICE_LEARNER_RUN_VALIDATION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/catalog/dataset.h"
#include "common/model/policy.h"
#include "learner/run/best_policy.h"
#include "learner/run/evaluate_policy.h"
#include "learner/run/run_context.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {

// Not thread-safe; one job, one rank.
class Validation {
 public:
  // The references must outlive this object.
  Validation(const RunContext& context, const Dataset& dataset, const ValidationOptions& options, RunFolder& folder);

  // No validation targets: Run does nothing.
  bool empty() const { return examples_.empty(); }

  // Evaluates the policy on the fixed users, records the metrics under `step`, and exports the policy as "best" if
  // nothing before it was as good. Every rank comes to the same numbers. Collective.
  absl::Status Run(Policy& policy, uint64_t step, uint64_t total_steps, double time_s, const EvalActors& actors);

  // Of the last validation, also one before a resume; names carry "validation/". Empty before the first.
  const std::map<std::string, double>& latest() const { return latest_; }
  const BestPolicy& best() const { return best_; }
  // HR@10 of the validation that was run right after `step`; none if the last one was of another step.
  std::optional<double> ScoreAt(uint64_t step) const;

  // Part of a checkpoint's numbers.
  void Save(std::map<std::string, double>* numbers) const { best_.Save(numbers); }
  // `latest` is what metrics.jsonl still holds (RewindMetrics).
  void SetLatest(std::map<std::string, double> latest) { latest_ = std::move(latest); }
  void Restore(const std::map<std::string, double>& numbers) { best_.Restore(numbers); }

 private:
  const RunContext& context_;
  const Dataset& dataset_;
  const ValidationOptions& options_;
  RunFolder& folder_;
  const std::vector<Example> examples_;
  std::map<std::string, double> latest_;
  std::optional<uint64_t> latest_step_;  // none before the first of this process
  BestPolicy best_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_VALIDATION_H_

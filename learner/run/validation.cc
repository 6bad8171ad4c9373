#include "learner/run/validation.h"

#include "absl/strings/str_format.h"
#include "common/status/status.h"
#include "learner/run/job_common.h"

namespace sluice::learner {
namespace {

// Of a market whose truth is known; "" otherwise.
std::string MassText(const std::map<std::string, double>& metrics) {
  const auto mass = metrics.find("validation/mass@10");
  return mass == metrics.end() ? std::string() : absl::StrFormat(", true mass@10 %.4f", mass->second);
}

}  // namespace

Validation::Validation(const RunContext& context, const Dataset& dataset, const ValidationOptions& options,
                       RunFolder& folder)
    : context_(context),
      dataset_(dataset),
      options_(options),
      folder_(folder),
      examples_(ValidationExamples(context, dataset, options.users)) {}

absl::Status Validation::Run(Policy& policy, uint64_t step, uint64_t total_steps, double time_s,
                             const EvalActors& actors) {
  if (examples_.empty()) return absl::OkStatus();
  std::vector<PromptOutcome> outcomes;
  SLUICE_ASSIGN_OR_RETURN(latest_, Validate(context_, policy, dataset_, examples_, options_, actors, &outcomes));
  latest_step_ = step;
  RecordExamples(context_, folder_, ListsToShow(dataset_, step, outcomes));
  SLUICE_RETURN_IF_ERROR(RecordMetrics(context_, &folder_, step, total_steps, time_s, latest_));
  if (context_.is_first()) {
    context_.monitor->ReportLog(absl::StrFormat("step %d: validation HR@10 %.4f, NDCG@10 %.4f, hallucination %.4f",
                                                step, latest_[BestPolicy::kMetric], latest_["validation/ndcg@10"],
                                                latest_["validation/hallucination"]) +
                                MassText(latest_));
  }
  if (!best_.Offer(step, latest_) || !context_.is_first()) return absl::OkStatus();
  return folder_.ReplaceBest(step, [&] { return ExportPolicy(context_, policy, folder_, "best"); });
}

std::optional<double> Validation::ScoreAt(uint64_t step) const {
  const auto score = latest_.find(BestPolicy::kMetric);
  if (latest_step_ != step || score == latest_.end()) return std::nullopt;
  return score->second;
}

}  // namespace sluice::learner

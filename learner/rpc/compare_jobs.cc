#include "learner/rpc/compare_jobs.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "learner/evaluate/arm_text.h"
#include "learner/evaluate/compare.h"

namespace sluice::learner {
namespace {

constexpr int kMaxArms = 64;
constexpr int kMaxResamples = 100000;
// As the run folder names it (learner/run/run_folder.h).
constexpr char kOutcomesFile[] = "outcomes.csv";

absl::StatusOr<OutcomeTable> OutcomesOfJob(const std::string& job_id, JobStore* store) {
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store->Get(job_id));
  const std::string path = JoinPath(job.run_folder, kOutcomesFile);
  if (!PathExists(path)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job ", job_id, " has no outcomes of users: want evaluate jobs that have ended ('sluicectl evaluate ", job_id,
        "' makes one)"));
  }
  return ReadOutcomes(path);
}

}  // namespace

absl::StatusOr<v1::CompareResponse> CompareJobs(const v1::CompareRequest& request, JobStore* store) {
  if (request.arms_size() > kMaxArms || request.resamples() < 0 || request.resamples() > kMaxResamples) {
    return absl::InvalidArgumentError(absl::StrCat("want at most ", kMaxArms, " arms and 0 to ", kMaxResamples,
                                                   " resamples, got ", request.arms_size(), " and ",
                                                   request.resamples()));
  }
  if (request.confidence() != 0 && !(request.confidence() > 0 && request.confidence() < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("confidence: want between 0 and 1, got ", request.confidence()));
  }
  std::vector<ComparedArm> arms;
  for (const std::string& text : request.arms()) {
    SLUICE_ASSIGN_OR_RETURN(arms.emplace_back(),
                            ArmFromText(text, [store](const std::string& job) { return OutcomesOfJob(job, store); }));
  }
  CompareOptions options;
  options.metrics.assign(request.metrics().begin(), request.metrics().end());
  if (request.resamples() > 0) options.bootstrap.resamples = request.resamples();
  if (request.confidence() > 0) options.bootstrap.confidence = request.confidence();
  if (request.seed() > 0) options.bootstrap.seed = request.seed();
  if (request.against_size() > 0) {
    SLUICE_ASSIGN_OR_RETURN(options.against, PlacesOfArms({request.against().begin(), request.against().end()}, arms));
  }
  SLUICE_ASSIGN_OR_RETURN(const Comparison comparison, Compare(arms, options));
  v1::CompareResponse response;
  response.set_text(ComparisonToText(comparison));
  response.set_json(ComparisonToJson(comparison));
  return response;
}

}  // namespace sluice::learner

#include <utility>

#include "common/status/status.h"
#include "learner/run/jobs.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

absl::Status RunJob(const RunContext& context) {
  SLUICE_CHECK(context.collective != nullptr && context.monitor != nullptr && context.now != nullptr,
               "a job needs a collective, a monitor and a clock");
  switch (context.options.kind) {
    case JobKind::kPrepare:
      return RunPrepare(context);
    case JobKind::kSft:
      return RunSft(context);
    case JobKind::kRl:
      return RunRl(context);
    case JobKind::kEvaluate:
      return RunEvaluate(context);
  }
  return absl::InternalError("a kind of job without a loop");
}

}  // namespace sluice::learner

#include "common/failpoint/failpoint.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/failpoint/failpoint_plan.h"
#include "common/status/status.h"

namespace sluice {

constexpr char kVariable[] = "SLUICE_FAILPOINTS";

#if SLUICE_HAS_FAILPOINTS

namespace {

// Set once, before threads start; lives as long as the process.
FailpointPlan* plan = nullptr;

void Act(absl::string_view name, const FailpointAction& action) {
  // For whoever waits for it, written at once: the process may be gone after this.
  const std::string line = absl::StrCat("failpoint ", name, ": ", action.text, "\n");
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;
  switch (action.effect) {
    case FailpointEffect::kKill:
      kill(getpid(), SIGKILL);
      while (true) pause();
    case FailpointEffect::kStop:
      raise(SIGSTOP);
      return;
    case FailpointEffect::kExit:
      _exit(action.exit_code);
    case FailpointEffect::kSleep:
      absl::SleepFor(action.sleep);
      return;
    case FailpointEffect::kNone:
    case FailpointEffect::kError:
      return;
  }
}

}  // namespace

absl::Status StartFailpoints() {
  const char* text = std::getenv(kVariable);
  if (text == nullptr) return absl::OkStatus();
  absl::StatusOr<std::vector<FailpointAction>> actions = ParseFailpoints(text, kFailpointNames);
  if (!actions.ok()) return Annotate(actions.status(), kVariable);
  SLUICE_CHECK(plan == nullptr, "failpoints start once");
  plan = new FailpointPlan(kFailpointNames, *std::move(actions), Act);
  return absl::OkStatus();
}

absl::Status PassFailpoint(size_t index) { return plan == nullptr ? absl::OkStatus() : plan->Pass(index); }

#else

absl::Status StartFailpoints() {
  if (std::getenv(kVariable) == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      kVariable, " is set, but this build cannot inject faults; unset it, or start the programs of the preset faults"));
}

#endif

}  // namespace sluice

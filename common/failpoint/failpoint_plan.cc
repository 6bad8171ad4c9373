#include "common/failpoint/failpoint_plan.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr absl::string_view kActions = "kill, stop, exit(CODE), sleep(TIME) or error(CODE)";
constexpr absl::string_view kInjected = "injected by a failpoint";

// "sleep(2s)" -> true, "2s". False: not a call of `function`.
bool ArgumentOf(absl::string_view action, absl::string_view function, absl::string_view* argument) {
  *argument = action;
  return absl::ConsumePrefix(argument, function) && absl::ConsumePrefix(argument, "(") &&
         absl::ConsumeSuffix(argument, ")");
}

// OK: there is no such code.
absl::Status ErrorOf(absl::string_view code) {
  if (code == "NO_SPACE") return NoSpaceError(kInjected);
  if (code == "HELD") return HeldError(kInjected);
  for (int number = 1; number <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++number) {
    const absl::StatusCode known = static_cast<absl::StatusCode>(number);
    if (code == absl::StatusCodeToString(known)) return absl::Status(known, kInjected);
  }
  return absl::OkStatus();
}

absl::StatusOr<FailpointAction> ActionOf(absl::string_view text) {
  FailpointAction action;
  action.text = std::string(text);
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '@');
  if (parts.size() > 2 || (parts.size() == 2 && (!absl::SimpleAtoi(parts[1], &action.pass) || action.pass == 0))) {
    return absl::InvalidArgumentError("after @ want the number of a pass, from 1");
  }
  absl::string_view argument;
  if (parts[0] == "kill") {
    action.effect = FailpointEffect::kKill;
  } else if (parts[0] == "stop") {
    action.effect = FailpointEffect::kStop;
  } else if (ArgumentOf(parts[0], "exit", &argument)) {
    action.effect = FailpointEffect::kExit;
    if (!absl::SimpleAtoi(argument, &action.exit_code) || action.exit_code < 0 || action.exit_code > 255) {
      return absl::InvalidArgumentError("want exit(0) to exit(255)");
    }
  } else if (ArgumentOf(parts[0], "sleep", &argument)) {
    action.effect = FailpointEffect::kSleep;
    if (!absl::ParseDuration(argument, &action.sleep) || action.sleep < absl::ZeroDuration() ||
        action.sleep == absl::InfiniteDuration()) {
      return absl::InvalidArgumentError("want a time such as sleep(2s) or sleep(50ms)");
    }
  } else if (ArgumentOf(parts[0], "error", &argument)) {
    action.effect = FailpointEffect::kError;
    action.error = ErrorOf(argument);
    if (action.error.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", argument, "' is no code of an error; want one such as UNAVAILABLE, DATA_LOSS or NO_SPACE"));
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat("want ", kActions));
  }
  return action;
}

bool Matches(absl::string_view pattern, absl::string_view name) {
  return absl::ConsumeSuffix(&pattern, "*") ? absl::StartsWith(name, pattern) : name == pattern;
}

absl::Status ApplyEntry(absl::string_view entry, absl::Span<const FailpointName> names,
                        std::vector<FailpointAction>* actions) {
  const size_t equals = entry.find('=');
  if (equals == absl::string_view::npos) return absl::InvalidArgumentError("want NAME=ACTION");
  const absl::string_view pattern = entry.substr(0, equals);
  SLUICE_ASSIGN_OR_RETURN(const FailpointAction action, ActionOf(entry.substr(equals + 1)));
  const bool exact = !absl::EndsWith(pattern, "*");
  bool found = false;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!Matches(pattern, names[i].name)) continue;
    found = true;
    if (action.effect == FailpointEffect::kError && !names[i].returns) {
      if (!exact) continue;
      return absl::InvalidArgumentError("no error can be returned there; want kill, stop, exit or sleep");
    }
    (*actions)[i] = action;
  }
  if (found) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("there is no failpoint '", pattern, "'; docs/failpoints.md lists them"));
}

}  // namespace

absl::StatusOr<std::vector<FailpointAction>> ParseFailpoints(absl::string_view text,
                                                             absl::Span<const FailpointName> names) {
  std::vector<FailpointAction> actions(names.size());
  for (const absl::string_view entry : absl::StrSplit(text, ';', absl::SkipWhitespace())) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(entry);
    const absl::Status status = ApplyEntry(stripped, names, &actions);
    if (!status.ok()) return Annotate(status, absl::StrCat("'", stripped, "'"));
  }
  return actions;
}

FailpointPlan::FailpointPlan(absl::Span<const FailpointName> names, std::vector<FailpointAction> actions, Act act)
    : names_(names),
      actions_(std::move(actions)),
      act_(std::move(act)),
      passes_(std::make_unique<std::atomic<uint64_t>[]>(names.size())) {
  SLUICE_CHECK(actions_.size() == names_.size(), "an action a name");
}

absl::Status FailpointPlan::Pass(size_t index) {
  const FailpointAction& action = actions_[index];
  if (action.effect == FailpointEffect::kNone) return absl::OkStatus();
  if (passes_[index].fetch_add(1) + 1 != action.pass) return absl::OkStatus();
  if (action.effect != FailpointEffect::kError) {
    act_(names_[index].name, action);
    return absl::OkStatus();
  }
  return Annotate(action.error, names_[index].name);
}

}  // namespace sluice

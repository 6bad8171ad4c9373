#include "client/cli/log_filter.h"

#include "absl/strings/str_cat.h"
#include "client/cli/format.h"

namespace sluice::client {
namespace {

// 0, 1, 2 for info, warning, error; -1: none of them. A level of a newer server counts as info.
int LevelOf(const std::string& level) {
  return level == "error" ? 2 : level == "warning" ? 1 : level == "info" ? 0 : -1;
}

}  // namespace

absl::StatusOr<LogFilter> LogFilter::Create(const LogFlags& flags, absl::Time now) {
  LogFilter filter;
  if (!flags.role.empty() && flags.role != "learner" && flags.role != "coordinator" && flags.role != "actor") {
    return absl::InvalidArgumentError(
        absl::StrCat("--role: want learner, actor or coordinator, got '", flags.role, "'"));
  }
  filter.role_ = flags.role;
  filter.rank_ = flags.rank;
  if (!flags.level.empty() && LevelOf(flags.level) < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--level: want info, warning or error, got '", flags.level, "'"));
  }
  filter.level_ = std::max(0, LevelOf(flags.level));
  if (flags.since != absl::InfiniteDuration()) filter.earliest_ = now - flags.since;
  if (flags.grep.empty()) return filter;
  auto expression = std::make_unique<regex_t>();
  if (const int error = regcomp(expression.get(), flags.grep.c_str(), REG_EXTENDED | REG_NOSUB); error != 0) {
    char text[256];
    regerror(error, expression.get(), text, sizeof(text));
    return absl::InvalidArgumentError(absl::StrCat("--grep: '", flags.grep, "' is no regular expression: ", text));
  }
  filter.grep_.reset(expression.release());
  return filter;
}

bool LogFilter::Shows(const v1::JobEvent& event) const {
  const bool line = event.has_log();
  if (!line && !event.has_state()) return false;
  const std::string role = !line ? "coordinator" : event.log().role().empty() ? "learner" : event.log().role();
  if (!role_.empty() && role != role_) return false;
  if (rank_ && (role == "coordinator" || event.log().rank() != *rank_)) return false;
  if ((line ? std::max(0, LevelOf(event.log().level())) : 0) < level_) return false;
  if (TimeOf(event.time()) < earliest_) return false;
  const std::string text = line ? event.log().text() : event.state().message();
  return grep_ == nullptr || regexec(grep_.get(), text.c_str(), 0, nullptr, 0) == 0;
}

}  // namespace sluice::client

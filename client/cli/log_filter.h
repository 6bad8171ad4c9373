// Which of a job's log lines `sluicectl logs` shows.
#ifndef SLUICE_CLIENT_CLI_LOG_FILTER_H_
#define SLUICE_CLIENT_CLI_LOG_FILTER_H_

#include <regex.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/commands.h"
#include "sluice/v1/job.pb.h"

namespace sluice::client {

// Thread-safe.
class LogFilter {
 public:
  // InvalidArgument: no such level or role, or an expression that cannot be read. `now`: what `since` counts from.
  static absl::StatusOr<LogFilter> Create(const LogFlags& flags, absl::Time now);

  // Of a line or a change of state; those are said by the coordinator, at level "info".
  bool Shows(const v1::JobEvent& event) const;

 private:
  struct FreeExpression {
    void operator()(regex_t* expression) const {
      regfree(expression);
      delete expression;
    }
  };

  std::string role_;
  std::optional<int> rank_;
  int level_ = 0;
  absl::Time earliest_ = absl::InfinitePast();
  std::unique_ptr<regex_t, FreeExpression> grep_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_LOG_FILTER_H_

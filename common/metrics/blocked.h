// How long parts of a process have waited for one another: sluice_blocked_seconds_total{who, on}. Where something is
// stuck is then a query, and not a debugging session.
#ifndef SLUICE_COMMON_METRICS_BLOCKED_H_
#define SLUICE_COMMON_METRICS_BLOCKED_H_

#include <memory>

#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"
#include "common/time/clock.h"

namespace sluice {

// The waits of one who for one on. A wait that has not ended is counted too, as far as it has come at each scrape.
// Thread-safe; several may wait at once.
class Blocked {
 public:
  // One for each who and on in a process, made at its start. `metrics` outlives this object.
  Blocked(Metrics* metrics, NowFunction now, absl::string_view who, absl::string_view on);

  // A wait, from its construction to its end. Of no Blocked: nothing is counted.
  class Wait {
   public:
    explicit Wait(Blocked* blocked);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    Blocked* const blocked_;
  };

 private:
  struct State;
  std::shared_ptr<State> state_;  // the scrape's too
};

}  // namespace sluice

#endif  // SLUICE_COMMON_METRICS_BLOCKED_H_

// What every process tells about itself: which release it is, since when it runs, and what it uses of the machine.
//
// Names are those of the Prometheus client libraries (process_*), so that common dashboards work. Read from /proc at
// each scrape; what /proc does not tell stays at the value of the last scrape that did.
#ifndef SLUICE_COMMON_METRICS_PROCESS_METRICS_H_
#define SLUICE_COMMON_METRICS_PROCESS_METRICS_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"

namespace sluice {

// One line of /proc/PID/stat, in units of proc(5).
struct ProcessStat {
  uint64_t cpu_ticks = 0;       // user and system
  uint64_t start_ticks = 0;     // after boot
  uint64_t resident_pages = 0;  // in memory
};

// Nothing if it is no such line. A process may have blanks and parentheses in its name.
std::optional<ProcessStat> ParseProcessStat(absl::string_view line);

// Seconds since 1970 at which the machine booted, out of /proc/stat; nothing if it is not there.
std::optional<uint64_t> ParseBootTime(absl::string_view stat);

// Adds sluice_build_info and the process_* series. Once a process.
void AddProcessMetrics(Metrics* metrics);

}  // namespace sluice

#endif  // SLUICE_COMMON_METRICS_PROCESS_METRICS_H_

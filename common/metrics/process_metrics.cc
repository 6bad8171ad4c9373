#include "common/metrics/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/sync/mutex.h"

namespace sluice {
namespace {

// Places after the name in /proc/PID/stat, counted from 0; proc(5) counts from 3 there.
constexpr size_t kUserTicks = 11;
constexpr size_t kSystemTicks = 12;
constexpr size_t kStartTicks = 19;
constexpr size_t kResidentPages = 21;

std::string ReadProc(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Nothing if the folder cannot be read.
std::optional<int> OpenDescriptors() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  int entries = 0;
  while (readdir(folder) != nullptr) ++entries;
  closedir(folder);
  return entries - 3;  // ".", "..", and the one that reads the folder
}

// Counters only grow, so what was counted before is kept. Scrapes may come at the same time.
struct CpuSeconds {
  Mutex mutex;
  double counted ABSL_GUARDED_BY(mutex) = 0;
};

}  // namespace

std::optional<ProcessStat> ParseProcessStat(absl::string_view line) {
  const size_t name_end = line.rfind(')');
  if (name_end == absl::string_view::npos) return std::nullopt;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(line.substr(name_end + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  uint64_t user = 0;
  uint64_t system = 0;
  ProcessStat stat;
  if (fields.size() <= kResidentPages || !absl::SimpleAtoi(fields[kUserTicks], &user) ||
      !absl::SimpleAtoi(fields[kSystemTicks], &system) || !absl::SimpleAtoi(fields[kStartTicks], &stat.start_ticks) ||
      !absl::SimpleAtoi(fields[kResidentPages], &stat.resident_pages)) {
    return std::nullopt;
  }
  stat.cpu_ticks = user + system;
  return stat;
}

std::optional<uint64_t> ParseBootTime(absl::string_view stat) {
  for (const absl::string_view line : absl::StrSplit(stat, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t seconds = 0;
    if (words.size() == 2 && words[0] == "btime" && absl::SimpleAtoi(words[1], &seconds)) return seconds;
  }
  return std::nullopt;
}

void AddProcessMetrics(Metrics* metrics) {
  metrics
      ->AddGauge("sluice_build_info", "1; the label says which release the process is of.",
                 {{"version", SLUICE_VERSION}})
      ->Set(1);
  Gauge* const started =
      metrics->AddGauge("process_start_time_seconds", "When the process started, in seconds since 1970.");
  Gauge* const resident = metrics->AddGauge("process_resident_memory_bytes", "Memory that the process holds.");
  Gauge* const open = metrics->AddGauge("process_open_fds", "Open file descriptors, sockets included.");
  Gauge* const most = metrics->AddGauge("process_max_fds", "File descriptors that the process may open.");
  Counter* const cpu = metrics->AddCounter("process_cpu_seconds_total", "CPU time of all threads, user and system.");
  const auto seconds = std::make_shared<CpuSeconds>();
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  const std::optional<uint64_t> boot = ParseBootTime(ReadProc("/proc/stat"));
  metrics->OnScrape([=] {
    if (const std::optional<int> count = OpenDescriptors()) open->Set(*count);
    if (rlimit limit{}; getrlimit(RLIMIT_NOFILE, &limit) == 0) most->Set(static_cast<double>(limit.rlim_cur));
    const std::optional<ProcessStat> stat = ParseProcessStat(ReadProc("/proc/self/stat"));
    if (!stat) return;
    if (boot) started->Set(static_cast<double>(*boot) + static_cast<double>(stat->start_ticks) / ticks);
    resident->Set(static_cast<double>(stat->resident_pages) * page_bytes);
    MutexLock lock(&seconds->mutex);
    const double used = static_cast<double>(stat->cpu_ticks) / ticks;
    if (used > seconds->counted) cpu->Increment(used - seconds->counted);
    seconds->counted = used;
  });
}

}  // namespace sluice

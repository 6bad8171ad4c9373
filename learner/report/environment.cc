#include "learner/report/environment.h"

#include <sys/utsname.h>

#include <string>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"

namespace sluice::learner {

std::string ValueOfLine(absl::string_view text, absl::string_view name) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(parts.first) == name) return std::string(absl::StripAsciiWhitespace(parts.second));
  }
  return "";
}

std::vector<ReportFact> MachineFacts() {
  std::vector<ReportFact> facts = {{"Sluice", SLUICE_VERSION}, {"compiler", absl::StrCat("GCC ", __VERSION__)}};
  utsname machine;
  if (uname(&machine) == 0) {
    facts.push_back({"system", absl::StrCat(machine.sysname, " ", machine.release, ", ", machine.machine)});
  }
  const std::string processor = ValueOfLine(ReadFile("/proc/cpuinfo").value_or(""), "model name");
  facts.push_back(
      {"processors", absl::StrCat(std::thread::hardware_concurrency(), processor.empty() ? "" : " of ", processor)});
  // "16384256 kB"
  const std::string memory = ValueOfLine(ReadFile("/proc/meminfo").value_or(""), "MemTotal");
  double kib = 0;
  if (absl::SimpleAtod(memory.substr(0, memory.find(' ')), &kib)) {
    facts.push_back({"memory", absl::StrFormat("%.1f GiB", kib / 1024 / 1024)});
  }
  return facts;
}

}  // namespace sluice::learner

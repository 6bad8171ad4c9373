// Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere.
#ifndef SLUICE_COMMON_PROGRESS_PROGRESS_H_
#define SLUICE_COMMON_PROGRESS_PROGRESS_H_

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/time/clock.h"

namespace sluice {

// "1 h 02 min", "3 min 05 s", "42 s".
std::string HumanDuration(absl::Duration duration);

// One line: label, bar of `bar_width` characters (0: none), "done/total unit", rate and time left, then `extra`.
// total 0: not known, so neither share nor time left. `elapsed` is the time in which `done` - `first_done` came about.
struct ProgressState {
  std::string label;
  std::string unit;
  std::string extra;
  int64_t done = 0;
  int64_t total = 0;
  int64_t first_done = 0;
  absl::Duration elapsed;
};
std::string ProgressLine(const ProgressState& state, int bar_width);

// Writes progress to a stream: on a terminal the line is redrawn in place, elsewhere a new line comes at most once an
// interval and whenever the label changes or the work is complete. Not thread-safe.
class ProgressPrinter {
 public:
  struct Options {
    bool terminal = false;                              // isatty of the stream
    absl::Duration redraw = absl::Milliseconds(200);    // on a terminal
    absl::Duration plain_interval = absl::Seconds(10);  // elsewhere
  };
  // `stream` must outlive this object; not owned.
  ProgressPrinter(std::FILE* stream, NowFunction now, Options options);
  // For standard error, a terminal or not.
  explicit ProgressPrinter(NowFunction now);
  ~ProgressPrinter() { EndLine(); }

  void Update(absl::string_view label, absl::string_view unit, int64_t done, int64_t total,
              absl::string_view extra = "");
  // A line of text above the bar.
  void Print(absl::string_view text);

 private:
  void EndLine();

  std::FILE* const stream_;
  const NowFunction now_;
  const Options options_;
  ProgressState state_;
  absl::Time started_ = absl::InfinitePast();
  absl::Time shown_ = absl::InfinitePast();
  bool line_open_ = false;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_PROGRESS_PROGRESS_H_

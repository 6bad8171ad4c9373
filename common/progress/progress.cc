#include "common/progress/progress.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice {
namespace {

constexpr int kBarWidth = 24;

std::string Rate(double per_second, absl::string_view unit) {
  return per_second >= 10 ? absl::StrFormat("%.0f %s/s", per_second, unit)
                          : absl::StrFormat("%.2f %s/s", per_second, unit);
}

}  // namespace

std::string HumanDuration(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds >= 3600) return absl::StrFormat("%d h %02d min", seconds / 3600, seconds / 60 % 60);
  if (seconds >= 60) return absl::StrFormat("%d min %02d s", seconds / 60, seconds % 60);
  return absl::StrCat(seconds, " s");
}

std::string ProgressLine(const ProgressState& state, int bar_width) {
  std::string line = state.label;
  if (state.total > 0) {
    const double share = std::clamp(static_cast<double>(state.done) / static_cast<double>(state.total), 0.0, 1.0);
    if (bar_width > 0) {
      const int filled = static_cast<int>(share * bar_width);
      absl::StrAppend(&line, " [", std::string(filled, '='), std::string(bar_width - filled, ' '), "]");
    }
    absl::StrAppendFormat(&line, " %3.0f %% %d/%d %s", share * 100, state.done, state.total, state.unit);
  } else {
    absl::StrAppend(&line, " ", state.done, " ", state.unit);
  }
  const double elapsed = absl::ToDoubleSeconds(state.elapsed);
  const int64_t came = state.done - state.first_done;
  if (elapsed > 0 && came > 0) {
    const double per_second = static_cast<double>(came) / elapsed;
    absl::StrAppend(&line, ", ", Rate(per_second, state.unit));
    if (state.total > state.done) {
      const double left = static_cast<double>(state.total - state.done) / per_second;
      absl::StrAppend(&line, ", ", HumanDuration(absl::Seconds(left)), " left");
    }
  }
  if (!state.extra.empty()) absl::StrAppend(&line, ", ", state.extra);
  return line;
}

ProgressPrinter::ProgressPrinter(std::FILE* stream, NowFunction now, Options options)
    : stream_(stream), now_(std::move(now)), options_(options) {}

ProgressPrinter::ProgressPrinter(NowFunction now)
    : ProgressPrinter(stderr, std::move(now), Options{.terminal = isatty(STDERR_FILENO) == 1}) {}

void ProgressPrinter::Update(absl::string_view label, absl::string_view unit, int64_t done, int64_t total,
                             absl::string_view extra) {
  const absl::Time now = now_();
  const bool restarted = state_.label != label || done < state_.done;
  if (restarted) {
    EndLine();
    started_ = now;
    state_.first_done = done;
    shown_ = absl::InfinitePast();
  }
  state_.label = std::string(label);
  state_.unit = std::string(unit);
  state_.extra = std::string(extra);
  state_.done = done;
  state_.total = total;
  state_.elapsed = now - started_;
  const bool complete = total > 0 && done >= total;
  const absl::Duration interval = options_.terminal ? options_.redraw : options_.plain_interval;
  if (!complete && now - shown_ < interval) return;
  shown_ = now;
  if (options_.terminal) {
    std::fprintf(stream_, "\r\033[K%s", ProgressLine(state_, kBarWidth).c_str());
    line_open_ = true;
    if (complete) EndLine();
  } else {
    std::fprintf(stream_, "%s\n", ProgressLine(state_, 0).c_str());
  }
  std::fflush(stream_);
}

void ProgressPrinter::Print(absl::string_view text) {
  EndLine();
  std::fprintf(stream_, "%.*s\n", static_cast<int>(text.size()), text.data());
  std::fflush(stream_);
}

void ProgressPrinter::EndLine() {
  if (!line_open_) return;
  std::fputc('\n', stream_);
  std::fflush(stream_);
  line_open_ = false;
}

}  // namespace sluice

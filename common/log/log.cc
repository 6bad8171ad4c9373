#include "common/log/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sluice {
namespace {

struct Sink {
  std::shared_ptr<spdlog::logger> logger;
  LogFormat format = LogFormat::kText;
  std::string role = "sluice";
};

Sink MakeSink() {
  Sink sink;
  sink.logger = std::make_shared<spdlog::logger>("sluice", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  sink.logger->set_pattern("%v");
  return sink;
}

Sink& GlobalSink() {
  static Sink& sink = *new Sink(MakeSink());  // never destroyed: threads may log while the process ends
  return sink;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

const char* Name(LogLevel level) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  return kNames[static_cast<int>(level)];
}

std::string Now() { return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()); }

std::string Quoted(absl::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string AsJson(const Sink& sink, LogLevel level, absl::string_view message,
                   std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat("{\"time\":\"", Now(), "\",\"level\":\"", Name(level),
                                  "\",\"role\":", Quoted(sink.role), ",\"message\":", Quoted(message));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",", Quoted(field.name()), ":", field.is_number() ? field.text() : Quoted(field.text()));
  }
  return line + "}";
}

std::string AsText(const Sink& sink, LogLevel level, absl::string_view message,
                   std::initializer_list<LogField> fields) {
  std::string line = absl::StrFormat("%s %-7s %s: %s", Now(), Name(level), sink.role, message);
  for (const LogField& field : fields) absl::StrAppend(&line, " ", field.name(), "=", field.text());
  return line;
}

}  // namespace

LogField::LogField(absl::string_view name, double value) : name_(name), is_number_(std::isfinite(value)) {
  text_ = is_number_ ? absl::StrFormat("%.6g", value) : absl::StrCat(value);
}

void InitLogging(absl::string_view role, LogFormat format, LogLevel threshold) {
  Sink& sink = GlobalSink();
  sink.role = std::string(role);
  sink.format = format;
  sink.logger->set_level(ToSpdlog(threshold));
}

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  Sink& sink = GlobalSink();
  if (!sink.logger->should_log(ToSpdlog(level))) return;
  const std::string line =
      sink.format == LogFormat::kJson ? AsJson(sink, level, message, fields) : AsText(sink, level, message, fields);
  sink.logger->log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace sluice

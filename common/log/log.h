// Structured logs: one event, its message in plain words, and named fields. JSON lines or aligned text on
// standard error. This header includes no spdlog, because spdlog and LibTorch do not compile in one file.
#ifndef SLUICE_COMMON_LOG_LOG_H_
#define SLUICE_COMMON_LOG_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// A named value of a log line. Numbers stay numbers in JSON.
class LogField {
 public:
  LogField(absl::string_view name, absl::string_view value) : name_(name), text_(value) {}
  LogField(absl::string_view name, const char* value) : LogField(name, absl::string_view(value)) {}
  LogField(absl::string_view name, const std::string& value) : LogField(name, absl::string_view(value)) {}
  LogField(absl::string_view name, int64_t value) : name_(name), text_(std::to_string(value)), is_number_(true) {}
  LogField(absl::string_view name, int value) : LogField(name, static_cast<int64_t>(value)) {}
  LogField(absl::string_view name, uint64_t value) : LogField(name, static_cast<int64_t>(value)) {}
  LogField(absl::string_view name, double value);

  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }
  bool is_number() const { return is_number_; }

 private:
  std::string name_;
  std::string text_;
  bool is_number_ = false;
};

// Sets the process's sink. Called once, from main. `role` names the process ("actor") in every line.
void InitLogging(absl::string_view role, LogFormat format, LogLevel threshold);

// Writes one line. Thread-safe. Before InitLogging: text at kInfo and above.
void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

inline void LogInfo(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace sluice

#endif  // SLUICE_COMMON_LOG_LOG_H_

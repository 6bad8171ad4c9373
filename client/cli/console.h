// Where sluicectl's words go: data to standard output, in the form that was asked for, talk to standard error.
#ifndef SLUICE_CLIENT_CLI_CONSOLE_H_
#define SLUICE_CLIENT_CLI_CONSOLE_H_

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::client {

enum class OutputFormat { kTable, kWide, kJson, kJsonl, kYaml, kName };

// Of every JSON and YAML document, in its key "schema_version". Grows when a key changes its meaning or goes; new keys
// may come at any time.
inline constexpr int kSchemaVersion = 1;

struct Console {
  std::FILE* out = stdout;
  std::FILE* err = stderr;
  bool out_terminal = false;  // progress is a bar there, and columns may be coloured
  bool err_terminal = false;
  bool color = false;  // on `out`
  bool quiet = false;  // no talk but errors
  OutputFormat format = OutputFormat::kTable;

  bool for_people() const { return format == OutputFormat::kTable || format == OutputFormat::kWide; }
};

// A document of JSON with its schema version first.
nlohmann::ordered_json WithSchema(const nlohmann::ordered_json& document);

// The same document as YAML: reads back to equal values.
std::string YamlText(const nlohmann::ordered_json& document);

// Columns padded to their widest cell, two spaces apart; the last one is not padded. Escape sequences of colours take
// no room.
std::string Table(const std::vector<std::vector<std::string>>& rows);

// Green for good ends, red for bad ones, yellow for what waits for somebody, cyan for what runs.
std::string ColoredState(const std::string& state);

class Printer {
 public:
  explicit Printer(Console console) : console_(console) {}
  const Console& console() const { return console_; }

  void Out(const std::string& text) const;
  // A line for people, unless --quiet.
  void Talk(const std::string& text) const;
  // Prints the error and returns its exit code.
  int Fail(const absl::Status& status) const;

  // A list under `key`: the table for people, a document, a line an element, or names alone (`name_key` of each).
  void List(const std::string& key, const nlohmann::ordered_json& elements, const std::string& name_key,
            const std::string& table) const;
  // One thing, likewise.
  void One(const nlohmann::ordered_json& thing, const std::string& name_key, const std::string& text) const;

 private:
  const Console console_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_CONSOLE_H_

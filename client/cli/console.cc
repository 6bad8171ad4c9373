#include "client/cli/console.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status/exit_code.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

// Whether YAML reads these characters as this text, and as nothing else.
bool IsPlain(const std::string& text) {
  static constexpr std::array kWords = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  if (text.empty() || !absl::ascii_isalpha(static_cast<unsigned char>(text.front()))) return false;
  if (std::any_of(kWords.begin(), kWords.end(),
                  [&text](const char* word) { return absl::EqualsIgnoreCase(text, word); })) {
    return false;
  }
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("_-./@", absl::string_view(&c, 1));
  });
}

void AppendYaml(const ordered_json& value, const std::string& indent, std::string* text) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, child] : value.items()) {
      absl::StrAppend(text, "\n", indent, IsPlain(key) ? key : Dump(key, -1), ":");
      AppendYaml(child, indent + "  ", text);
    }
  } else if (value.is_array() && !value.empty()) {
    for (const ordered_json& child : value) {
      absl::StrAppend(text, "\n", indent, "-");
      AppendYaml(child, indent + "  ", text);
    }
  } else if (value.is_string() && IsPlain(value.get<std::string>())) {
    absl::StrAppend(text, " ", value.get<std::string>());
  } else {
    absl::StrAppend(text, " ", Dump(value, -1));  // JSON's scalars are YAML's
  }
}

// Characters that a terminal shows: one a code point of UTF-8, none of a colour's sequence.
size_t VisibleWidth(const std::string& text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      while (i < text.size() && text[i] != 'm') ++i;
      continue;
    }
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) ++width;
  }
  return width;
}

std::string NameOf(const ordered_json& thing, const std::string& key) {
  const auto found = thing.find(key);
  if (found == thing.end()) return "";
  return found->is_string() ? found->get<std::string>() : Dump(*found, -1);
}

}  // namespace

ordered_json WithSchema(const ordered_json& document) {
  ordered_json all = {{"schema_version", kSchemaVersion}};
  for (const auto& [key, value] : document.items()) all[key] = value;
  return all;
}

std::string YamlText(const ordered_json& document) {
  std::string text;
  AppendYaml(document, "", &text);
  absl::StripLeadingAsciiWhitespace(&text);
  return text + "\n";
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], VisibleWidth(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      absl::StrAppend(&text, row[i], last ? "\n" : std::string(widths[i] - VisibleWidth(row[i]) + 2, ' '));
    }
  }
  return text;
}

std::string ColoredState(const std::string& state) {
  int color = 36;
  if (state == "succeeded" || state == "ok") color = 32;
  if (state == "failed") color = 31;
  if (state == "held" || state == "paused" || state == "cancelled" || state == "warning") color = 33;
  if (state == "queued" || state == "skipped") return state;
  return absl::StrCat("\033[", color, "m", state, "\033[0m");
}

void Printer::Out(const std::string& text) const {
  std::fwrite(text.data(), 1, text.size(), console_.out);
  std::fflush(console_.out);
}

void Printer::Talk(const std::string& text) const {
  if (console_.quiet) return;
  std::fprintf(console_.err, "%s\n", text.c_str());
  std::fflush(console_.err);
}

int Printer::Fail(const absl::Status& status) const {
  const bool several = absl::StrContains(status.message(), "\n");
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    std::fprintf(console_.err, "%s%s\n", several ? "" : "sluicectl: ", std::string(line).c_str());
  }
  std::fflush(console_.err);
  // Whatever was not found was named on the command line.
  if (status.code() == absl::StatusCode::kNotFound) return static_cast<int>(ExitCode::kUsage);
  return static_cast<int>(ExitCodeFor(status));
}

void Printer::List(const std::string& key, const ordered_json& elements, const std::string& name_key,
                   const std::string& table) const {
  switch (console_.format) {
    case OutputFormat::kTable:
    case OutputFormat::kWide:
      return Out(table);
    case OutputFormat::kJson:
      return Out(Dump(WithSchema({{key, elements}}), 2) + "\n");
    case OutputFormat::kYaml:
      return Out(YamlText(WithSchema({{key, elements}})));
    case OutputFormat::kJsonl:
      for (const ordered_json& element : elements) Out(Dump(WithSchema(element), -1) + "\n");
      return;
    case OutputFormat::kName:
      for (const ordered_json& element : elements) Out(NameOf(element, name_key) + "\n");
      return;
  }
}

void Printer::One(const ordered_json& thing, const std::string& name_key, const std::string& text) const {
  switch (console_.format) {
    case OutputFormat::kTable:
    case OutputFormat::kWide:
      return Out(text);
    case OutputFormat::kJson:
      return Out(Dump(WithSchema(thing), 2) + "\n");
    case OutputFormat::kYaml:
      return Out(YamlText(WithSchema(thing)));
    case OutputFormat::kJsonl:
      return Out(Dump(WithSchema(thing), -1) + "\n");
    case OutputFormat::kName:
      return Out(NameOf(thing, name_key) + "\n");
  }
}

}  // namespace sluice::client

#include "common/spec/spec_fields.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxSpecStringBytes = 4096;

// Text of a user as it appears in messages: short and on one line.
std::string Shown(absl::string_view text) {
  std::string shown(text.substr(0, 40));
  for (char& c : shown) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return absl::StrCat("\"", shown, text.size() > 40 ? "..." : "", "\"");
}

std::string Got(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing; leave the key out to get the default";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a section";
    default:
      return node.quoted ? absl::StrCat("the text ", Shown(node.text), "; remove the quotes") : Shown(node.text);
  }
}

std::string Wanted(absl::string_view wanted, const YamlNode& node) {
  return absl::StrCat("want ", wanted, ", got ", Got(node));
}

bool IsPlain(const YamlNode& node) { return node.kind == YamlNode::Kind::kScalar && !node.quoted; }

std::string ReadInt32(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  int64_t value = 0;
  if (!IsPlain(node) || !absl::SimpleAtoi(node.text, &value)) return Wanted("a whole number", node);
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    return absl::StrCat("want a whole number of at most 2147483647 in size, got ", node.text);
  }
  message->GetReflection()->SetInt32(message, &field, static_cast<int32_t>(value));
  return "";
}

std::string ReadUint64(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  uint64_t value = 0;
  if (!IsPlain(node) || !absl::SimpleAtoi(node.text, &value)) {
    return Wanted("a whole number from 0 to 18446744073709551615", node);
  }
  message->GetReflection()->SetUInt64(message, &field, value);
  return "";
}

std::string ReadDouble(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  double value = 0;
  if (!IsPlain(node)) return Wanted("a number", node);
  const std::string lower = absl::AsciiStrToLower(node.text);
  if (lower == ".nan" || lower == ".inf" || lower == "-.inf" || lower == "+.inf") {
    return absl::StrCat("want a finite number, got ", node.text);
  }
  absl::Duration duration;
  if (absl::SimpleAtod(node.text, &value)) {
    if (!std::isfinite(value)) return absl::StrCat("want a finite number, got ", Shown(node.text));
  } else if (FieldSpecOf(field).unit() == "seconds") {
    if (!absl::ParseDuration(node.text, &duration) || duration == absl::InfiniteDuration()) {
      return Wanted("a number of seconds, or a time such as 90s, 15m, 1h30m", node);
    }
    value = absl::ToDoubleSeconds(duration);
  } else {
    return Wanted("a number", node);
  }
  message->GetReflection()->SetDouble(message, &field, value);
  return "";
}

std::string ReadBool(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  if (!IsPlain(node) || (node.text != "true" && node.text != "false")) return Wanted("true or false", node);
  message->GetReflection()->SetBool(message, &field, node.text == "true");
  return "";
}

std::string ReadEnum(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  const std::vector<std::string> texts = EnumTexts(*field.enum_type());
  const std::string wanted = absl::StrCat("one of ", absl::StrJoin(texts, ", "));
  if (node.kind != YamlNode::Kind::kScalar) return Wanted(wanted, node);
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    const EnumValueDescriptor* value = field.enum_type()->value(i);
    if (value->number() == 0 || EnumText(*value) != node.text) continue;
    message->GetReflection()->SetEnum(message, &field, value);
    return "";
  }
  const std::string nearest = NearestWord(node.text, texts);
  return absl::StrCat("want ", wanted, "; got ", Shown(node.text),
                      nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"));
}

std::string CheckText(absl::string_view text) {
  if (text.size() > kMaxSpecStringBytes) {
    return absl::StrCat("want at most ", kMaxSpecStringBytes, " bytes of text, got ", text.size());
  }
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return "want text on one line without control characters";
  }
  return "";
}

std::string CheckRange(double value, const std::string& text, const v1::FieldSpec& spec) {
  if (!std::isfinite(value)) return absl::StrCat("want a finite number, got ", text);
  const bool low = spec.has_min() && value < spec.min();
  const bool high = spec.has_max() && value > spec.max();
  return low || high ? absl::StrCat("want ", RangeText(spec), ", got ", text) : "";
}

std::string QuotedYaml(absl::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

// True if YAML reads `text` without quotes as this very text and nothing else.
bool IsPlainYamlText(absl::string_view text) {
  if (text.empty() || !(absl::ascii_isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/' || text[0] == '.')) {
    return false;
  }
  for (const char c : text) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && !absl::StrContains("/._-", absl::string_view(&c, 1))) {
      return false;
    }
  }
  static const std::vector<std::string>& words =
      *new std::vector<std::string>{"true", "false", "null", "yes", "no", "on", "off", "y", "n", ".nan", ".inf"};
  return std::find(words.begin(), words.end(), absl::AsciiStrToLower(text)) == words.end();
}

}  // namespace

const v1::FieldSpec& FieldSpecOf(const FieldDescriptor& field) { return field.options().GetExtension(v1::spec); }

bool IsSection(const FieldDescriptor& field) { return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE; }

std::string JoinSpecPath(absl::string_view section, absl::string_view key) {
  return section.empty() ? std::string(key) : absl::StrCat(section, ".", key);
}

std::string EnumText(const EnumValueDescriptor& value) {
  // The value 0 is "<PREFIX>UNSPECIFIED" by the style of proto3.
  const std::string zero = value.type()->FindValueByNumber(0)->name();
  const size_t prefix = zero.size() - absl::string_view("UNSPECIFIED").size();
  return absl::AsciiStrToLower(value.name().substr(prefix));
}

std::vector<std::string> EnumTexts(const EnumDescriptor& type) {
  std::vector<std::string> texts;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0) texts.push_back(EnumText(*type.value(i)));
  }
  return texts;
}

std::string ReadScalar(const YamlNode& node, const FieldDescriptor& field, Message* message) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return ReadInt32(node, field, message);
    case FieldDescriptor::CPPTYPE_UINT64:
      return ReadUint64(node, field, message);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return ReadDouble(node, field, message);
    case FieldDescriptor::CPPTYPE_BOOL:
      return ReadBool(node, field, message);
    case FieldDescriptor::CPPTYPE_ENUM:
      return ReadEnum(node, field, message);
    case FieldDescriptor::CPPTYPE_STRING:
      if (node.kind != YamlNode::Kind::kScalar) return Wanted("text", node);
      message->GetReflection()->SetString(message, &field, node.text);
      return "";
    default:
      SLUICE_CHECK(false, absl::StrCat("spec.proto uses a type this reader lacks: ", field.full_name()));
  }
}

std::string ScalarText(const Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(reflection.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberText(reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number = reflection.GetEnumValue(message, &field);
      const EnumValueDescriptor* value = field.enum_type()->FindValueByNumber(number);
      return value == nullptr ? absl::StrCat(number) : EnumText(*value);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text = reflection.GetString(message, &field);
      return IsPlainYamlText(text) ? text : QuotedYaml(text);
    }
    default:
      SLUICE_CHECK(false, absl::StrCat("spec.proto uses a type this writer lacks: ", field.full_name()));
  }
}

std::string CheckScalar(const Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const v1::FieldSpec& spec = FieldSpecOf(field);
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckRange(reflection.GetInt32(message, &field), ScalarText(message, field), spec);
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckRange(static_cast<double>(reflection.GetUInt64(message, &field)), ScalarText(message, field), spec);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return CheckRange(reflection.GetDouble(message, &field), ScalarText(message, field), spec);
    case FieldDescriptor::CPPTYPE_STRING:
      return CheckText(reflection.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number = reflection.GetEnumValue(message, &field);
      if (number != 0 && field.enum_type()->FindValueByNumber(number) != nullptr) return "";
      return absl::StrCat("want one of ", absl::StrJoin(EnumTexts(*field.enum_type()), ", "), "; got the number ",
                          number);
    }
    default:
      return "";
  }
}

std::string RangeText(const v1::FieldSpec& spec) {
  if (spec.has_min() && spec.has_max()) return absl::StrCat(NumberText(spec.min()), " to ", NumberText(spec.max()));
  if (spec.has_min()) return absl::StrCat("at least ", NumberText(spec.min()));
  if (spec.has_max()) return absl::StrCat("at most ", NumberText(spec.max()));
  return "";
}

std::string NumberText(double value) {
  std::string text;
  for (int digits = 1; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    if (std::strtod(text.c_str(), nullptr) == value) break;
  }
  const size_t exponent = text.find('e');
  if (exponent == std::string::npos || !std::isfinite(value)) return text;
  const std::vector<std::string> parts = absl::StrSplit(text, 'e');
  const int power = std::atoi(parts[1].c_str());
  if (power >= -9 && power < 15) {
    const int64_t mantissa_digits = std::count_if(parts[0].begin(), parts[0].end(), absl::ascii_isdigit);
    const int decimals = std::max<int>(0, static_cast<int>(mantissa_digits) - 1 - power);
    const std::string fixed = absl::StrFormat("%.*f", decimals, value);
    if (std::strtod(fixed.c_str(), nullptr) == value) return fixed;
  }
  // YAML 1.1 readers take "1e-12" as text, but "1.0e-12" as a number.
  const bool has_point = parts[0].find('.') != std::string::npos;
  return absl::StrCat(parts[0], has_point ? "" : ".0", "e", parts[1]);
}

}  // namespace sluice

#include "client/cli/spec_schema.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/spec/spec.h"
#include "common/spec/spec_fields.h"

namespace sluice::client {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::ordered_json;

ordered_json SectionSchema(const Descriptor& type);

ordered_json FieldSchema(const FieldDescriptor& field) {
  if (IsSection(field)) {
    ordered_json schema = SectionSchema(*field.message_type());
    schema["description"] = FieldSpecOf(field).doc();
    return schema;
  }
  const v1::FieldSpec& spec = FieldSpecOf(field);
  ordered_json schema;
  const bool number = field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
  const bool whole =
      field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 || field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    schema["enum"] = EnumTexts(*field.enum_type());
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
    schema["type"] = "boolean";
  } else {
    schema["type"] = whole ? "integer" : number ? "number" : "string";
  }
  if (spec.has_min()) schema["minimum"] = spec.min();
  if (spec.has_max()) schema["maximum"] = spec.max();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64 && !spec.has_min()) schema["minimum"] = 0;
  if (!spec.default_value().empty()) {
    // Written as YAML would: numbers and truth values are JSON's too, all else is text.
    const ordered_json value = ordered_json::parse(spec.default_value(), nullptr, false);
    schema["default"] = value.is_number() || value.is_boolean() ? value : ordered_json(spec.default_value());
  }
  std::string doc = spec.doc();
  if (!spec.unit().empty()) absl::StrAppend(&doc, " In ", spec.unit(), ".");
  schema["description"] = doc;
  return schema;
}

ordered_json SectionSchema(const Descriptor& type) {
  ordered_json schema = {{"type", "object"}, {"additionalProperties", false}, {"properties", ordered_json::object()}};
  ordered_json required = ordered_json::array();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    schema["properties"][field.name()] = FieldSchema(field);
    if (FieldSpecOf(field).required() && !IsSection(field)) required.push_back(field.name());
  }
  // `events` of prepare is required unless there is a market; what hangs on other keys is not for a schema of types.
  if (type.full_name() == v1::JobSpec::descriptor()->full_name()) schema["required"] = required;
  return schema;
}

void Flatten(const google::protobuf::Message& message, const std::string& path,
             std::map<std::string, std::string>* flat) {
  std::vector<const FieldDescriptor*> present;
  message.GetReflection()->ListFields(message, &present);
  for (const FieldDescriptor* field : present) {
    const std::string key = JoinSpecPath(path, field->name());
    if (IsSection(*field)) {
      Flatten(message.GetReflection()->GetMessage(message, field), key, flat);
    } else {
      (*flat)[key] = ScalarText(message, *field);
    }
  }
}

// A whole section as comments, so that any of its keys can be uncommented.
void AppendComments(const std::vector<SpecKey>& keys, const std::string& section, std::string* text) {
  for (const SpecKey& key : keys) {
    if (key.path != section && !absl::StartsWith(key.path, section + ".")) continue;
    const size_t depth = static_cast<size_t>(std::count(key.path.begin(), key.path.end(), '.'));
    const std::string name = key.path.substr(key.path.rfind('.') + 1);
    if (key.path == section) continue;
    const std::string indent(2 * depth, ' ');
    if (key.is_section) {
      absl::StrAppend(text, "#", indent, name, ":   # ", key.doc, "\n");
    } else {
      absl::StrAppend(text, "#", indent, name, ": ", key.default_value.empty() ? "..." : key.default_value, "   # ",
                      key.doc, "\n");
    }
  }
}

}  // namespace

ordered_json SpecJsonSchema() {
  ordered_json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "Sluice job spec"}};
  const ordered_json body = SectionSchema(*v1::JobSpec::descriptor());
  for (const auto& [key, value] : body.items()) schema[key] = value;
  return schema;
}

absl::StatusOr<std::string> FirstSpec(const std::string& kind) {
  const std::vector<std::string> kinds = EnumTexts(*v1::JobKind_descriptor());
  if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
    return absl::InvalidArgumentError(absl::StrCat("want one of ", absl::StrJoin(kinds, ", "), ", got '", kind, "'"));
  }
  std::string text = absl::StrCat("# A job of kind ", kind,
                                  ". Fill in what is in angle brackets; a line that begins "
                                  "with # shows a default.\nkind: ",
                                  kind, "\nname: my-", kind, "\n");
  const std::vector<SpecKey> keys = ExplainSpec();
  if (kind == "prepare") {
    absl::StrAppend(&text, "prepare:\n  events: <events.csv>\n");
  } else {
    absl::StrAppend(&text, "data: <folder of a prepared data set, or digest:...>\n");
    if (kind == "evaluate" || kind == "rl") absl::StrAppend(&text, "model:\n  path: <run folder of an earlier job>\n");
    if (kind == "sft") {
      text += "#model:\n";
      AppendComments(keys, "model", &text);
    }
    absl::StrAppend(&text, "#", kind, ":\n");
  }
  AppendComments(keys, kind, &text);
  if (kind == "sft" || kind == "rl") {
    text += "#checkpoint:\n";
    AppendComments(keys, "checkpoint", &text);
  }
  return text;
}

std::map<std::string, std::string> FlatSpec(const v1::JobSpec& spec) {
  std::map<std::string, std::string> flat;
  Flatten(spec, "", &flat);
  return flat;
}

}  // namespace sluice::client

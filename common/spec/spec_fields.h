// What the descriptors of spec.proto say about a key, and how one key's value
// is read and written. The field option `spec` is the only source of defaults,
// ranges and documentation; nothing here names a key.
#ifndef SLUICE_COMMON_SPEC_SPEC_FIELDS_H_
#define SLUICE_COMMON_SPEC_SPEC_FIELDS_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/yaml/nearest_word.h"
#include "common/yaml/yaml_tree.h"
#include "sluice/v1/spec_options.pb.h"

namespace sluice {

const v1::FieldSpec& FieldSpecOf(const google::protobuf::FieldDescriptor& field);
bool IsSection(const google::protobuf::FieldDescriptor& field);

// "rl" and "steps" -> "rl.steps"; "" and "rl" -> "rl".
std::string JoinSpecPath(absl::string_view section, absl::string_view key);

// GATE_TIES_PESSIMISTIC -> "pessimistic".
std::string EnumText(const google::protobuf::EnumValueDescriptor& value);
// Every value that may be written, in the order of the proto, without the
// unspecified one.
std::vector<std::string> EnumTexts(const google::protobuf::EnumDescriptor& type);

// Reads a scalar into `field` of `message`. Returns what is wrong in words, or
// "". Ranges are not looked at.
std::string ReadScalar(const YamlNode& node, const google::protobuf::FieldDescriptor& field,
                       google::protobuf::Message* message);

// The value of a scalar field as YAML writes it; reads back to the same value.
std::string ScalarText(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field);

// What is wrong with a present scalar by its own field option: range,
// finiteness, enum value, text; or "".
std::string CheckScalar(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field);

// "0 to 1", "at least 2", "at most 5", or "" for a field without bounds.
std::string RangeText(const v1::FieldSpec& spec);

// The shortest decimal text that reads back to `value`, which YAML readers take
// as a number.
std::string NumberText(double value);

}  // namespace sluice

#endif  // SLUICE_COMMON_SPEC_SPEC_FIELDS_H_

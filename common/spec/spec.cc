#include "common/spec/spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"
#include "common/spec/spec_fields.h"
#include "common/spec/spec_rules.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Problems found so far, and where the keys stand, so that a rule can point at
// its place.
class Findings {
 public:
  explicit Findings(std::string source) : source_(std::move(source)) {}

  std::vector<SpecProblem>* raw() { return &problems_; }
  const std::map<std::string, SpecPlace>& places() const { return places_; }

  void SetPlace(const std::string& path, const SpecPlace& place) { places_[path] = place; }

  void Add(const SpecPlace& place, const std::string& path, const std::string& message) {
    problems_.push_back({place, path, message});
    Blame(path);
  }
  // The key is known to be wrong, and that is reported elsewhere.
  void Blame(const std::string& path) { blamed_.insert(path); }

  void Add(const std::string& path, const std::string& message) { Add(PlaceOf(path), path, message); }

  // True if the key, a section above it or a key below it is already known to
  // be wrong.
  bool IsBlamed(const std::string& path) const {
    for (const std::string& blamed : blamed_) {
      if (blamed == path || absl::StartsWith(path, absl::StrCat(blamed, ".")) ||
          absl::StartsWith(blamed, absl::StrCat(path, "."))) {
        return true;
      }
    }
    return false;
  }

  bool empty() const { return problems_.empty(); }

  absl::Status ToStatus() {
    std::stable_sort(problems_.begin(), problems_.end(), [](const SpecProblem& a, const SpecProblem& b) {
      return std::tie(a.place.line, a.place.column) < std::tie(b.place.line, b.place.column);
    });
    return absl::InvalidArgumentError(absl::StrJoin(problems_, "\n", [](std::string* out, const SpecProblem& problem) {
      const std::string place = problem.place.ToString();
      absl::StrAppend(out, place, place.empty() ? "" : ": ", problem.path, problem.path.empty() ? "" : ": ",
                      problem.message);
    }));
  }

 private:
  // The key's own place, or that of the nearest section above it that was
  // written, or the file.
  SpecPlace PlaceOf(std::string path) const {
    while (!path.empty()) {
      const auto found = places_.find(path);
      if (found != places_.end()) return found->second;
      const size_t dot = path.rfind('.');
      path = dot == std::string::npos ? "" : path.substr(0, dot);
    }
    return {source_, 0, 0};
  }

  const std::string source_;
  std::vector<SpecProblem> problems_;
  std::map<std::string, SpecPlace> places_;
  std::set<std::string> blamed_;
};

// -----------------------------------------------------------------------------------------------
// explain

std::string TypeText(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "section";
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "whole number";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(EnumTexts(*field.enum_type()), ", "));
    default:
      return "text";
  }
}

// Unsets the keys that may change when a job resumes.
void ClearTunable(google::protobuf::Message* message) {
  const Descriptor& type = *message->GetDescriptor();
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (FieldSpecOf(field).tunable_on_resume()) {
      reflection.ClearField(message, &field);
    } else if (IsSection(field) && reflection.HasField(*message, &field)) {
      ClearTunable(reflection.MutableMessage(message, &field));
    }
  }
}

// Defaults that a section's option gives its keys, as a tree; an empty map if
// it gives none.
YamlNode SectionDefaults(const FieldDescriptor& section) {
  YamlNode defaults;
  std::vector<SpecProblem> problems;
  const std::string& text = FieldSpecOf(section).default_value();
  if (!text.empty()) defaults = ParseYamlTree(text, section.full_name(), &problems);
  SLUICE_CHECK(problems.empty(), absl::StrCat("default of ", section.full_name(), " is not a YAML map"));
  return defaults;
}

void ExplainMessage(const Descriptor& type, const YamlNode& defaults, const std::string& path,
                    std::vector<SpecKey>* keys) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const v1::FieldSpec& spec = FieldSpecOf(field);
    SpecKey key;
    key.path = JoinSpecPath(path, field.name());
    key.is_section = IsSection(field);
    key.type = TypeText(field);
    const YamlNode* override_node = defaults.Find(field.name());
    if (!key.is_section) key.default_value = override_node ? override_node->text : spec.default_value();
    key.range = RangeText(spec);
    key.unit = spec.unit();
    key.doc = spec.doc();
    key.required = spec.required();
    key.tunable_on_resume = spec.tunable_on_resume();
    keys->push_back(key);
    if (key.is_section) ExplainMessage(*field.message_type(), SectionDefaults(field), key.path, keys);
  }
}

// -------------------------------------------------------------------------------------------------
// read

std::string UnknownKeyMessage(const std::string& key, const Descriptor& type, const std::string& section) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  const std::string nearest = NearestWord(key, names);
  if (!nearest.empty()) return absl::StrCat("unknown key; did you mean ", nearest, "?");
  std::vector<std::string> elsewhere;
  for (const SpecKey& known : ExplainSpec()) {
    if (absl::EndsWith(known.path, absl::StrCat(".", key)) || known.path == key) elsewhere.push_back(known.path);
  }
  if (!elsewhere.empty()) return absl::StrCat("unknown key here; there is ", absl::StrJoin(elsewhere, ", "));
  return absl::StrCat("unknown key; ", section.empty() ? "the spec" : section, " has ", absl::StrJoin(names, ", "));
}

void ReadSection(const YamlNode& node, const std::string& path, Message* message, Findings* findings) {
  if (node.kind == YamlNode::Kind::kNull) return;  // "rl:" with nothing under it
  if (node.kind != YamlNode::Kind::kMap) {
    if (node.kind == YamlNode::Kind::kUnreadable) {
      findings->Blame(path);
    } else {
      findings->Add(node.place, path, "want a section: keys and values, indented below");
    }
    return;
  }
  for (const YamlNode::Entry& entry : node.entries) {
    const std::string key_path = JoinSpecPath(path, entry.key);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(entry.key);
    if (field == nullptr) {
      findings->Add(entry.key_place, key_path, UnknownKeyMessage(entry.key, *message->GetDescriptor(), path));
      continue;
    }
    findings->SetPlace(key_path, entry.key_place);
    if (IsSection(*field)) {
      ReadSection(entry.value, key_path, message->GetReflection()->MutableMessage(message, field), findings);
      continue;
    }
    if (entry.value.kind == YamlNode::Kind::kUnreadable) {
      findings->Blame(key_path);
      continue;
    }
    const std::string wrong = ReadScalar(entry.value, *field, message);
    // The parser places an absent value where the next key begins.
    const bool absent = entry.value.kind == YamlNode::Kind::kNull;
    if (!wrong.empty()) findings->Add(absent ? entry.key_place : entry.value.place, key_path, wrong);
  }
}

// -------------------------------------------------------------------------------------
// check and complete

// Whatever can be said of each present key alone.
void CheckGiven(const v1::JobSpec& root, const Message& message, const std::string& path, Findings* findings) {
  if (!message.GetReflection()->GetUnknownFields(message).empty()) {
    findings->Add(path,
                  "holds a field that this version does not know; use a client "
                  "of the server's version");
  }
  std::vector<const FieldDescriptor*> present;
  message.GetReflection()->ListFields(message, &present);
  for (const FieldDescriptor* field : present) {
    const std::string key_path = JoinSpecPath(path, field->name());
    if (findings->IsBlamed(key_path) && !IsSection(*field)) continue;
    const std::string unused = WhyUnused(root, key_path);
    if (!unused.empty()) {
      findings->Add(key_path, unused);
      continue;
    }
    if (IsSection(*field)) {
      CheckGiven(root, message.GetReflection()->GetMessage(message, field), key_path, findings);
      continue;
    }
    const std::string wrong = CheckScalar(message, *field);
    if (!wrong.empty()) findings->Add(key_path, wrong);
  }
}

void SetDefault(const YamlNode& value, const FieldDescriptor& field, Message* message) {
  const std::string wrong = ReadScalar(value, field, message);
  SLUICE_CHECK(wrong.empty(), absl::StrCat("default of ", field.full_name(), ": ", wrong));
}

// Fills the defaults of every key that has an effect; blames required keys that
// are absent.
void FillDefaults(const v1::JobSpec& given, const YamlNode& defaults, const std::string& path, Message* message,
                  Findings* findings) {
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message->GetDescriptor()->field(i);
    const std::string key_path = JoinSpecPath(path, field.name());
    if (!WhyUnused(given, key_path).empty()) continue;
    if (IsSection(field)) {
      FillDefaults(given, SectionDefaults(field), key_path, reflection.MutableMessage(message, &field), findings);
      continue;
    }
    if (reflection.HasField(*message, &field)) continue;
    const v1::FieldSpec& spec = FieldSpecOf(field);
    if (spec.required() && !findings->IsBlamed(key_path)) findings->Add(key_path, "required, but not given");
    if (const YamlNode* value = defaults.Find(field.name())) {
      SetDefault(*value, field, message);
    } else if (!spec.default_value().empty()) {
      YamlNode value_node;
      value_node.kind = YamlNode::Kind::kScalar;
      value_node.text = spec.default_value();
      SetDefault(value_node, field, message);
    }
  }
}

// The rest of the work, the same for text and messages.
v1::JobSpec Complete(const v1::JobSpec& given, Findings* findings) {
  const bool kind_known =
      given.has_kind() && CheckScalar(given, *given.GetDescriptor()->FindFieldByName("kind")).empty();
  CheckGiven(kind_known ? given : v1::JobSpec(), given, "", findings);
  v1::JobSpec effective = given;
  if (!kind_known) {
    if (!findings->IsBlamed("kind"))
      findings->Add("kind", "required, but not given: one of prepare, sft, rl, evaluate");
    return effective;
  }
  FillDefaults(given, YamlNode(), "", &effective, findings);
  CheckRules(effective, [findings](const std::vector<std::string>& paths, const std::string& message) {
    for (const std::string& path : paths) {
      if (findings->IsBlamed(path)) return;
    }
    // The first of them that was written is to blame: the others have their default.
    const auto written = std::find_if(
        paths.begin(), paths.end(), [findings](const std::string& path) { return findings->places().count(path) > 0; });
    findings->Add(written == paths.end() ? paths.front() : *written, message);
  });
  return effective;
}

void PrintMessage(const Message& message, int indent, std::string* out) {
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (!message.GetReflection()->HasField(message, &field)) continue;
    absl::StrAppend(out, std::string(indent, ' '), field.name(), ":");
    if (IsSection(field)) {
      absl::StrAppend(out, "\n");
      PrintMessage(message.GetReflection()->GetMessage(message, &field), indent + 2, out);
    } else {
      absl::StrAppend(out, " ", ScalarText(message, field), "\n");
    }
  }
}

}  // namespace

absl::StatusOr<ResolvedSpec> ResolveSpec(absl::string_view yaml, const std::string& file_name,
                                         absl::Span<const std::string> overrides) {
  Findings findings(file_name);
  YamlNode root = ParseYamlTree(yaml, file_name, findings.raw());
  const bool readable = findings.empty();
  for (const std::string& assignment : overrides) ApplyOverride(assignment, &root, findings.raw());
  // After a syntax error nothing was read, and "required" for every key would
  // only hide it.
  if (!readable && root.entries.empty()) return findings.ToStatus();
  ResolvedSpec resolved;
  ReadSection(root, "", &resolved.given, &findings);
  resolved.effective = Complete(resolved.given, &findings);
  if (!findings.empty()) return findings.ToStatus();
  resolved.places = findings.places();
  return resolved;
}

absl::StatusOr<v1::JobSpec> CompleteSpec(const v1::JobSpec& given) {
  Findings findings("");
  v1::JobSpec effective = Complete(given, &findings);
  if (!findings.empty()) return findings.ToStatus();
  return effective;
}

std::string SpecToYaml(const v1::JobSpec& spec) {
  std::string text;
  PrintMessage(spec, 0, &text);
  return text;
}

std::string SpecDigest(const v1::JobSpec& effective) { return Sha256(SpecToYaml(effective)); }

std::string ResumeDigest(const v1::JobSpec& effective) {
  v1::JobSpec fixed = effective;
  ClearTunable(&fixed);
  return Sha256(SpecToYaml(fixed));
}

std::vector<SpecKey> ExplainSpec() {
  std::vector<SpecKey> keys;
  ExplainMessage(*v1::JobSpec::descriptor(), YamlNode(), "", &keys);
  return keys;
}

}  // namespace sluice

#include "client/cli/spec_file.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/spec/spec_fields.h"
#include "common/status/status.h"

namespace sluice::client {
namespace {

absl::StatusOr<std::string> ReadSpecText(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxSpecBytes);
  std::string text;
  char buffer[4096];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), stdin)) {
    text.append(buffer, got);
    if (static_cast<int64_t>(text.size()) > kMaxSpecBytes) break;  // refused by its size later
  }
  return text;
}

}  // namespace

absl::StatusOr<LocalSpec> LoadSpec(const std::string& path, const std::vector<std::string>& overrides) {
  LocalSpec spec;
  SLUICE_ASSIGN_OR_RETURN(spec.text, ReadSpecText(path));
  SLUICE_ASSIGN_OR_RETURN(spec.resolved, ResolveSpec(spec.text, path == "-" ? "standard input" : path, overrides));
  if (!overrides.empty() && !absl::EndsWith(spec.text, "\n")) spec.text += "\n";
  for (const std::string& assignment : overrides) absl::StrAppend(&spec.text, "# --set ", assignment, "\n");
  return spec;
}

int CountKeys(const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> present;
  message.GetReflection()->ListFields(message, &present);
  int count = 0;
  for (const auto* field : present) {
    count += IsSection(*field) ? CountKeys(message.GetReflection()->GetMessage(message, field)) : 1;
  }
  return count;
}

}  // namespace sluice::client

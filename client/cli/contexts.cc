#include "client/cli/contexts.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/status/status.h"
#include "common/yaml/yaml_tree.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxNameBytes = 64;

// A context's fields by their names in the file; one place for reading, writing and showing.
std::map<std::string, std::string*> FieldsOf(Context* context) {
  return {{"server", &context->server},
          {"tls_ca", &context->tls_ca},
          {"tls_cert", &context->tls_cert},
          {"tls_key", &context->tls_key},
          {"token_file", &context->token_file}};
}

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

ordered_json ContextJson(const std::string& name, Context context, const std::string& current) {
  ordered_json json = {{"name", name}, {"current", name == current}};
  for (const auto& [field, value] : FieldsOf(&context)) json[field] = *value;
  return json;
}

// Changes the file by `change`, which may refuse.
template <typename Change>
int Rewrite(const Printer& printer, const std::string& path, Change change) {
  if (path.empty()) {
    return printer.Fail(
        absl::InvalidArgumentError("there is no home folder; name the file of contexts in SLUICE_CONFIG"));
  }
  absl::StatusOr<Contexts> contexts = ReadContexts(path);
  absl::Status status = contexts.status();
  if (status.ok()) status = change(&*contexts);
  if (status.ok()) status = WriteContexts(path, *contexts);
  return status.ok() ? 0 : printer.Fail(status);
}

absl::Status NoContext(const Contexts& contexts, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [one, context] : contexts.all) names.push_back(one);
  return absl::NotFoundError(absl::StrCat("there is no context '", name, "'; there are ",
                                          names.empty() ? "none" : absl::StrJoin(names, ", "),
                                          ". 'sluicectl context set NAME --server HOST:PORT' makes one"));
}

}  // namespace

std::string ContextsPath() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (const std::string path = variable("SLUICE_CONFIG"); !path.empty()) return path;
  std::string folder = variable("XDG_CONFIG_HOME");
  if (folder.empty() && !variable("HOME").empty()) folder = JoinPath(variable("HOME"), ".config");
  return folder.empty() ? "" : JoinPath(folder, "sluice/contexts.yaml");
}

absl::StatusOr<Contexts> ReadContexts(const std::string& path) {
  Contexts contexts;
  if (path.empty() || !PathExists(path)) return contexts;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxSpecBytes));
  std::vector<SpecProblem> problems;
  const YamlNode root = ParseYamlTree(text, path, &problems);
  const auto wrong = [&problems](const SpecPlace& place, const std::string& key, const std::string& message) {
    problems.push_back({place, key, message});
  };
  for (const YamlNode::Entry& entry : root.entries) {
    if (entry.key == "current" && entry.value.kind == YamlNode::Kind::kScalar) {
      contexts.current = entry.value.text;
    } else if (entry.key == "contexts" && entry.value.kind == YamlNode::Kind::kMap) {
      for (const YamlNode::Entry& named : entry.value.entries) {
        Context context;
        if (!IsName(named.key)) wrong(named.key_place, named.key, "want letters, digits, '-', '_' and '.' as a name");
        const std::map<std::string, std::string*> fields = FieldsOf(&context);
        for (const YamlNode::Entry& field : named.value.entries) {
          const auto known = fields.find(field.key);
          if (known == fields.end() || field.value.kind != YamlNode::Kind::kScalar) {
            wrong(field.key_place, named.key + "." + field.key, "unknown field");
          } else {
            *known->second = field.value.text;
          }
        }
        contexts.all[named.key] = context;
      }
    } else if (entry.key != "schema_version" && entry.value.kind != YamlNode::Kind::kNull) {
      wrong(entry.key_place, entry.key, "want current: NAME and contexts: {NAME: {server: HOST:PORT}}");
    }
  }
  if (problems.empty()) return contexts;
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n", [](std::string* out, const SpecProblem& problem) {
    absl::StrAppend(out, problem.place.ToString(), ": ", problem.path, problem.path.empty() ? "" : ": ",
                    problem.message);
  }));
}

absl::Status WriteContexts(const std::string& path, const Contexts& contexts) {
  ordered_json document = {{"current", contexts.current}, {"contexts", ordered_json::object()}};
  for (const auto& [name, context] : contexts.all) {
    Context copy = context;
    ordered_json& fields = document["contexts"][name] = ordered_json::object();
    for (const auto& [field, value] : FieldsOf(&copy)) {
      if (!value->empty()) fields[field] = *value;
    }
  }
  if (const size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
    SLUICE_RETURN_IF_ERROR(MakeDirectories(path.substr(0, slash)));
  }
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, YamlText(WithSchema(document))));
  chmod(path.c_str(), S_IRUSR | S_IWUSR);
  return absl::OkStatus();
}

absl::StatusOr<Context> ChooseContext(const Contexts& contexts, const std::string& name) {
  const std::string wanted = name.empty() ? contexts.current : name;
  if (wanted.empty()) return Context();
  const auto found = contexts.all.find(wanted);
  if (found == contexts.all.end()) return NoContext(contexts, wanted);
  return found->second;
}

int ListContexts(const Printer& printer, const std::string& path) {
  const absl::StatusOr<Contexts> contexts = ReadContexts(path);
  if (!contexts.ok()) return printer.Fail(contexts.status());
  ordered_json all = ordered_json::array();
  std::vector<std::vector<std::string>> rows = {{"", "NAME", "SERVER", "TLS", "TOKEN"}};
  for (const auto& [name, context] : contexts->all) {
    all.push_back(ContextJson(name, context, contexts->current));
    rows.push_back({name == contexts->current ? "*" : "", name, context.server, context.tls_ca.empty() ? "no" : "yes",
                    context.token_file.empty() ? "no" : context.token_file});
  }
  printer.List("contexts", all, "name", rows.size() > 1 ? Table(rows) : "");
  if (all.empty()) printer.Talk("no contexts yet; 'sluicectl context set NAME --server HOST:PORT' makes one");
  return 0;
}

int UseContext(const Printer& printer, const std::string& path, const std::string& name) {
  const int code = Rewrite(printer, path, [&name](Contexts* contexts) {
    if (contexts->all.count(name) == 0) return NoContext(*contexts, name);
    contexts->current = name;
    return absl::OkStatus();
  });
  if (code == 0) printer.Talk(absl::StrCat("from now on: ", name));
  return code;
}

int SetContext(const Printer& printer, const std::string& path, const std::string& name,
               const std::map<std::string, std::string>& fields) {
  return Rewrite(printer, path, [&](Contexts* contexts) -> absl::Status {
    if (!IsName(name)) {
      return absl::InvalidArgumentError(absl::StrCat("a context's name has up to ", kMaxNameBytes,
                                                     " letters, digits, '-', '_' and '.', got '", name, "'"));
    }
    if (const auto server = fields.find("server"); server != fields.end()) {
      SLUICE_RETURN_IF_ERROR(CheckAddress("--server", server->second));
    }
    Context& context = contexts->all[name];
    for (const auto& [field, value] : FieldsOf(&context)) {
      if (const auto given = fields.find(field); given != fields.end()) *value = given->second;
    }
    if (contexts->current.empty()) contexts->current = name;
    return absl::OkStatus();
  });
}

int ShowContext(const Printer& printer, const std::string& path, const std::string& name) {
  const absl::StatusOr<Contexts> contexts = ReadContexts(path);
  if (!contexts.ok()) return printer.Fail(contexts.status());
  const std::string wanted = name.empty() ? contexts->current : name;
  if (wanted.empty() || contexts->all.count(wanted) == 0) return printer.Fail(NoContext(*contexts, wanted));
  const ordered_json json = ContextJson(wanted, contexts->all.at(wanted), contexts->current);
  printer.One(json, "name", YamlText(json));
  return 0;
}

int RemoveContext(const Printer& printer, const std::string& path, const std::string& name) {
  return Rewrite(printer, path, [&name](Contexts* contexts) {
    if (contexts->all.erase(name) == 0) return NoContext(*contexts, name);
    if (contexts->current == name) contexts->current.clear();
    return absl::OkStatus();
  });
}

}  // namespace sluice::client

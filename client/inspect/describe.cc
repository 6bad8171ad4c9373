#include "client/inspect/describe.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/inspect/catalog_source.h"
#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/model_config/model_folder.h"
#include "common/model_config/policy_config.h"
#include "common/safetensors/safetensors.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

// Files of a model beside those of transformers.
constexpr const char* kOwnStems[] = {"sluice_encoder", "sluice_value"};

// Appends one row a tensor; returns the number of elements.
int64_t AddTensors(const std::vector<std::string>& names, const SafetensorsFolder& files, ordered_json* rows,
                   std::map<std::string, int64_t>* elements_by_type) {
  int64_t elements = 0;
  for (const std::string& name : names) {
    const absl::StatusOr<TensorInfo> info = files.Info(name);
    if (!info.ok()) continue;  // names() lists what Info knows
    const std::string type(DtypeName(info->dtype));
    rows->push_back({{"name", name}, {"type", type}, {"shape", ShapeText(info->shape)}});
    elements += info->elements();
    (*elements_by_type)[type] += info->elements();
  }
  return elements;
}

absl::StatusOr<ordered_json> ReadJson(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ordered_json document = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return absl::DataLossError(absl::StrCat("'", path, "' is not a JSON object"));
  return document;
}

// Names of checkpoints in a folder of them, for the message to somebody who gave that folder.
std::vector<std::string> CheckpointsIn(const std::string& folder) {
  std::vector<std::string> found;
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder);
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    if (PathExists(JoinPath(JoinPath(folder, name), "state.json"))) found.push_back(name);
  }
  return found;
}

// Every file against the checkpoint's manifest: a table of them.
absl::StatusOr<ordered_json> CheckManifest(const std::string& folder) {
  if (!PathExists(JoinPath(folder, "state.json"))) {
    std::vector<std::string> inside = CheckpointsIn(folder);
    for (const std::string& name : CheckpointsIn(JoinPath(folder, "checkpoints"))) {  // a run folder
      inside.push_back(JoinPath("checkpoints", name));
    }
    return absl::NotFoundError(absl::StrCat(
        "'", folder, "' is no checkpoint: it has no state.json",
        inside.empty() ? "" : absl::StrCat("; it holds checkpoints, name one of them: ", absl::StrJoin(inside, ", "))));
  }
  const std::string path = JoinPath(folder, "manifest.json");
  SLUICE_ASSIGN_OR_RETURN(const ordered_json manifest, ReadJson(path));
  if (!manifest.contains("files") || !manifest["files"].is_object()) {
    return absl::DataLossError(absl::StrCat("'", path, "' is not the manifest of a checkpoint"));
  }
  ordered_json table = ordered_json::array();
  for (const auto& [name, entry] : manifest["files"].items()) {
    const std::string file = JoinPath(folder, name);
    if (name.empty() || name[0] == '/' || absl::StrContains(name, "..")) {
      return absl::DataLossError(absl::StrCat("'", path, "' names '", name, "', which is not inside the checkpoint"));
    }
    const absl::StatusOr<std::string> digest = FileSha256(file);
    if (!digest.ok()) return absl::DataLossError(digest.status().message());
    if (!entry.is_object() || entry.value("sha256", "") != *digest) {
      return absl::DataLossError(absl::StrCat("'", file, "' is not what its manifest says (SHA-256 differs)"));
    }
    table.push_back({{"name", name}, {"bytes", entry.value("bytes", int64_t{0})}, {"sha256", *digest}});
  }
  return table;
}

ordered_json TrieJson(const Trie& trie) {
  std::vector<int32_t> fanouts;
  for (int level = 0; level < trie.levels(); ++level) fanouts.push_back(trie.max_fanout(level));
  size_t most = 0;
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) most = std::max(most, trie.ItemsOfLeaf(leaf).size());
  return {{"levels", trie.levels()},
          {"items", trie.num_items()},
          {"semantic_ids", trie.num_leaves()},
          {"colliding_items", trie.num_colliding_items()},
          {"most_items_on_one_semantic_id", most},
          {"nodes", trie.num_nodes()},
          {"edges", trie.num_edges()},
          {"largest_fanout_by_level", fanouts},
          {"memory_bytes", trie.memory_bytes()},
          {"catalog_version", trie.version()}};
}

std::string ScalarText(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

bool IsText(const ordered_json& value) {
  return value.is_string() && absl::StrContains(value.get_ref<const std::string&>(), "\n");
}

// The lines of a longer text.
void RenderLines(const std::string& lines, const std::string& indent, std::string* text) {
  for (const absl::string_view line : absl::StrSplit(absl::StripTrailingAsciiWhitespace(lines), '\n')) {
    absl::StrAppend(text, indent, line, "\n");
  }
}

bool IsTable(const ordered_json& value) { return value.is_array() && !value.empty() && value[0].is_object(); }

// Rows of a table, columns as wide as their widest value.
void RenderTable(const ordered_json& table, const std::string& indent, std::string* text) {
  std::map<std::string, size_t> widths;
  for (const ordered_json& row : table) {
    for (const auto& [name, value] : row.items()) {
      widths[name] = std::max(widths[name], ScalarText(value).size());
    }
  }
  for (const ordered_json& row : table) {
    std::string line = indent;
    for (const auto& [name, value] : row.items()) {
      const std::string cell = ScalarText(value);
      absl::StrAppend(&line, cell, std::string(widths[name] - cell.size() + 2, ' '));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(text, line, "\n");
  }
}

// Whether a field takes lines of its own below its name.
bool IsBlock(const ordered_json& value) { return value.is_object() || IsTable(value) || IsText(value); }

void RenderFields(const ordered_json& object, const std::string& indent, std::string* text) {
  size_t width = 0;
  for (const auto& [name, value] : object.items()) {
    if (!IsBlock(value)) width = std::max(width, name.size());
  }
  const std::string deeper = indent + "  ";
  for (const auto& [name, value] : object.items()) {
    if (!IsBlock(value)) {
      absl::StrAppend(text, indent, name, std::string(width - name.size() + 2, ' '), ScalarText(value), "\n");
      continue;
    }
    absl::StrAppend(text, indent, name, "\n");
    if (value.is_object()) RenderFields(value, deeper, text);
    if (IsTable(value)) RenderTable(value, deeper, text);
    if (IsText(value)) RenderLines(value.get<std::string>(), deeper, text);
  }
}

}  // namespace

absl::StatusOr<ordered_json> DescribeModel(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(path));
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(folder, "config.json")));
  const absl::StatusOr<PolicyConfig> config = PolicyConfig::FromJson(text);
  if (!config.ok()) return Annotate(config.status(), absl::StrCat("'", folder, "'"));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFolder> backbone, SafetensorsFolder::Open(folder));

  ordered_json tensors = ordered_json::array();
  std::map<std::string, int64_t> elements_by_type;
  std::vector<std::string> files = backbone->paths();
  int64_t parameters = AddTensors(backbone->names(), *backbone, &tensors, &elements_by_type);
  for (const char* const stem : kOwnStems) {
    if (!PathExists(JoinPath(folder, absl::StrCat(stem, ".safetensors")))) continue;
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFolder> own, SafetensorsFolder::Open(folder, stem));
    parameters += AddTensors(own->names(), *own, &tensors, &elements_by_type);
    const std::vector<std::string> more = own->paths();
    files.insert(files.end(), more.begin(), more.end());
  }
  // The configuration as Sluice understood it, which is what a job would run.
  return ordered_json{{"model", folder},
                      {"parameters", parameters},
                      {"parameters_by_type", elements_by_type},
                      {"files", files},
                      {"config", ordered_json::parse(config->ToJson())},
                      {"tensors", tensors}};
}

// Of a generated market; null for real events.
ordered_json TruthJson(const Dataset& dataset) {
  const MarketTruth* truth = dataset.truth();
  if (truth == nullptr) return nullptr;
  return {{"regions", truth->regions()}, {"cells", truth->cells()}, {"dim", truth->dim()}};
}

absl::StatusOr<ordered_json> DescribeDataset(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(folder));
  return ordered_json{{"dataset", folder},
                      {"name", dataset->name()},
                      {"users", dataset->num_users()},
                      {"items", dataset->num_items()},
                      {"events", dataset->num_events()},
                      {"examples",
                       {{"train", dataset->Examples(SplitLabel::kTrain).size()},
                        {"validation", dataset->Examples(SplitLabel::kValidation).size()},
                        {"test", dataset->Examples(SplitLabel::kTest).size()},
                        {"reserved", dataset->Examples(SplitLabel::kReserved).size()}}},
                      {"truth", TruthJson(*dataset)},
                      {"max_history", dataset->max_history()},
                      {"codes_a_level", dataset->vocabulary().codes},
                      {"first_token", dataset->vocabulary().first},
                      {"vocabulary", dataset->vocabulary().size()},
                      {"catalog", TrieJson(dataset->trie())},
                      {"notes", dataset->notes()},
                      {"manifest_sha256", dataset->digest()}};
}

absl::StatusOr<ordered_json> DescribeTrie(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Trie> trie, LoadCatalog(path));
  ordered_json document = {{"catalog", path}};
  document.update(TrieJson(*trie));
  return document;
}

absl::StatusOr<ordered_json> DescribeCheckpoint(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(const ordered_json files, CheckManifest(folder));
  SLUICE_ASSIGN_OR_RETURN(const ordered_json state, ReadJson(JoinPath(folder, "state.json")));
  for (const char* key : {"step", "policy_version", "seconds", "numbers", "spec_yaml", "spec_digest", "data_digest"}) {
    if (!state.contains(key)) {
      return absl::DataLossError(absl::StrCat("'", folder, "/state.json' has no \"", key, "\""));
    }
  }
  SLUICE_ASSIGN_OR_RETURN(ordered_json model, DescribeModel(JoinPath(folder, "model")));
  model.erase("tensors");
  return ordered_json{{"checkpoint", folder},
                      {"step", state["step"]},
                      {"policy_version", state["policy_version"]},
                      {"seconds", state["seconds"]},
                      {"spec_digest", state["spec_digest"]},
                      {"data_digest", state["data_digest"]},
                      {"numbers", state["numbers"]},
                      {"files", files},
                      {"spec", state["spec_yaml"]},
                      {"model", model}};
}

std::string RenderText(const ordered_json& document) {
  std::string text;
  RenderFields(document, "", &text);
  return text;
}

}  // namespace sluice

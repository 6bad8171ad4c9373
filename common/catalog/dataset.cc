#include "common/catalog/dataset.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/catalog/npy.h"
#include "common/file/file.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kFormat[] = "sluice-dataset";
constexpr int kFormatVersion = 1;
constexpr char kManifest[] = "manifest.json";
constexpr char kFirstEvent[] = "first_event.npy";
constexpr char kEventItem[] = "event_item.npy";
constexpr char kEventSplit[] = "event_split.npy";
constexpr char kItemCodes[] = "item_codes.npy";
constexpr char kItemNames[] = "item_names.json";
constexpr char kUserNames[] = "user_names.json";
constexpr char kTruthFolder[] = "truth";
constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;
constexpr int64_t kMaxArrayBytes = int64_t{64} << 30;
constexpr int64_t kMaxCount = (int64_t{1} << 31) - 2;
constexpr int kMaxHistory = 100'000;
constexpr int32_t kMaxVocabulary = 1 << 24;
constexpr char kRemedy[] = "; run prepare again or restore the folder";

absl::Status Contradiction(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::Status CheckUnique(const std::vector<std::string>& names, absl::string_view what) {
  absl::flat_hash_set<absl::string_view> seen;
  seen.reserve(names.size());
  for (const std::string& name : names) {
    if (!seen.insert(name).second) return Contradiction(absl::StrCat(what, " '", name, "' comes twice"));
  }
  return absl::OkStatus();
}

absl::Status CheckEvents(const Dataset::Contents& contents) {
  const int64_t events = static_cast<int64_t>(contents.event_item.size());
  const int64_t items = static_cast<int64_t>(contents.item_names.size());
  const std::vector<int64_t>& first = contents.first_event;
  if (first.size() != contents.user_names.size() + 1) {
    return Contradiction(absl::StrCat("want first_event [", contents.user_names.size() + 1, "] for ",
                                      contents.user_names.size(), " users, got [", first.size(), "]"));
  }
  if (contents.event_split.size() != contents.event_item.size()) {
    return Contradiction(absl::StrCat("want event_split [", events, "], got [", contents.event_split.size(), "]"));
  }
  if (first.front() != 0 || first.back() != events || !std::is_sorted(first.begin(), first.end())) {
    return Contradiction(absl::StrCat("want first_event to rise from 0 to the ", events, " events"));
  }
  for (int64_t e = 0; e < events; ++e) {
    if (contents.event_item[e] < 0 || contents.event_item[e] >= items) {
      const int64_t user = std::upper_bound(first.begin(), first.end(), e) - first.begin() - 1;
      return Contradiction(absl::StrCat("event ", e - first[user], " of user '", contents.user_names[user],
                                        "' has the unknown item ", contents.event_item[e], ", want one of ", items));
    }
    if (static_cast<uint8_t>(contents.event_split[e]) > static_cast<uint8_t>(kLastSplitLabel)) {
      return Contradiction(
          absl::StrCat("event ", e, " has the unknown split ", static_cast<int>(contents.event_split[e])));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckContents(const Dataset::Contents& contents) {
  const int64_t items = static_cast<int64_t>(contents.item_names.size());
  if (items == 0 || contents.user_names.empty())
    return Contradiction("a data set needs at least one user and one item");
  if (items > kMaxCount || static_cast<int64_t>(contents.user_names.size()) > kMaxCount) {
    return Contradiction(absl::StrCat("want at most ", kMaxCount, " users and items"));
  }
  if (contents.levels < 1 || contents.levels > 8 || contents.codes < 1 || contents.first_token < 0 ||
      contents.first_token > kMaxVocabulary - SidVocabulary::kFirstCodeToken ||
      contents.codes > (kMaxVocabulary - SidVocabulary::kFirstCodeToken - contents.first_token) / contents.levels) {
    return Contradiction(absl::StrCat("want 1 to 8 levels and a vocabulary of at most ", kMaxVocabulary,
                                      " tokens, got ", contents.levels, " levels of ", contents.codes,
                                      " codes from token ", contents.first_token, " on"));
  }
  if (contents.max_history < 1 || contents.max_history > kMaxHistory) {
    return Contradiction(absl::StrCat("want max_history in [1, ", kMaxHistory, "], got ", contents.max_history));
  }
  SLUICE_RETURN_IF_ERROR(CheckUnique(contents.user_names, "user"));
  SLUICE_RETURN_IF_ERROR(CheckUnique(contents.item_names, "item"));
  SLUICE_RETURN_IF_ERROR(CheckEvents(contents));
  if (static_cast<int64_t>(contents.item_codes.size()) != items * contents.levels) {
    return Contradiction(absl::StrCat("want item_codes [", items, ", ", contents.levels, "], got ",
                                      contents.item_codes.size(), " codes"));
  }
  for (size_t i = 0; i < contents.item_codes.size(); ++i) {
    if (contents.item_codes[i] < 0 || contents.item_codes[i] >= contents.codes) {
      return Contradiction(absl::StrCat("item '", contents.item_names[i / contents.levels], "', level ",
                                        i % contents.levels, ": code ", contents.item_codes[i], " is outside [0, ",
                                        contents.codes, ")"));
    }
  }
  if (contents.truth != nullptr && (contents.truth->num_items() != items ||
                                    contents.truth->num_users() != static_cast<int64_t>(contents.user_names.size()))) {
    return Contradiction(absl::StrCat("the truth is of ", contents.truth->num_users(), " users and ",
                                      contents.truth->num_items(), " items, the events of ", contents.user_names.size(),
                                      " and ", items));
  }
  return absl::OkStatus();
}

SidVocabulary VocabularyOf(const Dataset::Contents& contents) {
  return {.levels = contents.levels, .codes = contents.codes, .first = contents.first_token};
}

absl::StatusOr<Trie> BuildTrie(const Dataset::Contents& contents, const SidVocabulary& vocabulary) {
  std::vector<int32_t> tokens(contents.item_codes.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = vocabulary.Token(static_cast<int>(i % contents.levels), contents.item_codes[i]);
  }
  return Trie::Build(contents.levels, tokens);
}

// --- Reading ---

struct FileEntry {
  std::string sha256;
  int64_t bytes = 0;
};

struct Manifest {
  std::string digest;
  std::string name;
  std::vector<std::string> notes;
  int64_t users = 0, items = 0, events = 0;
  int levels = 0, codes = 0, max_history = 0;
  int32_t first_token = 0;
  std::string catalog_version;
  bool has_truth = false;  // the files of truth/ are among `files`
  std::map<std::string, FileEntry> files;
};

bool IsOwnFile(absl::string_view name) {
  return name == kFirstEvent || name == kEventItem || name == kEventSplit || name == kItemCodes || name == kItemNames ||
         name == kUserNames;
}

// Below the folder, without a way out.
bool IsInnerPath(const std::string& name) {
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return name.find('\0') == std::string::npos;
}

absl::StatusOr<Manifest> ReadManifest(const std::string& folder) {
  const std::string path = JoinPath(folder, kManifest);
  if (!IsDirectory(folder)) {
    return absl::NotFoundError(
        absl::StrCat("no data set folder '", folder, "'; a prepare job makes one", RelativeTo(folder)));
  }
  absl::StatusOr<std::string> text = ReadFile(path, kMaxManifestBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat("'", folder, "' has no ", kManifest, ", so it is no data set", kRemedy));
  }
  if (!text.ok()) return text.status();
  Manifest manifest;
  manifest.digest = Sha256(*text);
  try {
    const json root = json::parse(*text);
    if (root.at("format").get<std::string>() != kFormat) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not the manifest of a data set"));
    }
    const auto read = [&path](const json& from, const char* key, auto* number) -> absl::Status {
      absl::Status status = ReadWholeNumber(from.at(key), key, number);
      if (status.ok()) return status;
      return absl::DataLossError(absl::StrCat("'", path, "' is damaged (", status.message(), ")", kRemedy));
    };
    int64_t version = 0;
    SLUICE_RETURN_IF_ERROR(read(root, "format_version", &version));
    if (version != kFormatVersion) {
      return absl::FailedPreconditionError(absl::StrCat("'", path, "' has format version ", version,
                                                        ", this build reads ", kFormatVersion,
                                                        "; prepare the data again with this build"));
    }
    manifest.name = root.at("name").get<std::string>();
    manifest.notes = root.at("notes").get<std::vector<std::string>>();
    SLUICE_RETURN_IF_ERROR(read(root, "users", &manifest.users));
    SLUICE_RETURN_IF_ERROR(read(root, "items", &manifest.items));
    SLUICE_RETURN_IF_ERROR(read(root, "events", &manifest.events));
    SLUICE_RETURN_IF_ERROR(read(root, "levels", &manifest.levels));
    SLUICE_RETURN_IF_ERROR(read(root, "codes", &manifest.codes));
    SLUICE_RETURN_IF_ERROR(read(root, "max_history", &manifest.max_history));
    if (root.contains("first_token")) SLUICE_RETURN_IF_ERROR(read(root, "first_token", &manifest.first_token));
    manifest.catalog_version = root.at("catalog_version").get<std::string>();
    for (const auto& [name, entry] : root.at("files").items()) {
      if (!IsInnerPath(name)) return absl::DataLossError(absl::StrCat("'", path, "' names the file '", name, "'"));
      if (absl::StartsWith(name, absl::StrCat(kTruthFolder, "/"))) manifest.has_truth = true;
      FileEntry& file = manifest.files[name];
      file.sha256 = entry.at("sha256").get<std::string>();
      SLUICE_RETURN_IF_ERROR(read(entry, "bytes", &file.bytes));
    }
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "' is damaged (", error.what(), ")", kRemedy));
  }
  return manifest;
}

absl::Status CheckDigest(const std::string& path, const FileEntry& entry, int64_t bytes, const std::string& sha256) {
  if (bytes != entry.bytes) {
    return absl::DataLossError(
        absl::StrCat("'", path, "' has ", bytes, " bytes, its manifest says ", entry.bytes, kRemedy));
  }
  if (sha256 != entry.sha256) {
    return absl::DataLossError(absl::StrCat("'", path, "' is damaged: its SHA-256 is not the manifest's", kRemedy));
  }
  return absl::OkStatus();
}

// Reads the files of a folder, each against its digest.
class Reader {
 public:
  Reader(const std::string& folder, const Manifest& manifest) : folder_(folder), manifest_(manifest) {}

  absl::StatusOr<std::string> Read(const char* name) const {
    const auto entry = manifest_.files.find(name);
    const std::string path = JoinPath(folder_, name);
    if (entry == manifest_.files.end()) {
      return absl::DataLossError(absl::StrCat("the manifest in '", folder_, "' does not name ", name, kRemedy));
    }
    SLUICE_ASSIGN_OR_RETURN(std::string content, ReadFile(path, kMaxArrayBytes));
    SLUICE_RETURN_IF_ERROR(CheckDigest(path, entry->second, content.size(), Sha256(content)));
    return content;
  }

  template <typename T>
  absl::StatusOr<std::vector<T>> Array(const char* name, size_t dimensions) const {
    SLUICE_ASSIGN_OR_RETURN(std::string content, Read(name));
    const std::string path = JoinPath(folder_, name);
    SLUICE_ASSIGN_OR_RETURN(const NpyArray array, ParseNpy(std::move(content), path));
    return NpyValues<T>(array, dimensions, path);
  }

  absl::StatusOr<std::vector<std::string>> Names(const char* name) const {
    SLUICE_ASSIGN_OR_RETURN(const std::string content, Read(name));
    try {
      return json::parse(content).get<std::vector<std::string>>();
    } catch (const json::exception& error) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", JoinPath(folder_, name), "' is not a list of names (", error.what(), ")", kRemedy));
    }
  }

  // Files that Read is not asked for: what a DatasetWriter's caller added.
  absl::Status CheckOthers() const {
    for (const auto& [name, entry] : manifest_.files) {
      if (IsOwnFile(name)) continue;
      const std::string path = JoinPath(folder_, name);
      SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(path));
      SLUICE_ASSIGN_OR_RETURN(const std::string sha256, FileSha256(path));
      SLUICE_RETURN_IF_ERROR(CheckDigest(path, entry, bytes, sha256));
    }
    return absl::OkStatus();
  }

 private:
  const std::string& folder_;
  const Manifest& manifest_;
};

// --- Writing ---

absl::StatusOr<std::string> NamesText(const std::vector<std::string>& names, absl::string_view what) {
  try {
    return json(names).dump();
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the name of ", what, " is not UTF-8 (", error.what(), ")"));
  }
}

absl::Status WriteArrays(const std::string& folder, const Dataset::Contents& contents) {
  const int64_t events = static_cast<int64_t>(contents.event_item.size());
  const int64_t items = static_cast<int64_t>(contents.item_names.size());
  std::vector<uint8_t> split(contents.event_split.size());
  std::transform(contents.event_split.begin(), contents.event_split.end(), split.begin(),
                 [](SplitLabel label) { return static_cast<uint8_t>(label); });
  SLUICE_ASSIGN_OR_RETURN(const std::string item_names, NamesText(contents.item_names, "an item"));
  SLUICE_ASSIGN_OR_RETURN(const std::string user_names, NamesText(contents.user_names, "a user"));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(folder, kItemNames), item_names));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(folder, kUserNames), user_names));
  SLUICE_RETURN_IF_ERROR(WriteNpy(JoinPath(folder, kFirstEvent), {static_cast<int64_t>(contents.first_event.size())},
                                  contents.first_event));
  SLUICE_RETURN_IF_ERROR(WriteNpy(JoinPath(folder, kEventItem), {events}, contents.event_item));
  SLUICE_RETURN_IF_ERROR(WriteNpy(JoinPath(folder, kEventSplit), {events}, split));
  return WriteNpy(JoinPath(folder, kItemCodes), {items, contents.levels}, contents.item_codes);
}

// Digests of all files below `folder`, by their path inside it, and fsyncs the folders they are in.
absl::StatusOr<ordered_json> DigestFiles(const std::string& folder) {
  std::map<std::string, std::string> files;  // inner path -> path, sorted
  std::error_code error;
  for (auto it = std::filesystem::recursive_directory_iterator(folder, error);
       !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    if (it->is_directory()) {
      SLUICE_RETURN_IF_ERROR(SyncDirectory(it->path().string()));
    } else {
      files[it->path().lexically_relative(folder).generic_string()] = it->path().string();
    }
  }
  if (error) return absl::InternalError(absl::StrCat("cannot list '", folder, "': ", error.message()));
  ordered_json entries = ordered_json::object();
  for (const auto& [name, path] : files) {
    SLUICE_ASSIGN_OR_RETURN(const std::string sha256, FileSha256(path));
    SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(path));
    entries[name] = {{"sha256", sha256}, {"bytes", bytes}};
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Dataset>> Dataset::FromContents(Contents contents) {
  SLUICE_RETURN_IF_ERROR(CheckContents(contents));
  std::shared_ptr<Dataset> dataset(new Dataset);
  dataset->vocabulary_ = VocabularyOf(contents);
  SLUICE_ASSIGN_OR_RETURN(Trie trie, BuildTrie(contents, dataset->vocabulary_));
  dataset->trie_ = std::make_shared<const Trie>(std::move(trie));
  dataset->contents_ = std::move(contents);
  return dataset;
}

absl::StatusOr<std::shared_ptr<const Dataset>> Dataset::Load(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(folder));
  const Reader reader(folder, manifest);
  Contents contents;
  contents.name = manifest.name;
  contents.notes = manifest.notes;
  contents.levels = manifest.levels;
  contents.codes = manifest.codes;
  contents.first_token = manifest.first_token;
  contents.max_history = manifest.max_history;
  SLUICE_ASSIGN_OR_RETURN(contents.item_names, reader.Names(kItemNames));
  SLUICE_ASSIGN_OR_RETURN(contents.user_names, reader.Names(kUserNames));
  SLUICE_ASSIGN_OR_RETURN(contents.first_event, reader.Array<int64_t>(kFirstEvent, 1));
  SLUICE_ASSIGN_OR_RETURN(contents.event_item, reader.Array<int32_t>(kEventItem, 1));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint8_t> split, reader.Array<uint8_t>(kEventSplit, 1));
  contents.event_split.resize(split.size());
  std::transform(split.begin(), split.end(), contents.event_split.begin(),
                 [](uint8_t label) { return static_cast<SplitLabel>(label); });
  SLUICE_ASSIGN_OR_RETURN(contents.item_codes, reader.Array<int32_t>(kItemCodes, 2));
  SLUICE_RETURN_IF_ERROR(reader.CheckOthers());
  if (manifest.has_truth) {
    SLUICE_ASSIGN_OR_RETURN(contents.truth, MarketTruth::Load(JoinPath(folder, kTruthFolder)));
  }

  if (manifest.users != static_cast<int64_t>(contents.user_names.size()) ||
      manifest.items != static_cast<int64_t>(contents.item_names.size()) ||
      manifest.events != static_cast<int64_t>(contents.event_item.size())) {
    return Contradiction(absl::StrCat("'", folder, "': the manifest counts ", manifest.users, " users, ",
                                      manifest.items, " items and ", manifest.events, " events, its files have ",
                                      contents.user_names.size(), ", ", contents.item_names.size(), " and ",
                                      contents.event_item.size()));
  }
  absl::StatusOr<std::shared_ptr<const Dataset>> loaded = FromContents(std::move(contents));
  if (!loaded.ok()) return Annotate(loaded.status(), absl::StrCat("data set '", folder, "'"));
  const std::shared_ptr<Dataset> dataset = std::const_pointer_cast<Dataset>(*std::move(loaded));
  if (dataset->trie().version() != manifest.catalog_version) {
    return Contradiction(absl::StrCat("'", folder, "': the manifest names catalog version ", manifest.catalog_version,
                                      ", its semantic IDs make ", dataset->trie().version()));
  }
  dataset->digest_ = manifest.digest;
  dataset->folder_ = folder;
  return dataset;
}

absl::Status Dataset::Write(const std::string& folder, const Contents& contents) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<DatasetWriter> writer, DatasetWriter::Create(folder));
  return writer->Finish(contents);
}

absl::Span<const int32_t> Dataset::Events(int32_t user) const {
  const int64_t begin = contents_.first_event[user];
  return absl::MakeConstSpan(contents_.event_item.data() + begin, contents_.first_event[user + 1] - begin);
}

absl::Span<const SplitLabel> Dataset::Labels(int32_t user) const {
  const int64_t begin = contents_.first_event[user];
  return absl::MakeConstSpan(contents_.event_split.data() + begin, contents_.first_event[user + 1] - begin);
}

std::vector<int32_t> Dataset::TrainingEvents(int32_t user) const {
  const absl::Span<const int32_t> events = Events(user);
  const absl::Span<const SplitLabel> labels = Labels(user);
  std::vector<int32_t> training;
  for (size_t i = 0; i < events.size(); ++i) {
    if (labels[i] == SplitLabel::kTrain) training.push_back(events[i]);
  }
  return training;
}

std::vector<Example> Dataset::Examples(SplitLabel label) const {
  std::vector<Example> examples;
  for (int32_t user = 0; user < num_users(); ++user) {
    const absl::Span<const SplitLabel> labels = Labels(user);
    for (size_t i = 1; i < labels.size(); ++i) {
      if (labels[i] == label) examples.push_back({user, static_cast<int32_t>(i)});
    }
  }
  return examples;
}

absl::Span<const int32_t> Dataset::History(const Example& example) const {
  const int32_t begin = std::max(0, example.position - contents_.max_history);
  return Events(example.user).subspan(begin, example.position - begin);
}

int32_t Dataset::Target(const Example& example) const { return Events(example.user)[example.position]; }

absl::StatusOr<std::unique_ptr<DatasetWriter>> DatasetWriter::Create(const std::string& folder) {
  std::string trimmed = folder;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  if (trimmed.empty()) return absl::InvalidArgumentError("no output folder is given");
  if (PathExists(trimmed)) {
    return absl::AlreadyExistsError(absl::StrCat("'", trimmed, "' exists; remove it or name another output folder"));
  }
  std::unique_ptr<DatasetWriter> writer(new DatasetWriter(trimmed));
  SLUICE_RETURN_IF_ERROR(RemoveAll(writer->staging_));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(writer->staging_));
  return writer;
}

DatasetWriter::~DatasetWriter() {
  if (!finished_) RemoveAll(staging_).IgnoreError();  // what is left is removed by the next writer
}

absl::Status DatasetWriter::Finish(const Dataset::Contents& contents) {
  SLUICE_CHECK(!finished_, "a data set is written once");
  SLUICE_RETURN_IF_ERROR(CheckContents(contents));
  SLUICE_ASSIGN_OR_RETURN(const Trie trie, BuildTrie(contents, VocabularyOf(contents)));
  SLUICE_RETURN_IF_ERROR(WriteArrays(staging_, contents));
  if (contents.truth != nullptr) SLUICE_RETURN_IF_ERROR(contents.truth->Write(JoinPath(staging_, kTruthFolder)));
  SLUICE_ASSIGN_OR_RETURN(ordered_json files, DigestFiles(staging_));
  ordered_json manifest = {{"format", kFormat},
                           {"format_version", kFormatVersion},
                           {"name", contents.name},
                           {"notes", contents.notes},
                           {"users", contents.user_names.size()},
                           {"items", contents.item_names.size()},
                           {"events", contents.event_item.size()},
                           {"levels", contents.levels},
                           {"codes", contents.codes},
                           {"max_history", contents.max_history},
                           {"catalog_version", trie.version()},
                           {"semantic_ids", trie.num_leaves()},
                           {"colliding_items", trie.num_colliding_items()},
                           {"files", std::move(files)}};
  if (contents.first_token > 0) manifest["first_token"] = contents.first_token;
  std::string text;
  try {
    text = manifest.dump(2) + "\n";
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the data set's name or notes are not UTF-8 (", error.what(), ")"));
  }
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(staging_, kManifest), text));
  if (PathExists(folder_)) {
    return absl::AlreadyExistsError(absl::StrCat("'", folder_, "' was made by somebody else meanwhile"));
  }
  SLUICE_RETURN_IF_ERROR(RenamePath(staging_, folder_));
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace sluice

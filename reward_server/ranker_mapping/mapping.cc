#include "reward_server/ranker_mapping/mapping.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "common/yaml/nearest_word.h"
#include "common/yaml/yaml_tree.h"

namespace sluice::reward {
namespace {

constexpr double kMaxSeconds = 600;

struct Problems {
  std::vector<SpecProblem> all;

  void Add(const SpecPlace& place, std::string path, std::string message) {
    all.push_back({place, std::move(path), std::move(message)});
  }
};

// One map of the file: takes its keys one by one, then says which ones nobody asked for.
class Section {
 public:
  Section(const YamlNode& node, std::string path, Problems* problems)
      : node_(&node), path_(std::move(path)), problems_(problems) {
    if (node.kind != YamlNode::Kind::kMap && node.kind != YamlNode::Kind::kNull) Report("", "want keys and values");
  }

  // Null if it is not there.
  const YamlNode* Take(absl::string_view key) {
    known_.emplace_back(key);
    return node_->Find(key);
  }

  std::string Text(absl::string_view key, std::string otherwise = "") {
    const YamlNode* value = Take(key);
    if (value == nullptr) return otherwise;
    if (value->kind == YamlNode::Kind::kScalar && !value->text.empty()) return value->text;
    Report(key, "want a text");
    return otherwise;
  }

  std::string Needed(absl::string_view key, absl::string_view example) {
    if (const YamlNode* value = node_->Find(key); value != nullptr) return Text(key);
    Take(key);
    Report(key, absl::StrCat("is missing; give it, such as ", example));
    return "";
  }

  double Number(absl::string_view key, double otherwise, double least, double most) {
    const YamlNode* value = Take(key);
    if (value == nullptr) return otherwise;
    const std::optional<double> number = NumberOf(*value);
    if (number && *number >= least && *number <= most) return *number;
    Report(key, absl::StrCat("want a number from ", least, " to ", most, Got(*value)));
    return otherwise;
  }

  int64_t Whole(absl::string_view key, int64_t otherwise, int64_t least, int64_t most) {
    const YamlNode* value = Take(key);
    if (value == nullptr) return otherwise;
    const std::optional<int64_t> number = WholeOf(*value);
    if (number && *number >= least && *number <= most) return *number;
    Report(key, absl::StrCat("want a whole number from ", least, " to ", most, Got(*value)));
    return otherwise;
  }

  bool Flag(absl::string_view key) {
    const YamlNode* value = Take(key);
    if (value == nullptr || value->text == "false") return false;
    if (value->kind == YamlNode::Kind::kScalar && value->text == "true") return true;
    Report(key, absl::StrCat("want true or false", Got(*value)));
    return false;
  }

  // The position of a key's word among `words`; `otherwise` if it is not there or wrong.
  size_t OneOf(absl::string_view key, const std::vector<std::string>& words, size_t otherwise) {
    const YamlNode* value = Take(key);
    if (value == nullptr) return otherwise;
    const auto found = std::find(words.begin(), words.end(), value->text);
    if (value->kind == YamlNode::Kind::kScalar && found != words.end()) {
      return static_cast<size_t>(found - words.begin());
    }
    const std::string nearest = NearestWord(value->text, words);
    Report(key, absl::StrCat("want one of ", absl::StrJoin(words, ", "), Got(*value),
                             nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
    return otherwise;
  }

  // Item numbers.
  std::vector<int32_t> Items(absl::string_view key) {
    std::vector<int32_t> items;
    const YamlNode* list = Take(key);
    bool good = list != nullptr && list->kind == YamlNode::Kind::kSequence && !list->items.empty();
    for (size_t i = 0; good && i < list->items.size(); ++i) {
      const std::optional<int64_t> item = WholeOf(list->items[i]);
      good = item && *item >= 0 && *item <= std::numeric_limits<int32_t>::max();
      if (good) items.push_back(static_cast<int32_t>(*item));
    }
    if (!good) Report(key, "want a list of item numbers, such as [3, 1]");
    return good ? items : std::vector<int32_t>();
  }

  // A problem of a key, at its place if it is there.
  void Report(absl::string_view key, std::string message) {
    const YamlNode* value = key.empty() ? nullptr : node_->Find(key);
    problems_->Add(value != nullptr ? value->place : node_->place, PathOf(key), std::move(message));
  }

  void End() {
    for (const YamlNode::Entry& entry : node_->entries) {
      if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
      const std::string nearest = NearestWord(entry.key, known_);
      problems_->Add(entry.key_place, PathOf(entry.key),
                     nearest.empty() ? absl::StrCat("unknown key; there are ", absl::StrJoin(known_, ", "))
                                     : absl::StrCat("unknown key; did you mean ", nearest, "?"));
    }
  }

  bool Has(absl::string_view key) const { return node_->Find(key) != nullptr; }
  const YamlNode& node() const { return *node_; }
  std::string PathOf(absl::string_view key) const {
    return path_.empty() || key.empty() ? absl::StrCat(path_, key) : absl::StrCat(path_, ".", key);
  }
  std::string Place() const { return absl::StrCat(node_->place.ToString(), ": ", path_); }

  static std::optional<double> NumberOf(const YamlNode& node) {
    double number = 0;
    if (node.kind != YamlNode::Kind::kScalar || node.quoted || !absl::SimpleAtod(node.text, &number) ||
        !std::isfinite(number)) {
      return std::nullopt;
    }
    return number;
  }

  static std::optional<int64_t> WholeOf(const YamlNode& node) {
    int64_t number = 0;
    if (node.kind != YamlNode::Kind::kScalar || node.quoted || !absl::SimpleAtoi(node.text, &number)) {
      return std::nullopt;
    }
    return number;
  }

 private:
  static std::string Got(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::kScalar) return "";
    return absl::StrCat(", got '", node.text.substr(0, 60), "'");
  }

  const YamlNode* node_;
  const std::string path_;
  Problems* const problems_;
  std::vector<std::string> known_;
};

// The whole file: sections in the order of the page that documents them.
class Reader {
 public:
  Reader(const YamlNode& root, std::string folder, Problems* problems)
      : root_(root, "", problems), folder_(std::move(folder)), problems_(problems) {}

  void Read(RankerMapping* to) {
    to->name = root_.Needed("name", "name: mine");
    CheckName(to->name);
    ReadModel(to);
    to->layout = root_.OneOf("layout", {"pairs", "users"}, 0) == 0 ? Layout::kPairs : Layout::kUsers;
    to->max_pairs = root_.Whole("max_pairs", to->max_pairs, 1, kMaxMappedPairs);
    ReadInputs(to);
    ReadOutputs(to);
    ReadGolden(to);
    root_.End();
  }

 private:
  void CheckName(absl::string_view name) {
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
    });
    if (!plain || name.size() > 64) root_.Report("name", "want at most 64 letters, digits and _ - .");
  }

  std::string Path(const std::string& path) const {
    return path.empty() || absl::StartsWith(path, "/") || folder_.empty() ? path : JoinPath(folder_, path);
  }

  void ReadModel(RankerMapping* to) {
    const std::vector<std::string> kinds = {"open_inference", "torchscript", "aot_inductor"};
    int found = 0;
    for (size_t i = 0; i < kinds.size(); ++i) {
      const YamlNode* node = root_.Take(kinds[i]);
      if (node == nullptr) continue;
      ++found;
      Section section(*node, kinds[i], problems_);
      to->kind = static_cast<RankerMapping::Kind>(i);
      if (to->kind == RankerMapping::Kind::kOpenInference) {
        ReadRemote(&section, &to->remote);
      } else {
        to->file = Path(section.Needed("file", "file: ranker.pt2"));
        to->file_sha256 = section.Text("sha256");
        if (section.Has("sha256") && to->file_sha256.size() != 64) {
          section.Report("sha256", "want the 64 digits that sha256sum prints");
        }
      }
      section.End();
    }
    if (found != 1) {
      root_.Report("",
                   absl::StrCat("want exactly one of ", absl::StrJoin(kinds, ", "), ", which says where the model is"));
    }
  }

  void ReadRemote(Section* section, RemoteModelOptions* to) {
    to->address = section->Needed("address", "address: 127.0.0.1:8001");
    to->model = section->Needed("model", "model: ranker");
    to->version = section->Text("version");
    to->deadline =
        absl::Seconds(section->Number("deadline_s", absl::ToDoubleSeconds(to->deadline), 0.001, kMaxSeconds));
    to->start = absl::Seconds(section->Number("start_s", absl::ToDoubleSeconds(to->start), 0, kMaxSeconds));
    to->calls = static_cast<int>(section->Whole("calls", to->calls, 1, 1024));
    to->typed_contents = section->OneOf("contents", {"raw", "typed"}, 0) == 1;
  }

  void ReadInputs(RankerMapping* to) {
    const YamlNode* node = root_.Take("inputs");
    if (node == nullptr || node->entries.empty() || node->entries.size() > kMaxMappedTensors) {
      root_.Report("inputs", absl::StrCat("want 1 to ", kMaxMappedTensors, " inputs, such as 'item: {from: item}'"));
      return;
    }
    for (const YamlNode::Entry& entry : node->entries) {
      Section section(entry.value, absl::StrCat("inputs.", entry.key), problems_);
      MappedInput input;
      input.name = entry.key;
      ReadInput(&section, *to, &input);
      section.End();
      to->inputs.push_back(std::move(input));
    }
    CheckInputs(*to, *node);
  }

  void ReadInput(Section* section, const RankerMapping& mapping, MappedInput* to) {
    to->place = section->Place();
    if (!section->Has("from")) {
      section->Report("from",
                      "is missing; say what the input holds: user, history, history_length, history_mask, item "
                      "or constant");
    }
    to->from = static_cast<InputSource>(
        section->OneOf("from", {"user", "history", "history_length", "history_mask", "item", "constant"}, 0));
    std::vector<std::string> types(TensorTypeNames().begin(), TensorTypeNames().end());
    to->type = static_cast<TensorType>(section->OneOf("type", types, static_cast<size_t>(TensorType::kInt64)));
    const bool numbers =
        to->from == InputSource::kUser || to->from == InputSource::kHistory || to->from == InputSource::kItem;
    const bool names = to->type == TensorType::kBytes;
    const std::string whose =
        absl::StrCat("belongs to another kind of input; remove it, or mend ", section->PathOf("from"));
    const auto only_if = [&](bool applies, absl::string_view key) {
      if (!applies && section->Has(key)) section->Report(key, whose);
      return applies;
    };
    if (names && !numbers) section->Report("type", "BYTES are names of users and items; want a type of numbers");
    if (names && mapping.kind != RankerMapping::Kind::kOpenInference) {
      section->Report("type", "an exported model takes numbers; want another type than BYTES");
    }
    to->column = Path(section->Text("column"));
    if (!only_if(numbers, "column")) to->column.clear();
    if (names && !to->column.empty()) section->Report("column", "holds numbers, but the type is BYTES");
    const bool plain = numbers && !names && to->column.empty();
    constexpr int64_t kMostOffset = int64_t{1} << 40;
    to->offset = section->Whole("offset", 0, -kMostOffset, kMostOffset);
    only_if(plain, "offset");
    to->length = section->Whole("length", 0, 1, kMaxMappedHistory);
    only_if(to->from == InputSource::kHistory || to->from == InputSource::kHistoryMask, "length");
    to->pad_left = section->OneOf("pad_side", {"right", "left"}, 0) == 1;
    only_if(to->from == InputSource::kHistory || to->from == InputSource::kHistoryMask, "pad_side");
    const bool padded =
        to->from == InputSource::kHistory || (to->from == InputSource::kItem && mapping.layout == Layout::kUsers);
    to->pad = Value(section, "pad", to->column.empty() ? -1 : 0, to->type, padded && !names);
    only_if(padded && !names, "pad");
    if (section->Has("unknown"))
      to->unknown = Value(section, "unknown", 0, to->type, to->from == InputSource::kUser && !names);
    only_if(to->from == InputSource::kUser && !names, "unknown");
    to->value = Value(section, "value", 0, to->type, to->from == InputSource::kConstant);
    only_if(to->from == InputSource::kConstant, "value");
    to->last_dimension = section->Flag("last_dimension");
    // A column of several numbers has a last dimension of its own.
    if (to->last_dimension && !to->column.empty()) {
      section->Report("last_dimension", "is for inputs without a column; save the column with shape [rows, 1]");
    }
  }

  double Value(Section* section, absl::string_view key, double otherwise, TensorType type, bool applies) {
    constexpr double kMost = std::numeric_limits<double>::max();
    const double value = section->Number(key, otherwise, -kMost, kMost);
    if (applies && !Fits(type, value)) {
      section->Report(key, absl::StrCat(section->Has(key) ? "" : "is missing, and its default ", value, " is no ",
                                        TensorTypeName(type), "; give one that is"));
    }
    return value;
  }

  void CheckInputs(const RankerMapping& mapping, const YamlNode& node) {
    int64_t length = -1;
    bool items = false, history = false;
    for (const MappedInput& input : mapping.inputs) {
      items = items || input.from == InputSource::kItem;
      history = history || input.from == InputSource::kHistory;
      if (input.from != InputSource::kHistory && input.from != InputSource::kHistoryMask) continue;
      if (length >= 0 && input.length != length) {
        problems_->Add(node.place, "inputs", "histories and their masks want one length; give all the same");
      }
      length = input.length;
    }
    if (!items) problems_->Add(node.place, "inputs", "no input is from: item, so no score could depend on the item");
    for (const MappedInput& input : mapping.inputs) {
      if (!history && (input.from == InputSource::kHistoryLength || input.from == InputSource::kHistoryMask)) {
        problems_->Add(node.place, "inputs",
                       absl::StrCat(input.name, " describes a history, but no input is from: history"));
      }
    }
  }

  void ReadOutputs(RankerMapping* to) {
    const YamlNode* node = root_.Take("outputs");
    if (node == nullptr || node->entries.empty() || node->entries.size() > kMaxMappedTensors) {
      root_.Report("outputs",
                   absl::StrCat("want 1 to ", kMaxMappedTensors, " heads, such as 'score: {output: score}'"));
      return;
    }
    for (const YamlNode::Entry& entry : node->entries) {
      Section section(entry.value, absl::StrCat("outputs.", entry.key), problems_);
      MappedOutput output;
      output.head = entry.key;
      output.place = section.Place();
      // Tensors of an exported model have positions rather than names.
      output.output = section.Text(
          "output", to->kind == RankerMapping::Kind::kOpenInference ? entry.key : absl::StrCat(to->outputs.size()));
      output.column = section.Whole("column", -1, 0, kMaxMappedPairs);
      section.End();
      to->outputs.push_back(std::move(output));
    }
    if (to->outputs[0].head != "score") {
      problems_->Add(node->place, "outputs",
                     absl::StrCat("want the first head to be called score, got ", to->outputs[0].head,
                                  "; write 'score: {output: ", to->outputs[0].output, "}'"));
    }
  }

  void ReadGolden(RankerMapping* to) {
    const YamlNode* node = root_.Take("golden");
    if (node == nullptr) return;
    Section section(*node, "golden", problems_);
    to->tolerance = section.Number("tolerance", to->tolerance, 0, 1e6);
    const YamlNode* groups = section.Take("groups");
    if (groups == nullptr || groups->items.empty() || groups->items.size() > kMaxGoldenGroups) {
      section.Report("groups", absl::StrCat("want a list of 1 to ", kMaxGoldenGroups, " groups"));
    } else {
      for (size_t i = 0; i < groups->items.size(); ++i) {
        Section group(groups->items[i], absl::StrCat("golden.groups[", i, "]"), problems_);
        ReadGoldenGroup(&group, to);
      }
    }
    section.End();
  }

  void ReadGoldenGroup(Section* section, RankerMapping* to) {
    GoldenGroup group;
    group.place = section->Place();
    group.user = static_cast<int32_t>(section->Whole("user", -1, -1, std::numeric_limits<int32_t>::max()));
    group.history = section->Items("history");
    group.items = section->Items("items");
    const YamlNode* scores = section->Take("scores");
    if (scores == nullptr) section->Report("scores", "is missing; give a list of scores for each head");
    for (const MappedOutput& output : to->outputs) {
      const YamlNode* list = scores == nullptr ? nullptr : scores->Find(output.head);
      std::vector<double>& row = group.scores.emplace_back();
      for (size_t i = 0; list != nullptr && i < list->items.size(); ++i) {
        if (const std::optional<double> score = Section::NumberOf(list->items[i])) row.push_back(*score);
      }
      if (scores != nullptr && row.size() != group.items.size()) {
        section->Report("scores", absl::StrCat("want ", group.items.size(), " numbers of head ", output.head,
                                               ", one an item, got ", row.size()));
      }
    }
    section->End();
    to->golden.push_back(std::move(group));
  }

  Section root_;
  const std::string folder_;
  Problems* const problems_;
};

std::string DigestOf(const RankerMapping& mapping) {
  std::string text = absl::StrCat("ranker mapping 1 ", static_cast<int>(mapping.kind), " ", mapping.remote.model, "\n",
                                  static_cast<int>(mapping.layout), "\n");
  for (const MappedInput& input : mapping.inputs) {
    absl::StrAppend(&text, "input ", input.name, " ", static_cast<int>(input.from), " ", TensorTypeName(input.type),
                    " ", input.column.empty() ? 0 : 1, " ", input.offset, " ", input.length, " ",
                    input.pad_left ? 1 : 0, " ", input.pad, " ", input.unknown ? absl::StrCat(*input.unknown) : "none",
                    " ", input.value, " ", input.last_dimension ? 1 : 0, "\n");
  }
  for (const MappedOutput& output : mapping.outputs) {
    absl::StrAppend(&text, "output ", output.head, " ", output.output, " ", output.column, "\n");
  }
  for (const GoldenGroup& group : mapping.golden) {
    absl::StrAppend(&text, "golden ", group.user, " ", absl::StrJoin(group.history, ","), " ",
                    absl::StrJoin(group.items, ","));
    for (const std::vector<double>& row : group.scores) absl::StrAppend(&text, " ", absl::StrJoin(row, ","));
    text += '\n';
  }
  return Sha256(text);
}

}  // namespace

std::vector<std::string> RankerMapping::heads() const {
  std::vector<std::string> heads;
  for (const MappedOutput& output : outputs) heads.push_back(output.head);
  return heads;
}

absl::StatusOr<RankerMapping> ParseRankerMapping(absl::string_view text, const std::string& source,
                                                 const std::string& folder) {
  Problems problems;
  const YamlNode root = ParseYamlTree(text, source, &problems.all, "ranker mapping");
  RankerMapping mapping;
  mapping.source = source;
  // After a syntax error there is nothing to say of keys.
  if (problems.all.empty()) Reader(root, folder, &problems).Read(&mapping);
  if (!problems.all.empty()) {
    std::vector<std::string> lines;
    for (const SpecProblem& problem : problems.all) {
      lines.push_back(absl::StrCat(problem.place.ToString(), ": ", problem.path, problem.path.empty() ? "" : ": ",
                                   problem.message));
    }
    return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
  }
  mapping.digest = DigestOf(mapping);
  return mapping;
}

absl::StatusOr<RankerMapping> ReadRankerMapping(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxSpecBytes));
  const size_t slash = path.rfind('/');
  return ParseRankerMapping(text, path, slash == std::string::npos ? "" : path.substr(0, slash));
}

}  // namespace sluice::reward

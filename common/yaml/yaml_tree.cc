#include "common/yaml/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sluice {
namespace {

// Leaves the parser at the first thing that must not be read on.
struct Refused {
  SpecPlace place;
  std::string message;
};

// Builds the tree from the parser's events, so that a limit stops the parser
// where it is passed.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string source, absl::string_view what, YamlNode* root, std::vector<SpecProblem>* problems)
      : source_(std::move(source)), what_(what), root_(root), problems_(problems) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { Add(Node(mark, YamlNode::Kind::kNull)); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problems_->push_back({Place(mark), "", "aliases are not allowed here; write the value out"});
    Add(Node(mark, YamlNode::Kind::kUnreadable));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    CheckTag(mark, tag);
    YamlNode node = Node(mark, YamlNode::Kind::kScalar);
    node.text = value;
    node.quoted = tag == "!";
    Add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    Open(Node(mark, YamlNode::Kind::kSequence));
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    Open(Node(mark, YamlNode::Kind::kMap));
  }
  void OnMapEnd() override { Close(); }

 private:
  // A map or sequence whose end is still to come; `key` waits for its value.
  struct OpenNode {
    YamlNode node;
    bool has_key = false;
    std::string key;
    SpecPlace key_place;
  };

  SpecPlace Place(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }

  YamlNode Node(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (++values_ > kMaxSpecValues) {
      throw Refused{Place(mark), absl::StrCat("more than ", kMaxSpecValues, " values; this is not a ", what_)};
    }
    YamlNode node;
    node.kind = kind;
    node.place = Place(mark);
    return node;
  }

  void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    problems_->push_back(
        {Place(mark), "", absl::StrCat("tags are not allowed here (", tag, "); write the plain value")});
  }

  void Open(YamlNode node) {
    if (static_cast<int>(open_.size()) >= kMaxSpecDepth) {
      throw Refused{node.place, absl::StrCat("nested deeper than ", kMaxSpecDepth, " levels; this is not a ", what_)};
    }
    open_.push_back({std::move(node), false, "", {}});
  }

  void Close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    Add(std::move(node));
  }

  void Add(YamlNode node) {
    if (open_.empty()) {
      *root_ = std::move(node);
      return;
    }
    OpenNode& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kSequence) {
      parent.node.items.push_back(std::move(node));
      return;
    }
    if (!parent.has_key) {
      TakeKey(std::move(node), &parent);
      return;
    }
    parent.has_key = false;
    if (const YamlNode* earlier = parent.node.Find(parent.key)) {
      problems_->push_back({parent.key_place, "",
                            absl::StrCat("key ", parent.key, " is given twice; first on line ", earlier->place.line)});
      return;
    }
    parent.node.entries.push_back({std::move(parent.key), std::move(parent.key_place), std::move(node)});
  }

  void TakeKey(YamlNode node, OpenNode* parent) {
    parent->has_key = true;
    parent->key_place = node.place;
    if (node.kind == YamlNode::Kind::kScalar) {
      parent->key = std::move(node.text);
      return;
    }
    throw Refused{node.place, "a key must be a plain word"};
  }

  const std::string source_;
  const absl::string_view what_;
  YamlNode* const root_;
  std::vector<SpecProblem>* const problems_;
  std::vector<OpenNode> open_;
  int values_ = 0;
};

// yaml-cpp's messages are terse; these are the ones people meet.
std::string PlainWords(const std::string& message) {
  if (message == "illegal map value") return "not valid YAML: a ':' where no value may stand (missing quotes?)";
  if (message == "end of map not found") return "not valid YAML: the indentation does not fit the lines above";
  return absl::StrCat("not valid YAML: ", message);
}

YamlNode EmptyMap(const std::string& source) {
  YamlNode node;
  node.kind = YamlNode::Kind::kMap;
  node.place = {source, 1, 1};
  return node;
}

bool Parse(absl::string_view text, const std::string& source, absl::string_view what, YamlNode* root,
           std::vector<SpecProblem>* problems) {
  std::istringstream stream{std::string(text)};
  TreeBuilder builder(source, what, root, problems);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return true;
    YamlNode second;
    TreeBuilder ignored(source, what, &second, problems);
    if (parser.HandleNextDocument(ignored)) {
      throw Refused{second.place, absl::StrCat("a second document begins here; a file holds one ", what)};
    }
    return true;
  } catch (const Refused& refused) {
    problems->push_back({refused.place, "", refused.message});
  } catch (const YAML::Exception& error) {
    problems->push_back({{source, error.mark.line + 1, error.mark.column + 1}, "", PlainWords(error.msg)});
  }
  return false;
}

}  // namespace

std::string SpecPlace::ToString() const { return line > 0 ? absl::StrCat(source, ":", line, ":", column) : source; }

const YamlNode* YamlNode::Find(absl::string_view key) const {
  for (const Entry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

YamlNode ParseYamlTree(absl::string_view text, const std::string& source, std::vector<SpecProblem>* problems,
                       absl::string_view what) {
  if (static_cast<int64_t>(text.size()) > kMaxSpecBytes) {
    problems->push_back(
        {{source, 0, 0},
         "",
         absl::StrCat("a ", what, " has at most ", kMaxSpecBytes, " bytes, this one has ", text.size())});
    return EmptyMap(source);
  }
  if (const size_t zero = text.find('\0'); zero != absl::string_view::npos) {
    problems->push_back({{source, 0, 0}, "", absl::StrCat("byte ", zero, " is zero; this is not a text file")});
    return EmptyMap(source);
  }
  YamlNode root = EmptyMap(source);
  if (!Parse(text, source, what, &root, problems)) return EmptyMap(source);
  if (root.kind == YamlNode::Kind::kNull) return EmptyMap(source);
  if (root.kind != YamlNode::Kind::kMap) {
    problems->push_back({root.place, "", "want keys and values, such as 'name: mine', at the top"});
    return EmptyMap(source);
  }
  return root;
}

void ApplyOverride(absl::string_view assignment, YamlNode* root, std::vector<SpecProblem>* problems) {
  const SpecPlace place{absl::StrCat("--set ", assignment), 0, 0};
  const size_t equals = assignment.find('=');
  const absl::string_view path = assignment.substr(0, equals);
  if (equals == absl::string_view::npos || path.empty()) {
    problems->push_back({place, "", "want key=value, such as rl.steps=50"});
    return;
  }
  std::vector<SpecProblem> value_problems;
  YamlNode value;
  // Text that is no YAML by itself ("a: b") is taken as a string: a shell has
  // eaten the quotes.
  if (!Parse(assignment.substr(equals + 1), "", "job spec", &value, &value_problems) || !value_problems.empty() ||
      value.kind == YamlNode::Kind::kMap || value.kind == YamlNode::Kind::kSequence) {
    value = YamlNode();
    value.kind = YamlNode::Kind::kScalar;
    value.quoted = true;
    value.text = std::string(assignment.substr(equals + 1));
  }
  value.place = place;

  YamlNode* node = root;
  const std::vector<std::string> keys = absl::StrSplit(path, '.');
  if (static_cast<int>(keys.size()) > kMaxSpecDepth) {
    problems->push_back({place, "", absl::StrCat("nested deeper than ", kMaxSpecDepth, " levels")});
    return;
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::string& key = keys[i];
    if (node->kind != YamlNode::Kind::kMap) {
      node->kind = YamlNode::Kind::kMap;  // "rl:" with nothing, or a wrong
                                          // scalar that this replaces
      node->text.clear();
    }
    YamlNode* next = nullptr;
    for (YamlNode::Entry& entry : node->entries) {
      if (entry.key != key) continue;
      next = &entry.value;
      if (i + 1 == keys.size()) entry.key_place = place;
    }
    if (next == nullptr) {
      node->entries.push_back({key, place, YamlNode()});
      next = &node->entries.back().value;
      next->kind = YamlNode::Kind::kMap;
      next->place = place;
    }
    node = next;
  }
  *node = std::move(value);
}

}  // namespace sluice

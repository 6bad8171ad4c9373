// YAML text as a small tree that remembers where everything stood. Hostile
// input is bounded: text size, depth, number of values; aliases and tags are
// refused, so that a tree is never larger than its text.
#ifndef SLUICE_COMMON_YAML_YAML_TREE_H_
#define SLUICE_COMMON_YAML_YAML_TREE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

inline constexpr int64_t kMaxSpecBytes = int64_t{1} << 20;
inline constexpr int kMaxSpecDepth = 16;
inline constexpr int kMaxSpecValues = 10000;

// Where something was written. Lines and columns count from 1; line 0 means
// "not in a file".
struct SpecPlace {
  std::string source;  // file name, or "--set a.b=c"
  int line = 0;
  int column = 0;

  // "job.yaml:3:5", or only the source, or "" if there is neither.
  std::string ToString() const;
};

// One thing wrong with a spec, in plain words.
struct SpecProblem {
  SpecPlace place;
  std::string path;     // "rl.gate.tau"; empty: the whole
  std::string message;  // "want 0 to 1, got 2"
};

struct YamlNode {
  enum class Kind {
    kNull,
    kScalar,
    kSequence,
    kMap,
    kUnreadable,  // an alias, already reported
  };
  struct Entry;

  Kind kind = Kind::kNull;
  bool quoted = false;  // a scalar in quotes or block style: text, never a number
  std::string text;     // kScalar
  SpecPlace place;
  std::vector<YamlNode> items;  // kSequence, in order
  std::vector<Entry> entries;   // kMap, as written; no key twice

  const YamlNode* Find(absl::string_view key) const;
};

struct YamlNode::Entry {
  std::string key;
  SpecPlace key_place;
  YamlNode value;
};

// Parses one document. What is wrong is appended to `problems`; the tree then
// holds what could be read (an empty map after a syntax error). `what`, for
// messages: what the text should be.
YamlNode ParseYamlTree(absl::string_view text, const std::string& source, std::vector<SpecProblem>* problems,
                       absl::string_view what = "job spec");

// Sets `path` ("rl.gate.tau") of `root` to what `value` reads as, as YAML on
// one line; makes the maps on the way. `assignment` is the text
// "rl.gate.tau=0.2" of one --set, for messages.
void ApplyOverride(absl::string_view assignment, YamlNode* root, std::vector<SpecProblem>* problems);

}  // namespace sluice

#endif  // SLUICE_COMMON_YAML_YAML_TREE_H_

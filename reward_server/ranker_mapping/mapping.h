// A ranker mapping: the file that makes a model outside of this program a ranker. It says where the model is, which
// inputs it takes and what of a query each of them holds, and which of its outputs are heads. docs/ranker_mapping.md
// has the keys; the reward server gets the file by --ranker.
#ifndef SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPING_H_
#define SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPING_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "reward_server/ranker_mapping/tensor.h"

namespace sluice::reward {

// What of a query an input holds.
enum class InputSource {
  kUser,           // the user
  kHistory,        // the items of the history, oldest first
  kHistoryLength,  // how many of them the input of kHistory holds
  kHistoryMask,    // 1 where that input holds an item, 0 where it is padded
  kItem,           // the item to score
  kConstant,       // the same number everywhere
};

// How the (user, item) pairs of a call lie in its tensors.
enum class Layout {
  kPairs,  // N pairs: every input has N rows, and so has every output
  kUsers,  // B users with K items each: inputs of users have B rows, those of items and outputs are [B, K]
};

struct MappedInput {
  std::string name;
  InputSource from = InputSource::kUser;
  TensorType type = TensorType::kInt64;  // kBytes: names of the data set in place of numbers
  std::string column;                    // path of an .npy file, looked up by number; "": the number itself
  int64_t offset = 0;                    // added to numbers of users and items
  int64_t length = 0;                    // of a history: its latest so many items; 0: as long as the longest of a call
  bool pad_left = false;                 // padding before the history, not after it
  double pad = -1;                       // where there is no item
  std::optional<double> unknown;         // for an unknown user
  double value = 0;                      // of kConstant
  bool last_dimension = false;           // one more dimension, of size 1
  std::string place;                     // "FILE:LINE:COLUMN: inputs.NAME", for messages
};

struct MappedOutput {
  std::string head;
  std::string output;   // its name; of an exported model also its position
  int64_t column = -1;  // of the last dimension; -1: there is none, or of size 1
  std::string place;
};

// Known scores: `scores` has one row a head, as many scores as items.
struct GoldenGroup {
  int32_t user = -1;
  std::vector<int32_t> history;
  std::vector<int32_t> items;
  std::vector<std::vector<double>> scores;
  std::string place;
};

struct RemoteModelOptions {
  std::string address;
  std::string model;
  std::string version;                         // "": the server chooses
  absl::Duration deadline = absl::Seconds(5);  // of one batch, repeats included
  absl::Duration start = absl::Seconds(30);    // how long the server may take to be ready at our start
  int calls = 4;                               // at the same time
  bool typed_contents = false;                 // else raw
};

struct RankerMapping {
  enum class Kind { kOpenInference, kTorchScript, kAotInductor };

  std::string name;
  Kind kind = Kind::kOpenInference;
  RemoteModelOptions remote;  // kOpenInference
  std::string file;           // of an exported model
  std::string file_sha256;    // as the file must have it; "": as it is
  Layout layout = Layout::kPairs;
  int64_t max_pairs = 4096;  // in one call, padding included
  std::vector<MappedInput> inputs;
  std::vector<MappedOutput> outputs;  // the first one is head "score"
  std::vector<GoldenGroup> golden;
  double tolerance = 1e-4;  // of a golden score s: tolerance * max(1, |s|)
  std::string source;       // the file's name, for messages
  // Of all that decides scores, but the model itself and the columns: not where the server is, or how long it may take.
  std::string digest;

  std::vector<std::string> heads() const;
};

// Limits of a file.
inline constexpr size_t kMaxMappedTensors = 64;
inline constexpr size_t kMaxGoldenGroups = 64;
inline constexpr int64_t kMaxMappedHistory = 16384;
inline constexpr int64_t kMaxMappedPairs = 1 << 20;

// Reads a mapping; `folder` is where relative paths in it start. InvalidArgument: every mistake in a line of its own,
// "mine.yaml:3:5: inputs.user.type: ...".
absl::StatusOr<RankerMapping> ParseRankerMapping(absl::string_view text, const std::string& source,
                                                 const std::string& folder);
// The same of a file. NotFound, InvalidArgument.
absl::StatusOr<RankerMapping> ReadRankerMapping(const std::string& path);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPING_H_

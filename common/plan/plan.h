// What a policy and a batch ask of memory, arithmetic and links, by arithmetic alone: for a dry run before anything is
// started, and for plans of machines that are not here.
//
// Letters: P elements of the parameter arena, D hidden size, I intermediate size, N layers, Q and K widths of all query
// and of all key heads, H query heads, V vocabulary, L levels, G completions, R rows of a training pass.
//
// Pure functions on numbers; thread-safe. Bytes and seconds are doubles: they are estimates.
#ifndef SLUICE_COMMON_PLAN_PLAN_H_
#define SLUICE_COMMON_PLAN_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/model_config/policy_config.h"

namespace sluice {

// The sizes of a decoder (PolicyConfig says what each means).
struct PolicyShape {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool tied = true;
  bool qkv_bias = false;
  bool output_bias = false;
  bool head_norms = false;   // Qwen3: norms of queries and keys
  int64_t item_rows = 0;     // of the item embedding; 0: none
  int64_t value_hidden = 0;  // width of the value head's hidden layer; 0: none
  bool merged = false;       // a position an item, not a code

  int64_t query_width() const { return heads * head_dim; }
  int64_t key_width() const { return kv_heads * head_dim; }

  static PolicyShape Of(const PolicyConfig& config);
};

// P: every tensor rounded up to a cache line, as common/model lays them out.
int64_t ArenaElements(const PolicyShape& shape);
// Elements of one layer's matrices and of the output matrix: two floating-point operations each for a row.
int64_t MatrixElements(const PolicyShape& shape);

struct MemoryPart {
  std::string name;
  double bytes = 0;
  std::string how;  // the sum, in the letters above
};
struct MemoryEstimate {
  std::vector<MemoryPart> parts;
  double total() const;
};

// How many threads of a learner rank take groups of their own in a step, with gradients of their own: as many as there
// are, unless those gradients would take more than `max_bytes`. A large policy has large products, which threads share
// well.
inline constexpr int64_t kLaneGradientBytes = int64_t{512} << 20;
int TrainingLanes(int64_t parameter_bytes, int threads, int64_t max_bytes = kLaneGradientBytes);

// One rank's share of a step.
struct TrainingBatch {
  double groups = 0;            // prompts (rl) or next-item targets (sft) of this rank
  double prompt_positions = 0;  // of each
  double branches = 0;          // of each prompt: the target and the completions
  int levels = 0;               // L
  double max_rows = 16384;      // of one part of the step: longer steps go part by part
  bool dropout = false;
  int lanes = 1;          // TrainingLanes
  int kept_versions = 3;  // published weights held at once, the one in the making included; 0: none published

  // Rows of a step, and of its largest part. A branch of L tokens has L - 1 rows, for its last token is no input.
  double rows() const { return groups * (prompt_positions + branches * (levels - 1)); }
  double part_rows() const;
};

// Peak of a learner rank above what the process takes with its libraries loaded, data set and catalog apart.
MemoryEstimate LearnerMemory(const PolicyShape& shape, const TrainingBatch& batch);

struct SamplingBatch {
  double prompts = 0;  // of one lease
  double prompt_positions = 0;
  double completions = 0;  // G
  int levels = 0;
};
MemoryEstimate ActorMemory(const PolicyShape& shape, const SamplingBatch& batch);

// Floating-point operations of forward and backward over `rows` rows of which `predicted` ask for logits; attention
// apart, which is a few percent at prompts as short as these.
double TrainingFlops(const PolicyShape& shape, double rows, double predicted);

// A ring all-reduce over n members sends and receives 2 (n - 1) / n of the bytes on each link.
double RingReduceSeconds(double bytes, double members, double bytes_per_second);
// A pipelined tree or chain sends the bytes about once on each link, whatever the number of members.
double BroadcastSeconds(double bytes, double members, double bytes_per_second);
// One sender, one copy for each receiver.
double FlatSendSeconds(double bytes, double receivers, double bytes_per_second);

// "21.3 MB", powers of ten.
std::string BytesText(double bytes);

}  // namespace sluice

#endif  // SLUICE_COMMON_PLAN_PLAN_H_

#include "common/plan/plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice {
namespace {

constexpr int64_t kAlignment = 16;  // elements; ArenaLayout::kAlignment
constexpr double kFloat = sizeof(float);

int64_t Aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

int64_t LayerMatrices(const PolicyShape& s) {
  return (s.query_width() + 2 * s.key_width()) * s.hidden + s.query_width() * s.hidden + 3 * s.intermediate * s.hidden;
}

}  // namespace

PolicyShape PolicyShape::Of(const PolicyConfig& config) {
  PolicyShape shape;
  shape.vocab = config.vocab_size;
  shape.hidden = config.hidden_size;
  shape.intermediate = config.intermediate_size;
  shape.layers = config.num_layers;
  shape.heads = config.num_heads;
  shape.kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.tied = config.tie_embeddings;
  shape.output_bias = config.architecture != PolicyArchitecture::kQwen2 && config.attention_bias;
  shape.qkv_bias = config.architecture == PolicyArchitecture::kQwen2 || config.attention_bias;
  shape.head_norms = config.architecture == PolicyArchitecture::kQwen3;
  shape.merged = config.encoder == PromptEncoderKind::kMerged;
  if (shape.merged && config.item_embedding) shape.item_rows = config.num_leaves;
  shape.value_hidden = config.value_hidden;
  return shape;
}

int64_t ArenaElements(const PolicyShape& s) {
  const int64_t q = s.query_width(), k = s.key_width();
  int64_t layer = 2 * Aligned(s.hidden);  // two norms
  layer += Aligned((q + 2 * k) * s.hidden) + Aligned(q * s.hidden);
  layer += Aligned(2 * s.intermediate * s.hidden) + Aligned(s.intermediate * s.hidden);
  if (s.qkv_bias) layer += Aligned(q + 2 * k);
  if (s.output_bias) layer += Aligned(s.hidden);
  if (s.head_norms) layer += 2 * Aligned(s.head_dim);
  int64_t all = s.layers * layer + Aligned(s.vocab * s.hidden) + Aligned(s.hidden);
  if (s.item_rows > 0) all += Aligned(s.item_rows * s.hidden);
  if (!s.tied) all += Aligned(s.vocab * s.hidden);
  if (s.value_hidden > 0) {
    all += Aligned(s.value_hidden * s.hidden) + 2 * Aligned(s.value_hidden) + Aligned(1);
  }
  return all;
}

int64_t MatrixElements(const PolicyShape& s) { return s.layers * LayerMatrices(s) + s.vocab * s.hidden; }

double MemoryEstimate::total() const {
  double sum = 0;
  for (const MemoryPart& part : parts) sum += part.bytes;
  return sum;
}

double TrainingBatch::part_rows() const {
  // A part always holds one prompt whole.
  const double one = prompt_positions + branches * (levels - 1);
  return std::min(rows(), std::max(max_rows, one));
}

int TrainingLanes(int64_t parameter_bytes, int threads, int64_t max_bytes) {
  return static_cast<int>(
      std::clamp<int64_t>(1 + max_bytes / std::max<int64_t>(1, parameter_bytes), 1, std::max(threads, 1)));
}

MemoryEstimate LearnerMemory(const PolicyShape& s, const TrainingBatch& batch) {
  const double p = kFloat * static_cast<double>(ArenaElements(s));
  const double d = static_cast<double>(s.hidden), i = static_cast<double>(s.intermediate);
  const double q = static_cast<double>(s.query_width()), k = static_cast<double>(s.key_width());
  const double rows = batch.part_rows();
  // What the backward pass needs of a layer: the two inputs of its norms and their outputs, the fused projection, the
  // turned queries and keys, attention's output and its sums, gate and up, and their product. Dropout keeps a mask and
  // a masked copy of each of a block's two outputs.
  double saved = 4 * d + (q + 2 * k) + (q + k) + q + static_cast<double>(s.heads) + 3 * i + 2;
  if (batch.dropout) saved += 4 * d;
  const double layers = static_cast<double>(s.layers);
  const double predicted = rows * (batch.rows() > 0 ? batch.groups * batch.branches * batch.levels / batch.rows() : 0);
  const double widest = std::max({3 * i * d, (2 * q + 2 * k) * d, static_cast<double>(s.vocab) * d});
  MemoryEstimate estimate;
  estimate.parts = {
      {"weights", p, "4 P"},
      {"gradients", batch.lanes * p, absl::StrCat(4 * batch.lanes, " P")},
      {"moments", 2 * p, "8 P"},
      {"decay mask", p, "4 P"},
      {"published versions", batch.kept_versions * p, absl::StrCat(4 * batch.kept_versions, " P")},
      {"activations", kFloat * rows * (layers * saved + 2 * d), "4 R (N (4 D + 3 Q + 3 K + H + 3 I) + 2 D)"},
      {"buffers", kFloat * (rows * (3 * i + 2 * d) + 2 * widest), "4 R (3 I + 2 D) + 8 of the largest matrix"},
      {"logits", kFloat * predicted * (3 * static_cast<double>(s.vocab) + d), "4 (rows predicted) (3 V + D)"},
  };
  return estimate;
}

MemoryEstimate ActorMemory(const PolicyShape& s, const SamplingBatch& batch) {
  const double p = kFloat * static_cast<double>(ArenaElements(s));
  const double d = static_cast<double>(s.hidden), i = static_cast<double>(s.intermediate);
  const double q = static_cast<double>(s.query_width()), k = static_cast<double>(s.key_width());
  const double prompt_rows = batch.prompts * batch.prompt_positions;
  const double step_rows = batch.prompts * (batch.completions + 1);
  const double cached = prompt_rows + step_rows * (batch.levels - 1);
  const double rows = std::max(prompt_rows, step_rows);
  MemoryEstimate estimate;
  estimate.parts = {
      {"weights", 2 * p, "8 P: the present version and the next"},
      {"KV cache", kFloat * cached * 2 * k * static_cast<double>(s.layers), "8 K N (rows)"},
      {"activations", kFloat * rows * (3 * i + 3 * q + 2 * k + 4 * d), "4 R (3 I + 3 Q + 2 K + 4 D)"},
      {"logits", kFloat * step_rows * 2 * static_cast<double>(s.vocab), "8 V B (G + 1)"},
  };
  return estimate;
}

double TrainingFlops(const PolicyShape& s, double rows, double predicted) {
  // Two operations an element forward, twice that backward.
  return 6 * (rows * static_cast<double>(s.layers) * static_cast<double>(LayerMatrices(s)) +
              predicted * static_cast<double>(s.vocab) * static_cast<double>(s.hidden));
}

double RingReduceSeconds(double bytes, double members, double bytes_per_second) {
  return members < 2 ? 0 : 2 * (members - 1) / members * bytes / bytes_per_second;
}
double BroadcastSeconds(double bytes, double members, double bytes_per_second) {
  return members < 1 ? 0 : bytes / bytes_per_second;
}
double FlatSendSeconds(double bytes, double receivers, double bytes_per_second) {
  return receivers * bytes / bytes_per_second;
}

std::string BytesText(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000;
    ++unit;
  }
  return bytes >= 99.95 || unit == 0 ? absl::StrFormat("%.0f %s", bytes, kUnits[unit])
                                     : absl::StrFormat("%.3g %s", bytes, kUnits[unit]);
}

}  // namespace sluice

// The KV cache of a batch of prompts and of the rows that continue them.
//
// Per layer, keys and values of all prompt positions lie packed in one matrix, and those of every appended token
// in another, in the order they were computed. Nothing is ever moved: a row finds its own past by a list of the
// appended rows it descends from, so that beams re-order without copying, and all rows of a prompt read its keys
// where they are.
#ifndef SLUICE_COMMON_MODEL_DECODE_STATE_H_
#define SLUICE_COMMON_MODEL_DECODE_STATE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/device_path.h"
#include "common/model/kernels/kernels.h"

namespace sluice {

// What lies between the matrix products of a layer, used by every layer and step anew. [rows, ...] each; rows beyond
// those of a pass hold finite numbers that nobody reads.
struct RowBuffers {
  at::Tensor normed;             // D
  at::Tensor queries, attended;  // H hd
  at::Tensor activated;          // I
};

// A row that Policy::Grow appended.
struct GrownRow {
  int64_t parent = -1;  // index among them, or -1: the prompt
  int64_t prompt = 0;
  int32_t depth = 1;  // tokens after the prompt, its own included
  int64_t slot = 0;   // on a device: its place among the prompt's appended rows
};

struct DecodeState {
  std::vector<int64_t> prompt_first;   // [B] row of each prompt's first position
  std::vector<int64_t> prompt_length;  // [B]
  int max_new_tokens = 0;

  // [layers] of [rows, 2 * kv_heads * head_dim]: keys, then values.
  std::vector<at::Tensor> prompt_cache;
  std::vector<at::Tensor> appended_cache;  // grown as needed; rows [0, appended) are in use

  int steps = 0;                   // tokens appended so far
  std::vector<int64_t> first_row;  // [B + 1]: a prompt's rows of the last step start here
  int64_t appended = 0;            // rows of appended_cache in use
  // Rows of appended_cache that each row of the last step descends from, itself last: [N, steps].
  std::vector<int64_t> ancestors;

  // Rows appended by Grow, in their order; Step leaves it empty.
  std::vector<GrownRow> grown;

  // Kept from step to step for their memory alone.
  RowBuffers buffers;
  std::vector<int64_t> next_ancestors;
  std::vector<int32_t> position;
  std::vector<QueryRow> queries;
  std::vector<AttentionGroup> groups;

  // Holds the caches instead where the policy takes the path of devices; null otherwise.
  std::unique_ptr<DeviceDecodeState> on_device;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_DECODE_STATE_H_

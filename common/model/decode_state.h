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
#include <vector>

namespace sluice {

struct DecodeState {
  std::vector<int64_t> prompt_first;   // [B] row of each prompt's first position
  std::vector<int64_t> prompt_length;  // [B]
  int max_new_tokens = 0;

  // [layers] of [rows, 2 * kv_heads * head_dim]: keys, then values.
  std::vector<at::Tensor> prompt_cache;
  std::vector<at::Tensor> appended_cache;  // grown as needed; rows [0, appended) are in use

  int steps = 0;            // tokens appended so far
  int rows_per_prompt = 0;  // of the last step
  int64_t appended = 0;     // rows of appended_cache in use
  // Rows of appended_cache that each row of the last step descends from, itself last: [N, steps].
  std::vector<int64_t> ancestors;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_DECODE_STATE_H_

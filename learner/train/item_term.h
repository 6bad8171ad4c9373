// The loss of whole items beside that of their codes, as sequential recommenders have it: a policy with item embeddings
// predicts the next item's codes one by one, and nothing else ties what a history item says to what an item is. Over
// the hidden state that predicts the first code, with the vectors that prompts are made of:
//
//   L_items = - sum_r log softmax(h_r V^T)[leaf_r]
//
// Source: the full softmax of SASRec-like models (arXiv 1808.09781 trains the same product on samples), as an auxiliary
// task. Decoding does not know of it.
#ifndef SLUICE_LEARNER_TRAIN_ITEM_TERM_H_
#define SLUICE_LEARNER_TRAIN_ITEM_TERM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace sluice::learner {

// Numbers of one block of logits, at most: 64 MiB as float32.
inline constexpr int64_t kMaxItemLogits = int64_t{1} << 24;

// Sum over rows, in nats; a scalar of the dtype of `hidden`, differentiable by `hidden` and `vectors`. Computed in
// blocks of rows of at most `max_logits` logits, each with its gradient, so that memory grows with neither rows nor
// leaves.
//   hidden: [n, D], n > 0.  vectors: [leaves, D] of the same dtype and device.  leaves: [n] int64 on that device.
at::Tensor ItemLossSum(const at::Tensor& hidden, const at::Tensor& vectors, const at::Tensor& leaves,
                       int64_t max_logits = kMaxItemLogits);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_ITEM_TERM_H_

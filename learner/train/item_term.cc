#include "learner/train/item_term.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "common/status/status.h"

namespace sluice::learner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class ItemLossFunction : public torch::autograd::Function<ItemLossFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& vectors,
                            const at::Tensor& leaves, int64_t max_logits) {
    const int64_t rows = hidden.size(0);
    const int64_t block = std::max<int64_t>(1, max_logits / vectors.size(0));
    const at::Tensor hidden_slope = at::empty_like(hidden);
    const at::Tensor vector_slope = at::zeros_like(vectors);
    at::Tensor loss = at::zeros({}, hidden.options());
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t count = std::min(block, rows - first);
      const at::Tensor some = hidden.narrow(0, first, count);
      const at::Tensor wanted = leaves.narrow(0, first, count).unsqueeze(1);
      const at::Tensor slope = at::log_softmax(at::matmul(some, vectors.t()), 1);
      loss = loss - slope.gather(1, wanted).sum();
      slope.exp_();
      slope.scatter_add_(1, wanted, at::full_like(wanted, -1, slope.options()));
      hidden_slope.narrow(0, first, count).copy_(at::matmul(slope, vectors));
      vector_slope.addmm_(slope.t(), some);
    }
    context->save_for_backward({hidden_slope, vector_slope});
    return loss;
  }

  static variable_list backward(AutogradContext* context, const variable_list& slopes) {
    const variable_list saved = context->get_saved_variables();
    return {saved[0] * slopes[0], saved[1] * slopes[0], at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor ItemLossSum(const at::Tensor& hidden, const at::Tensor& vectors, const at::Tensor& leaves,
                       int64_t max_logits) {
  SLUICE_CHECK(hidden.size(0) > 0 && hidden.size(0) == leaves.size(0), "one leaf a row, at least one");
  return ItemLossFunction::apply(hidden, vectors, leaves, max_logits);
}

}  // namespace sluice::learner

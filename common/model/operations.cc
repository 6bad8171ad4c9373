#include "common/model/operations.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "common/status/status.h"

namespace sluice {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Rows that are worth a thread's wake-up.
constexpr int64_t kRowGrain = 64;
// Sums over all rows (norm weights) are taken in a fixed number of parts, whatever the thread count.
constexpr int64_t kParts = 8;

// Calls function(part, begin, end) for each of the kParts parts of [0, rows).
template <typename PartFunction>
void ForEachPart(int64_t rows, const PartFunction& function) {
  at::parallel_for(0, kParts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      function(part, rows * part / kParts, rows * (part + 1) / kParts);
    }
  });
}

template <typename T>
T* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

// Function::apply takes an absent tensor as an absent option and not as an undefined one.
using OptionalTensor = std::optional<at::Tensor>;
OptionalTensor IfDefined(const at::Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }
at::Tensor OrUndefined(const OptionalTensor& tensor) { return tensor.value_or(at::Tensor()); }

// Fewer rows than this, and oneDNN's set-up (about 10 microseconds) is more than it saves.
constexpr int64_t kFewRows = 24;
// From here on a transposed weight is copied first.
constexpr int64_t kManyRows = 2048;

using FusedLinear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
using FusedLinearAdd = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const std::optional<at::Tensor>&, std::string_view);

bool TakesOneDnn(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && x.size(0) >= kFewRows && at::globalContext().userEnabledMkldnn() &&
         at::globalContext().hasMKLDNN();
}

at::Tensor Multiply(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                    const OptionalTensor& residual) {
  if (TakesOneDnn(x)) {
    static const auto linear =
        c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<FusedLinear>();
    static const auto linear_add =
        c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "binary").typed<FusedLinearAdd>();
    if (residual.has_value()) return linear_add.call(x, *residual, weight, bias, "add");
    return linear.call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  }
  at::Tensor y = residual.has_value() ? at::addmm(*residual, x, weight.t()) : at::mm(x, weight.t());
  if (bias.has_value()) y.add_(*bias);
  return y;
}

class LinearFunction : public Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& residual) {
    context->saved_data["bias"] = bias.has_value();
    context->saved_data["residual"] = residual.has_value();
    context->save_for_backward({x, weight});
    return Multiply(x, weight, bias, residual);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor grad = grads[0].contiguous();
    variable_list result(4);
    if (context->needs_input_grad(0)) {
      if (!TakesOneDnn(grad)) {
        result[0] = at::mm(grad, weight);
      } else {
        // oneDNN reads a transposed weight at full speed, but on many rows a contiguous copy is worth its making.
        result[0] = Multiply(grad, grad.size(0) < kManyRows ? weight.t() : weight.t().contiguous(), {}, {});
      }
    }
    if (TakesOneDnn(grad)) {
      const auto [weight_grad, no_bias] =
          at::mkldnn_linear_backward_weights(grad.to_mkldnn(), x.to_mkldnn(), weight, /*bias_defined=*/false);
      result[1] = weight_grad.to_dense();
    } else {
      result[1] = at::mm(grad.t(), x);
    }
    if (context->saved_data["bias"].toBool()) result[2] = grad.sum(0);
    if (context->saved_data["residual"].toBool()) result[3] = grad;
    return result;
  }
};

class EmbedRowsFunction : public Function<EmbedRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<TreePlan>& plan,
                            const at::Tensor& token_table, const OptionalTensor& item_option) {
    const at::Tensor item_table = OrUndefined(item_option);
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    context->saved_data["token_grad"] = token_table.grad();
    if (item_table.defined()) context->saved_data["item_grad"] = item_table.grad();
    const int64_t width = token_table.size(1);
    at::Tensor out = at::empty({plan->layout.rows, width}, token_table.options().requires_grad(false));
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "embed_rows", [&] {
      at::parallel_for(0, plan->layout.rows, kRowGrain, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().embed(plan->embedding_rows(), begin, end, width, Data<scalar_t>(token_table),
                                  Data<scalar_t>(item_table), out.data_ptr<scalar_t>());
      });
    });
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto plan = c10::static_intrusive_pointer_cast<TreePlan>(context->saved_data["plan"].toCapsule());
    at::Tensor token_grad = context->saved_data["token_grad"].toTensor();
    at::Tensor item_grad;
    if (context->saved_data.count("item_grad") > 0) item_grad = context->saved_data["item_grad"].toTensor();
    const at::Tensor grad = grads[0].contiguous();
    const int64_t width = grad.size(1);
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "embed_rows_backward", [&] {
      at::parallel_for(0, width, 32, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().embed_backward(plan->embedding_rows(), plan->layout.rows, begin, end, width,
                                           grad.data_ptr<scalar_t>(), token_grad.data_ptr<scalar_t>(),
                                           Data<scalar_t>(item_grad));
      });
    });
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    at::Tensor y = at::empty_like(x);
    at::Tensor inverse = at::empty({x.size(0)}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] {
      at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().rms_norm(begin, end, x.size(1), static_cast<scalar_t>(eps), x.data_ptr<scalar_t>(),
                                     weight.data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), inverse.data_ptr<scalar_t>());
      });
    });
    context->save_for_backward({x, weight, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor grad_x = at::empty_like(x);
    at::Tensor parts = at::zeros({kParts, x.size(1)}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm_backward", [&] {
      ForEachPart(x.size(0), [&](int64_t part, int64_t begin, int64_t end) {
        Kernels<scalar_t>().rms_norm_backward(
            begin, end, x.size(1), x.data_ptr<scalar_t>(), weight.data_ptr<scalar_t>(), inverse.data_ptr<scalar_t>(),
            grad.data_ptr<scalar_t>(), grad_x.data_ptr<scalar_t>(), parts.data_ptr<scalar_t>() + part * x.size(1));
      });
    });
    return {grad_x, parts.sum(0), at::Tensor()};
  }
};

template <typename T>
AttentionInput<T> TreeAttentionInput(const HeadShape& shape, const at::Tensor& turned, const at::Tensor& fused) {
  AttentionInput<T> input;
  input.shape = shape;
  input.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  input.queries = {turned.data_ptr<T>(), turned.size(1)};
  input.shared_keys = input.own_keys = {turned.data_ptr<T>() + shape.query_width(), turned.size(1)};
  input.shared_values =
      input.own_values = {fused.data_ptr<T>() + shape.query_width() + shape.key_width(), fused.size(1)};
  return input;
}

class AttendTreeFunction : public Function<AttendTreeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& fused,
                            const OptionalTensor& query_option, const OptionalTensor& key_option,
                            const AttentionParts& parts, bool needed_only) {
    const at::Tensor query_norm = OrUndefined(query_option), key_norm = OrUndefined(key_option);
    const HeadShape& shape = parts.shape;
    const int64_t rows = plan->layout.rows;
    const std::vector<AttentionGroup>& groups = needed_only ? plan->needed_groups : plan->groups;
    at::Tensor turned = at::empty({rows, shape.query_width() + shape.key_width()}, fused.options());
    at::Tensor out = at::empty({rows, shape.query_width()}, fused.options());
    at::Tensor log_sums = at::empty({rows, shape.heads}, fused.options());
    AT_DISPATCH_FLOATING_TYPES(fused.scalar_type(), "attend_tree", [&] {
      const auto& kernels = Kernels<scalar_t>();
      const int64_t stride = turned.size(1);
      at::parallel_for(0, rows, kRowGrain, [&](int64_t begin, int64_t end) {
        kernels.rotate(begin, end, shape, fused.data_ptr<scalar_t>(), plan->layout.position.data(),
                       Data<scalar_t>(parts.rotary.cosine), Data<scalar_t>(parts.rotary.sine),
                       static_cast<scalar_t>(parts.eps), Data<scalar_t>(query_norm), Data<scalar_t>(key_norm),
                       {turned.data_ptr<scalar_t>(), stride},
                       {turned.data_ptr<scalar_t>() + shape.query_width(), stride}, {nullptr, 0});
      });
      const AttentionInput<scalar_t> input = TreeAttentionInput<scalar_t>(shape, turned, fused);
      at::parallel_for(0, plan->layout.prompts(), 1, [&](int64_t begin, int64_t end) {
        std::vector<scalar_t> scratch(AttentionScratch(shape, plan->longest_trunk, plan->longest_branch));
        for (int64_t b = begin; b < end; ++b) {
          kernels.attend(input, groups[b], {out.data_ptr<scalar_t>(), out.size(1)}, log_sums.data_ptr<scalar_t>(),
                         scratch.data());
        }
      });
    });
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    context->saved_data["shape"] = std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim};
    context->saved_data["eps"] = parts.eps;
    context->saved_data["needed_only"] = needed_only;
    context->save_for_backward(
        {fused, query_norm, key_norm, turned, out, log_sums, parts.rotary.cosine, parts.rotary.sine});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto plan = c10::static_intrusive_pointer_cast<TreePlan>(context->saved_data["plan"].toCapsule());
    const std::vector<int64_t> sizes = context->saved_data["shape"].toIntVector();
    const HeadShape shape{sizes[0], sizes[1], sizes[2]};
    const double eps = context->saved_data["eps"].toDouble();
    const std::vector<AttentionGroup>& groups =
        context->saved_data["needed_only"].toBool() ? plan->needed_groups : plan->groups;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &fused = saved[0], &query_norm = saved[1], &key_norm = saved[2], &turned = saved[3],
                     &out = saved[4], &log_sums = saved[5], &cosine = saved[6], &sine = saved[7];
    const at::Tensor grad_out = grads[0].contiguous();
    at::Tensor grad_turned = at::zeros_like(turned);
    at::Tensor grad_fused = at::zeros_like(fused);
    at::Tensor norm_parts;
    if (query_norm.defined()) norm_parts = at::zeros({kParts, 2, shape.head_dim}, fused.options());
    AT_DISPATCH_FLOATING_TYPES(fused.scalar_type(), "attend_tree_backward", [&] {
      const auto& kernels = Kernels<scalar_t>();
      const AttentionInput<scalar_t> input = TreeAttentionInput<scalar_t>(shape, turned, fused);
      const int64_t stride = turned.size(1);
      const Strided<scalar_t> grad_queries{grad_turned.data_ptr<scalar_t>(), stride};
      const Strided<scalar_t> grad_keys{grad_turned.data_ptr<scalar_t>() + shape.query_width(), stride};
      const Strided<scalar_t> grad_values{grad_fused.data_ptr<scalar_t>() + shape.query_width() + shape.key_width(),
                                          grad_fused.size(1)};
      at::parallel_for(0, plan->layout.prompts(), 1, [&](int64_t begin, int64_t end) {
        std::vector<scalar_t> scratch(AttentionScratch(shape, plan->longest_trunk, plan->longest_branch));
        for (int64_t b = begin; b < end; ++b) {
          kernels.attend_backward(input, groups[b], {out.data_ptr<scalar_t>(), out.size(1)},
                                  log_sums.data_ptr<scalar_t>(), {grad_out.data_ptr<scalar_t>(), grad_out.size(1)},
                                  grad_queries, grad_keys, grad_values, scratch.data());
        }
      });
      ForEachPart(plan->layout.rows, [&](int64_t part, int64_t begin, int64_t end) {
        scalar_t* norms = norm_parts.defined() ? norm_parts.data_ptr<scalar_t>() + part * 2 * shape.head_dim : nullptr;
        kernels.rotate_backward(begin, end, shape, fused.data_ptr<scalar_t>(), plan->layout.position.data(),
                                cosine.data_ptr<scalar_t>(), sine.data_ptr<scalar_t>(), static_cast<scalar_t>(eps),
                                Data<scalar_t>(query_norm), Data<scalar_t>(key_norm), {grad_queries.data, stride},
                                {grad_keys.data, stride}, grad_fused.data_ptr<scalar_t>(), norms,
                                norms != nullptr ? norms + shape.head_dim : nullptr);
      });
    });
    variable_list result(6);
    result[1] = grad_fused;
    if (norm_parts.defined()) {
      const at::Tensor sums = norm_parts.sum(0);
      result[2] = sums[0];
      result[3] = sums[1];
    }
    return result;
  }
};

// Unlike index_select, whose backward pass adds row by row: every row is taken once.
class SelectNeededFunction : public Function<SelectNeededFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& x) {
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    const std::vector<int64_t>& rows = plan->needed_rows;
    const int64_t width = x.size(1);
    at::Tensor out = at::empty({static_cast<int64_t>(rows.size()), width}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "select_needed", [&] {
      const scalar_t* const from = x.const_data_ptr<scalar_t>();
      scalar_t* to = out.data_ptr<scalar_t>();
      for (const int64_t row : rows) to = std::copy_n(from + row * width, width, to);
    });
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto plan = c10::static_intrusive_pointer_cast<TreePlan>(context->saved_data["plan"].toCapsule());
    const at::Tensor grad = grads[0].contiguous();
    const int64_t width = grad.size(1);
    at::Tensor result = at::zeros({plan->layout.rows, width}, grad.options());
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "select_needed_backward", [&] {
      const scalar_t* from = grad.const_data_ptr<scalar_t>();
      scalar_t* const to = result.data_ptr<scalar_t>();
      for (const int64_t row : plan->needed_rows) {
        std::copy_n(from, width, to + row * width);
        from += width;
      }
    });
    return {at::Tensor(), result};
  }
};

class GatedSiluFunction : public Function<GatedSiluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    const int64_t width = gate_up.size(1) / 2;
    at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
    AT_DISPATCH_FLOATING_TYPES(gate_up.scalar_type(), "gated_silu", [&] {
      at::parallel_for(0, gate_up.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().gated_silu(begin, end, width, gate_up.data_ptr<scalar_t>(), out.data_ptr<scalar_t>());
      });
    });
    context->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor result = at::empty_like(gate_up);
    AT_DISPATCH_FLOATING_TYPES(gate_up.scalar_type(), "gated_silu_backward", [&] {
      at::parallel_for(0, gate_up.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
        Kernels<scalar_t>().gated_silu_backward(begin, end, gate_up.size(1) / 2, gate_up.data_ptr<scalar_t>(),
                                                grad.data_ptr<scalar_t>(), result.data_ptr<scalar_t>());
      });
    });
    return {result};
  }
};

}  // namespace

TreePlan::TreePlan(TreeLayout tree, const Trie* trie, bool item_vectors) : layout(std::move(tree)) {
  row_numbers_.resize(layout.rows);
  std::iota(row_numbers_.begin(), row_numbers_.end(), int64_t{0});
  queries.reserve(layout.rows);
  std::vector<int64_t> first_query;
  for (int64_t b = 0; b < layout.prompts(); ++b) {
    first_query.push_back(static_cast<int64_t>(queries.size()));
    longest_trunk = std::max(longest_trunk, layout.trunk_length[b]);
    for (int64_t p = 0; p < layout.trunk_length[b]; ++p) {
      queries.push_back({layout.trunk_first[b] + p, p + 1, nullptr, 0});
    }
    for (int64_t k = layout.first_branch[b]; k < layout.first_branch[b + 1]; ++k) {
      const int64_t i = layout.branch_of_prompt[k];
      longest_branch = std::max(longest_branch, layout.branch_rows[i]);
      for (int64_t t = 0; t < layout.branch_rows[i]; ++t) {
        queries.push_back({layout.branch_first[i] + t, layout.branch_anchor[i] + 1,
                           row_numbers_.data() + layout.branch_first[i], t + 1});
      }
    }
  }
  first_query.push_back(static_cast<int64_t>(queries.size()));
  for (int64_t b = 0; b < layout.prompts(); ++b) {
    groups.push_back({layout.trunk_first[b], layout.trunk_length[b], queries.data() + first_query[b],
                      first_query[b + 1] - first_query[b]});
  }

  embedding_first_.push_back(0);
  if (item_vectors) embedding_leaves_.reserve(layout.rows);
  for (const int32_t entry : layout.entry) {
    if (entry >= 0) {
      embedding_tokens_.push_back(entry);
    } else {
      SLUICE_CHECK(trie != nullptr, "a merged item without a trie");
      const absl::Span<const int32_t> tokens = trie->TokensOfLeaf(-1 - entry);
      embedding_tokens_.insert(embedding_tokens_.end(), tokens.begin(), tokens.end());
    }
    embedding_first_.push_back(static_cast<int64_t>(embedding_tokens_.size()));
    if (item_vectors) embedding_leaves_.push_back(entry >= 0 ? -1 : -1 - entry);
  }
}

void TreePlan::FindNeededRows(bool rounded) {
  std::vector<bool> needed(layout.rows, false);
  for (const int64_t row : layout.prediction_rows) needed[row] = true;
  int64_t count = std::count(needed.begin(), needed.end(), true);
  if (rounded) {
    const int64_t wanted = std::min(RoundedRows(count), layout.rows);
    for (int64_t row = 0; count < wanted; ++row) {
      if (needed[row]) continue;
      needed[row] = true;
      ++count;
    }
  }
  for (int64_t row = 0; row < layout.rows; ++row) {
    if (needed[row]) needed_rows.push_back(row);
  }
  needed_queries.reserve(needed_rows.size());  // groups point into it
  for (AttentionGroup group : groups) {
    const QueryRow* const first = needed_queries.data() + needed_queries.size();
    std::copy_if(group.queries, group.queries + group.query_count, std::back_inserter(needed_queries),
                 [&](const QueryRow& query) { return needed[query.row]; });
    group.queries = first;
    group.query_count = needed_queries.data() + needed_queries.size() - first;
    needed_groups.push_back(group);
  }
}

EmbeddingRows TreePlan::embedding_rows() const {
  return {embedding_first_.data(), embedding_tokens_.data(),
          embedding_leaves_.empty() ? nullptr : embedding_leaves_.data()};
}

at::Tensor EmbedRows(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& token_table,
                     const at::Tensor& item_table) {
  return EmbedRowsFunction::apply(plan, token_table, IfDefined(item_table));
}

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual) {
  return LinearFunction::apply(x, weight, IfDefined(bias), IfDefined(residual));
}

at::Tensor LinearWithoutGraph(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              const at::Tensor& residual) {
  return Multiply(x, weight, IfDefined(bias), IfDefined(residual));
}

at::Tensor LogSumExpRows(const at::Tensor& x) {
  const at::Tensor rows = x.contiguous();
  at::Tensor out = at::empty({rows.size(0)}, rows.options());
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "log_sum_exp_rows", [&] {
    at::parallel_for(0, rows.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      Kernels<scalar_t>().log_sum_exp(begin, end, rows.size(1), rows.data_ptr<scalar_t>(), out.data_ptr<scalar_t>());
    });
  });
  return out;
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor AttendTree(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& fused, const AttentionParts& parts,
                      bool needed_only) {
  return AttendTreeFunction::apply(plan, fused, IfDefined(parts.query_norm), IfDefined(parts.key_norm), parts,
                                   needed_only);
}

at::Tensor SelectNeeded(const c10::intrusive_ptr<TreePlan>& plan, const at::Tensor& x) {
  if (!x.device().is_cpu()) return x.index_select(0, at::tensor(plan->needed_rows).to(x.device()));
  return SelectNeededFunction::apply(plan, x);
}

at::Tensor GatedSilu(const at::Tensor& gate_up) { return GatedSiluFunction::apply(gate_up); }

at::Tensor Dropout(const at::Tensor& x, double dropout, at::Generator generator) {
  const double keep = 1 - dropout;
  at::Tensor mask = at::empty(x.sizes(), x.options().requires_grad(false));
  mask.bernoulli_(keep, std::move(generator)).div_(keep);
  return x * mask;
}

}  // namespace sluice

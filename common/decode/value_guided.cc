#include "common/decode/value_guided.h"

#include <torch/types.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/decode/logits_block.h"
#include "common/decode/step/step.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

// A node of a prompt's tree, beside what the search keeps of it.
struct TreeNode {
  int parent = -1;     // index into the prompt's nodes; -1: the root
  int64_t grown = -1;  // its row in the decode state; -1: the root
  int32_t node = Trie::kRoot;
  int32_t token = 0;
  float log_prob_full = 0;
  float log_prob_trie = 0;
  AllowedChildren children;  // none of a complete semantic ID
};

// One prompt's search and its target, which is scored along with the beam that starts the search.
struct PromptSearch {
  explicit PromptSearch(int levels, const ValueSearchOptions& options) : searcher(levels, options) {}
  ValueSearcher searcher;
  TreeNode root;
  std::vector<TreeNode> nodes;                 // as the search's result numbers them
  std::vector<std::vector<DecodeRow>> target;  // [levels done][1]
  int64_t target_grown = -1;                   // row of the target's prefix so far
};

// A row of the next pass: what it is for.
struct PassRow {
  size_t prompt = 0;
  bool wanted = false;  // by the search
  bool target = false;  // the target's prefix
  int32_t node = Trie::kRoot;
  int64_t logits = -1;  // its row among those with logits; -1: none
};

template <typename Scalar>
class ValueGuidedDecoder {
 public:
  ValueGuidedDecoder(Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts,
                     const ValueSearchOptions& options)
      : policy_(policy), trie_(trie), prompts_(prompts) {
    for (const DecodePrompt& prompt : prompts) {
      ValueSearchOptions own = options;
      own.seed = prompt.seed;
      searches_.emplace_back(trie.levels(), own);
    }
  }

  absl::StatusOr<std::vector<ValueGuidedResult>> Run() {
    std::vector<PromptInput> inputs;
    for (const DecodePrompt& prompt : prompts_) inputs.push_back(prompt.input);
    SLUICE_ASSIGN_OR_RETURN(const Policy::Prefilled prefilled, policy_.Prefill(inputs, trie_.levels()));
    for (size_t b = 0; b < prompts_.size(); ++b) {
      rows_.push_back({b, /*wanted=*/true, /*target=*/prompts_[b].target_leaf >= 0, Trie::kRoot, -1});
    }
    SLUICE_RETURN_IF_ERROR(TakeRows(prefilled.hidden));
    while (true) {
      LayOutRows();
      if (rows_.empty()) return Collect();
      SLUICE_ASSIGN_OR_RETURN(const at::Tensor hidden,
                              policy_.Grow(prefilled.state.get(), tokens_, parents_, rows_of_prompt_));
      SLUICE_RETURN_IF_ERROR(TakeRows(hidden));
    }
  }

 private:
  // The rows of the next pass: what every search wants, and the target's next token unless that is among them.
  void LayOutRows() {
    rows_.clear();
    tokens_.clear();
    parents_.clear();
    rows_of_prompt_.clear();
    for (size_t b = 0; b < searches_.size(); ++b) {
      PromptSearch& search = searches_[b];
      const size_t first = rows_.size();
      // The target's prefix in this pass, as long as it has a token to predict beyond it.
      int32_t target_node = Trie::kNone;
      const size_t scored = search.target.size();
      if (prompts_[b].target_leaf >= 0 && scored < static_cast<size_t>(trie_.levels())) {
        target_node = search.target.back()[0].node;
      }
      for (const ValueSearcher::Wanted& wanted : search.searcher.wanted()) {
        TreeNode& added = search.nodes.emplace_back();
        const TreeNode& parent = wanted.parent < 0 ? search.root : search.nodes[static_cast<size_t>(wanted.parent)];
        const std::vector<int32_t>& among = parent.children.tokens;
        const size_t place =
            static_cast<size_t>(std::lower_bound(among.begin(), among.end(), wanted.prefix.back()) - among.begin());
        added.parent = wanted.parent;
        added.token = wanted.prefix.back();
        added.node = trie_.Child(parent.node, added.token);
        added.log_prob_full = parent.children.log_probs_full[place];
        added.log_prob_trie = parent.children.log_probs_trie[place];
        added.grown = grown_ + static_cast<int64_t>(rows_.size());
        const bool is_target = added.node == target_node;
        if (is_target) search.target_grown = added.grown;
        rows_.push_back({b, true, is_target, added.node, -1});
        tokens_.push_back(added.token);
        parents_.push_back(parent.grown);
        if (is_target) target_node = Trie::kNone;
      }
      if (target_node != Trie::kNone) {
        tokens_.push_back(search.target.back()[0].token);
        parents_.push_back(search.target_grown);
        search.target_grown = grown_ + static_cast<int64_t>(rows_.size());
        rows_.push_back({b, false, true, target_node, -1});
      }
      rows_of_prompt_.push_back(static_cast<int32_t>(rows_.size() - first));
    }
  }

  // What the hidden states [rows_, D] say of the rows' prefixes.
  absl::Status TakeRows(const at::Tensor& hidden) {
    if (!rows_.empty() && grown_started_) grown_ += static_cast<int64_t>(rows_.size());
    grown_started_ = true;
    const at::Tensor values = policy_.Values(hidden).to(at::kCPU).to(at::kDouble).contiguous();
    std::vector<int64_t> with_logits;
    for (size_t r = 0; r < rows_.size(); ++r) {
      if (trie_.IsLeaf(rows_[r].node)) continue;
      rows_[r].logits = static_cast<int64_t>(with_logits.size());
      with_logits.push_back(static_cast<int64_t>(r));
    }
    std::vector<AllowedChildren> children(rows_.size());
    const int64_t rows_per_block = std::max<int64_t>(1, kLogitsPerBlock / policy_.config().vocab_size);
    for (int64_t first = 0; first < static_cast<int64_t>(with_logits.size()); first += rows_per_block) {
      const int64_t count = std::min<int64_t>(rows_per_block, static_cast<int64_t>(with_logits.size()) - first);
      const at::Tensor chosen =
          at::tensor(at::ArrayRef<int64_t>(with_logits.data() + first, static_cast<size_t>(count)));
      SLUICE_ASSIGN_OR_RETURN(const Block<Scalar> block,
                              LogitsOf<Scalar>(policy_, hidden.index_select(0, chosen.to(hidden.device()))));
      for (int64_t i = 0; i < count; ++i) {
        const size_t r = static_cast<size_t>(with_logits[static_cast<size_t>(first + i)]);
        SLUICE_RETURN_IF_ERROR(Read(block.From(i), rows_[r], &children[r]));
      }
    }
    std::vector<std::vector<PrefixView>> views(searches_.size());
    const double* value = values.const_data_ptr<double>();
    std::vector<size_t> seen(searches_.size(), 0);
    for (size_t r = 0; r < rows_.size(); ++r) {
      if (!rows_[r].wanted) continue;
      PromptSearch& search = searches_[rows_[r].prompt];
      views[rows_[r].prompt].push_back({value[r], children[r].tokens, children[r].log_probs});
      // The search's newest nodes are this pass's rows, in order; before the first pass there is the root alone.
      if (search.nodes.empty()) {
        search.root.children = std::move(children[r]);
      } else {
        const size_t wanted = search.searcher.wanted().size();
        search.nodes[search.nodes.size() - wanted + seen[rows_[r].prompt]++].children = std::move(children[r]);
      }
    }
    for (size_t b = 0; b < searches_.size(); ++b) {
      if (!views[b].empty()) SLUICE_RETURN_IF_ERROR(searches_[b].searcher.Take(std::move(views[b])));
    }
    return absl::OkStatus();
  }

  absl::Status Read(const RowLogits<Scalar>& logits, const PassRow& row, AllowedChildren* children) {
    DecodeRow at;
    at.node = row.node;
    SLUICE_RETURN_IF_ERROR(CheckVocabulary(trie_, {&at, 1}, logits.vocabulary));
    const DecodePrompt& prompt = prompts_[row.prompt];
    if (row.wanted) *children = ViewChildren(trie_, row.node, logits, 0, prompt.excluded_leaves);
    if (row.target) {
      std::vector<std::vector<DecodeRow>>& target = searches_[row.prompt].target;
      const std::vector<DecodeRow> above = target.empty() ? std::vector<DecodeRow>(1) : target.back();
      target.push_back({ForceToken(trie_, above, 0, logits, trie_.TokensOfLeaf(prompt.target_leaf)[target.size()])});
    }
    return absl::OkStatus();
  }

  std::vector<ValueGuidedResult> Collect() {
    std::vector<ValueGuidedResult> results(searches_.size());
    for (size_t b = 0; b < searches_.size(); ++b) {
      PromptSearch& search = searches_[b];
      const ValueSearchResult found = search.searcher.Finish();
      results[b].forward_tokens = found.forward_tokens;
      for (const int best : found.best) {
        Completion& completion = results[b].completions.emplace_back();
        completion.leaf = trie_.LeafOfNode(search.nodes[static_cast<size_t>(best)].node);
        for (int here = best; here >= 0; here = search.nodes[static_cast<size_t>(here)].parent) {
          const TreeNode& node = search.nodes[static_cast<size_t>(here)];
          completion.tokens.push_back(node.token);
          completion.log_probs_full.push_back(node.log_prob_full);
          completion.log_probs_trie.push_back(node.log_prob_trie);
        }
        std::reverse(completion.tokens.begin(), completion.tokens.end());
        std::reverse(completion.log_probs_full.begin(), completion.log_probs_full.end());
        std::reverse(completion.log_probs_trie.begin(), completion.log_probs_trie.end());
        results[b].values.push_back(found.nodes[static_cast<size_t>(best)].value);
      }
      if (!search.target.empty()) results[b].target = TraceCompletion(trie_, search.target, 0);
    }
    return results;
  }

  Policy& policy_;
  const Trie& trie_;
  const absl::Span<const DecodePrompt> prompts_;
  std::vector<PromptSearch> searches_;  // [B]
  std::vector<PassRow> rows_;           // of the pass in work
  std::vector<int32_t> tokens_;
  std::vector<int64_t> parents_;
  std::vector<int32_t> rows_of_prompt_;
  int64_t grown_ = 0;  // rows that passes before this one appended
  bool grown_started_ = false;
};

}  // namespace

absl::StatusOr<std::vector<ValueGuidedResult>> DecodeByValue(Policy& policy, const Trie& trie,
                                                             absl::Span<const DecodePrompt> prompts,
                                                             const ValueSearchOptions& options) {
  if (!policy.has_value_head()) {
    return absl::FailedPreconditionError("decoding by value needs a policy with a value head, and this one has none");
  }
  if (prompts.empty()) return absl::InvalidArgumentError("want at least one prompt to decode, got none");
  SLUICE_RETURN_IF_ERROR(options.Validate(trie.levels()));
  for (size_t b = 0; b < prompts.size(); ++b) SLUICE_RETURN_IF_ERROR(CheckPrompt(trie, prompts[b], b));
  return CatchTorch("decoding by value", [&]() -> absl::StatusOr<std::vector<ValueGuidedResult>> {
    const c10::InferenceMode inference;
    if (policy.parameters().scalar_type() == at::kDouble) {
      return ValueGuidedDecoder<double>(policy, trie, prompts, options).Run();
    }
    return ValueGuidedDecoder<float>(policy, trie, prompts, options).Run();
  });
}

}  // namespace sluice

#include "common/decode/device_decode.h"

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/decode/step/step.h"
#include "common/model/trie_tables.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/tensor/device.h"

namespace sluice {
namespace {

// Logits and candidates are made for as many whole prompts at a time as have at most this many of either.
constexpr int64_t kNumbersPerChunk = int64_t{1} << 25;
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

enum class LaneKind { kBeams, kSamples, kUnconstrained, kTarget };

// Rows of one lane at one level, every prompt with the same number W of them. Where rows have an order, it is that of
// their tokens, until the last level puts the best first: then candidates laid out row by row, child by child, are in
// the order of their tokens as well, and a stable sort by score breaks ties as the processor's path does.
struct Rows {
  at::Tensor node;     // [b, W] int64; kNone: off the trie
  at::Tensor parent;   // [b, W] int64, among the lane's rows of the level above
  at::Tensor token;    // [b, W] int64
  at::Tensor alive;    // [b, W] bool
  at::Tensor score;    // [b, W] double, as DecodeRow's
  at::Tensor full;     // [b, W] double, of the token alone over the vocabulary
  at::Tensor in_trie;  // [b, W] double, over the legal children
};

// What every lane of a chunk of prompts chooses from.
struct Candidates {
  at::Tensor logits;  // [b, W, V]
  at::Tensor normal;  // [b, W] double: log of the sum over the vocabulary
};

// Legal children of rows, and what the policy says of them.
struct LegalChildren {
  ChildTable children;  // [b, W, F]
  at::Tensor logits;    // [b, W, F] double; kImpossible where there is no child
  at::Tensor normal;    // [b, W] double: log of the sum over them
};

LegalChildren LegalOf(const TrieTables& tables, const Candidates& from, const at::Tensor& nodes, int64_t fanout) {
  LegalChildren legal;
  legal.children = tables.ChildrenOf(nodes, fanout);
  legal.logits = from.logits.gather(2, legal.children.tokens)
                     .to(at::kDouble)
                     .masked_fill(legal.children.valid.logical_not(), kImpossible);
  legal.normal = legal.logits.logsumexp(2);
  return legal;
}

// x [b, n, k], index [b, m] into n * k -> [b, m].
at::Tensor Pick(const at::Tensor& x, const at::Tensor& index) { return x.flatten(1).gather(1, index); }

// Candidates' places by descending score, equal ones in their order; sorted by place again unless it is the last level.
at::Tensor BestPlaces(const at::Tensor& scores, int64_t width, bool last) {
  const at::Tensor best =
      std::get<1>(scores.sort(/*stable=*/true, 1, /*descending=*/true)).narrow(1, 0, std::min(width, scores.size(1)));
  return last ? best : std::get<0>(best.sort(1));
}

class DeviceDecoder {
 public:
  DeviceDecoder(Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts, const DecodePlan& plan)
      : policy_(policy),
        trie_(trie),
        prompts_(prompts),
        plan_(plan),
        device_(policy.parameters().device()),
        batch_(static_cast<int64_t>(prompts.size())) {
    AddLane(LaneKind::kBeams, plan.beams);
    AddLane(LaneKind::kSamples, plan.samples);
    AddLane(LaneKind::kUnconstrained, plan.unconstrained_beams);
    const bool any_target =
        std::any_of(prompts.begin(), prompts.end(), [](const DecodePrompt& prompt) { return prompt.target_leaf >= 0; });
    AddLane(LaneKind::kTarget, any_target ? 1 : 0);
  }

  absl::StatusOr<std::vector<DecodeResult>> Run() {
    if (lanes_.empty()) return absl::InvalidArgumentError("want beams, samples or targets to decode, got none");
    tables_ = policy_.TablesOf(trie_);
    if (tables_->largest_token() >= policy_.config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("the catalog has token ", tables_->largest_token(), ", but the policy's vocabulary holds ",
                       policy_.config().vocab_size, " tokens: they do not belong together"));
    }
    UploadPlan();
    std::vector<PromptInput> inputs;
    for (const DecodePrompt& prompt : prompts_) inputs.push_back(prompt.input);
    SLUICE_ASSIGN_OR_RETURN(const Policy::Prefilled prefilled, policy_.Prefill(inputs, trie_.levels() - 1));
    Advance(prefilled.hidden, 0);
    for (int level = 1; level < trie_.levels(); ++level) {
      std::vector<at::Tensor> tokens, parents;
      int64_t rows = 0;
      for (Lane& lane : lanes_) {
        const Rows& last = lane.levels.back();
        tokens.push_back(last.token);
        parents.push_back(last.parent + (lane.first_row + first_of_prompt_));
        lane.first_row = rows;
        rows += last.token.size(1);
      }
      const at::Tensor token = at::cat(tokens, 1).flatten(), parent = at::cat(parents, 1).flatten();
      SLUICE_ASSIGN_OR_RETURN(const at::Tensor hidden,
                              policy_.StepOnDevice(prefilled.state.get(), token, parent, static_cast<int>(rows)));
      first_of_prompt_ = at::arange(batch_, token.options()).mul(rows).unsqueeze(1);
      Advance(hidden, level);
    }
    return Collect();
  }

 private:
  struct Lane {
    LaneKind kind;
    int64_t width;
    std::vector<Rows> levels;
    int64_t first_row = 0;  // of the lane, among a prompt's rows of the last step
  };

  void AddLane(LaneKind kind, int width) {
    if (width > 0) lanes_.push_back({kind, width, {}});
  }

  void UploadPlan() {
    first_of_prompt_ = at::zeros({1, 1}, at::TensorOptions().dtype(at::kLong).device(device_));
    size_t longest = 0;
    for (const DecodePrompt& prompt : prompts_) longest = std::max(longest, prompt.excluded_leaves.size());
    if (longest > 0) {
      std::vector<int64_t> excluded;
      for (size_t b = 0; b < prompts_.size(); ++b) {
        excluded.insert(excluded.end(), prompts_[b].excluded_leaves.begin(), prompts_[b].excluded_leaves.end());
        excluded.resize((b + 1) * longest, trie_.num_leaves());
      }
      excluded_ = Upload(excluded, device_).view({batch_, static_cast<int64_t>(longest)});
    }
    const size_t levels = static_cast<size_t>(trie_.levels());
    for (const Lane& lane : lanes_) {
      if (lane.kind == LaneKind::kSamples) {
        // A stream a sample, as on the processor.
        std::vector<double> draws;
        for (const DecodePrompt& prompt : prompts_) {
          for (int i = 0; i < plan_.samples; ++i) {
            Random random(prompt.seed, static_cast<uint64_t>(i));
            for (size_t level = 0; level < levels; ++level) draws.push_back(random.Uniform());
          }
        }
        draws_ = Upload(draws, device_).view({batch_, lane.width, trie_.levels()});
      } else if (lane.kind == LaneKind::kTarget) {
        std::vector<int64_t> tokens, nodes, given;
        for (const DecodePrompt& prompt : prompts_) {
          int32_t node = Trie::kRoot;
          given.push_back(prompt.target_leaf >= 0);
          for (const int32_t token : trie_.TokensOfLeaf(std::max(prompt.target_leaf, 0))) {
            node = trie_.Child(node, token);
            tokens.push_back(token);
            nodes.push_back(node);
          }
        }
        target_tokens_ = Upload(tokens, device_).view({batch_, trie_.levels()});
        target_nodes_ = Upload(nodes, device_).view({batch_, trie_.levels()});
        target_given_ = Upload(given, device_).view({batch_, 1}).ne(0);
      }
    }
  }

  // Decides the rows of the next level from the hidden states of this one's, [B * rows of a prompt, D].
  void Advance(const at::Tensor& hidden, int level) {
    const int64_t rows = hidden.size(0) / batch_;
    const int64_t numbers = rows * std::max<int64_t>(policy_.config().vocab_size, trie_.max_fanout(level));
    const int64_t prompts = std::clamp<int64_t>(kNumbersPerChunk / numbers, 1, batch_);
    std::vector<std::vector<Rows>> chunks(lanes_.size());
    for (int64_t first = 0; first < batch_; first += prompts) {
      const int64_t count = std::min(prompts, batch_ - first);
      const at::Tensor logits = policy_.Logits(hidden.narrow(0, first * rows, count * rows));
      const at::Tensor normal = logits.logsumexp(1);
      const at::Tensor finite = normal.isfinite().all();
      finite_ = finite_.defined() ? finite_.logical_and(finite) : finite;
      const at::Tensor by_prompt = logits.view({count, rows, logits.size(1)});
      const at::Tensor normal_by_prompt = normal.to(at::kDouble).view({count, rows});
      for (size_t l = 0; l < lanes_.size(); ++l) {
        const Lane& lane = lanes_[l];
        const Rows above = RowsAbove(lane, first, count);
        const int64_t width = above.node.size(1);
        const Candidates from = {by_prompt.narrow(1, lane.first_row, width),
                                 normal_by_prompt.narrow(1, lane.first_row, width)};
        chunks[l].push_back(AdvanceLane(lane, from, above, first, level));
      }
    }
    for (size_t l = 0; l < lanes_.size(); ++l) lanes_[l].levels.push_back(Joined(chunks[l]));
  }

  // The lane's last rows of some prompts; before the first level one row at the root.
  Rows RowsAbove(const Lane& lane, int64_t first, int64_t count) const {
    if (lane.levels.empty()) {
      Rows start;
      start.node = at::full({count, 1}, Trie::kRoot, at::TensorOptions().dtype(at::kLong).device(device_));
      start.alive = at::ones({count, 1}, start.node.options().dtype(at::kBool));
      start.score = at::zeros({count, 1}, start.node.options().dtype(at::kDouble));
      return start;
    }
    const Rows& last = lane.levels.back();
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, count); };
    return {part(last.node),  part(last.parent), part(last.token),  part(last.alive),
            part(last.score), part(last.full),   part(last.in_trie)};
  }

  static Rows Joined(const std::vector<Rows>& chunks) {
    if (chunks.size() == 1) return chunks[0];
    const auto join = [&](at::Tensor Rows::*field) {
      std::vector<at::Tensor> parts;
      for (const Rows& chunk : chunks) parts.push_back(chunk.*field);
      return at::cat(parts);
    };
    return {join(&Rows::node),  join(&Rows::parent), join(&Rows::token),  join(&Rows::alive),
            join(&Rows::score), join(&Rows::full),   join(&Rows::in_trie)};
  }

  Rows AdvanceLane(const Lane& lane, const Candidates& from, const Rows& above, int64_t first, int level) const {
    switch (lane.kind) {
      case LaneKind::kBeams:
        return ExpandBeams(from, above, first, level);
      case LaneKind::kSamples:
        return DrawChildren(from, above, first, level);
      case LaneKind::kUnconstrained:
        return ExpandUnconstrained(from, above, level);
      case LaneKind::kTarget:
        break;
    }
    return FollowTargets(from, above, first, level);
  }

  // Children that exist and lead to a leaf that is not excluded, under rows that live. [b, W, F]
  at::Tensor Allowed(const LegalChildren& legal, const Rows& above, int64_t first) const {
    at::Tensor allowed = legal.children.valid.logical_and(above.alive.unsqueeze(2));
    if (!excluded_.defined()) return allowed;
    const at::Tensor excluded = excluded_.narrow(0, first, above.node.size(0)).contiguous();
    return allowed.logical_and(tables_->HasAllowedLeaf(legal.children.nodes, excluded));
  }

  // As ExpandBeams in step.h.
  Rows ExpandBeams(const Candidates& from, const Rows& above, int64_t first, int level) const {
    const int64_t fanout = trie_.max_fanout(level);
    const LegalChildren legal = LegalOf(*tables_, from, above.node, fanout);
    const at::Tensor& normal = plan_.beam_space == LogProbSpace::kFull ? from.normal : legal.normal;
    const at::Tensor scores = ((above.score - normal).unsqueeze(2) + legal.logits)
                                  .masked_fill(Allowed(legal, above, first).logical_not(), kImpossible)
                                  .flatten(1);
    const at::Tensor places = BestPlaces(scores, plan_.beams, level + 1 == trie_.levels());
    const at::Tensor logits = Pick(legal.logits, places);
    Rows rows;
    rows.parent = at::floor_divide(places, fanout);
    rows.node = Pick(legal.children.nodes, places);
    rows.token = Pick(legal.children.tokens, places);
    rows.score = scores.gather(1, places);
    rows.alive = rows.score.gt(kImpossible);
    rows.full = logits - from.normal.gather(1, rows.parent);
    rows.in_trie = logits - legal.normal.gather(1, rows.parent);
    return rows;
  }

  // As DrawChild in step.h, for every sample.
  Rows DrawChildren(const Candidates& from, const Rows& above, int64_t first, int level) const {
    const int64_t count = above.node.size(0), samples = plan_.samples;
    const int64_t fanout = trie_.max_fanout(level);
    const LegalChildren legal = LegalOf(*tables_, from, above.node, fanout);
    const at::Tensor allowed = Allowed(legal, above, first);
    const at::Tensor logits = legal.logits.masked_fill(allowed.logical_not(), kImpossible);
    // Without an allowed child the highest is infinite and the weights are no numbers, which the mask replaces.
    const at::Tensor weights =
        ((logits - logits.amax(2, /*keepdim=*/true)) / plan_.temperature).exp().masked_fill(allowed.logical_not(), 0);
    const at::Tensor running = weights.cumsum(2);
    // The first child with which the running sum exceeds the draw's share; rounding may leave that past the end, then
    // the last that can be drawn at all.
    const at::Tensor bound = draws_.narrow(0, first, count).select(2, level) * running.select(2, fanout - 1);
    const at::Tensor numbers = at::arange(fanout, above.node.options());
    const at::Tensor last = weights.gt(0).to(at::kLong).mul(numbers).amax(2);
    const at::Tensor child = at::minimum(running.le(bound.unsqueeze(2)).sum(2), last).unsqueeze(2);  // [b, n, 1]
    const auto drawn = [&](const at::Tensor& x) {
      return x.expand({count, samples, fanout}).gather(2, child).squeeze(2);
    };
    Rows rows;
    rows.parent = (level == 0 ? at::zeros({1}, numbers.options()) : at::arange(samples, numbers.options()))
                      .expand({count, samples});
    rows.node = drawn(legal.children.nodes);
    rows.token = drawn(legal.children.tokens);
    rows.alive = allowed.any(2).expand({count, samples});
    const at::Tensor logit = drawn(legal.logits);
    rows.full = logit - from.normal;
    rows.in_trie = logit - legal.normal;
    rows.score = above.score + rows.full;
    return rows;
  }

  // As ExpandUnconstrained in step.h.
  Rows ExpandUnconstrained(const Candidates& from, const Rows& above, int level) const {
    const int64_t vocabulary = from.logits.size(2);
    const at::Tensor scores = ((above.score - from.normal).unsqueeze(2) + from.logits.to(at::kDouble))
                                  .masked_fill(above.alive.logical_not().unsqueeze(2), kImpossible)
                                  .flatten(1);
    const at::Tensor places = BestPlaces(scores, plan_.unconstrained_beams, level + 1 == trie_.levels());
    const at::Tensor logits = Pick(from.logits, places).to(at::kDouble);
    Rows rows;
    rows.parent = at::floor_divide(places, vocabulary);
    rows.token = places - rows.parent * vocabulary;
    rows.score = scores.gather(1, places);
    rows.alive = rows.score.gt(kImpossible);
    rows.full = logits - from.normal.gather(1, rows.parent);
    // Where the tokens lead in the trie, if they are legal so far.
    const LegalChildren legal = LegalOf(*tables_, from, above.node, trie_.max_fanout(level));
    const auto of_parent = [&](const at::Tensor& x) {
      return x.gather(1, rows.parent.unsqueeze(2).expand({x.size(0), rows.parent.size(1), x.size(2)}));
    };
    const at::Tensor match =
        of_parent(legal.children.valid).logical_and(of_parent(legal.children.tokens).eq(rows.token.unsqueeze(2)));
    const at::Tensor found = match.any(2);
    // At most one child matches.
    rows.node = of_parent(legal.children.nodes).mul(match).sum(2).masked_fill(found.logical_not(), Trie::kNone);
    rows.in_trie = (logits - legal.normal.gather(1, rows.parent)).masked_fill(found.logical_not(), 0);
    return rows;
  }

  Rows FollowTargets(const Candidates& from, const Rows& above, int64_t first, int level) const {
    const int64_t count = above.node.size(0);
    const LegalChildren legal = LegalOf(*tables_, from, above.node, trie_.max_fanout(level));
    Rows rows;
    rows.token = target_tokens_.narrow(0, first, count).narrow(1, level, 1);
    rows.node = target_nodes_.narrow(0, first, count).narrow(1, level, 1);
    rows.alive = target_given_.narrow(0, first, count);
    rows.parent = at::zeros_like(rows.token);
    const at::Tensor logit = from.logits.gather(2, rows.token.unsqueeze(2)).squeeze(2).to(at::kDouble);
    rows.full = logit - from.normal;
    rows.in_trie = logit - legal.normal;
    rows.score = above.score + rows.full;
    return rows;
  }

  // The one read: everything that was chosen, as doubles, which hold each value exactly.
  absl::StatusOr<std::vector<DecodeResult>> Collect() const {
    std::vector<at::Tensor> parts = {finite_.to(at::kDouble).view({1})};
    for (const Lane& lane : lanes_) {
      for (const Rows& rows : lane.levels) {
        for (const at::Tensor& x : {rows.node, rows.parent, rows.token, rows.alive, rows.full, rows.in_trie}) {
          parts.push_back(x.to(at::kDouble).flatten());
        }
      }
    }
    const at::Tensor host = at::cat(parts).to(at::kCPU);
    const double* next = host.const_data_ptr<double>();
    if (*next++ == 0) {
      return absl::DataLossError("the policy's logits are not finite: its weights are damaged or have diverged");
    }
    std::vector<DecodeResult> results(prompts_.size());
    for (const Lane& lane : lanes_) {
      std::vector<std::vector<std::vector<DecodeRow>>> levels(prompts_.size());  // [B][levels][rows]
      std::vector<std::vector<bool>> alive(prompts_.size());                     // of the last level
      for (const Rows& rows : lane.levels) {
        const size_t width = static_cast<size_t>(rows.node.size(1)), count = prompts_.size() * width;
        for (size_t b = 0; b < prompts_.size(); ++b) {
          std::vector<DecodeRow> decoded(width);
          alive[b].assign(width, false);
          for (size_t w = 0; w < width; ++w) {
            const double* const at = next + b * width + w;
            decoded[w].node = static_cast<int32_t>(at[0]);
            decoded[w].parent = static_cast<int32_t>(at[count]);
            decoded[w].token = static_cast<int32_t>(at[2 * count]);
            alive[b][w] = at[3 * count] != 0;
            decoded[w].log_prob_full = static_cast<float>(at[4 * count]);
            decoded[w].log_prob_trie = static_cast<float>(at[5 * count]);
          }
          levels[b].push_back(std::move(decoded));
        }
        next += 6 * count;
      }
      for (size_t b = 0; b < prompts_.size(); ++b) {
        std::vector<Completion> completions;
        for (size_t row = 0; row < alive[b].size(); ++row) {
          if (alive[b][row]) completions.push_back(TraceCompletion(trie_, levels[b], static_cast<int32_t>(row)));
        }
        Give(lane.kind, std::move(completions), &results[b]);
      }
    }
    return results;
  }

  static void Give(LaneKind kind, std::vector<Completion> completions, DecodeResult* result) {
    switch (kind) {
      case LaneKind::kBeams:
        result->beams = std::move(completions);
        break;
      case LaneKind::kSamples:
        result->samples = std::move(completions);
        break;
      case LaneKind::kUnconstrained:
        result->unconstrained = std::move(completions);
        break;
      case LaneKind::kTarget:
        if (!completions.empty()) result->target = std::move(completions[0]);
        break;
    }
  }

  Policy& policy_;
  const Trie& trie_;
  const absl::Span<const DecodePrompt> prompts_;
  const DecodePlan& plan_;
  const at::Device device_;
  const int64_t batch_;
  std::shared_ptr<const TrieTables> tables_;
  std::vector<Lane> lanes_;
  at::Tensor first_of_prompt_;  // [B, 1]: rows of the last step before each prompt's
  at::Tensor excluded_;         // [B, E], ascending, padded with the number of leaves; undefined: none
  at::Tensor draws_;            // [B, samples, L]
  at::Tensor target_tokens_;    // [B, L]
  at::Tensor target_nodes_;     // [B, L], after each token
  at::Tensor target_given_;     // [B, 1]
  at::Tensor finite_;           // [] whether all normalisers were
};

}  // namespace

absl::StatusOr<std::vector<DecodeResult>> DecodeOnDevice(Policy& policy, const Trie& trie,
                                                         absl::Span<const DecodePrompt> prompts,
                                                         const DecodePlan& plan) {
  return DeviceDecoder(policy, trie, prompts, plan).Run();
}

}  // namespace sluice

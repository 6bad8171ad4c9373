#include "learner/objective/advantages.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "common/status/status.h"

namespace sluice::learner {

GroupAdvantages ZScoreAdvantages(absl::Span<const double> rewards, double negative_weight, double epsilon) {
  GroupAdvantages result;
  result.values.assign(rewards.size(), 0.0);
  if (rewards.empty()) {
    result.zero_variance = true;
    return result;
  }
  for (const double reward : rewards) result.mean += reward;
  result.mean /= static_cast<double>(rewards.size());
  // Compared exactly: rounding of the mean must not turn equal rewards into
  // tiny advantages.
  const auto [least, most] = std::minmax_element(rewards.begin(), rewards.end());
  if (*least == *most) {
    result.zero_variance = true;
    return result;
  }
  double squares = 0;
  for (const double reward : rewards) squares += (reward - result.mean) * (reward - result.mean);
  result.deviation = std::sqrt(squares / static_cast<double>(rewards.size() - 1));
  for (size_t i = 0; i < rewards.size(); ++i) {
    const double advantage = (rewards[i] - result.mean) / (result.deviation + epsilon);
    result.values[i] = advantage < 0 ? advantage * negative_weight : advantage;
  }
  return result;
}

void BoundByTarget(absl::Span<const double> rewards, double target_reward, absl::Span<double> advantages) {
  SLUICE_CHECK(rewards.size() == advantages.size(), "one reward an advantage");
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (advantages[i] > 0 && rewards[i] < target_reward) advantages[i] = 0;
  }
}

void WeighNegativesByWindow(absl::Span<const double> ranks, double window_rank, double temperature, double threshold,
                            absl::Span<double> advantages) {
  SLUICE_CHECK(ranks.size() == advantages.size(), "one rank an advantage");
  std::vector<double> weights(ranks.size(), 0);
  double sum = 0, negatives = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (advantages[i] >= 0) continue;
    weights[i] = std::min(1.0, std::exp((-std::abs(ranks[i] - window_rank) - threshold) / temperature));
    sum += weights[i];
    ++negatives;
  }
  if (sum == 0) return;  // no negatives, or all too far from the window for a double
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (advantages[i] < 0) advantages[i] *= weights[i] * negatives / sum;
  }
}

std::vector<double> RecastAdvantages(absl::Span<const int> shared_prefixes, int levels,
                                     absl::Span<const double> ranks) {
  SLUICE_CHECK(shared_prefixes.size() == ranks.size(), "one rank a member");
  std::vector<double> advantages(ranks.size(), 0.0);
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t hit = kNone, miss = kNone;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (shared_prefixes[i] == levels) {
      if (hit == kNone || ranks[i] < ranks[hit]) hit = i;
    } else if (miss == kNone || shared_prefixes[i] > shared_prefixes[miss] ||
               (shared_prefixes[i] == shared_prefixes[miss] && ranks[i] < ranks[miss])) {
      miss = i;
    }
  }
  if (hit == kNone || miss == kNone) return advantages;
  advantages[hit] = 1;
  advantages[miss] = -1;
  return advantages;
}

size_t LeastSimilar(absl::Span<const int> shared_prefixes, absl::Span<const double> ranks) {
  SLUICE_CHECK(!ranks.empty() && shared_prefixes.size() == ranks.size(), "one rank a member, and at least one");
  size_t chosen = 0;
  for (size_t i = 1; i < ranks.size(); ++i) {
    if (shared_prefixes[i] < shared_prefixes[chosen] ||
        (shared_prefixes[i] == shared_prefixes[chosen] && ranks[i] > ranks[chosen])) {
      chosen = i;
    }
  }
  return chosen;
}

std::vector<std::vector<double>> SiblingAdvantages(const std::vector<absl::Span<const int32_t>>& tokens,
                                                   absl::Span<const double> rewards, SiblingMean mean, double epsilon) {
  SLUICE_CHECK(tokens.size() == rewards.size(), "one reward a member");
  struct Node {
    double reward_sum = 0;
    double members = 0;
    double advantage = 0;
  };
  const size_t group_size = tokens.size();
  const size_t levels = group_size == 0 ? 0 : tokens[0].size();
  std::vector<std::vector<double>> weights(group_size, std::vector<double>(levels, 0.0));
  double active = 0;
  for (size_t level = 0; level < levels; ++level) {
    // Children by token, by parent prefix: ordered maps, so that sums do not depend on a hash.
    std::map<std::vector<int32_t>, std::map<int32_t, Node>> parents;
    const auto children_of = [&](size_t i) -> std::map<int32_t, Node>& {
      return parents[{tokens[i].begin(), tokens[i].begin() + static_cast<std::ptrdiff_t>(level)}];
    };
    for (size_t i = 0; i < group_size; ++i) {
      Node& node = children_of(i)[tokens[i][level]];
      node.reward_sum += rewards[i];
      ++node.members;
    }
    for (auto& [prefix, children] : parents) {
      std::vector<double> means;
      for (const auto& [token, node] : children) means.push_back(node.reward_sum / node.members);
      const auto [least, most] = std::minmax_element(means.begin(), means.end());
      if (*least == *most) continue;  // one child, or nothing to tell them apart by
      const double count = static_cast<double>(means.size());
      double centre = 0, squares = 0;
      for (const double value : means) centre += value / count;
      for (const double value : means) squares += (value - centre) * (value - centre);
      const double deviation = std::sqrt(squares / count);
      for (auto& [token, node] : children) {
        node.advantage = (node.reward_sum / node.members - centre) / (deviation + epsilon);
      }
    }
    for (size_t i = 0; i < group_size; ++i) {
      const Node& node = children_of(i)[tokens[i][level]];
      if (node.advantage != 0) ++active;
      weights[i][level] = mean == SiblingMean::kPerNode ? node.advantage / node.members : node.advantage;
    }
  }
  const double divisor = mean == SiblingMean::kPerActiveToken ? active : static_cast<double>(group_size);
  if (divisor == 0) return weights;
  for (std::vector<double>& member : weights) {
    for (double& weight : member) weight /= divisor;
  }
  return weights;
}

}  // namespace sluice::learner

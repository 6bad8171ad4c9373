#include "actor/rollout/dynamic_sampling.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

namespace sluice::actor {

int DynamicDraws(int group_size) { return group_size + (group_size + 1) / 2; }

std::vector<Completion> SelectDynamic(std::vector<Completion> drawn, int32_t target_leaf, int group_size) {
  // Copies of each leaf, in the order of its first draw.
  std::vector<std::vector<size_t>> copies;
  std::map<int32_t, size_t> place;
  std::vector<size_t> chosen;
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (target_leaf >= 0 && drawn[i].leaf == target_leaf) {
      chosen.push_back(i);
      continue;
    }
    const auto [found, is_new] = place.try_emplace(drawn[i].leaf, copies.size());
    if (is_new) copies.emplace_back();
    copies[found->second].push_back(i);
  }
  std::stable_sort(copies.begin(), copies.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  const size_t most = copies.empty() ? 0 : copies[0].size();
  for (size_t round = 0; round < most; ++round) {
    for (const std::vector<size_t>& of_leaf : copies) {
      if (round < of_leaf.size()) chosen.push_back(of_leaf[round]);
    }
  }
  if (chosen.size() > static_cast<size_t>(group_size)) chosen.resize(static_cast<size_t>(group_size));
  std::vector<Completion> kept;
  for (const size_t i : chosen) kept.push_back(std::move(drawn[i]));
  return kept;
}

}  // namespace sluice::actor

// How fast the trie is built, walked and asked, at the size of Beauty (12 k items) and of large catalogs.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/random/random.h"

namespace sluice {
namespace {

constexpr int kLevels = 4;
constexpr int kCodes = 256;

std::vector<int32_t> RandomItems(int64_t items) {
  const SidVocabulary vocabulary{kLevels, kCodes};
  Random random(1);
  std::vector<int32_t> tokens;
  tokens.reserve(static_cast<size_t>(items) * kLevels);
  for (int64_t item = 0; item < items; ++item) {
    for (int level = 0; level < kLevels; ++level) {
      tokens.push_back(vocabulary.Token(level, static_cast<int32_t>(random.Below(kCodes))));
    }
  }
  return tokens;
}

void BM_TrieBuild(benchmark::State& state) {
  const std::vector<int32_t> tokens = RandomItems(state.range(0));
  int64_t bytes = 0;
  for (auto _ : state) bytes = Trie::Build(kLevels, tokens)->memory_bytes();
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["bytes_an_item"] = static_cast<double>(bytes) / static_cast<double>(state.range(0));
}
BENCHMARK(BM_TrieBuild)->Arg(12101)->Arg(1000000)->Arg(10000000)->Unit(benchmark::kMillisecond);

void BM_TrieFindLeaf(benchmark::State& state) {
  const std::vector<int32_t> tokens = RandomItems(state.range(0));
  const Trie trie = Trie::Build(kLevels, tokens).value();
  Random random(2);
  for (auto _ : state) {
    const uint64_t item = random.Below(static_cast<uint64_t>(state.range(0)));
    benchmark::DoNotOptimize(trie.FindLeaf(absl::MakeSpan(tokens).subspan(item * kLevels, kLevels)));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_TrieFindLeaf)->Arg(12101)->Arg(1000000)->Arg(10000000);

// What a beam does at each step: read the legal continuations of a node.
void BM_TrieChildrenOfRandomWalk(benchmark::State& state) {
  const Trie trie = Trie::Build(kLevels, RandomItems(state.range(0))).value();
  Random random(3);
  int64_t read = 0;
  for (auto _ : state) {
    int32_t node = Trie::kRoot;
    while (!trie.IsLeaf(node)) {
      const Trie::Children children = trie.ChildrenOf(node);
      node = children.first_node + static_cast<int32_t>(random.Below(children.tokens.size()));
      read += static_cast<int64_t>(children.tokens.size());
    }
    benchmark::DoNotOptimize(node);
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["children_read"] = benchmark::Counter(static_cast<double>(read), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_TrieChildrenOfRandomWalk)->Arg(12101)->Arg(1000000);

}  // namespace
}  // namespace sluice

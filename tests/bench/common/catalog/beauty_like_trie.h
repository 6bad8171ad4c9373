// A catalog of Beauty's shape without its data: 12,101 items on 4 levels of 256 codes.
#ifndef SLUICE_TESTS_BENCH_COMMON_CATALOG_BEAUTY_LIKE_TRIE_H_
#define SLUICE_TESTS_BENCH_COMMON_CATALOG_BEAUTY_LIKE_TRIE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/random/random.h"

namespace sluice {

inline constexpr SidVocabulary kBeautyVocabulary{4, 256};
inline constexpr int32_t kBeautyItems = 12101;

// First codes are drawn unevenly and later ones follow from few, as residual quantisation makes them.
inline std::shared_ptr<const Trie> BeautyLikeTrie() {
  Random random(1);
  std::vector<int32_t> tokens;
  for (int32_t item = 0; item < kBeautyItems; ++item) {
    const int32_t first = static_cast<int32_t>(256 * random.Uniform() * random.Uniform());
    const int32_t second = static_cast<int32_t>((first * 7 + random.Below(40)) % 256);
    const int32_t codes[] = {first, second, static_cast<int32_t>(random.Below(256)),
                             static_cast<int32_t>(random.Below(4))};
    for (int level = 0; level < 4; ++level) tokens.push_back(kBeautyVocabulary.Token(level, codes[level]));
  }
  return std::make_shared<const Trie>(*Trie::Build(4, tokens));
}

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_COMMON_CATALOG_BEAUTY_LIKE_TRIE_H_

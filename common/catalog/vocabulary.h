// Token ids of semantic IDs: specials, then one token a level and code. They are the whole vocabulary of a SID-native
// policy, and the end of that of a language model that they were added to.
#ifndef SLUICE_COMMON_CATALOG_VOCABULARY_H_
#define SLUICE_COMMON_CATALOG_VOCABULARY_H_

#include <cstdint>

namespace sluice {

// token = first + kFirstCodeToken + level * codes + code.
struct SidVocabulary {
  // Counted from `first`.
  static constexpr int32_t kPad = 0;
  static constexpr int32_t kBegin = 1;          // first position of a prompt
  static constexpr int32_t kBeginReversed = 2;  // first position of a sequence trained backwards
  static constexpr int32_t kFirstCodeToken = 3;

  int levels = 0;
  int codes = 0;  // of every level; a level that uses fewer leaves the rest unused

  int32_t first = 0;  // the tokens below it are of text

  int32_t Token(int level, int32_t code) const { return first + kFirstCodeToken + level * codes + code; }
  // Tokens that a model needs.
  int32_t size() const { return first + kFirstCodeToken + levels * codes; }
};

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_VOCABULARY_H_

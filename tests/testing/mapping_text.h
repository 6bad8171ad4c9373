// Useful for tests of ranker mappings: a small one as text, which a test changes, and a data set for it.
#ifndef SLUICE_TESTS_TESTING_MAPPING_TEXT_H_
#define SLUICE_TESTS_TESTING_MAPPING_TEXT_H_

#include <memory>
#include <string>

#include "common/catalog/dataset.h"
#include "reward_server/ranker_mapping/mapping.h"
#include "tests/testing/tiny_contents.h"

namespace sluice::reward {

inline constexpr char kMappingText[] = R"(name: mine
open_inference: {address: '127.0.0.1:8001', model: ranker}
inputs:
  user: {from: user}
  history: {from: history}
  item: {from: item}
outputs:
  score: {}
)";

// With a piece of the text replaced; aborts if it is not there.
inline std::string MappingWith(const std::string& piece, const std::string& other) {
  std::string text = kMappingText;
  return text.replace(text.find(piece), piece.size(), other);
}

// One user "a" and four items "0" to "3".
inline std::shared_ptr<const Dataset> TinyDataset() { return Dataset::FromContents(TinyContents()).value(); }

}  // namespace sluice::reward

#endif  // SLUICE_TESTS_TESTING_MAPPING_TEXT_H_

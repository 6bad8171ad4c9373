// A data set of Amazon Beauty's shape without its data: 12,101 items with 4 levels of 256 codes, 22,363 users with 5
// events and more (about 9 on average), popularity with a long tail, neighbours in time that go together. Useful for
// benchmarks.
#ifndef SLUICE_TESTS_TESTING_SYNTHETIC_DATASET_H_
#define SLUICE_TESTS_TESTING_SYNTHETIC_DATASET_H_

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "common/catalog/dataset.h"
#include "common/random/random.h"

namespace sluice {

inline std::shared_ptr<const Dataset> SyntheticDataset(int32_t users = 22363, int32_t items = 12101) {
  Random random(7);
  Dataset::Contents contents;
  contents.name = "synthetic";
  contents.levels = 4;
  contents.codes = 256;
  for (int32_t item = 0; item < items; ++item) {
    contents.item_names.push_back(std::to_string(item));
    const int32_t first = static_cast<int32_t>(256 * random.Uniform() * random.Uniform());
    contents.item_codes.push_back(first);
    contents.item_codes.push_back((first * 7 + static_cast<int32_t>(random.Below(40))) % 256);
    contents.item_codes.push_back(static_cast<int32_t>(random.Below(256)));
    contents.item_codes.push_back(static_cast<int32_t>(random.Below(256)));
  }
  contents.first_event = {0};
  for (int32_t user = 0; user < users; ++user) {
    contents.user_names.push_back(std::to_string(user));
    const int length = 5 + static_cast<int>(-3.9 * std::log(1 - random.Uniform()));
    int32_t item = 0;
    for (int i = 0; i < length; ++i) {
      const bool follows = i > 0 && random.Uniform() < 0.5;
      item = follows ? (item * 7 + static_cast<int32_t>(random.Below(20))) % items
                     : static_cast<int32_t>(items * random.Uniform() * random.Uniform());
      contents.event_item.push_back(item);
      contents.event_split.push_back(i + 1 == length   ? SplitLabel::kTest
                                     : i + 2 == length ? SplitLabel::kValidation
                                                       : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  return Dataset::FromContents(std::move(contents)).value();
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_SYNTHETIC_DATASET_H_

// The smallest data set with every split: one user, four items on one level.
#ifndef SLUICE_TESTS_TESTING_TINY_CONTENTS_H_
#define SLUICE_TESTS_TESTING_TINY_CONTENTS_H_

#include <string>

#include "common/catalog/dataset.h"

namespace sluice {

inline Dataset::Contents TinyContents() {
  Dataset::Contents contents;
  contents.name = "tiny";
  contents.first_event = {0, 4};
  contents.event_item = {0, 1, 2, 3};
  contents.event_split = {SplitLabel::kTrain, SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest};
  contents.user_names = {"a"};
  for (int item = 0; item < 4; ++item) {
    contents.item_names.push_back(std::to_string(item));
    contents.item_codes.push_back(item);
  }
  contents.levels = 1;
  contents.codes = 4;
  return contents;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_TINY_CONTENTS_H_

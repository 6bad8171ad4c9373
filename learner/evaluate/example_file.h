// examples.json of a run: what the policy proposed to a few users, for people to look at.
//
// A training job keeps the lists of its first validation and of its latest one, an evaluation its only ones. Users are
// chosen by their place alone, before anything is measured. Pure functions on text; thread-safe.
#ifndef SLUICE_LEARNER_EVALUATE_EXAMPLE_FILE_H_
#define SLUICE_LEARNER_EVALUATE_EXAMPLE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice::learner {

// A report shows this many users: enough to see what lists look like, few enough to read them all.
inline constexpr size_t kShownUsers = 8;

struct ListedItem {
  std::string name;
  std::optional<double> log_prob;  // of its semantic ID under the policy, over the whole vocabulary, in nats
  bool operator==(const ListedItem&) const = default;
};

// One user's list.
struct ExampleList {
  std::string user;
  int32_t position = 0;              // of the target among the user's events
  std::vector<std::string> history;  // items of the prompt, oldest first
  std::string target;
  int32_t target_rank = 0;        // in the whole list, from 1; 0: not in it
  std::vector<ListedItem> items;  // the first entries of the list, best first
  bool operator==(const ExampleList&) const = default;
};

// The lists of the same users at one step of the job.
struct ExampleLists {
  uint64_t step = 0;
  std::vector<ExampleList> users;
  bool operator==(const ExampleLists&) const = default;
};

// Places of the users to show among `total`: evenly spread, the same for a total.
std::vector<size_t> ShownPlaces(size_t total);

// Adds the latest lists to those of earlier steps: the first stay, those between are dropped, and so are lists of this
// or a later step, which are of a timeline that a resume abandoned.
void KeepExamples(ExampleLists latest, std::vector<ExampleLists>* kept);

std::string ExamplesToJson(const std::vector<ExampleLists>& lists);
// DataLoss: not what ExamplesToJson writes.
absl::StatusOr<std::vector<ExampleLists>> ExamplesFromJson(absl::string_view text);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_EXAMPLE_FILE_H_

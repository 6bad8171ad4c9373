// A ranker without a model. Useful for tests of what lies around rankers: scores are arithmetic, and it can be told
// to fail, to answer wrongly, or to wait.
#ifndef SLUICE_TESTS_TESTING_FAKE_RANKER_H_
#define SLUICE_TESTS_TESTING_FAKE_RANKER_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

// score(user, history, item) = 10 * item + newest history item; head "second" is its negative.
class FakeRanker : public Ranker {
 public:
  using Hook = std::function<void(absl::Span<const ItemQuery>, std::vector<absl::StatusOr<ItemScores>>*)>;

  explicit FakeRanker(std::string name = "fake") : name_(std::move(name)), version_(name_ + "-v1") {}

  // Called with the queries and the answers about to be given, which it may change; it may throw.
  void set_hook(Hook hook) { hook_ = std::move(hook); }

  const std::string& name() const override { return name_; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return 100; }
  int64_t num_users() const override { return 5; }

  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override {
    std::vector<absl::StatusOr<ItemScores>> answers;
    for (const ItemQuery& query : queries) {
      ItemScores scores(2);
      for (const int32_t item : query.items) {
        scores[0].push_back(static_cast<float>(10 * item + query.history.back()));
        scores[1].push_back(-scores[0].back());
      }
      answers.emplace_back(std::move(scores));
    }
    if (hook_) hook_(queries, &answers);
    return answers;
  }

 private:
  const std::string name_;
  const std::string version_;
  const std::vector<std::string> heads_ = {"score", "second"};
  Hook hook_;
};

}  // namespace sluice::reward

#endif  // SLUICE_TESTS_TESTING_FAKE_RANKER_H_

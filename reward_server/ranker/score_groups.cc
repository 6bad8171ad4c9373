#include "reward_server/ranker/score_groups.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

absl::Status CheckItem(const Ranker& ranker, absl::string_view what, int32_t item) {
  if (item >= 0 && item < ranker.num_items()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " names item ", item, ", the catalog has items 0 to ", ranker.num_items() - 1));
}

absl::Status CheckGroup(const Ranker& ranker, const GroupToScore& group) {
  if (group.user < -1 || group.user >= ranker.num_users()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown user ", group.user, ", want -1 (none) or 0 to ", ranker.num_users() - 1));
  }
  if (group.history.empty()) return absl::InvalidArgumentError("the history is empty");
  if (group.target < -1)
    return absl::InvalidArgumentError(absl::StrCat("want target -1 (none) or an item, got ", group.target));
  if (group.num_candidates() == 0) return absl::InvalidArgumentError("there is nothing to score");
  for (const int32_t item : group.history) SLUICE_RETURN_IF_ERROR(CheckItem(ranker, "the history", item));
  if (group.target >= 0) SLUICE_RETURN_IF_ERROR(CheckItem(ranker, "the target", group.target));
  for (const int32_t item : group.leave_out) {
    const auto held = std::count(group.history.begin(), group.history.end(), item);
    if (held == 0 || held == static_cast<std::ptrdiff_t>(group.history.size())) {
      return absl::InvalidArgumentError(absl::StrCat("item ", item, " cannot be left out of the history, which holds ",
                                                     held == 0 ? "it nowhere" : "nothing else"));
    }
  }
  for (size_t i = 0; i < group.candidates.size(); ++i) {
    if (group.candidates[i].empty()) return absl::InvalidArgumentError(absl::StrCat("candidate ", i, " has no item"));
    for (const int32_t item : group.candidates[i]) {
      SLUICE_RETURN_IF_ERROR(CheckItem(ranker, absl::StrCat("candidate ", i), item));
    }
  }
  return absl::OkStatus();
}

void Fail(GroupStatus status, absl::string_view error, GroupResult* result) {
  result->status = status;
  result->error = std::string(error);
  result->heads.clear();
}

// One query's answer that is an error.
void FailAnswer(const absl::Status& status, GroupResult* result) {
  const bool invalid = status.code() == absl::StatusCode::kInvalidArgument;
  Fail(invalid ? GroupStatus::kInvalidInput : GroupStatus::kFailed, status.message(), result);
}

// Turns the scores of all items, candidate by candidate and the target last, into those of the candidates.
void TakeScores(const Ranker& ranker, const GroupToScore& group, size_t num_items, const ItemScores& scores,
                GroupResult* result) {
  if (scores.size() != ranker.heads().size()) {
    return Fail(GroupStatus::kFailed,
                absl::StrCat("ranker ", ranker.name(), ": want ", ranker.heads().size(), " heads, got ", scores.size()),
                result);
  }
  for (size_t head = 0; head < scores.size(); ++head) {
    if (scores[head].size() != num_items) {
      return Fail(GroupStatus::kFailed,
                  absl::StrCat("ranker ", ranker.name(), ": want ", num_items, " scores, got ", scores[head].size()),
                  result);
    }
    HeadScores& out = result->heads.emplace_back();
    out.head = ranker.heads()[head];
    size_t next = 0;
    bool finite = true;
    for (const std::vector<int32_t>& items : group.candidates) {
      out.scores.push_back(
          AggregateItems(absl::MakeConstSpan(scores[head]).subspan(next, items.size()), group.aggregation));
      finite = finite && std::isfinite(out.scores.back());
      next += items.size();
    }
    if (group.target >= 0) {
      out.target = scores[head][next];
      finite = finite && std::isfinite(out.target);
    }
    if (!finite) {
      return Fail(
          GroupStatus::kNotFinite,
          absl::StrCat("ranker ", ranker.name(), ", head ", ranker.heads()[head], ", gave a score that is not finite"),
          result);
    }
  }
  result->status = GroupStatus::kOk;
}

// Adds the scores of the items that were left out, one answer an item, to a result that is OK so far.
void TakeLeftOut(const Ranker& ranker, absl::Span<const absl::StatusOr<ItemScores>> answers, GroupResult* result) {
  for (const absl::StatusOr<ItemScores>& answer : answers) {
    if (!answer.ok()) return FailAnswer(answer.status(), result);
    if (answer->size() != ranker.heads().size()) {
      return Fail(GroupStatus::kFailed,
                  absl::StrCat("ranker ", ranker.name(), ": want ", ranker.heads().size(),
                               " heads of an item left out, ", "got ", answer->size()),
                  result);
    }
    for (size_t head = 0; head < answer->size(); ++head) {
      if ((*answer)[head].size() != 1) {
        return Fail(
            GroupStatus::kFailed,
            absl::StrCat("ranker ", ranker.name(), ": want 1 score of an item left out, got ", (*answer)[head].size()),
            result);
      }
      const float score = (*answer)[head][0];
      if (!std::isfinite(score)) {
        return Fail(GroupStatus::kNotFinite,
                    absl::StrCat("ranker ", ranker.name(), ", head ", ranker.heads()[head],
                                 ", gave an item left out a score that is not finite"),
                    result);
      }
      result->heads[head].left_out.push_back(score);
    }
  }
}

// What the ranker answers, and why it did not if it did not.
std::vector<absl::StatusOr<ItemScores>> Ask(const Ranker& ranker, absl::Span<const ItemQuery> queries,
                                            std::string* failure) {
  std::vector<absl::StatusOr<ItemScores>> answers;
  if (queries.empty()) return answers;
  try {
    answers = ranker.Score(queries);
    if (answers.size() != queries.size()) {
      *failure = absl::StrCat("want ", queries.size(), " answers, got ", answers.size());
    }
  } catch (const std::exception& exception) {
    *failure = exception.what();
  }
  return answers;
}

// The history without any occurrence of one of its items, and that item to score.
ItemQuery LeaveOut(const GroupToScore& group, int32_t item) {
  ItemQuery query;
  query.user = group.user;
  for (const int32_t other : group.history) {
    if (other != item) query.history.push_back(other);
  }
  query.items = {item};
  return query;
}

}  // namespace

std::vector<GroupResult> ScoreGroups(const Ranker& ranker, absl::Span<const GroupToScore* const> groups) {
  std::vector<GroupResult> results(groups.size());
  std::vector<ItemQuery> queries;
  std::vector<size_t> asked;  // index into groups of each query
  for (size_t i = 0; i < groups.size(); ++i) {
    const GroupToScore& group = *groups[i];
    results[i].ordinal = group.ordinal;
    results[i].attempt = group.attempt;
    if (const absl::Status status = CheckGroup(ranker, group); !status.ok()) {
      Fail(GroupStatus::kInvalidInput, status.message(), &results[i]);
      continue;
    }
    ItemQuery& query = queries.emplace_back();
    query.user = group.user;
    query.history = group.history;
    for (const std::vector<int32_t>& items : group.candidates) {
      query.items.insert(query.items.end(), items.begin(), items.end());
    }
    if (group.target >= 0) query.items.push_back(group.target);
    asked.push_back(i);
  }
  std::string failure;
  const std::vector<absl::StatusOr<ItemScores>> answers = Ask(ranker, queries, &failure);
  for (size_t q = 0; q < queries.size(); ++q) {
    GroupResult& result = results[asked[q]];
    if (!failure.empty()) {
      Fail(GroupStatus::kFailed, absl::StrCat("ranker ", ranker.name(), " failed: ", failure), &result);
    } else if (!answers[q].ok()) {
      FailAnswer(answers[q].status(), &result);
    } else {
      TakeScores(ranker, *groups[asked[q]], queries[q].items.size(), *answers[q], &result);
    }
  }

  // In a call of their own: the scores above are the same whether or not items are left out too.
  std::vector<ItemQuery> left_out;
  for (const size_t i : asked) {
    if (results[i].status != GroupStatus::kOk) continue;
    for (const int32_t item : groups[i]->leave_out) left_out.push_back(LeaveOut(*groups[i], item));
  }
  const std::vector<absl::StatusOr<ItemScores>> found = Ask(ranker, left_out, &failure);
  size_t next = 0;
  for (const size_t i : asked) {
    const size_t count = groups[i]->leave_out.size();
    if (results[i].status != GroupStatus::kOk || count == 0) continue;
    if (!failure.empty()) {
      Fail(GroupStatus::kFailed, absl::StrCat("ranker ", ranker.name(), " failed: ", failure), &results[i]);
    } else {
      TakeLeftOut(ranker, absl::MakeConstSpan(found).subspan(next, count), &results[i]);
    }
    next += count;
  }
  return results;
}

}  // namespace sluice::reward

#include "learner/evaluate/example_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr char kVersionKey[] = "sluice_examples";
constexpr int kVersion = 1;

// Names of the events may hold bytes that are not UTF-8: they are replaced, not refused.
std::string Dump(const nlohmann::json& document) {
  return document.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::vector<size_t> ShownPlaces(size_t total) {
  std::vector<size_t> places;
  const size_t shown = std::min(total, kShownUsers);
  for (size_t i = 0; i < shown; ++i) places.push_back(i * total / shown);
  return places;
}

void KeepExamples(ExampleLists latest, std::vector<ExampleLists>* kept) {
  std::erase_if(*kept, [&latest](const ExampleLists& one) { return one.step >= latest.step; });
  if (kept->size() > 1) kept->resize(1);
  kept->push_back(std::move(latest));
}

std::string ExamplesToJson(const std::vector<ExampleLists>& lists) {
  nlohmann::json document = {{kVersionKey, kVersion}, {"lists", nlohmann::json::array()}};
  for (const ExampleLists& at : lists) {
    nlohmann::json users = nlohmann::json::array();
    for (const ExampleList& one : at.users) {
      nlohmann::json items = nlohmann::json::array();
      for (const ListedItem& item : one.items) {
        nlohmann::json entry = {{"item", item.name}};
        if (item.log_prob && std::isfinite(*item.log_prob)) entry["log_prob"] = *item.log_prob;
        items.push_back(std::move(entry));
      }
      users.push_back({{"user", one.user},
                       {"position", one.position},
                       {"history", one.history},
                       {"target", one.target},
                       {"target_rank", one.target_rank},
                       {"items", std::move(items)}});
    }
    document["lists"].push_back({{"step", at.step}, {"users", std::move(users)}});
  }
  return Dump(document) + "\n";
}

absl::StatusOr<std::vector<ExampleLists>> ExamplesFromJson(absl::string_view text) {
  try {
    const nlohmann::json document = nlohmann::json::parse(text.begin(), text.end());
    if (document.at(kVersionKey) != kVersion) {
      return absl::DataLossError(absl::StrCat("examples of another release, want version ", kVersion));
    }
    const auto read = [](const nlohmann::json& from, const char* key, auto* number) {
      return Annotate(ReadWholeNumber(from.at(key), key, number), "not an examples file");
    };
    std::vector<ExampleLists> lists;
    for (const nlohmann::json& at : document.at("lists")) {
      ExampleLists& parsed = lists.emplace_back();
      SLUICE_RETURN_IF_ERROR(read(at, "step", &parsed.step));
      for (const nlohmann::json& user : at.at("users")) {
        ExampleList& one = parsed.users.emplace_back();
        user.at("user").get_to(one.user);
        SLUICE_RETURN_IF_ERROR(read(user, "position", &one.position));
        user.at("history").get_to(one.history);
        user.at("target").get_to(one.target);
        SLUICE_RETURN_IF_ERROR(read(user, "target_rank", &one.target_rank));
        for (const nlohmann::json& item : user.at("items")) {
          ListedItem& listed = one.items.emplace_back();
          item.at("item").get_to(listed.name);
          if (item.contains("log_prob")) listed.log_prob = item.at("log_prob").get<double>();
        }
      }
    }
    return lists;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("not an examples file: ", error.what()));
  }
}

}  // namespace sluice::learner

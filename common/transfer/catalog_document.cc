#include "common/transfer/catalog_document.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

template <typename Integer>
absl::Status ReadLists(const Json& json, const char* key, std::vector<std::vector<Integer>>* lists) {
  for (const Json& list : json.at(key)) {
    std::vector<Integer>& numbers = lists->emplace_back(list.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
      SLUICE_RETURN_IF_ERROR(ReadWholeNumber(list.at(i), absl::StrCat("catalog: ", key), &numbers[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Trie>> Parse(const Json& json, int levels, const std::string& catalog_version) {
  std::vector<std::vector<int32_t>> sids;
  std::vector<std::vector<int64_t>> items;
  SLUICE_RETURN_IF_ERROR(ReadLists(json, "sids", &sids));
  SLUICE_RETURN_IF_ERROR(ReadLists(json, "items", &items));
  if (sids.size() != items.size()) {
    return absl::DataLossError(absl::StrCat("catalog: ", sids.size(), " sids, but items of ", items.size(), " leaves"));
  }
  int64_t num_items = 0;
  for (const auto& of_leaf : items) num_items += static_cast<int64_t>(of_leaf.size());
  std::vector<int32_t> tokens(static_cast<size_t>(num_items) * static_cast<size_t>(levels));
  std::vector<bool> seen(num_items, false);
  for (size_t leaf = 0; leaf < sids.size(); ++leaf) {
    if (sids[leaf].size() != static_cast<size_t>(levels)) {
      return absl::DataLossError(
          absl::StrCat("catalog: leaf ", leaf, " has ", sids[leaf].size(), " tokens, want ", levels));
    }
    for (int64_t item : items[leaf]) {
      if (item < 0 || item >= num_items || seen[item]) {
        return absl::DataLossError(
            absl::StrCat("catalog: item ", item, " of leaf ", leaf, " is listed twice or out of [0, ", num_items, ")"));
      }
      seen[item] = true;
      std::copy(sids[leaf].begin(), sids[leaf].end(), tokens.begin() + item * levels);
    }
  }
  absl::StatusOr<Trie> trie = Trie::Build(levels, tokens);
  if (!trie.ok()) return absl::DataLossError(absl::StrCat("catalog: ", trie.status().message()));
  if (trie->version() != catalog_version) {
    return absl::DataLossError(
        absl::StrCat("catalog: want version ", catalog_version, ", its contents are ", trie->version()));
  }
  return std::make_shared<const Trie>(*std::move(trie));
}

}  // namespace

std::string CatalogToJson(const Trie& trie) {
  Json sids = Json::array();
  Json items = Json::array();
  for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
    const auto tokens = trie.TokensOfLeaf(leaf);
    const auto of_leaf = trie.ItemsOfLeaf(leaf);
    sids.push_back(std::vector<int32_t>(tokens.begin(), tokens.end()));
    items.push_back(std::vector<int32_t>(of_leaf.begin(), of_leaf.end()));
  }
  return Json{{"levels", trie.levels()}, {"sids", std::move(sids)}, {"items", std::move(items)}}.dump();
}

absl::StatusOr<std::shared_ptr<const Trie>> CatalogFromJson(const std::string& json,
                                                            const std::string& catalog_version) {
  try {
    const Json parsed = Json::parse(json);
    // Checked before it sizes anything.
    int levels = 0;
    SLUICE_RETURN_IF_ERROR(ReadWholeNumber(parsed.at("levels"), "catalog: levels", &levels));
    if (levels < 1 || levels > 8) {
      return absl::DataLossError(absl::StrCat("catalog: want 1 to 8 levels, got ", levels));
    }
    return Parse(parsed, levels, catalog_version);
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("catalog: not a catalog document: ", error.what()));
  }
}

}  // namespace sluice

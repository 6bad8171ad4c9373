#include "client/inspect/catalog_source.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

absl::Status BadItem(const std::string& path, size_t item, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("'", path, "': item ", item, " ", problem));
}

absl::StatusOr<std::shared_ptr<const Trie>> FromJson(const std::string& path, const std::string& text) {
  const nlohmann::json items = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!items.is_array() || items.empty() || !items[0].is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': want a JSON list with one list of token ids per item, like [[3, 7], [3, 8]]"));
  }
  const size_t levels = items[0].size();
  std::vector<int32_t> tokens;
  for (size_t item = 0; item < items.size(); ++item) {
    if (!items[item].is_array() || items[item].size() != levels) {
      return BadItem(path, item, absl::StrCat("is not a list of ", levels, " token ids, as item 0 is"));
    }
    for (const nlohmann::json& token : items[item]) {
      const bool is_token = token.is_number_integer() && token >= 0 && token <= std::numeric_limits<int32_t>::max();
      if (!is_token) return BadItem(path, item, absl::StrCat("has ", token.dump(), ", which is no token id"));
      tokens.push_back(token.get<int32_t>());
    }
  }
  absl::StatusOr<Trie> trie = Trie::Build(static_cast<int>(levels), tokens);
  if (!trie.ok()) return Annotate(trie.status(), absl::StrCat("'", path, "'"));
  return std::make_shared<const Trie>(*std::move(trie));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Trie>> LoadCatalog(const std::string& path) {
  if (IsDirectory(path)) {
    SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(path));
    return dataset->shared_trie();
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return FromJson(path, text);
}

}  // namespace sluice

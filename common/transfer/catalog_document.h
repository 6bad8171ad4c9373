// The catalog as it travels to actors: {"levels": L, "sids": [[tokens] per leaf], "items": [[item ids] per leaf]}.
#ifndef SLUICE_COMMON_TRANSFER_CATALOG_DOCUMENT_H_
#define SLUICE_COMMON_TRANSFER_CATALOG_DOCUMENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/catalog/trie.h"

namespace sluice {

std::string CatalogToJson(const Trie& trie);

// Rebuilds the trie in item order, so that it has the version of the one that was written. DataLoss: not such a
// document, an item that is missing or listed twice, or another version than `catalog_version`.
absl::StatusOr<std::shared_ptr<const Trie>> CatalogFromJson(const std::string& json,
                                                            const std::string& catalog_version);

}  // namespace sluice

#endif  // SLUICE_COMMON_TRANSFER_CATALOG_DOCUMENT_H_

// The catalog that inspection works with, from either of the forms that people have.
#ifndef SLUICE_CLIENT_INSPECT_CATALOG_SOURCE_H_
#define SLUICE_CLIENT_INSPECT_CATALOG_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/catalog/trie.h"

namespace sluice {

// `path` is the folder of a prepared data set, or a JSON file: a list with one list of token ids an item, all of the
// same length. NotFound, DataLoss (damaged data set), InvalidArgument (names file and item).
absl::StatusOr<std::shared_ptr<const Trie>> LoadCatalog(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_CLIENT_INSPECT_CATALOG_SOURCE_H_

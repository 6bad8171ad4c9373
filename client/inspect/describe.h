// What is inside a model, a data set, a catalog or a checkpoint, as one JSON document each.
#ifndef SLUICE_CLIENT_INSPECT_DESCRIBE_H_
#define SLUICE_CLIENT_INSPECT_DESCRIBE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace sluice {

// Errors are those of reading the thing; nothing is printed of what cannot be read whole.

// A Hugging Face folder: the configuration, and every tensor by name, type and shape. Weights are not read.
absl::StatusOr<nlohmann::ordered_json> DescribeModel(const std::string& folder);
// A prepared data set, every file checked against its digest.
absl::StatusOr<nlohmann::ordered_json> DescribeDataset(const std::string& folder);
// The trie of a data set's folder or of a JSON file of items.
absl::StatusOr<nlohmann::ordered_json> DescribeTrie(const std::string& path);
// A checkpoint of a training job, every file checked against its digest.
absl::StatusOr<nlohmann::ordered_json> DescribeCheckpoint(const std::string& folder);

// The document for people: one "name  value" line a field, deeper ones indented, lists of objects as a table.
std::string RenderText(const nlohmann::ordered_json& document);

}  // namespace sluice

#endif  // SLUICE_CLIENT_INSPECT_DESCRIBE_H_

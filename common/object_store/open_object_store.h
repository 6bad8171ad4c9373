// The object store that a URL names.
#ifndef SLUICE_COMMON_OBJECT_STORE_OPEN_OBJECT_STORE_H_
#define SLUICE_COMMON_OBJECT_STORE_OPEN_OBJECT_STORE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"
#include "common/object_store/s3_location.h"

namespace sluice {

// InvalidArgument unless `url` is an absolute path, file:///PATH, or what ParseS3Url takes. Contacts nobody and reads
// no credentials: for checks of settings.
absl::Status CheckObjectStoreUrl(absl::string_view url, const EnvironmentFunction& environment);

// Opens it. Contacts nobody: wrong credentials show on the first use. Unauthenticated if there are none in
// `environment`.
absl::StatusOr<std::unique_ptr<ObjectStore>> OpenObjectStore(absl::string_view url, const TransferOptions& transfer,
                                                             const EnvironmentFunction& environment);

}  // namespace sluice

#endif  // SLUICE_COMMON_OBJECT_STORE_OPEN_OBJECT_STORE_H_

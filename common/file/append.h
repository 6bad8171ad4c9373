// Bytes that come piece by piece, where a file must outlive an interruption half-way. Codes as in file.h.
#ifndef SLUICE_COMMON_FILE_APPEND_H_
#define SLUICE_COMMON_FILE_APPEND_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice {

// Appends to the file, which is made if it is not there. Links are not followed. After an error some of the bytes may
// be there. Not thread-safe for one file.
absl::Status AppendToFile(const std::string& path, absl::string_view bytes);

// Waits until the disk has the file.
absl::Status SyncFile(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_COMMON_FILE_APPEND_H_

// Castagnoli's checksum, as event files have it.
#ifndef SLUICE_LEARNER_TENSORBOARD_CRC32C_H_
#define SLUICE_LEARNER_TENSORBOARD_CRC32C_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace sluice::learner {

// Source: RFC 3720, appendix B.4; "123456789" gives 0xe3069283.
uint32_t Crc32c(absl::string_view bytes);

// The checksum in the form in which records carry it, so that a checksum of bytes that hold checksums stays a good one.
// Source: tensorflow/core/lib/hash/crc32c.h.
uint32_t MaskedCrc32c(absl::string_view bytes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TENSORBOARD_CRC32C_H_

// Times in messages, to the microsecond.
#ifndef SLUICE_COMMON_RPC_TIMESTAMP_H_
#define SLUICE_COMMON_RPC_TIMESTAMP_H_

#include <google/protobuf/timestamp.pb.h>

#include <cstdint>

#include "absl/time/time.h"

namespace sluice {

inline void SetTime(absl::Time time, google::protobuf::Timestamp* message) {
  const int64_t micros = absl::ToUnixMicros(time);
  message->set_seconds(micros / 1000000);
  message->set_nanos(static_cast<int32_t>(micros % 1000000) * 1000);
}

inline absl::Time TimeOf(const google::protobuf::Timestamp& message) {
  return absl::FromUnixSeconds(message.seconds()) + absl::Nanoseconds(message.nanos());
}

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_TIMESTAMP_H_

#include "common/sync/epoch_kv_store.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/status/status.h"

namespace sluice {

absl::Status EpochKvStore::Check(const std::string& key) const {
  absl::string_view rest = key;
  uint64_t epoch = 0;
  const bool prefixed = absl::ConsumePrefix(&rest, "epoch/");
  const absl::string_view digits = rest.substr(0, rest.find('/'));
  // Written as ForgetBefore writes it: no zero or sign before it.
  const bool whole =
      prefixed && digits.size() < rest.size() && absl::SimpleAtoi(digits, &epoch) && digits == absl::StrCat(epoch);
  if (!whole) return absl::InvalidArgumentError(absl::StrCat("want a key like epoch/7/name, got '", key, "'"));
  if (epoch < first_) return absl::AbortedError(absl::StrCat("the group of epoch ", epoch, " is over"));
  return absl::OkStatus();
}

void EpochKvStore::ForgetBefore(uint64_t epoch) {
  MutexLock lock(&mutex_);
  for (; first_ < epoch; ++first_) store_.ForgetPrefix(absl::StrCat("epoch/", first_, "/"));
}

absl::Status EpochKvStore::Set(const std::string& key, const std::string& value) {
  MutexLock lock(&mutex_);
  SLUICE_RETURN_IF_ERROR(Check(key));
  return store_.Set(key, value);
}

absl::StatusOr<std::string> EpochKvStore::Get(const std::string& key, absl::Duration timeout) {
  {
    MutexLock lock(&mutex_);
    SLUICE_RETURN_IF_ERROR(Check(key));
  }
  return store_.Get(key, timeout);
}

absl::StatusOr<int64_t> EpochKvStore::Add(const std::string& key, int64_t amount) {
  MutexLock lock(&mutex_);
  SLUICE_RETURN_IF_ERROR(Check(key));
  return store_.Add(key, amount);
}

}  // namespace sluice

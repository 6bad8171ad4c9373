// Useful for: a process that dies, or a service that fails, at any one of its operations on an object store.
#ifndef SLUICE_TESTS_TESTING_FAULTY_OBJECT_STORE_H_
#define SLUICE_TESTS_TESTING_FAULTY_OBJECT_STORE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/object_store/object_store.h"

namespace sluice {

// Passes operations on until the one of number `at` (from 1), then fails with Unavailable: that one or, if `dies`, also
// all that follow. With `answer_lost` the operation itself is executed first. Counts and fails on one thread.
struct ObjectStoreFault {
  int at = 0;  // 0: never
  bool dies = true;
  bool answer_lost = false;
};

class FaultyObjectStore final : public ObjectStore {
 public:
  FaultyObjectStore(std::unique_ptr<ObjectStore> store, ObjectStoreFault fault, int* operations)
      : store_(std::move(store)), fault_(fault), operations_(operations) {}

  std::string name() const override { return store_->name(); }
  absl::Status Put(const std::string& key, absl::string_view bytes) override {
    return Pass([&] { return store_->Put(key, bytes); });
  }
  absl::Status PutFile(const std::string& key, const std::string& path, const ExpectedContent& expected) override {
    return Pass([&] { return store_->PutFile(key, path, expected); });
  }
  absl::StatusOr<std::string> Get(const std::string& key, int64_t max_bytes) override {
    return Pass([&] { return store_->Get(key, max_bytes); });
  }
  absl::Status GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                         const ExpectedContent& expected) override {
    return Pass([&] { return store_->GetToFile(key, path, max_bytes, expected); });
  }
  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix, int64_t max_objects) override {
    return Pass([&] { return store_->List(prefix, max_objects); });
  }
  absl::StatusOr<ObjectInfo> Head(const std::string& key) override {
    return Pass([&] { return store_->Head(key); });
  }
  absl::Status Delete(const std::string& key) override {
    return Pass([&] { return store_->Delete(key); });
  }

 private:
  template <typename Operation>
  auto Pass(const Operation& operation) -> decltype(operation()) {
    const int now = ++*operations_;
    const bool fails = fault_.at > 0 && (now == fault_.at || (fault_.dies && now > fault_.at));
    if (!fails) return operation();
    if (fault_.answer_lost && now == fault_.at) (void)operation();
    return absl::UnavailableError(absl::StrCat("operation ", now, " failed on purpose"));
  }

  const std::unique_ptr<ObjectStore> store_;
  const ObjectStoreFault fault_;
  int* const operations_;  // counted over all stores of a test
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_FAULTY_OBJECT_STORE_H_

// A model outside of the process that is a function. Useful for tests of what stands between rankers and models.
#ifndef SLUICE_TESTS_TESTING_FAKE_TENSOR_MODEL_H_
#define SLUICE_TESTS_TESTING_FAKE_TENSOR_MODEL_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "reward_server/ranker_mapping/mapped_ranker.h"

namespace sluice::reward {

class FakeTensorModel : public TensorModel {
 public:
  using Function = std::function<absl::StatusOr<std::vector<Tensor>>(const std::vector<Tensor>&)>;
  explicit FakeTensorModel(Function function, std::string version = "v1")
      : function_(std::move(function)), version_(std::move(version)) {}

  const std::string& version() const override { return version_; }
  absl::StatusOr<std::vector<Tensor>> Run(std::vector<Tensor> inputs, absl::Time /*deadline*/) const override {
    return function_(inputs);
  }

 private:
  const Function function_;
  const std::string version_;
};

inline std::vector<double> NumbersOf(const Tensor& tensor) {
  std::vector<double> numbers;
  for (size_t at = 0; at < tensor.raw.size(); at += static_cast<size_t>(ElementBytes(tensor.type))) {
    numbers.push_back(ReadNumber(tensor.type, tensor.raw.data() + at));
  }
  return numbers;
}

inline Tensor MakeTensor(std::string name, TensorType type, std::vector<int64_t> shape,
                         const std::vector<double>& numbers) {
  Tensor tensor = {std::move(name), type, std::move(shape), ""};
  for (const double number : numbers) AppendNumber(type, number, &tensor.raw);
  return tensor;
}

}  // namespace sluice::reward

#endif  // SLUICE_TESTS_TESTING_FAKE_TENSOR_MODEL_H_

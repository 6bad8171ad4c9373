#include "common/catalog/npy.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto array = sluice::ParseNpy(std::string(sluice::fuzz::Text(data, size)), "input");
  if (array.ok()) {
    for (const size_t dimensions : {1, 2}) {
      (void)sluice::NpyValues<int32_t>(*array, dimensions, "input");
      (void)sluice::NpyValues<double>(*array, dimensions, "input");
    }
  }
  const auto matrix = sluice::ReadNpyMatrix(sluice::fuzz::FileWith(sluice::fuzz::Text(data, size)));
  if (matrix.ok()) {
    sluice::fuzz::Require(static_cast<int64_t>(matrix->values.size()) == matrix->rows * matrix->columns,
                          "a matrix has other values than rows times columns");
  }
  return 0;
}

#include "common/model/kernels/kernels.h"

#include <type_traits>

namespace sluice {

#define SLUICE_DECLARE_TABLES(name)              \
  namespace name {                               \
  extern const KernelTable<float> kFloatTable;   \
  extern const KernelTable<double> kDoubleTable; \
  }

SLUICE_DECLARE_TABLES(kernels_baseline)
#if defined(__x86_64__)
SLUICE_DECLARE_TABLES(kernels_avx2)
SLUICE_DECLARE_TABLES(kernels_avx512)
#endif

namespace {

template <typename T>
const KernelTable<T>* Choose(const KernelTable<float>& single, const KernelTable<double>& twice) {
  if constexpr (std::is_same_v<T, float>) {
    return &single;
  } else {
    return &twice;
  }
}

}  // namespace

template <typename T>
int AvailableKernels(const KernelTable<T>** tables) {
  int count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw")) {
    tables[count++] = Choose<T>(kernels_avx512::kFloatTable, kernels_avx512::kDoubleTable);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    tables[count++] = Choose<T>(kernels_avx2::kFloatTable, kernels_avx2::kDoubleTable);
  }
#endif
  tables[count++] = Choose<T>(kernels_baseline::kFloatTable, kernels_baseline::kDoubleTable);
  return count;
}

template <typename T>
const KernelTable<T>& Kernels() {
  static const KernelTable<T>& best = *[] {
    const KernelTable<T>* tables[3];
    AvailableKernels<T>(tables);
    return tables[0];
  }();
  return best;
}

template int AvailableKernels<float>(const KernelTable<float>**);
template int AvailableKernels<double>(const KernelTable<double>**);
template const KernelTable<float>& Kernels<float>();
template const KernelTable<double>& Kernels<double>();

int64_t AttentionScratch(const HeadShape& shape, int64_t shared_count, int64_t own_visible) {
  // Two 64-byte vectors of the narrower type, whatever T is.
  constexpr int64_t kPad = 32;
  constexpr int64_t kBlock = 4;
  const int64_t dims = (shape.head_dim + kPad - 1) / kPad * kPad;
  const int64_t keys = (shared_count + kPad - 1) / kPad * kPad;
  return 6 * keys * dims + 4 * kBlock * dims + 2 * kBlock * (keys + own_visible);
}

}  // namespace sluice

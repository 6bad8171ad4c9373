#define SLUICE_KERNELS_NAMESPACE kernels_avx512
#define SLUICE_KERNELS_NAME "avx512"
#include "common/model/kernels/kernels_body.h"

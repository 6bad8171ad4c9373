#define SLUICE_KERNELS_NAMESPACE kernels_avx2
#define SLUICE_KERNELS_NAME "avx2"
#include "common/model/kernels/kernels_body.h"

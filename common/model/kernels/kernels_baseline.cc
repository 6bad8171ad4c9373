#define SLUICE_KERNELS_NAMESPACE kernels_baseline
#define SLUICE_KERNELS_NAME "baseline"
#include "common/model/kernels/kernels_body.h"

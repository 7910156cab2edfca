/* Row kernels for AVX2 and FMA: 8 floats at a time. */
#include "layers/row_kernels.h"

#include "softpick/device.h"

#if defined(__x86_64__)

#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define ROWS_KERNELS        sp_row_kernels_avx2
#define ROWS_NAME           "avx2"
#define ROWS_NEEDS          SP_CPU_AVX2
#define ROWS_FUSED(a, b, c) __builtin_fmaf((a), (b), (c))
#include "layers/row_kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif

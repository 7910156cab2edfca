/* What this machine can do.  Stable: may only grow. */
#ifndef SOFTPICK_DEVICE_H
#define SOFTPICK_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "softpick/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CPU features that a variant may need: bits of sp_cpu_features(). */
typedef enum sp_cpu_feature {
    SP_CPU_AVX2 = 1 << 0,        /* with FMA and F16C */
    SP_CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL */
    SP_CPU_AVX512_BF16 = 1 << 2, /* dot products of bf16 */
    SP_CPU_AMX_BF16 = 1 << 3,    /* tiles, with the kernel's permission to use them */
    SP_CPU_NEON = 1 << 4,        /* Advanced SIMD of 64-bit Arm */
} sp_cpu_feature;

/* Features of this CPU and its system, less those that SP_CPU takes away (SP_CPU = scalar, avx2, avx512,
 * avx512_bf16 or amx, on Arm scalar or neon: the highest one left; it never adds any).  Read once. */
SP_API uint32_t sp_cpu_features(void);
/* The i-th feature's name and bit, of those that this build's kind of CPU may have; false past the end. */
SP_API bool sp_cpu_feature_at(int i, const char **name, uint32_t *bit);
/* "Intel(R) Xeon(R) ..." or "unknown CPU". */
SP_API const char *sp_cpu_model(void);
/* Processors this process may run on. */
SP_API int sp_cpu_count(void);

typedef struct sp_cuda_device {
    char name[256];
    int compute_major, compute_minor;
    int n_multiprocessors;
    int64_t memory_bytes;
} sp_cuda_device;

/* True if this build has CUDA code. */
SP_API bool sp_cuda_built(void);
/* Number of usable CUDA devices: 0 in a build without CUDA or on a machine without one. */
SP_API int sp_cuda_device_count(void);
SP_API SP_MUST_CHECK sp_status sp_cuda_device_describe(int index, sp_cuda_device *out);

/* Bytes of memory that a device (as in sp_tensor: 0 the host, 1 + i CUDA device i) has and that are free.  A CUDA device
 * must be one that can be used: SM 8.0 or newer. */
SP_API SP_MUST_CHECK sp_status sp_device_free_bytes(int32_t device, int64_t *free_bytes, int64_t *total_bytes);

#ifdef __cplusplus
}
#endif
#endif

/* Attention with AVX-512 (F, BW, DQ, VL).  The instruction set is opened here for this file's functions alone: what the
 * file includes before is compiled for any CPU. */
#include "attention/cpu/attention_cpu.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))),              \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#include "attention/cpu/simd_avx512.h"

#include "attention/cpu/attention_cpu.inc"
#include "attention/cpu/decode.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif

const sp_cpu_body sp_cpu_body_avx512 = SP_CPU_BODY;
const sp_decode_body sp_decode_body_avx512 = {decode_partial, decode_merge};
#endif

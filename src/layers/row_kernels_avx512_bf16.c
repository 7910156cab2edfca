/* Row kernels for AVX-512 with its conversion from f32 to bf16, which takes subnormal numbers for 0. */
#include "layers/row_kernels.h"

#include "softpick/device.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"))),   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#endif

static void convert_to_bf16(uint16_t *out, const float *in, int64_t n) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + i + 16), _mm512_loadu_ps(in + i));
        memcpy(out + i, &both, sizeof both);
    }
    for (; i < n; i += 16) {
        __mmask16 mask = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1u) : (__mmask16)0xffff;
        __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + i));
        __m256i words;
        memcpy(&words, &half, sizeof words);
        _mm256_mask_storeu_epi16(out + i, mask, words);
    }
}

#define ROWS_KERNELS        sp_row_kernels_avx512_bf16
#define ROWS_NAME           "avx512_bf16"
#define ROWS_NEEDS          (SP_CPU_AVX512 | SP_CPU_AVX512_BF16)
#define ROWS_FUSED(a, b, c) __builtin_fmaf((a), (b), (c))
#define ROWS_NARROW_BF16    convert_to_bf16
#include "layers/row_kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif

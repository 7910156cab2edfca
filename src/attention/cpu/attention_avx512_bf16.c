/* Attention over packed bf16 by AVX-512 with BF16's dot products.  The instruction set is opened here for
 * this file's functions alone: what the file includes before is compiled for any CPU. */
#include "attention/cpu/pairs.h"
#include "attention/cpu/pairs_backward.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))),   \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

#include "attention/cpu/simd_avx512.h"

#include "attention/cpu/tiles_dot.h"

#include "attention/cpu/pairs_pack.inc"

#include "attention/cpu/pairs_forward.inc"

#include "attention/cpu/pairs_backward.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif

const sp_pairs_body sp_pairs_body_avx512_bf16 = {tiles_open, tiles_close, pack_block, forward};
const sp_pairs_backward_body sp_pairs_backward_avx512_bf16 = {tiles_open, tiles_close, pairs_backward_pack,
                                                              pairs_backward_item, pairs_backward_store};
#endif

/* Products of 16-bit tiles on Hopper: wgmma, by the four warps of a group together.
 *
 * C (64 x N, f32) += A (64 x 16) B (16 x N).  Warp w of the group holds rows 16 w .. 16 w + 15 of C; its lane l, with
 * g = l / 4 and c = 2 (l % 4), holds of every 8 columns j
 *   C   c[4j], c[4j+1] = C[g][8j + c, +1]   c[4j+2], c[4j+3] = C[g+8][8j + c, +1]
 *   A   in registers, as that of mma_16816 (mma.cuh)
 * Operands in shared memory lie in tiles of 128-byte rows, chunks of 16 bytes swizzled by the row's number in its 8
 * (what the copy engine's 128-byte swizzle makes), and are named by a descriptor: address, strides, kind of swizzle.
 *   along_k      rows are those of A, or columns of B: 64 numbers of the inner dimension in a row
 *   across_k     rows are those of the inner dimension: 64 columns of B in a row, the next 64 `column_bytes` further on
 *
 * The instructions run on their own: nothing may touch their registers between products_begin and the wait that ends
 * them, and registers that were written by other instructions are seen by those after the next products_begin. */
#ifndef SP_ATTENTION_CUDA_SM90_PRODUCT_CUH
#define SP_ATTENTION_CUDA_SM90_PRODUCT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

enum { TILE_ROW_BYTES = 128, TILE_ROW = 64 /* numbers */, SWIZZLE_BYTES = 1024 /* 8 rows */ };

/* ---- order ---------------------------------------------------------------------------------------------------------- */

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* Waits until at most the N youngest committed groups of products are still under way. */
template <int N> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The compiler moves no use of these registers across. */
template <int N> __device__ __forceinline__ void registers_settle(float (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
}
template <int N> __device__ __forceinline__ void registers_settle(uint32_t (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(r[i])::"memory");
}

/* ---- operands in shared memory ---------------------------------------------------------------------------------------- */

__device__ __forceinline__ uint64_t operand_descriptor(uint32_t address, uint32_t column_bytes) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(column_bytes >> 4) << 16 |
           (uint64_t)(SWIZZLE_BYTES >> 4) << 32 | (uint64_t)1 << 62;
}

/* The operand that begins so many bytes further on. */
__device__ __forceinline__ uint64_t operand_at(uint64_t descriptor, int bytes) { return descriptor + (bytes >> 4); }

/* ---- products --------------------------------------------------------------------------------------------------------- */

/* C = A B where `add` is 0, else C += A B.
 *   along_k    A and B in shared memory, both along_k
 *   across_k   A in registers, B in shared memory, across_k */
template <typename half_t, int N> struct product;

/* The N / 2 accumulators of a product of N columns: their names, and that they are read and written. */
#define ACCUMULATORS_48                                                                                                \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"
#define ACCUMULATORS_64 ACCUMULATORS_48 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ACCUMULATORS_96                                                                                                \
    ACCUMULATORS_64 ", "                                                                                               \
                    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define ACCUMULATORS_128                                                                                               \
    ACCUMULATORS_96 ", "                                                                                               \
                    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ACCUMULATORS_192                                                                                               \
    ACCUMULATORS_128 ", "                                                                                              \
                     "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                \
                     "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define ACCUMULATORS_256                                                                                               \
    ACCUMULATORS_192 ", "                                                                                              \
                     "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "    \
                     "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define ACCUMULATE_8(i)                                                                                                \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]),        \
        "+f"(c[i + 7])
#define ACCUMULATE_16(i) ACCUMULATE_8(i), ACCUMULATE_8(i + 8)
#define ACCUMULATE_48    ACCUMULATE_16(0), ACCUMULATE_8(16)
#define ACCUMULATE_64    ACCUMULATE_48, ACCUMULATE_8(24)
#define ACCUMULATE_96    ACCUMULATE_64, ACCUMULATE_16(32)
#define ACCUMULATE_128   ACCUMULATE_96, ACCUMULATE_16(48)
#define ACCUMULATE_192   ACCUMULATE_128, ACCUMULATE_16(64), ACCUMULATE_16(80)
#define ACCUMULATE_256   ACCUMULATE_192, ACCUMULATE_16(96), ACCUMULATE_16(112)

/* n0 .. n5: the numbers of the operands after the N / 2 accumulators */
#define DEFINE_PRODUCT(half_t, name, N, n0, n1, n2, n3, n4, n5)                                                        \
    template <> struct product<half_t, N> {                                                                            \
        static __device__ __forceinline__ void along_k(float (&c)[N / 2], uint64_t a, uint64_t b, int add) {           \
            asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #n2 ", 0;\n"                                       \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." name "." name " {" ACCUMULATORS_##N         \
                         "}, %" #n0 ", %" #n1 ", adds, 1, 1, 0, 0;\n}"                                                 \
                         : ACCUMULATE_##N                                                                              \
                         : "l"(a), "l"(b), "r"(add));                                                                  \
        }                                                                                                              \
        static __device__ __forceinline__ void across_k(float (&c)[N / 2], const uint32_t *a, uint64_t b, int add) {   \
            asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #n5 ", 0;\n"                                       \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." name "." name " {" ACCUMULATORS_##N         \
                         "}, {%" #n0 ", %" #n1 ", %" #n2 ", %" #n3 "}, %" #n4 ", adds, 1, 1, 1;\n}"                    \
                         : ACCUMULATE_##N                                                                              \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                              \
        }                                                                                                              \
    };
#define DEFINE_PRODUCTS(N, ...)                                                                                        \
    DEFINE_PRODUCT(__nv_bfloat16, "bf16", N, __VA_ARGS__)                                                              \
    DEFINE_PRODUCT(__half, "f16", N, __VA_ARGS__)

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

DEFINE_PRODUCTS(48, 24, 25, 26, 27, 28, 29)
DEFINE_PRODUCTS(64, 32, 33, 34, 35, 36, 37)
DEFINE_PRODUCTS(96, 48, 49, 50, 51, 52, 53)
DEFINE_PRODUCTS(128, 64, 65, 66, 67, 68, 69)
DEFINE_PRODUCTS(192, 96, 97, 98, 99, 100, 101)
DEFINE_PRODUCTS(256, 128, 129, 130, 131, 132, 133)
#endif

/* Four words of each of four neighbouring lanes, as a 4 x 4 matrix, transposed. */
__device__ __forceinline__ void transpose_words(uint32_t (&w)[4]) {
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) {
        bool upper = threadIdx.x & distance;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & distance) continue;
            uint32_t given = __shfl_xor_sync(~0u, upper ? w[i] : w[i + distance], distance);
            (upper ? w[i] : w[i + distance]) = given;
        }
    }
}

#endif

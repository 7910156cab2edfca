/* Products of 16-bit tiles on GPUs from SM 8.0: the instructions, one function each, and where numbers lie.
 *
 * mma_16816: C (16 x 8, f32) += A (16 x 16) B (16 x 8).  Lane l holds, with g = l / 4 and c = 2 (l % 4):
 *   A   a[0] = A[g][c, c+1]   a[1] = A[g+8][c, c+1]   a[2] = A[g][c+8, c+9]   a[3] = A[g+8][c+8, c+9]
 *   B   b[0] = B[c, c+1][g]   b[1] = B[c+8, c+9][g]
 *   C   c[0], c[1] = C[g][c, c+1]   c[2], c[3] = C[g+8][c, c+1]
 * so the accumulators of two neighbouring 16 x 8 tiles, rounded to pairs, are the A of a product over their 16 columns.
 *
 * Tiles in shared memory are rows of WIDTH numbers, a multiple of 64, in chunks of 8 numbers (16 bytes); chunk c of row r
 * lies at place c ^ (r % 8), so that 8 rows of one column of chunks fall into different banks. */
#ifndef SP_ATTENTION_CUDA_MMA_CUH
#define SP_ATTENTION_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

enum { LANES = 32, CHUNK = 8 /* numbers */, CHUNK_BYTES = 16 };

/* ---- shared memory ---------------------------------------------------------------------------------------------- */

__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* Bytes from the begin of a tile of WIDTH numbers a row to a chunk. */
template <int WIDTH> __device__ __forceinline__ uint32_t chunk_offset(int row, int chunk) {
    return (uint32_t)(row * WIDTH * 2 + ((chunk ^ (row & 7)) * CHUNK_BYTES));
}

/* From the address of a chunk to that of the one `chunks` further in the same row, `rows` rows on: an even number whose
 * bits below 8 are not set in the first chunk's own, and a multiple of 8. */
template <int WIDTH> __device__ __forceinline__ uint32_t chunk_step(uint32_t address, int rows, int chunks) {
    return (address ^ (uint32_t)((chunks & 7) * CHUNK_BYTES)) +
           (uint32_t)(rows * WIDTH * 2 + (chunks & ~7) * CHUNK_BYTES);
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t value) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

/* Begins to copy a chunk from global to shared memory: its first `bytes` (0 to 16), and zeros.  `from` must be at a
 * multiple of 16 bytes; it is not read where bytes is 0. */
__device__ __forceinline__ void copy_chunk(uint32_t to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/* The same of a whole chunk. */
__device__ __forceinline__ void copy_whole_chunk(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* Closes a group of copies; copies_wait<N> waits until at most the N youngest groups are still under way. */
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.  Lane l gets of each its row l / 4, columns
 * 2 (l % 4) and the next. */
__device__ __forceinline__ void load_matrices(uint32_t r[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* The same of the transposed matrices. */
__device__ __forceinline__ void load_matrices_transposed(uint32_t r[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* ---- products --------------------------------------------------------------------------------------------------- */

template <typename half_t>
__device__ __forceinline__ void mma_16816(float c[4], const uint32_t a[4], const uint32_t b[2]);

template <>
__device__ __forceinline__ void mma_16816<__nv_bfloat16>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <> __device__ __forceinline__ void mma_16816<__half>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- pairs of numbers ------------------------------------------------------------------------------------------- */

/* The pair (low, high), rounded. */
template <typename half_t> __device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <> __device__ __forceinline__ uint32_t pack_pair<__half>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <typename half_t> __device__ __forceinline__ float2 unpack_pair(uint32_t pair);
template <> __device__ __forceinline__ float2 unpack_pair<__nv_bfloat16>(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack_pair<__half>(uint32_t pair) {
    return __half22float2(*reinterpret_cast<const __half2 *>(&pair));
}

/* The pair (max(low, 0), max(high, 0)), rounded; NaN stays. */
template <typename half_t> __device__ __forceinline__ uint32_t pack_positive_pair(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_positive_pair<__nv_bfloat16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <> __device__ __forceinline__ uint32_t pack_positive_pair<__half>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* 2^x; 0 below 2^-126. */
__device__ __forceinline__ float power_of_two_near(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

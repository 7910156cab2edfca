/* What backward needs of Hopper's products and copies beside sm90_product.cuh and sm90_copy.cuh: a product of two operands
 * that both lie across the inner dimension, 8 x 8 matrices from registers to shared memory, plain runs of bytes copied in,
 * and out by adding. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_PRODUCT_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_PRODUCT_CUH

#include "attention/cuda/mma.cuh"
#include "attention/cuda/sm90_copy.cuh"
#include "attention/cuda/sm90_product.cuh"

/* C (64 x 64) = A B, or += where `add` is not 0; the rows of both operands in shared memory are those of the inner
 * dimension: 64 rows of C, or 64 columns, in each. */
template <typename half_t> struct product_across;

/* The same with A in registers and B along_k. */
template <typename half_t> struct product_along;

#define DEFINE_PRODUCT_ALONG(half_t, name)                                                                             \
    template <> struct product_along<half_t> {                                                                         \
        static __device__ __forceinline__ void queue(float (&c)[32], const uint32_t *a, uint64_t b, int add) {         \
            asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " {" ACCUMULATORS_64              \
                         "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 0;\n}"                                             \
                         : ACCUMULATE_64                                                                               \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                              \
        }                                                                                                              \
    };

#define DEFINE_PRODUCT_ACROSS(half_t, name)                                                                            \
    template <> struct product_across<half_t> {                                                                        \
        static __device__ __forceinline__ void queue(float (&c)[32], uint64_t a, uint64_t b, int add) {                \
            asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %34, 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " {" ACCUMULATORS_64              \
                         "}, %32, %33, adds, 1, 1, 1, 1;\n}"                                                           \
                         : ACCUMULATE_64                                                                               \
                         : "l"(a), "l"(b), "r"(add));                                                                  \
        }                                                                                                              \
    };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

DEFINE_PRODUCT_ALONG(__nv_bfloat16, "bf16")
DEFINE_PRODUCT_ALONG(__half, "f16")
DEFINE_PRODUCT_ACROSS(__nv_bfloat16, "bf16")
DEFINE_PRODUCT_ACROSS(__half, "f16")

/* The opposite of load_matrices. */
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t *r) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/* What this thread wrote to shared memory is seen by products and copies that begin after the next barrier. */
__device__ __forceinline__ void publish_to_engines() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Begins to copy bytes, a multiple of 16, to shared memory; they count for `barrier`. */
__device__ __forceinline__ void copy_bytes(uint32_t to, const void *from, int bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* Begins to copy numbers of shared memory out, or to add them to what is there. */
__device__ __forceinline__ void copy_out(float *to, uint32_t from, int bytes, bool add) {
    if (add)
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from),
                     "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
                     : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Waits until what this thread has copied out has been read, or is in place. */
__device__ __forceinline__ void copies_out_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ __forceinline__ void copies_out_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

#endif

#endif

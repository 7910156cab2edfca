/* Shared memory on Hopper: barriers that count bytes, and copies of boxes of a tensor by the copy engine.
 *
 * A ring is a few places in shared memory that a producer fills and consumers empty in turn; each place has a barrier for
 * `full` and one for `empty`.  Both sides walk through the places by a ring_place of their own. */
#ifndef SP_ATTENTION_CUDA_SM90_COPY_CUH
#define SP_ATTENTION_CUDA_SM90_COPY_CUH

#include <cuda.h>
#include <stdint.h>

/* ---- time that passes ----------------------------------------------------------------------------------------------- */

/* Stands wherever threads wait for others or tell them something.  In builds with SOFTPICK_CUDA_SLEEPS the thread sleeps
 * there for a random time, some warps for longer ones each millisecond, so that tests meet orders of events that are rare
 * otherwise; in all others it is nothing. */
__device__ __forceinline__ void role_sleep() {
#ifdef SP_CUDA_SLEEPS
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    uint32_t warp = blockIdx.x * 16 + threadIdx.x / 32;
    uint32_t chance = ((uint32_t)clock() ^ warp * 0x9E3779B9u) * 0x85EBCA6Bu >> 8;
    uint32_t mood = ((uint32_t)(now >> 20) + warp) * 0xC2B2AE35u >> 29; /* one warp in eight is a slow one */
    uint32_t nanoseconds = chance & (mood ? 0xff : 0x7ff);
    if ((chance >> 11 & 31) == 0) nanoseconds <<= 5;
    asm volatile("nanosleep.u32 %0;" ::"r"(nanoseconds) : "memory");
#endif
}

/* ---- barriers ----------------------------------------------------------------------------------------------------- */

/* A phase of the barrier is over when `count` arrivals and all bytes expected in it are there. */
__device__ __forceinline__ void barrier_begin(uint32_t barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

/* Makes begun barriers known to the copy engine. */
__device__ __forceinline__ void barriers_publish() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
    role_sleep();
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* One lane arrives for its warp, after __syncwarp() where the others have read or written what the barrier guards.  In builds
 * with SOFTPICK_CUDA_EVERY_LANE all of them do: racecheck does not see that __syncwarp() puts the others' accesses before
 * the arrival. */
#ifdef SP_CUDA_EVERY_LANE
enum { WARP_ARRIVALS = 32 };
#else
enum { WARP_ARRIVALS = 1 };
#endif
__device__ __forceinline__ void barrier_arrive_warp(uint32_t barrier) {
    if (threadIdx.x % 32 < WARP_ARRIVALS) barrier_arrive(barrier);
}

/* Arrives, and makes the phase last until so many more bytes have been copied. */
__device__ __forceinline__ void barrier_arrive_expecting(uint32_t barrier, int bytes) {
    role_sleep();
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ bool barrier_try(uint32_t barrier, uint32_t parity) {
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, over;\n"
                 "}"
                 : "=r"(over)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return over;
}

/* Waits until the phase of that parity is over; the phase before the first counts as one of parity 1 that is over. */
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
    role_sleep();
    while (!barrier_try(barrier, parity)) {
    }
}

/* ---- rings ---------------------------------------------------------------------------------------------------------- */

template <int N> struct ring_place {
    int index = 0;
    uint32_t parity = 0; /* of the phase that this walk round the ring waits for */

    __device__ __forceinline__ void advance() {
        if (++index == N) index = 0, parity ^= 1;
    }
};

/* Where N barriers for full and N for empty lie. */
template <int N> struct ring_barriers {
    uint32_t address;

    /* Consumers are warps, and threads that are alone. */
    __device__ __forceinline__ void begin(int n_warps, int n_threads = 0) {
        for (int i = 0; i < N; i++)
            barrier_begin(address + 8 * i, 1),
                barrier_begin(address + 8 * (N + i), n_warps * WARP_ARRIVALS + n_threads);
    }
    __device__ __forceinline__ uint32_t full(int i) { return address + 8 * i; }
    __device__ __forceinline__ uint32_t empty(int i) { return address + 8 * (N + i); }
    __device__ __forceinline__ void wait_full(const ring_place<N> &place) {
        barrier_wait(full(place.index), place.parity);
    }
    __device__ __forceinline__ void wait_empty(const ring_place<N> &place) {
        barrier_wait(empty(place.index), place.parity ^ 1);
    }
};

/* ---- copies --------------------------------------------------------------------------------------------------------- */

/* Begins to copy a box of a (B,T,H,D) tensor, whose first number is at (b,t,h,d), to shared memory at `to`, a multiple of
 * 1024; what lies outside of the tensor is zeros.  The bytes count for `barrier`. */
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int b, int t, int h,
                                         int d) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
                 "%6}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(d), "r"(t), "r"(h), "r"(b)
                 : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

#endif

/* The main kernel of backward on Hopper, one file for each width of heads. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_LAUNCH_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_LAUNCH_CUH

#include "attention/cuda/sm90_backward.cuh"
#include "device/cuda_check.cuh"

sp_status sp_sm90_backward_64(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_backward_96(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_backward_128(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream);

template <typename half_t, bool SOFTPICK, typename shape>
static sp_status launch_hopper_backward(const hopper_backward *job, cudaStream_t stream) {
    auto *kernel = hopper_backward_kernel<half_t, SOFTPICK, shape>;
    constexpr int bytes = hopper_backward_bytes<shape>();
    int device = 0, n_multiprocessors = 0;
    SP_CUDA_TRY(cudaGetDevice(&device));
    SP_CUDA_TRY(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, device));
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const int n_items = job->n_heads * job->n_blocks;
    const int n_groups = n_items < n_multiprocessors ? n_items : n_multiprocessors;
    kernel<<<n_groups, shape::THREADS, bytes, stream>>>(*job);
    SP_CUDA_LAUNCHED("attention backward");
    return SP_OK;
}

template <typename half_t, int WIDTH>
static sp_status launch_hopper_backward_in(const hopper_backward *job, cudaStream_t stream) {
    typedef hopper_backward_shape<WIDTH, true> with_words;
    typedef hopper_backward_shape<WIDTH, false> without_words;
    return job->task.liveness   ? launch_hopper_backward<half_t, true, with_words>(job, stream)
           : job->task.softpick ? launch_hopper_backward<half_t, true, without_words>(job, stream)
                                : launch_hopper_backward<half_t, false, without_words>(job, stream);
}

template <int WIDTH>
static sp_status launch_hopper_backward_of(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream) {
    return dtype == SP_DTYPE_BF16 ? launch_hopper_backward_in<__nv_bfloat16, WIDTH>(job, stream)
                                  : launch_hopper_backward_in<__half, WIDTH>(job, stream);
}

#endif

/* Statistics of attention rows for heads of up to 256 channels. */
#include "attention/cuda/sm80_statistics.cuh"

extern "C" sp_status sp_sm80_statistics_256(const gpu_view *view, const gpu_notes *to, sp_dtype dtype,
                                            cudaStream_t stream) {
    return statistics_dispatch<256>(view, to, dtype, stream);
}

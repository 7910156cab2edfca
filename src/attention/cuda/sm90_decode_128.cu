/* Attention decode on Hopper for heads of up to 128 channels. */
#include "attention/cuda/sm90_decode.cuh"

typedef hopper_decode_shape<true, 128, 16, 4, SM90_DECODE_RESIDENT_128, 4, 3> picking;
typedef hopper_decode_shape<false, 128, 16, 4, SM90_DECODE_RESIDENT_128, 3, 0> plain;

extern "C" sp_status sp_sm90_decode_128(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream) {
    return hopper_decode_dispatch<picking, plain>(job, dtype, stream);
}

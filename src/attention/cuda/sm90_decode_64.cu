/* Attention decode on Hopper for heads of up to 64 channels. */
#include "attention/cuda/sm90_decode.cuh"

typedef hopper_decode_shape<true, 64, 32, 6, SM90_DECODE_RESIDENT_64, 2, 2> picking;
typedef hopper_decode_shape<false, 64, 32, 4, SM90_DECODE_RESIDENT_64, 3, 0> plain;

extern "C" sp_status sp_sm90_decode_64(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream) {
    return hopper_decode_dispatch<picking, plain>(job, dtype, stream);
}

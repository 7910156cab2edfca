/* Sums of blocks, added up: thread (i, j) adds every ROWS-th section of column i, then row 0 adds those. */
#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/sections_cuda.h"
}

enum { COLUMNS = 32, ROWS = 32 };

static __global__ void __launch_bounds__(COLUMNS *ROWS)
    sections_kernel(float *__restrict__ out, const float *__restrict__ sections, int n, int C) {
    __shared__ float sums[ROWS][COLUMNS];
    int c = (int)(blockIdx.x * COLUMNS + threadIdx.x);
    float sum = 0.0f;
    if (c < C) {
#pragma unroll 8
        for (int s = (int)threadIdx.y; s < n; s += ROWS) sum += sections[(int64_t)s * C + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= C) return;
    for (int i = 1; i < ROWS; i++) sum += sums[i][threadIdx.x];
    out[c] += sum;
}

extern "C" sp_status sp_cuda_sections_add(sp_device *device, float *out, const float *sections, int64_t n, int64_t C) {
    sections_kernel<<<(unsigned)sp_divide_up(C, COLUMNS), dim3(COLUMNS, ROWS), 0, sp_stream_of(device)>>>(
        out, sections, (int)n, (int)C);
    SP_CUDA_LAUNCHED("sum of sections");
    return SP_OK;
}

/* Embedding on a CUDA device: rows of a table by token, and the gradient added back to them; rows of any array by number.
 *
 * Backward, no atomics: the host sorts the places of the tokens by token (a stable radix sort: each token's places stay
 * in order) and uploads the order and the runs of one token in it.  A block then owns some columns of one row of the
 * table and adds the run's gradients to them in order, many loads at a time.  Runs that are long stand first: they take
 * longest, and the short ones fill the rest of the GPU meanwhile. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "base/memory.h"
#include "layers/cuda/kept_cuda.h"
#include "layers/cuda/layers_cuda.h"
}

enum { COLUMNS = 256, LONG_RUN = 32 };

static __global__ void __launch_bounds__(COLUMNS)
    embedding_forward_kernel(float *__restrict__ x, const float *__restrict__ table, const int32_t *__restrict__ tokens,
                             int64_t C) {
    const float4 *from = reinterpret_cast<const float4 *>(table + tokens[blockIdx.x] * C);
    float4 *to = reinterpret_cast<float4 *>(x + blockIdx.x * C);
    for (int64_t i = threadIdx.x; i < C / 4; i += blockDim.x) to[i] = from[i];
}

/* A warp copies a row, four columns of 16 bytes at a time for each lane. */
static __global__ void __launch_bounds__(COLUMNS)
    gather_rows_kernel(uint4 *__restrict__ to, const char *__restrict__ from, int64_t from_stride,
                       const int32_t *__restrict__ rows, int row_packs, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * (COLUMNS / SP_WARP) + threadIdx.x / SP_WARP;
    if (i >= n) return;
    const uint4 *row = reinterpret_cast<const uint4 *>(from + rows[i] * from_stride);
#pragma unroll 4
    for (int pack = (int)threadIdx.x % SP_WARP; pack < row_packs; pack += SP_WARP) to[i * row_packs + pack] = row[pack];
}

/* The places order[begin], ..., order[begin + n - 1] hold this token. */
struct token_run {
    int32_t token, begin, n;
};

/* Sum of the gradients of a run in one column, in order.  A warp reads 32 places at once, those that come next while it
 * works on these, and hands them round; 32 gradients are on their way before the first is added. */
static __device__ __forceinline__ float add_run(float sum, const float *dx, const int32_t *order, int n, int64_t C) {
    const int lane = (int)threadIdx.x % SP_WARP;
    int32_t place = lane < n ? order[lane] : 0;
    for (int i = 0; i < n; i += SP_WARP) {
        int here = n - i < SP_WARP ? n - i : SP_WARP, ahead = i + SP_WARP + lane;
        int32_t next = ahead < n ? order[ahead] : 0;
        if (here == SP_WARP) {
            float values[SP_WARP];
#pragma unroll
            for (int j = 0; j < SP_WARP; j++) values[j] = dx[__shfl_sync(~0u, place, j) * C];
#pragma unroll
            for (int j = 0; j < SP_WARP; j++) sum += values[j];
        } else {
#pragma unroll 4
            for (int j = 0; j < here; j++) sum += dx[__shfl_sync(~0u, place, j) * C];
        }
        place = next;
    }
    return sum;
}

/* Block (run, chunk of columns).  With less than four blocks' room for registers the loads would wait for each other. */
static __global__ void __launch_bounds__(COLUMNS, 4)
    embedding_backward_kernel(float *__restrict__ dtable, const float *__restrict__ dx,
                              const int32_t *__restrict__ order, const token_run *__restrict__ runs, int n_chunks,
                              int64_t C) {
    const token_run run = runs[blockIdx.x / n_chunks];
    int64_t column = blockIdx.x % n_chunks * (int64_t)COLUMNS + threadIdx.x;
    bool mine = column < C;
    if (!mine) column = 0; /* the warp's other lanes need this one to read places */
    float *sum = dtable + run.token * C + column;
    float total = add_run(mine ? *sum : 0.0f, dx + column, order + run.begin, run.n, C);
    if (mine) *sum = total;
}

static sp_status check(int64_t N, int64_t C, bool wide) {
    SP_REQUIRE(C >= 4 && C % 4 == 0, SP_UNSUPPORTED, "embedding on a GPU: a width of %" PRId64 ": multiples of 4", C);
    SP_REQUIRE(N >= 0 && N <= INT32_MAX / 8, SP_BAD_ARGUMENT, "embedding on a GPU: %" PRId64 " tokens", N);
    SP_REQUIRE(wide, SP_BAD_ARGUMENT, "embedding on a GPU: a tensor that does not begin at a multiple of 16 bytes");
    return SP_OK;
}

extern "C" sp_status sp_cuda_embedding_forward(sp_device *device, float *x, const float *table, const int32_t *tokens,
                                               int64_t N, int64_t C) {
    SP_TRY(check(N, C, sp_is_wide(x) && sp_is_wide(table)));
    if (N == 0) return SP_OK;
    embedding_forward_kernel<<<(unsigned)N, COLUMNS, 0, sp_stream_of(device)>>>(x, table, tokens, C);
    SP_CUDA_LAUNCHED("embedding forward");
    return SP_OK;
}

extern "C" sp_status sp_cuda_gather_rows(sp_device *device, void *to, const void *from, int64_t from_stride,
                                         const int32_t *rows, int64_t row_bytes, int64_t n) {
    SP_REQUIRE(row_bytes >= 16 && row_bytes % 16 == 0 && row_bytes / 16 <= INT32_MAX && from_stride % 16 == 0,
               SP_UNSUPPORTED, "rows on a GPU: %" PRId64 " bytes, %" PRId64 " apart: multiples of 16", row_bytes,
               from_stride);
    SP_REQUIRE(sp_is_wide(to) && sp_is_wide(from), SP_BAD_ARGUMENT,
               "rows on a GPU: a tensor that does not begin at a multiple of 16 bytes");
    SP_REQUIRE(n >= 0 && n <= INT32_MAX, SP_BAD_ARGUMENT, "rows on a GPU: %" PRId64 " rows", n);
    if (n == 0) return SP_OK;
    gather_rows_kernel<<<(unsigned)sp_divide_up(n, COLUMNS / SP_WARP), COLUMNS, 0, sp_stream_of(device)>>>(
        (uint4 *)to, (const char *)from, from_stride, rows, (int)(row_bytes / 16), n);
    SP_CUDA_LAUNCHED("gathering rows");
    return SP_OK;
}

/* ---- the host's part of backward ---- */

/* order (N): the places 0 .. N-1 sorted by token, equal tokens in order; `other` (N) is scratch. */
static void sort_places(int32_t *order, int32_t *other, const int32_t *tokens, int64_t N) {
    enum { BITS = 11, DIGITS = 1 << BITS };
    int32_t highest = 0;
    for (int64_t n = 0; n < N; n++) {
        order[n] = (int32_t)n;
        if (tokens[n] > highest) highest = tokens[n];
    }
    for (int shift = 0; shift < 31 && highest >> shift; shift += BITS) {
        int32_t next[DIGITS] = {0}, sum = 0;
        for (int64_t n = 0; n < N; n++) next[tokens[n] >> shift & (DIGITS - 1)]++;
        for (int d = 0; d < DIGITS; d++) {
            int32_t count = next[d];
            next[d] = sum;
            sum += count;
        }
        for (int64_t n = 0; n < N; n++) other[next[tokens[order[n]] >> shift & (DIGITS - 1)]++] = order[n];
        memcpy(order, other, (size_t)N * sizeof *order);
    }
}

/* The runs of equal tokens in `order` whose length is at least LONG_RUN, or else is below it; returns their number. */
static int64_t find_runs(token_run *runs, const int32_t *order, const int32_t *tokens, int64_t N, bool long_ones) {
    int64_t n_runs = 0;
    for (int64_t begin = 0, end; begin < N; begin = end) {
        int32_t token = tokens[order[begin]];
        for (end = begin + 1; end < N && tokens[order[end]] == token;) end++;
        if ((end - begin >= LONG_RUN) == long_ones)
            runs[n_runs++] = token_run{token, (int32_t)begin, (int32_t)(end - begin)};
    }
    return n_runs;
}

/* What is uploaded: the order (N), then at most N runs. */
static int64_t order_bytes(int64_t N) { return sp_round_up(N * (int64_t)sizeof(int32_t), SP_ALIGNMENT); }

extern "C" int64_t sp_cuda_embedding_workspace(int64_t N) { return order_bytes(N) + N * (int64_t)sizeof(token_run); }

/* workspace = the places in order and their runs. */
static sp_status upload_order(sp_device *device, char *workspace, const int32_t *tokens, int64_t N, int64_t *n_runs) {
    void *staging;
    SP_TRY(sp_kept_staging(device, &staging, sp_cuda_embedding_workspace(N)));
    int32_t *order = (int32_t *)staging;
    token_run *runs = (token_run *)((char *)staging + order_bytes(N));
    sort_places(order, (int32_t *)runs, tokens, N);
    *n_runs = find_runs(runs, order, tokens, N, true);
    *n_runs += find_runs(runs + *n_runs, order, tokens, N, false);
    return sp_kept_upload(device, workspace, order_bytes(N) + *n_runs * (int64_t)sizeof(token_run));
}

extern "C" sp_status sp_cuda_embedding_backward(sp_device *device, float *dtable, const float *dx,
                                                const int32_t *tokens, int64_t N, int64_t C, void *workspace) {
    SP_TRY(check(N, C, sp_is_wide(dtable) && sp_is_wide(dx) && sp_is_wide(workspace)));
    if (N == 0) return SP_OK;
    int64_t n_runs, n_chunks = sp_divide_up(C, COLUMNS);
    char *sorted = (char *)workspace;
    SP_TRY(upload_order(device, sorted, tokens, N, &n_runs));
    SP_REQUIRE(n_runs <= INT32_MAX / n_chunks, SP_UNSUPPORTED,
               "embedding on a GPU: %" PRId64 " different tokens of width %" PRId64, n_runs, C);
    embedding_backward_kernel<<<(unsigned)(n_runs * n_chunks), COLUMNS, 0, sp_stream_of(device)>>>(
        dtable, dx, (const int32_t *)sorted, (const token_run *)(sorted + order_bytes(N)), (int)n_chunks, C);
    SP_CUDA_LAUNCHED("embedding backward");
    return SP_OK;
}

/* Backward on GPUs from compute capability 8.0 on: what stands around the main kernel (sm80_backward.cuh).
 *
 *   sequences   written into the workspace where they are not all alike (packed, or of different key lengths)
 *   rows        delta = dout . out and the other facts of each query's row; what dq_sum needs to begin
 *   main        dk, dv, and dq as a sum in f32
 *   dq          scaled and narrowed
 *   sums        of what the tiles add to dsink and drow_factor, in the order of the tiles
 *
 * Nothing is read from host memory after the call: lists travel as arguments of kernels. */
#include "attention/cuda/sm80_backward_task.cuh"

#include <limits.h>

#include "attention/cuda/mma.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80_backward.h"
#include "attention/normalizer.h"
}

/* ---- workspace -------------------------------------------------------------------------------------------------- */

static int padded_width(const sp_attention *problem) {
    int64_t width = problem->q.shape[3] > problem->v.shape[3] ? problem->q.shape[3] : problem->v.shape[3];
    return width <= 64 ? 64 : width <= 128 ? 128 : 256;
}

/* Sequences of a dense problem are alike unless they have key lengths. */
static bool are_alike(const sp_attention *problem) { return !problem->cu_q && !problem->key_lengths; }

static backward_sequence cut_sequence(const sp_attention *problem, int64_t i, int tile_first, int block_first) {
    sp_sequence from = sp_problem_sequence(problem, i);
    return {(int)i,        (int)from.b,        (int)from.q_first, (int)from.k_first, (int)from.n_q,
            (int)from.n_k, (int)from.n_k_rows, tile_first,        block_first};
}

static int count_tiles(const backward_task *task, const backward_sequence &sequence) {
    int together = TILE_QUERIES * task->tiles_together;
    return (sequence.n_q + together - 1) / together * task->tiles_together;
}
static int count_blocks(const backward_sequence &sequence, int width) {
    return (sequence.n_k_rows + block_keys(width) - 1) / block_keys(width);
}

/* Tiles and blocks of all sequences, and of the first. */
static void cut_problem(backward_task *task, const sp_attention *problem, int width) {
    int64_t n = sp_problem_n_sequences(problem);
    task->n_sequences = (int)n;
    for (int64_t i = 0; i < n; i++) {
        backward_sequence sequence = cut_sequence(problem, i, task->n_tiles, task->n_blocks);
        task->n_tiles += count_tiles(task, sequence);
        task->n_blocks += count_blocks(sequence, width);
        if (count_blocks(sequence, width) > task->most_blocks) task->most_blocks = count_blocks(sequence, width);
        if (i > 0) continue;
        task->first = sequence;
        task->sequence_tiles = task->n_tiles;
        task->sequence_blocks = task->n_blocks;
    }
}

int64_t sp_backward_carve(backward_task *task, const sp_attention *problem, char *workspace) {
    const int width = padded_width(problem);
    int64_t tiles = (int64_t)task->n_tiles * task->H, used = 0;
    auto take = [&](int64_t bytes) {
        char *begin = workspace ? workspace + used : nullptr;
        used += (bytes + 255) / 256 * 256;
        return begin;
    };
    task->row_facts = (backward_row *)take(tiles * TILE_QUERIES * (int64_t)sizeof(backward_row));
    task->dq_sum = (float *)take(tiles * TILE_QUERIES * width * (int64_t)sizeof(float));
    task->dq_turn = (int *)take(tiles * (int64_t)sizeof(int));
    task->ticket = (int *)take(sizeof(int));
    task->partial = (float *)take(tiles * (int64_t)sizeof(float));
    if (!are_alike(problem))
        task->sequences = (backward_sequence *)take(task->n_sequences * (int64_t)sizeof(backward_sequence));
    if (task->liveness) task->tile_blocks = (key_range *)take(tiles * (int64_t)sizeof(key_range));
    return used;
}

static backward_tensor tensor_of(const sp_tensor *tensor) {
    int64_t bytes = sp_dtype_bytes(tensor->dtype);
    return {(char *)tensor->data, tensor->stride[0] * bytes, tensor->stride[1] * bytes, tensor->stride[2] * bytes,
            (int)tensor->shape[3]};
}

static sp_status check_counts(const sp_attention *problem) {
    int64_t most = INT_MAX / 4, B = problem->q.shape[0], T = problem->q.shape[1], H = problem->q.shape[2];
    int64_t S = problem->k.shape[1];
    SP_REQUIRE(T < most && S < most && H <= 65535 && sp_problem_n_sequences(problem) < most / 16 &&
                   (double)B * (double)(T + S) * (double)H < 16.0 * (double)most,
               SP_UNSUPPORTED, "attention on a GPU counts rows by 32 bits: this problem has too many");
    return SP_OK;
}

sp_status sp_backward_describe(backward_task *task, const sp_attention *problem, int tiles_together) {
    SP_TRY(check_counts(problem));
    *task = backward_task{};
    task->tiles_together = tiles_together;
    task->q = tensor_of(&problem->q);
    task->k = tensor_of(&problem->k);
    task->v = tensor_of(&problem->v);
    task->out = tensor_of(&problem->out);
    task->dout = tensor_of(&problem->dout);
    task->dq = tensor_of(&problem->dq);
    task->dk = tensor_of(&problem->dk);
    task->dv = tensor_of(&problem->dv);
    task->lse = problem->lse;
    task->sink = problem->sink;
    task->row_factor = problem->row_factor;
    task->dsink = problem->normalizer == SP_NORMALIZER_SOFTMAX_SINK ? problem->dsink : NULL;
    task->drow_factor = problem->row_factor ? problem->drow_factor : NULL;
    task->softpick = problem->normalizer == SP_NORMALIZER_SOFTPICK;
    task->rectifies = task->softpick || problem->normalizer == SP_NORMALIZER_RECTIFIED;
    task->causal = problem->causal;
    task->window = (int)(problem->window < INT_MAX ? problem->window : INT_MAX);
    task->scale = (float)sp_problem_scale(problem);
    task->lambda = problem->lambda;
    task->H = (int)problem->q.shape[2];
    task->Hkv = (int)problem->k.shape[2];
    task->T = (int)problem->q.shape[1];
    cut_problem(task, problem, padded_width(problem));
    if (!task->H) task->n_tiles = 0;
    task->any_order = problem->any_order || !task->n_tiles; /* nothing to order, and no kernel that prepares it */
    return SP_OK;
}

extern "C" sp_status sp_sm80_backward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    backward_task task;
    SP_TRY(sp_backward_describe(&task, problem, 1));
    *n_bytes = sp_backward_carve(&task, problem, NULL);
    return SP_OK;
}

/* ---- sequences -------------------------------------------------------------------------------------------------- */

/* As many as go into the arguments of a kernel. */
struct sequence_list {
    int n;
    backward_sequence list[100];
};

static __global__ void write_sequences_kernel(backward_sequence *to, const __grid_constant__ sequence_list from) {
    if ((int)threadIdx.x < from.n) to[threadIdx.x] = from.list[threadIdx.x];
}

static sp_status write_sequences(const backward_task *task, const sp_attention *problem, int width,
                                 cudaStream_t stream) {
    int tiles = 0, blocks = 0;
    sequence_list part;
    constexpr int MOST = sizeof part.list / sizeof *part.list;
    for (int first = 0; first < task->n_sequences; first += MOST) {
        part.n = task->n_sequences - first < MOST ? task->n_sequences - first : MOST;
        for (int i = 0; i < part.n; i++) {
            part.list[i] = cut_sequence(problem, first + i, tiles, blocks);
            tiles += count_tiles(task, part.list[i]);
            blocks += count_blocks(part.list[i], width);
        }
        write_sequences_kernel<<<1, 128, 0, stream>>>(const_cast<backward_sequence *>(task->sequences) + first, part);
        SP_CUDA_LAUNCHED("attention backward: sequences");
    }
    return SP_OK;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

constexpr int ROW_THREADS = 128, FEW_KEYS = 64;

static __device__ __forceinline__ int count_keys(const backward_task &task, const backward_sequence &sequence, int t) {
    key_range seen = visible_keys(task, sequence, t);
    return seen.end - seen.first;
}

/* Chunk `chunk` of a row of `width` numbers; zeros past its end. */
static __device__ __forceinline__ uint4 load_chunk(const char *row, int chunk, int width) {
    uint4 four = make_uint4(0, 0, 0, 0);
    if (8 * chunk + 8 <= width) return reinterpret_cast<const uint4 *>(row)[chunk];
    uint16_t *numbers = reinterpret_cast<uint16_t *>(&four);
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (8 * chunk + i < width) numbers[i] = reinterpret_cast<const uint16_t *>(row)[8 * chunk + i];
    return four;
}

/* sum + a . b of two chunks. */
template <typename half_t> static __device__ __forceinline__ float dot_chunk(uint4 a, uint4 b, float sum) {
    const uint32_t pairs[4][2] = {{a.x, b.x}, {a.y, b.y}, {a.z, b.z}, {a.w, b.w}};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 x = unpack_pair<half_t>(pairs[i][0]), y = unpack_pair<half_t>(pairs[i][1]);
        sum = fmaf(x.x, y.x, sum);
        sum = fmaf(x.y, y.y, sum);
    }
    return sum;
}

/* The facts of query t's row, from its delta; *dsink: what it adds to its head's dsink. */
static __device__ __forceinline__ backward_row row_of(const backward_task &task, const backward_sequence &sequence,
                                                      int h, int t, float delta, float *dsink) {
    float log2_d = task.lse[((int64_t)sequence.b * task.H + h) * task.T + sequence.q_first + t];
    float scale = task.scale * LOG2_E;
    if (task.row_factor) scale *= task.row_factor[h] * log_position(sequence, t);
    backward_row row = {scale, log2_d, task.rectifies ? power_of_two_near(-log2_d) : -1, delta};
    if (isinf(log2_d)) row.delta = 0;
    *dsink = task.dsink ? -row.delta * power_of_two_near(task.sink[h] * LOG2_E - log2_d) : 0;
    return row;
}

static __device__ __forceinline__ void store_row(const backward_task &task, int64_t index, const backward_row &row) {
    if (!task.pairs) {
        task.row_facts[index] = row;
        return;
    }
    backward_row_pair &pair = reinterpret_cast<backward_row_pair *>(task.row_facts)[index / 2];
    pair.log2_d[index % 2] = row.log2_d;
    pair.least[index % 2] = task.softpick ? __int_as_float(__float_as_int(row.unit) + 1) : 0;
    pair.delta[index % 2] = row.delta;
    pair.none[index % 2] = 0;
}

/* Between which words of a tile (of 128 keys each) there is something to compute.  Where no weight of any row is positive,
 * delta is 0 and so are all gradients; if besides lambda is 0, the keys of a word without a bit get nothing. */
static __device__ key_range find_blocks(const backward_task &task, const backward_sequence &sequence, int h, int tile) {
    const key_range seen = tile_keys(task, sequence, tile);
    const uint32_t *words = tile_words(task, sequence, h, tile);
    __shared__ int first, end;
    if (threadIdx.x == 0) first = INT_MAX, end = 0;
    __syncthreads();
    for (int i = seen.first / SP_LIVENESS_KEYS + (int)threadIdx.x; i * SP_LIVENESS_KEYS < seen.end;
         i += (int)blockDim.x)
        if (words[i]) atomicMin(&first, i), atomicMax(&end, i + 1);
    __syncthreads();
    if (end == 0 || task.lambda == 0) return {first, end};
    return {seen.first / SP_LIVENESS_KEYS, (seen.end + SP_LIVENESS_KEYS - 1) / SP_LIVENESS_KEYS};
}

/* A tile to which no block of keys will come: its queries have no gradient. */
template <typename half_t>
static __device__ void clear_dq(const backward_task &task, const backward_sequence &sequence, int h, int first) {
    for (int i = threadIdx.x; i < TILE_QUERIES * task.dq.width / 8; i += (int)blockDim.x) {
        int t = first + i / (task.dq.width / 8), chunk = i % (task.dq.width / 8);
        if (t < sequence.n_q)
            reinterpret_cast<uint4 *>(task.dq.at(sequence.b, sequence.q_first + t, h))[chunk] = make_uint4(0, 0, 0, 0);
    }
}

/* What the blocks of keys of the row sm90 do not do themselves. */
template <typename half_t>
static __device__ __forceinline__ void begin_blocks(const backward_task &task, const backward_sequence &sequence, int h,
                                                    int tile, int64_t index) {
    key_range blocks = {0, 0};
    if (tile * TILE_QUERIES < sequence.n_q)
        blocks = task.liveness ? find_blocks(task, sequence, h, tile) : tile_keys(task, sequence, tile);
    if (task.liveness && threadIdx.x == 0) task.tile_blocks[index] = blocks;
    if (blocks.first >= blocks.end) clear_dq<half_t>(task, sequence, h, tile * TILE_QUERIES);
}

/* The sum of a group of threads' numbers, in the same order each time; in thread 0. */
static __device__ float sum_threads(float x) {
    __shared__ float warps[32];
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffff, x, i);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < (int)blockDim.x / 32; i++) x += warps[i];
    return x;
}

/* What is due for a tile beside its rows: the beginning of dq's sum, and the share of dsink. */
static __device__ void begin_tile(const backward_task &task, int64_t tile, int width, float dsink) {
    if (threadIdx.x == 0) {
        task.dq_turn[tile] = 0;
        if (tile == 0) *task.ticket = 0;
    }
    int n_quads = task.any_order ? TILE_QUERIES * width / 4 : 0;
    for (int i = threadIdx.x; i < n_quads; i += (int)blockDim.x)
        reinterpret_cast<float4 *>(task.dq_sum)[tile * n_quads + i] = make_float4(0, 0, 0, 0);
    if (!task.dsink) return;
    dsink = sum_threads(dsink);
    if (threadIdx.x == 0) task.partial[tile] = dsink;
}

/* What chunk `chunk` of out and dout adds to delta of query t's row. */
template <typename half_t>
static __device__ __forceinline__ float delta_share(const backward_task &task, const backward_sequence &sequence, int h,
                                                    int t, int chunk) {
    const int row = sequence.q_first + t;
    if (t >= sequence.n_q || 8 * chunk >= task.out.width) return 0;
    return dot_chunk<half_t>(load_chunk(task.out.at(sequence.b, row, h), chunk, task.out.width),
                             load_chunk(task.dout.at(sequence.b, row, h), chunk, task.out.width), 0);
}

/* delta of a tile's rows from the stored output.  WIDTH / 8 threads a row, a chunk each; four rows are on their way. */
template <typename half_t, int WIDTH>
static __device__ __forceinline__ void deltas_by_outputs(const backward_task &task, const backward_sequence &sequence,
                                                         int h, int first, float *deltas) {
    constexpr int CHUNKS = WIDTH / 8, ROWS = ROW_THREADS / CHUNKS;
    const int chunk = threadIdx.x % CHUNKS;
    for (int begin = threadIdx.x / CHUNKS; begin < TILE_QUERIES; begin += 4 * ROWS) {
        float delta[4];
#pragma unroll
        for (int i = 0; i < 4; i++) delta[i] = delta_share<half_t>(task, sequence, h, first + begin + i * ROWS, chunk);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            for (int distance = CHUNKS / 2; distance > 0; distance /= 2)
                delta[i] += __shfl_xor_sync(0xffffffff, delta[i], distance);
            if (chunk == 0) deltas[begin + i * ROWS] = delta[i];
        }
    }
}

/* Rows of one head of a tensor. */
struct head_rows {
    const backward_tensor &tensor;
    int b, first, n, h;

    __device__ __forceinline__ uint4 load(int row, int chunk) const {
        return row < n ? load_chunk(tensor.at(b, first + row, h), chunk, tensor.width) : make_uint4(0, 0, 0, 0);
    }
};

/* c += left right': 16 x 32, by a warp, as mma_16816 has them.  Both give their channels in the same order, 8 a lane. */
template <typename half_t>
static __device__ __forceinline__ void multiply_rows(float (&c)[4][4], const head_rows &left, const head_rows &right) {
    const int row = threadIdx.x % 32 / 4;
    for (int channel = 0; channel < left.tensor.width; channel += 32) {
        const int chunk = channel / 8 + threadIdx.x % 4;
        const uint4 a = left.load(row, chunk), b = left.load(row + 8, chunk);
        const uint32_t low[4] = {a.x, b.x, a.y, b.y}, high[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const uint4 key = right.load(8 * n + row, chunk);
            const uint32_t keys[2][2] = {{key.x, key.y}, {key.z, key.w}};
            mma_16816<half_t>(c[n], low, keys[0]);
            mma_16816<half_t>(c[n], high, keys[1]);
        }
    }
}

/* This lane's share of delta of query t's row, from its scores' products s and its values' gradients g; i: which of the
 * lane's two rows. */
static __device__ __forceinline__ float weigh_few(const backward_task &task, const backward_sequence &sequence, int h,
                                                  int t, int key, const float (&s)[4][4], const float (&g)[4][4],
                                                  int i) {
    const key_range seen = visible_keys(task, sequence, t);
    float dsink, delta = 0;
    const backward_row row = row_of(task, sequence, h, t, 0, &dsink);
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int here = key + 8 * n + j;
            const float score = row.scale * s[n][2 * i + j];
            const float weight = power_of_two_near(score - row.log2_d) - (task.softpick ? row.unit : 0);
            if (here >= seen.first && here < seen.end && !(task.rectifies && score <= 0))
                delta = fmaf(weight, g[n][2 * i + j], delta);
        }
    return delta;
}

/* delta of a tile's rows from the weights of the keys that they see, as they are in f32; a warp has 16 rows.  The stored out
 * is rounded to 16 bits, and where few keys share the weight dP - delta nearly cancels: in softpick the rounding would then
 * be multiplied by 1/D, which is large where scores are small.  Rows that see more take the output. */
template <typename half_t>
static __device__ __forceinline__ void deltas_by_weights(const backward_task &task, const backward_sequence &sequence,
                                                         int h, int first, float *deltas) {
    const int lane = threadIdx.x % 32, begin = first + threadIdx.x / 32 * 16, kv_head = h / (task.H / task.Hkv);
    const int n_rows = min(sequence.n_q - begin, 16);
    const int last = visible_keys(task, sequence, begin + max(n_rows, 1) - 1).end;
    float delta[2] = {0, 0};
    for (int j = visible_keys(task, sequence, begin).first; n_rows > 0 && j < last; j += 32) {
        float s[4][4] = {}, g[4][4] = {};
        const int row = sequence.q_first + begin, key = sequence.k_first + j;
        multiply_rows<half_t>(s, {task.q, sequence.b, row, n_rows, h}, {task.k, sequence.b, key, last - j, kv_head});
        multiply_rows<half_t>(g, {task.dout, sequence.b, row, n_rows, h}, {task.v, sequence.b, key, last - j, kv_head});
        for (int i = 0; i < 2; i++) {
            int t = begin + lane / 4 + 8 * i;
            if (t < sequence.n_q) delta[i] += weigh_few(task, sequence, h, t, j + lane % 4 * 2, s, g, i);
        }
    }
    for (int i = 0; i < 2; i++) {
        int t = begin + lane / 4 + 8 * i;
        if (t < sequence.n_q && count_keys(task, sequence, t) > FEW_KEYS) {
            delta[i] = 0;
            for (int j = lane % 4; 8 * j < task.out.width; j += 4)
                delta[i] += delta_share<half_t>(task, sequence, h, t, j);
        }
        for (int distance = 1; distance < 4; distance *= 2) delta[i] += __shfl_xor_sync(0xffffffff, delta[i], distance);
        if (lane % 4 == 0) deltas[t - first] = delta[i];
    }
}

/* The i-th tile to be prepared: where sequences are alike first the first ones of each, which take longer. */
static __device__ __forceinline__ int tile_at(const backward_task &task, int i) {
    return task.sequences ? i : i % task.n_sequences * task.sequence_tiles + i / task.n_sequences;
}

/* A tile of a head.  Heads lie next to each other in memory, and so do their blocks of threads. */
template <typename half_t, int WIDTH>
static __global__ void __launch_bounds__(ROW_THREADS) prepare_rows_kernel(const __grid_constant__ backward_task task) {
    __shared__ float deltas[TILE_QUERIES];
    const int h = blockIdx.x % task.H, place = tile_at(task, blockIdx.x / task.H), row = threadIdx.x;
    const backward_sequence sequence = sequence_of_tile(task, place);
    const int first = (place - sequence.tile_first) * TILE_QUERIES;
    const int64_t tile = (int64_t)h * task.n_tiles + place;
    if (first < sequence.n_q && count_keys(task, sequence, first) <= FEW_KEYS)
        deltas_by_weights<half_t>(task, sequence, h, first, deltas);
    else
        deltas_by_outputs<half_t, WIDTH>(task, sequence, h, first, deltas);
    __syncthreads();
    float dsink = 0;
    if (row < TILE_QUERIES)
        store_row(task, tile * TILE_QUERIES + row,
                  first + row < sequence.n_q ? row_of(task, sequence, h, first + row, deltas[row], &dsink)
                                             : backward_row{0, INFINITY, 0, 0});
    begin_tile(task, tile, WIDTH, dsink);
    if (task.pairs) begin_blocks<half_t>(task, sequence, h, first / TILE_QUERIES, tile);
}

/* ---- sums ------------------------------------------------------------------------------------------------------- */

constexpr int SUM_THREADS = 256;

/* out[h] += the sum of the tiles' shares. */
static __global__ void __launch_bounds__(SUM_THREADS)
    add_partials_kernel(float *out, const float *partial, int n_tiles) {
    float sum = 0;
    for (int i = threadIdx.x; i < n_tiles; i += SUM_THREADS) sum += partial[(int64_t)blockIdx.x * n_tiles + i];
    sum = sum_threads(sum);
    if (threadIdx.x == 0) out[blockIdx.x] += sum;
}

static sp_status add_partials(const backward_task *task, float *out, cudaStream_t stream) {
    if (!out || !task->n_tiles) return SP_OK;
    add_partials_kernel<<<task->H, SUM_THREADS, 0, stream>>>(out, task->partial, task->n_tiles);
    SP_CUDA_LAUNCHED("attention backward: sums over the tiles");
    return SP_OK;
}

/* ---- the pass --------------------------------------------------------------------------------------------------- */

template <typename half_t> static void queue_rows(const backward_task *task, int width, cudaStream_t stream) {
    auto *kernel = width == 64    ? prepare_rows_kernel<half_t, 64>
                   : width == 128 ? prepare_rows_kernel<half_t, 128>
                                  : prepare_rows_kernel<half_t, 256>;
    kernel<<<(unsigned)task->n_tiles *(unsigned)task->H, ROW_THREADS, 0, stream>>>(*task);
}

sp_status sp_backward_prepare(const backward_task *task, const sp_attention *problem) {
    cudaStream_t stream = (cudaStream_t)problem->stream;
    const int width = padded_width(problem);
    if (task->sequences) SP_TRY(write_sequences(task, problem, width, stream));
    if (!task->n_tiles) return SP_OK;
    if (problem->q.dtype == SP_DTYPE_BF16)
        queue_rows<__nv_bfloat16>(task, width, stream);
    else
        queue_rows<__half>(task, width, stream);
    SP_CUDA_LAUNCHED("attention backward: rows");
    return add_partials(task, task->dsink, stream);
}

extern "C" sp_status sp_sm80_backward(const sp_attention *problem, void *workspace) {
    cudaStream_t stream = (cudaStream_t)problem->stream;
    const int width = padded_width(problem);
    backward_task task;
    SP_TRY(sp_backward_describe(&task, problem, 1));
    sp_backward_carve(&task, problem, (char *)workspace);
    SP_TRY(sp_backward_prepare(&task, problem));
    auto *run = width == 64 ? sp_sm80_backward_64 : width == 128 ? sp_sm80_backward_128 : sp_sm80_backward_256;
    SP_TRY(run(&task, problem->q.dtype, stream));
    return add_partials(&task, task.drow_factor, stream);
}

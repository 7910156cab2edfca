/* Backward by mma.sync, the main kernel.  A group of threads keeps one block of keys and walks over the tiles of queries
 * that see it, for every query head of the key head:
 *
 *   s = k q'   g = v dout'                       keys x queries, each warp for keys of its own
 *   w, ds from s, g and the rows' facts          docs/softpick.md
 *   dv += w dout    dk += ds q                   w and ds come out of the products as the next ones take them
 *   dq_sum += ds' k                              all keys of the block: ds goes through shared memory
 *
 * dv and dk stay in registers; dq is summed over the blocks in global memory, in f32.  Blocks add their shares to a
 * tile's dq in a fixed order (turn_of), each after the one before has said so in dq_turn: the sum is the same each time.
 * The first to add stores, so that dq_sum needs no clearing.  With any_order nobody waits, and dq_sum begins as 0.
 *
 * Under a causal mask the block that sees a tile first is the first to come to it, and the others follow at a distance:
 * in the steady state none waits.  Without a mask they begin at tiles that lie evenly apart.  Both need that all blocks
 * of a head are at work at the same time; then longer blocks begin earlier, which keeps the end of the work short.  Where
 * there is not room enough for that, blocks begin in the order in which they add, so that none waits for one that has
 * not begun.  Who begins when is said by tickets.
 *
 * Where dk and dv do not fit into the registers of one warp, PARTS warps share their keys: each computes w and ds of its
 * part of the queries, passes them on in shared memory, and keeps its part of the channels of dk and dv.  That also
 * makes the warps' products larger, which shared memory, the nearest wall, then feeds less often. */
#ifndef SP_ATTENTION_CUDA_SM80_BACKWARD_CUH
#define SP_ATTENTION_CUDA_SM80_BACKWARD_CUH

#include "attention/cuda/mma.cuh"
#include "attention/cuda/sm80_backward_task.cuh"
#include "device/cuda_check.cuh"

/* How the work on a block is laid out.  WIDTH: channels, padded; KEY_TILES: 16 keys each, of one warp; PASS: queries
 * whose scores a warp holds at a time; GROUPS: groups of threads that share a multiprocessor. */
template <int WIDTH_, int KEY_WARPS_, int KEY_TILES_, int PARTS_, int PASS_, int GROUPS_> struct backward_layout {
    static constexpr int WIDTH = WIDTH_, KEY_WARPS = KEY_WARPS_, KEY_TILES = KEY_TILES_, PARTS = PARTS_, PASS = PASS_,
                         GROUPS = GROUPS_;
    static constexpr int QUERIES = TILE_QUERIES, KEYS = KEY_WARPS * KEY_TILES * 16;
    static constexpr int WARPS = KEY_WARPS * PARTS, THREADS = 32 * WARPS;
    static constexpr int CHUNKS = WIDTH / 8;              /* of a row of q, k, v, dout */
    static constexpr int CHANNELS = WIDTH / PARTS;        /* of dk and dv, of one warp */
    static constexpr int DQ_CHANNELS = 2 * WIDTH / WARPS; /* of dq: a warp computes 32 queries x these */
    static constexpr int DQ_QUADS = DQ_CHANNELS / 4;      /* groups of four numbers of dq that a thread holds */
    static_assert(KEYS == block_keys(WIDTH), "cut as the task says");
};

/* One block of keys of one sequence and key head, and the tiles of queries that see any of them. */
struct key_block {
    backward_sequence sequence;
    int key_head, index;
    int tile_first, tile_end, tile_start; /* it walks from tile_start to the end, and on from the first */
    int n_steps;                          /* tiles, of all query heads of the key head */
};

template <class Layout> struct alignas(128) backward_shared {
    uint16_t k[Layout::KEYS * Layout::WIDTH], v[Layout::KEYS * Layout::WIDTH];
    uint16_t q[2][Layout::QUERIES * Layout::WIDTH], dout[2][Layout::QUERIES * Layout::WIDTH];
    uint16_t ds[2][Layout::KEYS * Layout::QUERIES]; /* keys x queries */
    uint16_t w[Layout::PARTS == 1 ? 64 : Layout::KEYS * Layout::QUERIES];
    backward_row rows[2][Layout::QUERIES];
    key_block block;
    int *turn_to_pass; /* the counter of the tile that has been added to last */
    bool stores[2];    /* of a step: this block is the first to come to the tile's dq */
};

/* ---- tiles in and out ------------------------------------------------------------------------------------------- */

/* Rows [0, n) of a tensor to shared memory; channels and rows that are not there become 0. */
template <class Layout, int ROWS>
static __device__ __forceinline__ void fetch_rows(void *shared, const char *rows, int64_t stride, int width, int n) {
    constexpr int CHUNKS = Layout::CHUNKS, AT_ONCE = Layout::THREADS / CHUNKS;
    static_assert(AT_ONCE % 8 == 0, "chunks of a thread lie alike");
    int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS;
    int bytes = min(max((width - 8 * chunk) * 2, 0), 16);
    const char *from = rows + row * stride + chunk * 16;
    uint32_t to = shared_address(shared) + chunk_offset<Layout::WIDTH>(row, chunk);
#pragma unroll
    for (int i = 0; i < ROWS; i += AT_ONCE, from += AT_ONCE * stride)
        copy_chunk(to + i * Layout::WIDTH * 2, from, row + i < n ? bytes : 0);
}

/* Where a walk over the tiles of the heads of one key head stands. */
struct tile_walk {
    int h, tile;
};

/* Whether some query of the tile does not see all keys of the block. */
template <class Layout>
static __device__ __forceinline__ bool needs_mask(const backward_task &task, const key_block &block, int tile) {
    int first = block.index * Layout::KEYS, t = tile * TILE_QUERIES;
    int last = min(t + TILE_QUERIES, block.sequence.n_q) - 1;
    return visible_keys(task, block.sequence, t).end < first + Layout::KEYS ||
           visible_keys(task, block.sequence, last).first > first;
}

template <class Layout>
static __device__ __forceinline__ void fetch_tile(backward_shared<Layout> &shared, const backward_task &task,
                                                  tile_walk at, int stage) {
    const backward_sequence &sequence = shared.block.sequence;
    int first = at.tile * TILE_QUERIES, n = sequence.n_q - first, row = sequence.q_first + first;
    fetch_rows<Layout, TILE_QUERIES>(shared.q[stage], task.q.at(sequence.b, row, at.h), task.q.row, task.q.width, n);
    fetch_rows<Layout, TILE_QUERIES>(shared.dout[stage], task.dout.at(sequence.b, row, at.h), task.dout.row,
                                     task.dout.width, n);
    if (threadIdx.x < TILE_QUERIES)
        copy_chunk(shared_address(&shared.rows[stage][threadIdx.x]),
                   task.row_facts + tile_index(task, sequence, at.h, at.tile) * TILE_QUERIES + threadIdx.x, 16);
}

/* Rows [0, n) from shared memory, their first `width` channels. */
template <class Layout, int ROWS>
static __device__ __forceinline__ void write_rows(const uint16_t *shared, char *rows, int64_t stride, int width,
                                                  int n) {
    constexpr int CHUNKS = Layout::CHUNKS, AT_ONCE = Layout::THREADS / CHUNKS;
    int chunk = threadIdx.x % CHUNKS, there = min(max(width - 8 * chunk, 0), 8);
    for (int row = threadIdx.x / CHUNKS; row < min(n, ROWS); row += AT_ONCE) {
        const uint16_t *from = shared + chunk_offset<Layout::WIDTH>(row, chunk) / 2;
        uint16_t *to = reinterpret_cast<uint16_t *>(rows + row * stride) + 8 * chunk;
        if (there == 8)
            *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
        else
            for (int i = 0; i < there; i++) to[i] = from[i];
    }
}

/* ---- what a thread holds ---------------------------------------------------------------------------------------- */

/* Of a warp's keys by the queries of a pass, in the places of a product's result; */
template <class Layout> using pass_tile = float[Layout::KEY_TILES][Layout::PASS / 8][4];
/* of 16 queries, as the next product takes it; */
template <class Layout> using packed_tile = uint32_t[Layout::KEY_TILES][4];
/* and of dk or dv. */
template <class Layout> using sum_tile = float[Layout::KEY_TILES][Layout::CHANNELS / 8][4];

/* The first key of the block that this warp works on. */
template <class Layout> static __device__ __forceinline__ int first_own_key() {
    return threadIdx.x / (32 * Layout::PARTS) * Layout::KEY_TILES * 16;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* The address that this lane gives to load_matrices for the 16 x 16 numbers from (row, 8 chunk) on: the four matrices
 * in the order of a product's a, */
template <int WIDTH> static __device__ __forceinline__ uint32_t lane_address_a(const void *shared, int row, int chunk) {
    int lane = threadIdx.x % 32;
    return shared_address(shared) + chunk_offset<WIDTH>(row + lane % 16, chunk + lane / 16);
}

/* and with the second and third exchanged. */
template <int WIDTH> static __device__ __forceinline__ uint32_t lane_address_b(const void *shared, int row, int chunk) {
    int lane = threadIdx.x % 32;
    return shared_address(shared) + chunk_offset<WIDTH>(row + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2);
}

/* c = a b' over the whole width: `a` addresses this warp's keys, `b` the queries of the pass. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void multiply_rows(pass_tile<Layout> &c, uint32_t a, uint32_t b) {
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int j = 0; j < Layout::PASS / 8; j++)
#pragma unroll
            for (int x = 0; x < 4; x++) c[i][j][x] = 0;
#pragma unroll
    for (int d = 0; d < Layout::WIDTH / 16; d++) {
        uint32_t left[Layout::KEY_TILES][4];
#pragma unroll
        for (int i = 0; i < Layout::KEY_TILES; i++) load_matrices(left[i], chunk_step<Layout::WIDTH>(a, 16 * i, 2 * d));
#pragma unroll
        for (int j = 0; j < Layout::PASS / 16; j++) {
            uint32_t right[4];
            load_matrices(right, chunk_step<Layout::WIDTH>(b, 16 * j, 2 * d));
#pragma unroll
            for (int i = 0; i < Layout::KEY_TILES; i++) {
                mma_16816<half_t>(c[i][2 * j], left[i], right);
                mma_16816<half_t>(c[i][2 * j + 1], left[i], right + 2);
            }
        }
    }
}

/* c += a b for 16 queries: `a` keys x queries in registers, `b` addresses the queries' rows, from this warp's channels
 * on. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void accumulate(sum_tile<Layout> &c, const packed_tile<Layout> &a, uint32_t b) {
#pragma unroll
    for (int j = 0; j < Layout::CHANNELS / 16; j++) {
        uint32_t right[4];
        load_matrices_transposed(right, chunk_step<Layout::WIDTH>(b, 0, 2 * j));
#pragma unroll
        for (int i = 0; i < Layout::KEY_TILES; i++) {
            mma_16816<half_t>(c[i][2 * j], a[i], right);
            mma_16816<half_t>(c[i][2 * j + 1], a[i], right + 2);
        }
    }
}

/* Two gradients of scores, rounded.  Where all scores of a row are near 0 they rise by up to 1/eps: f16 is kept within
 * what it holds. */
template <typename half_t> static __device__ __forceinline__ uint32_t pack_gradients(float low, float high) {
    return pack_pair<half_t>(low, high);
}
template <> __device__ __forceinline__ uint32_t pack_gradients<__half>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* Two neighbouring tiles of a product become the a of the next one: weights, of which those below 0 become 0, or
 * gradients. */
template <class Layout, typename half_t, bool WEIGHTS>
static __device__ __forceinline__ void repack(packed_tile<Layout> &a, const pass_tile<Layout> &c, int j) {
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const float *pair = c[i][2 * j + x / 2] + 2 * (x % 2);
            a[i][x] = WEIGHTS ? pack_positive_pair<half_t>(pair[0], pair[1]) : pack_gradients<half_t>(pair[0], pair[1]);
        }
}

/* The same to shared memory, keys x queries. */
template <class Layout>
static __device__ __forceinline__ void store_packed(uint16_t *shared, const packed_tile<Layout> &a, int key,
                                                    int query) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int x = 0; x < 4; x++)
            store_shared(shared_address(shared) +
                             chunk_offset<TILE_QUERIES>(key + 16 * i + 8 * (x % 2) + lane / 4, query / 8 + x / 2) +
                             lane % 4 * 4,
                         a[i][x]);
}

/* Every number of `a` times `factor`. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void scale_packed(packed_tile<Layout> &a, float factor) {
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int x = 0; x < 4; x++) {
            float2 pair = unpack_pair<half_t>(a[i][x]);
            a[i][x] = pack_pair<half_t>(pair.x * factor, pair.y * factor);
        }
}

/* ---- scores to weights and gradients ---------------------------------------------------------------------------- */

/* What one pass of a warp looks at: 16 KEY_TILES keys from `key` on, PASS queries from `query` of the tile on. */
struct score_place {
    int key, query, tile;
};

/* Calls f(j, side, query) for each query of a pass of which this lane holds scores, */
template <class Layout, class Function> static __device__ __forceinline__ void each_query(Function f) {
#pragma unroll
    for (int j = 0; j < Layout::PASS / 8; j++)
#pragma unroll
        for (int side = 0; side < 2; side++) f(j, side, 8 * j + threadIdx.x % 4 * 2 + side);
}
/* and f(i, half) for each key: the score is x[i][j][2 * half + side]. */
template <class Layout, class Function> static __device__ __forceinline__ void each_key(Function f) {
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) f(i, half);
}

/* Scores that the mask hides weigh nothing. */
template <class Layout>
static __device__ __forceinline__ void hide_masked(pass_tile<Layout> &x, const backward_task &task,
                                                   const backward_sequence &sequence, score_place at) {
    int lane = threadIdx.x % 32;
    each_query<Layout>([&](int j, int side, int query) {
        key_range keys = visible_keys(task, sequence, at.tile * TILE_QUERIES + at.query + query);
        int first = keys.first - at.key - lane / 4, end = keys.end - at.key - lane / 4;
        each_key<Layout>([&](int i, int half) {
            if (16 * i + 8 * half < first || 16 * i + 8 * half >= end) x[i][j][2 * half + side] = -INFINITY;
        });
    });
}

/* One score: x is log2 of its weight in the exponential family, g its value's gradient; both become what the caller
 * wants: the weight and the gradient of the score. */
template <bool SOFTPICK>
static __device__ __forceinline__ void differentiate(float &x, float &g, const backward_row &row, float dead_gradient) {
    float u = power_of_two_near(x);
    bool dead = u <= row.unit; /* not so for NaN */
    if (SOFTPICK) {
        g = u * (dead ? dead_gradient : g - row.delta);
        x = u - row.unit;
    } else {
        x = dead ? 0 : u;
        g = x * (g - row.delta);
    }
}

/* Scores and value gradients of a pass become weights and score gradients.  `rows`: of the pass's queries. */
template <class Layout, bool SOFTPICK>
static __device__ __forceinline__ void weigh(pass_tile<Layout> &x, pass_tile<Layout> &g, const backward_row *rows,
                                             const backward_task &task, const key_block &block, score_place at) {
    each_query<Layout>([&](int j, int side, int query) {
        float scale = rows[query].scale, log2_d = rows[query].log2_d;
        each_key<Layout>([&](int i, int half) {
            float &score = x[i][j][2 * half + side];
            score = fmaf(score, scale, -log2_d);
        });
    });
    if (needs_mask<Layout>(task, block, at.tile)) hide_masked<Layout>(x, task, block.sequence, at);
    each_query<Layout>([&](int j, int side, int query) {
        const backward_row row = rows[query];
        float dead_gradient = task.lambda * row.delta;
        each_key<Layout>([&](int i, int half) {
            differentiate<SOFTPICK>(x[i][j][2 * half + side], g[i][j][2 * half + side], row, dead_gradient);
        });
    });
    if (!task.row_factor) return;
    each_query<Layout>([&](int j, int side, int query) {
        float factor = log_position(block.sequence, at.tile * TILE_QUERIES + at.query + query);
        each_key<Layout>([&](int i, int half) { g[i][j][2 * half + side] *= factor; });
    });
}

/* ---- dq --------------------------------------------------------------------------------------------------------- */

/* Whose turn it is to add to a tile's dq: a counter, and the number it must have reached. */
struct dq_turn {
    int *counter;
    int wanted;
};

static __device__ __forceinline__ int turn_read(const int *counter) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

/* The next block may add: all that this group of threads added before its last barrier is in place first. */
static __device__ __forceinline__ void turn_pass(int *counter) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

/* Four neighbouring numbers. */
static __device__ __forceinline__ void store_to(float *sum, const float (&share)[4]) {
    *reinterpret_cast<float4 *>(sum) = make_float4(share[0], share[1], share[2], share[3]);
}

static __device__ __forceinline__ void add_to(float *sum, const float (&share)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(sum), "f"(share[0]), "f"(share[1]),
                 "f"(share[2]), "f"(share[3])
                 : "memory");
#else
    for (int i = 0; i < 4; i++) atomicAdd(sum + i, share[i]);
#endif
}

/* Where the first four numbers of this thread lie in a tile of dq_sum; the next ones are DQ_STEP further each. */
constexpr int DQ_STEP = 128;
template <class Layout> static __device__ __forceinline__ int dq_place() {
    return threadIdx.x / 32 * Layout::DQ_QUADS * DQ_STEP + threadIdx.x % 32 * 4;
}

/* The first query and channel of this warp's part of a tile of dq. */
template <class Layout> static __device__ __forceinline__ int2 dq_corner() {
    int warp = threadIdx.x / 32;
    return make_int2(warp % 2 * 32, warp / 2 * Layout::DQ_CHANNELS);
}

/* This warp's part of ds' k is added to a tile of dq, or stored there. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void add_dq(float *sum, const uint16_t *ds, const uint16_t *k, bool store) {
    float c[2][Layout::DQ_CHANNELS / 8][4] = {};
    int2 corner = dq_corner<Layout>();
    uint32_t a = lane_address_b<TILE_QUERIES>(ds, 0, corner.x / 8);
    uint32_t b = lane_address_a<Layout::WIDTH>(k, 0, corner.y / 8);
#pragma unroll 2
    for (int key = 0; key < Layout::KEYS; key += 16) {
        uint32_t left[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) load_matrices_transposed(left[i], chunk_step<TILE_QUERIES>(a, 0, 2 * i));
#pragma unroll
        for (int j = 0; j < Layout::DQ_CHANNELS / 16; j++) {
            uint32_t right[4];
            load_matrices_transposed(right, chunk_step<Layout::WIDTH>(b, 0, 2 * j));
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma_16816<half_t>(c[i][2 * j], left[i], right);
                mma_16816<half_t>(c[i][2 * j + 1], left[i], right + 2);
            }
        }
        a += 16 * TILE_QUERIES * 2;
        b += 16 * Layout::WIDTH * 2;
    }
    sum += dq_place<Layout>();
    if (store) {
#pragma unroll
        for (int i = 0; i < Layout::DQ_QUADS; i++) store_to(sum + i * DQ_STEP, c[i % 2][i / 2]);
    } else {
#pragma unroll
        for (int i = 0; i < Layout::DQ_QUADS; i++) add_to(sum + i * DQ_STEP, c[i % 2][i / 2]);
    }
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

/* The first tile of the sequence for which `after` is so; both ends of what tiles see grow with the tile. */
template <class Condition>
static __device__ __forceinline__ int first_tile(const backward_sequence &sequence, Condition after) {
    int low = 0, high = (sequence.n_q + TILE_QUERIES - 1) / TILE_QUERIES;
    while (low < high) {
        int middle = (low + high) / 2;
        if (after(middle))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static __device__ __forceinline__ int tiles_of(const backward_sequence &sequence) {
    return (sequence.n_q + TILE_QUERIES - 1) / TILE_QUERIES;
}
/* Those with keys that are there. */
template <class Layout> static __device__ __forceinline__ int live_blocks_of(const backward_sequence &sequence) {
    return (sequence.n_k + Layout::KEYS - 1) / Layout::KEYS;
}

/* Whether all blocks of a head see all its tiles and are at work at the same time, and the tiles are twice as many: then
 * they begin at tiles that lie evenly apart, and walk in circles behind each other.  A block tells of its share of a tile
 * after its turn at the next tile: two tiles apart, none waits for one that waits for it. */
template <class Layout>
static __device__ __forceinline__ bool in_circles(const backward_task &task, const backward_sequence &sequence) {
    return task.together && !task.causal && !task.window && !task.any_order &&
           tiles_of(sequence) >= 2 * live_blocks_of<Layout>(sequence);
}

template <class Layout> static __device__ __forceinline__ key_block block_of_item(const backward_task &task, int item) {
    key_block block;
    block.sequence = sequence_of_item(task, item);
    int n_blocks = (block.sequence.n_k_rows + Layout::KEYS - 1) / Layout::KEYS;
    int rest = item - block.sequence.block_first * task.Hkv, index = rest % n_blocks;
    block.key_head = rest / n_blocks;
    block.index = task.together || task.any_order ? index : n_blocks - 1 - index;
    int first = block.index * Layout::KEYS;
    block.tile_first =
        first_tile(block.sequence, [&](int tile) { return tile_keys(task, block.sequence, tile).end > first; });
    block.tile_end = first_tile(
        block.sequence, [&](int tile) { return tile_keys(task, block.sequence, tile).first >= first + Layout::KEYS; });
    block.tile_start = in_circles<Layout>(task, block.sequence) && first < block.sequence.n_k
                           ? block.index * tiles_of(block.sequence) / live_blocks_of<Layout>(block.sequence)
                           : block.tile_first;
    block.n_steps = task.H / task.Hkv * max(block.tile_end - block.tile_first, 0);
    return block;
}

/* How many blocks add to the tile before this one: those of later keys; and where blocks walk in circles, those of
 * them that begin at this tile or before and, if this block has been at the end since, all of later keys. */
template <class Layout>
static __device__ __forceinline__ dq_turn turn_of(const backward_task &task, const key_block &block, tile_walk at) {
    int before = (tile_keys(task, block.sequence, at.tile).end - 1) / Layout::KEYS - block.index;
    if (in_circles<Layout>(task, block.sequence)) {
        int n_blocks = live_blocks_of<Layout>(block.sequence), n_tiles = tiles_of(block.sequence);
        int begun = min(((at.tile + 1) * n_blocks + n_tiles - 1) / n_tiles, n_blocks);
        before = begun - 1 - block.index + (at.tile < block.tile_start ? n_blocks : 0);
    }
    return {task.dq_turn + tile_index(task, block.sequence, at.h, at.tile), before};
}

/* dk or dv of this warp to shared memory, narrowed. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void narrow(uint16_t *shared, const sum_tile<Layout> &c, float factor) {
    const int key = first_own_key<Layout>(), lane = threadIdx.x % 32;
    const int channel = threadIdx.x / 32 % Layout::PARTS * Layout::CHANNELS;
#pragma unroll
    for (int i = 0; i < Layout::KEY_TILES; i++)
#pragma unroll
        for (int j = 0; j < Layout::CHANNELS / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                store_shared(shared_address(shared) +
                                 chunk_offset<Layout::WIDTH>(key + 16 * i + 8 * half + lane / 4, channel / 8 + j) +
                                 lane % 4 * 4,
                             pack_pair<half_t>(c[i][j][2 * half] * factor, c[i][j][2 * half + 1] * factor));
}

/* The next step's place. */
static __device__ __forceinline__ tile_walk next_place(const key_block &block, tile_walk at) {
    at.tile++;
    if (at.tile == block.tile_end) at.tile = block.tile_first;
    if (at.tile == block.tile_start) at.h++;
    return at;
}

/* Thread 0 takes a block of keys. */
template <class Layout>
static __device__ __forceinline__ void take_block(backward_shared<Layout> &shared, const backward_task &task) {
    if (threadIdx.x == 0) { /* with tickets: a group of threads may begin before one of a lower index */
        shared.block = block_of_item<Layout>(task, task.any_order ? (int)blockIdx.x : atomicAdd(task.ticket, 1));
        shared.stores[0] = shared.stores[1] = false;
    }
    __syncthreads();
}

/* Queues the block's keys and values. */
template <class Layout>
static __device__ __forceinline__ void fetch_block(backward_shared<Layout> &shared, const backward_task &task) {
    const key_block &block = shared.block;
    const backward_sequence &sequence = block.sequence;
    int first = block.index * Layout::KEYS, row = sequence.k_first + first, n = sequence.n_k - first;
    fetch_rows<Layout, Layout::KEYS>(shared.k, task.k.at(sequence.b, row, block.key_head), task.k.row, task.k.width, n);
    fetch_rows<Layout, Layout::KEYS>(shared.v, task.v.at(sequence.b, row, block.key_head), task.v.row, task.v.width, n);
}

/* Writes dk and dv, which lie narrowed where k and v were. */
template <class Layout>
static __device__ __forceinline__ void write_block(const backward_shared<Layout> &shared, const backward_task &task) {
    const key_block &block = shared.block;
    const backward_sequence &sequence = block.sequence;
    int first = block.index * Layout::KEYS, row = sequence.k_first + first, n = sequence.n_k_rows - first;
    write_rows<Layout, Layout::KEYS>(shared.k, task.dk.at(sequence.b, row, block.key_head), task.dk.row, task.dk.width,
                                     n);
    write_rows<Layout, Layout::KEYS>(shared.v, task.dv.at(sequence.b, row, block.key_head), task.dv.row, task.dv.width,
                                     n);
}

/* `turn_now`: what the counter was some time ago. */
template <class Layout>
static __device__ __forceinline__ void wait_for_turn(backward_shared<Layout> &shared, const backward_task &task,
                                                     tile_walk at, int stage, int turn_now) {
    const dq_turn turn = turn_of<Layout>(task, shared.block, at);
    while (turn_now < turn.wanted) turn_now = turn_read(turn.counter);
    shared.stores[stage] = turn.wanted == 0;
}

/* dv += w dout and dk += ds q for 16 queries of the tile, from `query` on. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void
accumulate_both(sum_tile<Layout> &dk, sum_tile<Layout> &dv, const packed_tile<Layout> &w, packed_tile<Layout> &ds,
                const backward_shared<Layout> &shared, const backward_task &task, int h, int stage, int query) {
    const int chunk = threadIdx.x / 32 % Layout::PARTS * Layout::CHANNELS / 8;
    accumulate<Layout, half_t>(dv, w, lane_address_a<Layout::WIDTH>(shared.dout[stage], query, chunk));
    if (task.row_factor) scale_packed<Layout, half_t>(ds, task.row_factor[h]);
    accumulate<Layout, half_t>(dk, ds, lane_address_a<Layout::WIDTH>(shared.q[stage], query, chunk));
}

/* The scores of this warp's keys and the PASS queries from `query` on, and what follows from them: ds to shared memory,
 * and dk and dv or, for the warps that share the keys, w too. */
template <class Layout, typename half_t, bool SOFTPICK>
static __device__ __forceinline__ void work_on_pass(sum_tile<Layout> &dk, sum_tile<Layout> &dv,
                                                    backward_shared<Layout> &shared, const backward_task &task,
                                                    tile_walk at, int stage, int query) {
    constexpr int WIDTH = Layout::WIDTH;
    const int own_key = first_own_key<Layout>();
    pass_tile<Layout> x, g;
    multiply_rows<Layout, half_t>(x, lane_address_a<WIDTH>(shared.k, own_key, 0),
                                  lane_address_b<WIDTH>(shared.q[stage], query, 0));
    multiply_rows<Layout, half_t>(g, lane_address_a<WIDTH>(shared.v, own_key, 0),
                                  lane_address_b<WIDTH>(shared.dout[stage], query, 0));
    weigh<Layout, SOFTPICK>(x, g, shared.rows[stage] + query, task, shared.block,
                            {shared.block.index * Layout::KEYS + own_key, query, at.tile});
#pragma unroll
    for (int j = 0; j < Layout::PASS / 16; j++) {
        packed_tile<Layout> w, ds;
        repack<Layout, half_t, true>(w, x, j);
        repack<Layout, half_t, false>(ds, g, j);
        store_packed<Layout>(shared.ds[stage], ds, own_key, query + 16 * j);
        if (Layout::PARTS > 1)
            store_packed<Layout>(shared.w, w, own_key, query + 16 * j);
        else
            accumulate_both<Layout, half_t>(dk, dv, w, ds, shared, task, at.h, stage, query + 16 * j);
    }
}

/* PARTS > 1: dk and dv of this warp, once all warps that share its keys have stored w and ds. */
template <class Layout, typename half_t>
static __device__ __forceinline__ void accumulate_parts(sum_tile<Layout> &dk, sum_tile<Layout> &dv,
                                                        const backward_shared<Layout> &shared,
                                                        const backward_task &task, int h, int stage) {
    const int own_key = first_own_key<Layout>(), barrier = 1 + threadIdx.x / (32 * Layout::PARTS);
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(32 * Layout::PARTS) : "memory");
#pragma unroll 1
    for (int query = 0; query < TILE_QUERIES; query += 16) {
        packed_tile<Layout> w, ds;
#pragma unroll
        for (int i = 0; i < Layout::KEY_TILES; i++) {
            load_matrices(w[i], lane_address_a<TILE_QUERIES>(shared.w, own_key + 16 * i, query / 8));
            load_matrices(ds[i], lane_address_a<TILE_QUERIES>(shared.ds[stage], own_key + 16 * i, query / 8));
        }
        accumulate_both<Layout, half_t>(dk, dv, w, ds, shared, task, h, stage, query);
    }
}

template <class Layout, typename half_t, bool SOFTPICK>
__global__ void __launch_bounds__(Layout::THREADS, Layout::GROUPS)
    sp_backward_kernel(const __grid_constant__ backward_task task) {
    extern __shared__ char memory[];
    auto &shared = *reinterpret_cast<backward_shared<Layout> *>(memory);
    const key_block &block = shared.block;

    take_block(shared, task);
    tile_walk at = {block.key_head * (task.H / task.Hkv), block.tile_start};
    fetch_block(shared, task);
    if (block.n_steps > 0) fetch_tile(shared, task, at, 0);
    copies_commit();
    if (block.n_steps > 1) fetch_tile(shared, task, next_place(block, at), 1);
    copies_commit();
    copies_wait<1>();
    __syncthreads();

    sum_tile<Layout> dk = {}, dv = {};
    for (int step = 0; step < block.n_steps; step++, at = next_place(block, at)) {
        const int stage = step % 2;
        /* one thread, of another warp each time, speaks for all to other blocks */
        auto speaks = [&]() { return !task.any_order && threadIdx.x == step % Layout::WARPS * 32; };
        int turn_now = speaks() ? turn_read(task.dq_turn + tile_index(task, block.sequence, at.h, at.tile)) : 0;

        constexpr int OWN_QUERIES = TILE_QUERIES / Layout::PARTS;
        const int own_query = threadIdx.x / 32 % Layout::PARTS * OWN_QUERIES;
#pragma unroll 1
        for (int query = own_query; query < own_query + OWN_QUERIES; query += Layout::PASS)
            work_on_pass<Layout, half_t, SOFTPICK>(dk, dv, shared, task, at, stage, query);
        if (Layout::PARTS > 1) accumulate_parts<Layout, half_t>(dk, dv, shared, task, at.h, stage);

        copies_wait<0>();
        if (speaks()) wait_for_turn<Layout>(shared, task, at, stage, turn_now);
        __syncthreads(); /* ds is whole, the next tile is there, this one is done with, and it is our turn */
        if (speaks()) {
            if (step > 0) turn_pass(shared.turn_to_pass);
            shared.turn_to_pass = task.dq_turn + tile_index(task, block.sequence, at.h, at.tile);
        }
        if (step + 2 < block.n_steps) fetch_tile(shared, task, next_place(block, next_place(block, at)), stage);
        copies_commit();
        add_dq<Layout, half_t>(task.dq_sum +
                                   tile_index(task, block.sequence, at.h, at.tile) * (TILE_QUERIES * Layout::WIDTH),
                               shared.ds[stage], shared.k, shared.stores[stage]);
    }
    __syncthreads();
    if (!task.any_order && block.n_steps > 0 && threadIdx.x == 0) turn_pass(shared.turn_to_pass);

    narrow<Layout, half_t>(shared.k, dk, task.scale);
    narrow<Layout, half_t>(shared.v, dv, 1);
    __syncthreads();
    write_block(shared, task);
}

/* ---- dq, narrowed ----------------------------------------------------------------------------------------------- */

/* One tile of one head: dq = scale * row factor * dq_sum, and what the tile adds to drow_factor. */
template <class Layout, typename half_t>
__global__ void __launch_bounds__(Layout::THREADS)
    sp_backward_narrow_kernel(const __grid_constant__ backward_task task) {
    __shared__ alignas(16) uint16_t rows[TILE_QUERIES * Layout::WIDTH];
    __shared__ float warp_sums[Layout::WARPS];
    const backward_sequence sequence = sequence_of_tile(task, blockIdx.x);
    const int h = blockIdx.y, tile = blockIdx.x - sequence.tile_first, lane = threadIdx.x % 32;
    const int first = tile * TILE_QUERIES, n = sequence.n_q - first;
    const key_range keys = tile_keys(task, sequence, tile);
    const bool seen = keys.end > keys.first; /* else no block has been here */
    const float *sum = task.dq_sum + ((int64_t)h * task.n_tiles + blockIdx.x) * (TILE_QUERIES * Layout::WIDTH);
    const float factor = task.scale * (task.row_factor ? task.row_factor[h] : 1);
    const int2 corner = dq_corner<Layout>();
    float gradient = 0;
#pragma unroll
    for (int i = 0; i < Layout::DQ_QUADS; i++) {
        float4 four =
            seen ? *reinterpret_cast<const float4 *>(sum + dq_place<Layout>() + i * DQ_STEP) : make_float4(0, 0, 0, 0);
        const float c[2][2] = {{four.x, four.y}, {four.z, four.w}};
        int channel = corner.y + i / 2 * 8 + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = corner.x + i % 2 * 16 + half * 8 + lane / 4;
            store_shared(shared_address(rows) + chunk_offset<Layout::WIDTH>(query, channel / 8) + channel % 8 * 2,
                         pack_pair<half_t>(c[half][0] * factor, c[half][1] * factor));
            if (!task.drow_factor || query >= n) continue;
            auto *q = reinterpret_cast<const half_t *>(task.q.at(sequence.b, sequence.q_first + first + query, h));
            for (int side = 0; side < 2; side++)
                if (channel + side < task.q.width) gradient += (float)q[channel + side] * c[half][side];
        }
    }
    __syncthreads();
    write_rows<Layout, TILE_QUERIES>(rows, task.dq.at(sequence.b, sequence.q_first + first, h), task.dq.row,
                                     task.dq.width, n);
    if (!task.drow_factor) return;
    for (int i = 16; i > 0; i /= 2) gradient += __shfl_xor_sync(0xffffffff, gradient, i);
    if (lane == 0) warp_sums[threadIdx.x / 32] = gradient;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < Layout::WARPS; i++) gradient += warp_sums[i];
    task.partial[(int64_t)h * task.n_tiles + blockIdx.x] = gradient * task.scale;
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

/* Whether all blocks of a head can be at work at the same time, even if half of the GPU is taken by others, and follow
 * each other at a distance of two tiles or more: word of an added share comes later than the next tile. */
template <class Layout> static sp_status fits_together(const backward_task *task, const void *kernel, bool *together) {
    int groups = 0, device = 0, n_multiprocessors = 0;
    SP_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&groups, kernel, Layout::THREADS,
                                                              sizeof(backward_shared<Layout>)));
    SP_CUDA_TRY(cudaGetDevice(&device));
    SP_CUDA_TRY(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, device));
    *together = Layout::KEYS >= 2 * TILE_QUERIES && task->most_blocks <= groups * n_multiprocessors / 2;
    return SP_OK;
}

template <class Layout, typename half_t, bool SOFTPICK>
static sp_status launch_backward(const backward_task *task, cudaStream_t stream) {
    auto *kernel = sp_backward_kernel<Layout, half_t, SOFTPICK>;
    constexpr int bytes = sizeof(backward_shared<Layout>);
    if (task->n_blocks > 0) {
        backward_task ordered = *task;
        SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        SP_TRY(fits_together<Layout>(task, (const void *)kernel, &ordered.together));
        kernel<<<task->n_blocks * task->Hkv, Layout::THREADS, bytes, stream>>>(ordered);
        SP_CUDA_LAUNCHED("attention backward");
    }
    if (task->n_tiles > 0) {
        sp_backward_narrow_kernel<Layout, half_t><<<dim3(task->n_tiles, task->H), Layout::THREADS, 0, stream>>>(*task);
        SP_CUDA_LAUNCHED("attention backward: dq");
    }
    return SP_OK;
}

template <class Layout>
static sp_status launch_backward_of(const backward_task *task, sp_dtype dtype, cudaStream_t stream) {
    if (dtype == SP_DTYPE_BF16)
        return task->softpick ? launch_backward<Layout, __nv_bfloat16, true>(task, stream)
                              : launch_backward<Layout, __nv_bfloat16, false>(task, stream);
    return task->softpick ? launch_backward<Layout, __half, true>(task, stream)
                          : launch_backward<Layout, __half, false>(task, stream);
}

#endif

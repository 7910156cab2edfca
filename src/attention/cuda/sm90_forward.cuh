/* Attention forward on Hopper, after the manner of FlashAttention-3 (arXiv 2407.08608): a block of threads stays on its
 * multiprocessor and takes one tile of queries after another, the longest first.
 *
 *   group 0         one thread lets the copy engine fill the rings of Q tiles, K blocks and V blocks, as far ahead as
 *                   there is room, past the end of a tile too
 *   groups 1 ..     each has 64 queries of the tile; scores, numerators and outputs stay in registers
 *
 *   shared memory   | Q, 64 rows a group | K block a stage | V block a stage | barriers | tiles to come | votes |
 *
 * A group's step for a block of keys, the last block first:
 *   queue     S = Q K^T            of this block
 *   queue     O = O + P V          of the block before
 *   weigh     P' = numerators of S, while O is still computed
 * and the groups take turns in queueing, so that one weighs while the other's products run.
 *
 * Where numerators may be 0, the four warps of a group vote on each slab of 64 queries x 16 keys of a block, while the scores
 * of the next are computed: one bit for each 16 queries x 16 keys.  A slab without a bit adds nothing, and its product is
 * not queued.
 *
 * Scores stay in their registers while they are weighed: a block whose sums are too high (weigh.cuh) is measured and
 * weighed again from them. */
#ifndef SP_ATTENTION_CUDA_SM90_FORWARD_CUH
#define SP_ATTENTION_CUDA_SM90_FORWARD_CUH

#include <type_traits>

#include "attention/cuda/sm90_copy.cuh"
#include "attention/cuda/sm90_launch.cuh"
#include "attention/cuda/sm90_product.cuh"
#include "device/cuda_check.cuh"

/* A tile of queries, as one thread works it out for all.  Tiles are laid from the end of a sequence's last 64 queries on, so
 * that the one that is not full has the fewest keys; it begins before the sequence, by whole groups of rows.  The rows
 * of the last tile's last group that lie behind the sequence weigh nothing. */
struct hopper_tile {
    int b, h, key_head, sequence;
    int q_row, k_row;            /* its first row in the tensors, and the sequence's */
    int first_row;               /* in the sequence; a multiple of 64, negative where the tile begins before it */
    int n_q;                     /* queries of the sequence */
    int n_k;                     /* keys of the sequence */
    int first_block, last_block; /* of keys that some query sees; none if first > last */
    bool none;                   /* there is no such tile: the end */
};

enum { GROUP_THREADS = 128, GROUP_WARPS = 4, GROUP_ROWS = 64 };

template <int WIDTH_, int GROUPS_, int KEYS_, int STAGES_> struct hopper_shape {
    enum {
        WIDTH = WIDTH_,   /* channels, padded */
        GROUPS = GROUPS_, /* that compute */
        KEYS = KEYS_,     /* of a block */
        STAGES = STAGES_, /* of the rings of K and V */
        THREADS = (GROUPS + 1) * GROUP_THREADS,
        ROWS = GROUPS * GROUP_ROWS,
        PANELS = (WIDTH + TILE_ROW - 1) / TILE_ROW, /* of 64 channels: a tile is one after the other */
        SCORES = KEYS / 2,                          /* of a thread */
        OUTS = WIDTH / 2,
        STEPS = KEYS / 16, /* of a product over keys */
        Q_PANEL_BYTES = GROUP_ROWS * TILE_ROW_BYTES,
        Q_BYTES = PANELS * Q_PANEL_BYTES,
        K_PANEL_BYTES = KEYS * TILE_ROW_BYTES,
        K_BYTES = PANELS * K_PANEL_BYTES,
        K_FIRST = GROUPS * Q_BYTES,
        V_FIRST = K_FIRST + STAGES * K_BYTES,
        BARRIERS_FIRST = V_FIRST + STAGES * K_BYTES,
        ITEM_PLACES = 2,
        Q_BARRIERS = BARRIERS_FIRST,
        K_BARRIERS = Q_BARRIERS + 16 * GROUPS,
        V_BARRIERS = K_BARRIERS + 16 * STAGES,
        ITEM_BARRIERS = V_BARRIERS + 16 * STAGES,
        ITEMS_FIRST = ITEM_BARRIERS + 16 * ITEM_PLACES,
        VOTES_FIRST = ITEMS_FIRST + ITEM_PLACES * (int)sizeof(hopper_tile),
        SHARED_BYTES = VOTES_FIRST + GROUPS * 8, /* two places a group: a warp may be a block ahead */
        REGISTERS_COPY = GROUPS == 2 ? 40 : 32,
        REGISTERS_COMPUTE = GROUPS == 2 ? 232 : 160,
    };
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- a tile of queries ---------------------------------------------------------------------------------------------- */

template <typename shape> __device__ __forceinline__ hopper_tile hopper_tile_of(const gpu_view &view, int index) {
    hopper_tile tile;
    gpu_item item = view_item(view, index);
    gpu_sequence sequence = view_sequence(view, item.sequence);
    int n_tiles = (sequence.n_q + shape::ROWS - 1) / shape::ROWS;
    int n_rows = (sequence.n_q + GROUP_ROWS - 1) / GROUP_ROWS * GROUP_ROWS;
    tile.b = sequence.b, tile.h = item.h, tile.key_head = item.h / view.group, tile.sequence = item.sequence;
    tile.first_row = n_rows - (n_tiles - item.tile) * shape::ROWS, tile.n_q = sequence.n_q;
    tile.q_row = sequence.q_first + tile.first_row, tile.k_row = sequence.k_first, tile.n_k = sequence.n_k;
    int moved = sequence.n_k - sequence.n_q; /* positions against rows */
    int begin = view_visible(view, sequence, max(tile.first_row, 0) + moved).first;
    int end = view_visible(view, sequence, tile.first_row + shape::ROWS - 1 + moved).end;
    tile.first_block = begin / shape::KEYS;
    tile.last_block = item.tile >= n_tiles || end <= begin ? tile.first_block - 1 : (end - 1) / shape::KEYS;
    tile.none = false;
    return tile;
}

/* ---- the rings -------------------------------------------------------------------------------------------------------- */

template <typename shape> struct hopper_rings {
    enum { STAGES = shape::STAGES, GROUPS = shape::GROUPS, ITEM_PLACES = shape::ITEM_PLACES };
    uint32_t shared;
    ring_barriers<GROUPS> q; /* a place for each group, always the same */
    ring_barriers<STAGES> k, v;
    ring_barriers<ITEM_PLACES> item;

    __device__ __forceinline__ hopper_rings(uint32_t address) : shared(address) {
        q.address = address + shape::Q_BARRIERS, k.address = address + shape::K_BARRIERS;
        v.address = address + shape::V_BARRIERS, item.address = address + shape::ITEM_BARRIERS;
    }
    __device__ __forceinline__ void begin() {
        q.begin(GROUP_WARPS);
        k.begin(GROUPS * GROUP_WARPS);
        v.begin(GROUPS * GROUP_WARPS);
        item.begin(GROUPS * GROUP_WARPS);
        barriers_publish();
    }
    __device__ __forceinline__ uint32_t q_tile(int group) { return shared + group * shape::Q_BYTES; }
    __device__ __forceinline__ uint32_t k_block(int stage) { return shared + shape::K_FIRST + stage * shape::K_BYTES; }
    __device__ __forceinline__ uint32_t v_block(int stage) { return shared + shape::V_FIRST + stage * shape::K_BYTES; }
};

/* ---- the thread that has tiles copied ----------------------------------------------------------------------------------- */

template <typename shape> struct hopper_copier {
    const hopper_forward &job;
    hopper_rings<shape> rings;
    hopper_tile *tiles;
    uint32_t q_parity = 0;
    ring_place<shape::STAGES> k_place, v_place;
    ring_place<shape::ITEM_PLACES> item_place;

    __device__ __forceinline__ hopper_copier(const hopper_forward &forward, const hopper_rings<shape> &all,
                                             hopper_tile *places)
        : job(forward), rings(all), tiles(places) {}

    /* Tells all groups what comes next. */
    __device__ __forceinline__ void announce(const hopper_tile &tile) {
        rings.item.wait_empty(item_place);
        tiles[item_place.index] = tile;
        barrier_arrive(rings.item.full(item_place.index));
        item_place.advance();
    }

    __device__ __forceinline__ void copy_queries(const hopper_tile &tile) {
        for (int group = 0; group < shape::GROUPS; group++) {
            barrier_wait(rings.q.empty(group), q_parity ^ 1);
            barrier_arrive_expecting(rings.q.full(group), shape::Q_BYTES);
            for (int panel = 0; panel < shape::PANELS; panel++)
                copy_box(rings.q_tile(group) + panel * shape::Q_PANEL_BYTES, &job.q, rings.q.full(group), tile.b,
                         tile.q_row + group * GROUP_ROWS, tile.h, panel * TILE_ROW);
        }
        q_parity ^= 1;
    }

    __device__ __forceinline__ void copy_block(const CUtensorMap *map, ring_barriers<shape::STAGES> &ring,
                                               ring_place<shape::STAGES> &place, uint32_t to, const hopper_tile &tile,
                                               int block) {
        ring.wait_empty(place);
        barrier_arrive_expecting(ring.full(place.index), shape::K_BYTES);
        for (int panel = 0; panel < shape::PANELS; panel++)
            copy_box(to + panel * shape::K_PANEL_BYTES, map, ring.full(place.index), tile.b,
                     tile.k_row + block * shape::KEYS, tile.key_head, panel * TILE_ROW);
        place.advance();
    }

    __device__ __forceinline__ void copy_tile(const hopper_tile &tile) {
        for (int block = tile.last_block; block >= tile.first_block; block--) {
            copy_block(&job.k, rings.k, k_place, rings.k_block(k_place.index), tile, block);
            if (block == tile.last_block) copy_queries(tile);
            copy_block(&job.v, rings.v, v_place, rings.v_block(v_place.index), tile, block);
        }
    }

    __device__ __forceinline__ void run() {
        hopper_tile tile;
        for (int index = blockIdx.x; index < job.view.n_items;) {
            int next = atomicAdd(job.next_item, 1) + gridDim.x;
            tile = hopper_tile_of<shape>(job.view, index);
            announce(tile);
            copy_tile(tile);
            index = next;
        }
        tile.none = true;
        announce(tile);
    }
};

/* ---- a group that computes ---------------------------------------------------------------------------------------------- */

/* PICKS: of softpick.  ANY: with any lambda, or rectified.  SKIPS: numerators may be 0, and what they do not need is left
 * out. */
template <typename half_t, bool PICKS, bool ANY, bool SKIPS, typename shape> struct hopper_group {
    enum {
        SCORES = shape::SCORES,
        OUTS = shape::OUTS,
        STEPS = shape::STEPS,
        EVERY_SLAB = (1 << STEPS) - 1,
        F16 = std::is_same<half_t, __half>::value,
    };
    typedef uint32_t weights[STEPS * 4]; /* numerators, rounded: the A of a product */

    const hopper_forward &job;
    const gpu_view &view;
    hopper_rings<shape> rings;
    int group;
    ring_place<shape::STAGES> k_place, v_place;
    uint32_t q_parity;

    gpu_sequence sequence; /* its number of keys is all that is used */
    int first_position;    /* of the group's rows */
    uint32_t votes;        /* where they lie */
    uint32_t *kept;        /* votes on the group's rows, in the thread that keeps them; else NULL */
    uint32_t live;         /* of the last block, by its scores: what is 0 in f16 need not be 0 */
    weigh_row row[2];
    float s[SCORES]; /* scores */
    float out[OUTS];

    __device__ __forceinline__ hopper_group(const hopper_forward &forward, const hopper_rings<shape> &every, int number)
        : job(forward), view(forward.view), rings(every), group(number), q_parity(0),
          votes(every.shared + shape::VOTES_FIRST + number * 8) {}

    /* ---- rows ---- */

    __device__ __forceinline__ int warp_row() { return threadIdx.x % GROUP_THREADS / LANES * 16; }
    /* Number of this lane's row within the group. */
    __device__ __forceinline__ int row_of(int half) { return warp_row() + 8 * half + threadIdx.x % LANES / 4; }

    /* The group's first row in the sequence. */
    __device__ __forceinline__ int first_row(const hopper_tile &tile) { return tile.first_row + group * GROUP_ROWS; }

    __device__ __forceinline__ void begin_rows(const hopper_tile &tile) {
        row_rule life = view_rule(view, tile.h);
        float shift = row_begin(&life);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float scale = view_row_scale(view, tile.h, first_position + row_of(half)) * LOG2_E;
            row[half].scale = first_row(tile) + row_of(half) < tile.n_q ? scale : 0;
            row[half].sum = 0;
            weigh_set_shift(row[half], shift);
        }
    }

    __device__ __forceinline__ uint32_t *votes_of(const hopper_tile &tile) {
        if (!job.votes || threadIdx.x % GROUP_THREADS != 0) return NULL;
        int64_t head = (int64_t)tile.sequence * view.H + tile.h;
        return job.votes + (head * job.n_query_words + first_row(tile) / GROUP_ROWS) * job.n_vote_blocks;
    }

    /* ---- products ---- */

    __device__ __forceinline__ void queue_scores() {
        uint64_t q = operand_descriptor(rings.q_tile(group), 16),
                 k = operand_descriptor(rings.k_block(k_place.index), 16);
#pragma unroll
        for (int i = 0; i < shape::WIDTH / 16; i++) {
            int panel = i / 4, inside = i % 4 * 32;
            product<half_t, shape::KEYS>::along_k(s, operand_at(q, panel * shape::Q_PANEL_BYTES + inside),
                                                  operand_at(k, panel * shape::K_PANEL_BYTES + inside), i > 0);
        }
        products_commit();
    }

    /* Of the slabs whose bits are set. */
    __device__ __forceinline__ void queue_outputs(const weights &p, uint32_t slabs) {
        uint64_t v = operand_descriptor(rings.v_block(v_place.index), shape::K_PANEL_BYTES);
        if (!SKIPS || slabs == EVERY_SLAB) {
            products_begin();
#pragma unroll
            for (int i = 0; i < STEPS; i++) queue_slab(p, v, i);
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                if (slabs >> i & 1) products_begin(), queue_slab(p, v, i);
        }
        if (SKIPS) products_begin(); /* or the compiler does it, and one after another */
        products_commit();
    }
    __device__ __forceinline__ void queue_slab(const weights &p, uint64_t v, int i) {
        product<half_t, shape::WIDTH>::across_k(out, p + 4 * i, operand_at(v, i * 16 * TILE_ROW_BYTES), true);
    }

    __device__ __forceinline__ void arrive(uint32_t barrier) { barrier_arrive_warp(barrier); }
    /* After the scores of a block, the last that needs the queries or not. */
    __device__ __forceinline__ void release_keys(bool last) {
        arrive(rings.k.empty(k_place.index));
        if (last) arrive(rings.q.empty(group));
        k_place.advance();
    }
    __device__ __forceinline__ void release_values() {
        arrive(rings.v.empty(v_place.index));
        v_place.advance();
    }

    /* Groups queue their products in turn: 1, 2, .., 1, 2, .. */
    __device__ __forceinline__ void turn_wait() {
        role_sleep();
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(2 * GROUP_THREADS) : "memory");
    }
    __device__ __forceinline__ void turn_pass() {
        role_sleep();
        int next = group + 1 == shape::GROUPS ? 0 : group + 1;
        asm volatile("bar.arrive %0, %1;" ::"r"(1 + next), "n"(2 * GROUP_THREADS) : "memory");
    }

    /* Until all threads of the group are here. */
    __device__ __forceinline__ void group_wait() {
        role_sleep();
        asm volatile("bar.sync %0, %1;" ::"r"(1 + shape::GROUPS + group), "n"((int)GROUP_THREADS) : "memory");
    }

    /* ---- votes ---- */

    /* One bit for each slab of the block at `key` in which a score of this lane's is positive. */
    template <bool ALL> __device__ __forceinline__ uint32_t live_by_scores(int key) {
        uint32_t bits = 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t seen = ALL ? ~0u : seen_scores(half, key);
#pragma unroll
            for (int j = 0; j < shape::KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if ((seen >> (2 * j + i) & 1) && !(s[4 * j + 2 * half + i] * row[half].scale <= 0))
                        bits |= 1u << j / 2;
        }
        return bits;
    }

    /* The same by numerators. */
    static __device__ __forceinline__ uint32_t live_by_weights(const weights &p) {
        uint32_t bits = 0;
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            if (p[4 * i] | p[4 * i + 1] | p[4 * i + 2] | p[4 * i + 3]) bits |= 1u << i;
        return bits;
    }

    /* What the four warps of the group know of the slabs of a block with numerators p: a byte each. */
    __device__ __forceinline__ uint32_t vote(const weights &p) {
        uint32_t bits = __reduce_or_sync(~0u, F16 && job.votes ? live : live_by_weights(p)), word;
        asm volatile("st.shared.u8 [%0], %1;" ::"r"(votes + threadIdx.x % GROUP_THREADS / LANES), "r"(bits) : "memory");
        group_wait();
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(votes) : "memory");
        votes ^= 4;
        return __shfl_sync(~0u, word, 0); /* the same in all lanes, to the compiler's knowledge too */
    }

    __device__ __forceinline__ uint32_t slabs_of(uint32_t word) {
        word |= word >> 16;
        return job.compute_dead ? (uint32_t)EVERY_SLAB : (word | word >> 8) & EVERY_SLAB;
    }

    /* Keeps a block's votes for the liveness words. */
    __device__ __forceinline__ void note(uint32_t word, int block) {
        if (kept) kept[block] = word;
    }

    /* ---- weighing ---- */

    /* Bit 2 j + i: whether a row of this lane sees score 4 j + 2 half + i of the block that begins at `key`. */
    __device__ __forceinline__ uint32_t seen_scores(int half, int key) {
        weigh_range seen = view_visible(view, sequence, first_position + row_of(half));
        int column = key + threadIdx.x % 4 * 2;
        asm volatile("" : "+r"(column)); /* nothing of this is computed ahead, for want of registers */
        return bits_before(seen.end - column) & ~bits_before(seen.first - column);
    }

    /* One bit for each of this lane's columns before column n. */
    static __device__ __forceinline__ uint32_t bits_before(int n) {
        static_assert(shape::KEYS <= 128, "a word has a bit for each column of a lane");
        n = max(n, 0);
        n = n / 8 * 2 + min(n % 8, 2);
        return n < 32 ? (1u << n) - 1 : ~0u;
    }

    /* Numerators of the scores of the block that begins at `key`; sums: of its denominator terms. */
    template <bool ALL> __device__ __forceinline__ void weigh_scores(weights &p, int key, float (&sums)[2]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t seen = ALL ? ~0u : seen_scores(half, key);
            sums[half] = 0;
#pragma unroll
            for (int j = 0; j < shape::KEYS / 8; j++) {
                float y[2], term;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    bool sees = ALL || seen >> (2 * j + i) & 1;
                    float score = s[4 * j + 2 * half + i];
                    y[i] = weigh_plain<PICKS>(row[half], PICKS && !sees ? 0 : score, &term);
                    if (!PICKS) term = y[i] = sees && !(ANY && y[i] <= row[half].unit) ? y[i] : 0;
                    if (PICKS && ANY) term = fmaxf(y[i], -view.lambda * y[i]);
                    sums[half] += term;
                }
                p[j / 2 * 4 + j % 2 * 2 + half] =
                    PICKS ? pack_positive_pair<half_t>(y[0], y[1]) : pack_pair<half_t>(y[0], y[1]);
            }
        }
    }

    /* Raises the shift of both rows to their highest score in the block; factor: what `out` is multiplied by. */
    __device__ __forceinline__ void measure(int key, float (&factor)[2]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t seen = seen_scores(half, key);
            float highest = -INFINITY, scale = row[half].scale;
            asm volatile("" : "+f"(scale)); /* as above */
#pragma unroll
            for (int j = 0; j < shape::KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if (seen >> (2 * j + i) & 1) highest = fmaxf(highest, s[4 * j + 2 * half + i] * scale);
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            weigh_set_shift(row[half], row_raise(highest, row[half].shift, &factor[half]));
            row[half].sum *= factor[half];
        }
    }

    /* The block's scores become numerators and its terms are added to the rows' sums.  True if `out` is to be multiplied
     * by `factor`. */
    template <bool ALL> __device__ __forceinline__ bool weigh(weights &p, int key, float (&factor)[2]) {
        float sums[2];
        bool raised = false;
        for (;;) {
            weigh_scores<ALL>(p, key, sums);
            if (raised || !__any_sync(~0u, sums[0] > HIGH_SUM || sums[1] > HIGH_SUM)) break;
            measure(key, factor);
            raised = true;
        }
        row[0].sum += sums[0], row[1].sum += sums[1];
        return raised;
    }

    __device__ __forceinline__ void scale_outputs(const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < OUTS; i++) out[i] *= factor[i / 2 % 2];
    }

    /* ---- steps ---- */

    /* The first block. */
    __device__ __forceinline__ void step_first(weights &p, int block, bool last) {
        float factor[2];
        rings.k.wait_full(k_place);
        products_begin();
        queue_scores();
        products_wait<0>();
        registers_settle(s);
        release_keys(last);
        weigh<false>(p, block * shape::KEYS, factor);
        if (SKIPS && F16 && job.votes) live = live_by_scores<false>(block * shape::KEYS);
    }

    /* Queues this block's scores and the outputs of the block before, whose numerators are p; p_next: this block's. */
    template <bool ALL> __device__ __forceinline__ void step(weights &p, weights &p_next, int block, bool last) {
        float factor[2];
        rings.k.wait_full(k_place);
        turn_wait();
        products_begin();
        queue_scores();
        uint32_t word = SKIPS ? vote(p) : 0; /* while the scores are computed */
        rings.v.wait_full(v_place);
        queue_outputs(p, slabs_of(word));
        turn_pass();
        if (SKIPS) note(word, block + 1);
        products_wait<1>();
        registers_settle(s);
        release_keys(last);
        bool raised = weigh<ALL>(p_next, block * shape::KEYS, factor);
        if (SKIPS && F16 && job.votes) live = live_by_scores<ALL>(block * shape::KEYS);
        products_wait<0>();
        registers_settle(out);
        registers_settle(p);
        release_values();
        if (raised) scale_outputs(factor);
    }

    __device__ __forceinline__ void step_last(weights &p, int block) {
        uint32_t word = SKIPS ? vote(p) : 0;
        rings.v.wait_full(v_place);
        queue_outputs(p, slabs_of(word));
        if (SKIPS) note(word, block);
        products_wait<0>();
        registers_settle(out);
        release_values();
    }

    /* Where the sequence ends within the block, what follows in memory may be anything: as values, zeros.  Every group
     * writes them for itself, the same to the same places. */
    __device__ __forceinline__ void clear_values(int block) {
        int n = sequence.n_k - block * shape::KEYS;
        if (n >= shape::KEYS || !(view.cu_q || view.key_lengths)) return;
        rings.v.wait_full(v_place);
        for (int i = threadIdx.x % GROUP_THREADS; i < (shape::KEYS - n) * shape::PANELS * 8; i += GROUP_THREADS) {
            int row = n + i / 8 % (shape::KEYS - n), panel = i / 8 / (shape::KEYS - n);
            uint32_t to =
                rings.v_block(v_place.index) + panel * shape::K_PANEL_BYTES + row * TILE_ROW_BYTES + i % 8 * 16;
            asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        group_wait();
    }

    /* A block that no row of the group sees. */
    __device__ __forceinline__ void step_over(bool turn) {
        rings.k.wait_full(k_place);
        release_keys(false);
        rings.v.wait_full(v_place);
        release_values();
        if (turn) turn_wait(), turn_pass();
    }

    /* ---- a tile ---- */

    /* Every group takes one turn less than the tile has blocks, one that lies before the sequence too. */
    __device__ __forceinline__ void run_blocks(const hopper_tile &tile) {
        weigh_range low = view_visible(view, sequence, first_position);
        weigh_range high = view_visible(view, sequence, first_position + GROUP_ROWS - 1);
        int block = tile.last_block, first = max(tile.first_block, low.first / shape::KEYS);
        int clean =
            max(first, (high.first + shape::KEYS - 1) / shape::KEYS); /* from here on all rows see a block whole */
        int clean_end = low.end / shape::KEYS;                        /* up to here */
        weights p, p_next;
        barrier_wait(rings.q.full(group), q_parity);
        q_parity ^= 1;
        if (first_row(tile) >= 0 && block >= first && high.end > first * shape::KEYS) {
            for (; block * shape::KEYS >= high.end; block--) step_over(true);
            step_first(p, block, block == first);
            clear_values(block--);
            while (block >= first) {
                if (!ANY && block < clean_end && block > clean) {
                    step<true>(p, p_next, block, false);
                    step<true>(p_next, p, block - 1, block - 1 == first);
                    block -= 2;
                } else {
                    step<false>(p, p_next, block, block == first);
                    block--;
#pragma unroll
                    for (int i = 0; i < STEPS * 4; i++) p[i] = p_next[i];
                }
            }
            step_last(p, first);
        } else {
            arrive(rings.q.empty(group));
            step_over(false);
            block--;
        }
        for (; block >= tile.first_block; block--) step_over(true);
    }

    /* Channels [channel, channel + 8) of a row. */
    __device__ __forceinline__ void store_chunk(half_t *to, int channel, const uint32_t (&w)[4]) {
        if (channel + CHUNK <= view.Dv)
            asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to + channel), "r"(w[0]), "r"(w[1]),
                         "r"(w[2]), "r"(w[3])
                         : "memory"); /* left alone, the compiler takes it apart */
        else
            for (int i = 0; i < 8; i++)
                if (channel + i < view.Dv) ((uint16_t *)to)[channel + i] = (uint16_t)(w[i / 2] >> i % 2 * 16);
    }

    __device__ __forceinline__ void store(const hopper_tile &tile) {
        row_rule life = view_rule(view, tile.h);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int local = row_of(half), t = tile.q_row + group * GROUP_ROWS + local;
            bool inside = first_row(tile) >= 0 && first_row(tile) + local < tile.n_q;
            weigh_range seen = view_visible(view, sequence, first_position + row_of(half));
            float sum = row[half].sum, factor = 0, log_sum = INFINITY;
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (seen.first < seen.end) factor = row_finish(&life, row[half].shift, sum, &log_sum);
            int64_t index = view_row_index(view, {tile.b}, tile.h, t);
            if (inside && view.lse && threadIdx.x % 4 == 0) view.lse[index] = log_sum;
            half_t *to = tensor_row<half_t>(view.out, tile.b, t, tile.h);
#pragma unroll
            for (int j = 0; j < shape::WIDTH / 8; j += 4) {
                uint32_t w[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    w[i] = pack_pair<half_t>(fmaf(out[4 * (j + i) + 2 * half], factor, 0.0f),
                                             fmaf(out[4 * (j + i) + 2 * half + 1], factor, 0.0f));
                transpose_words(w);
                if (inside) store_chunk(to, 8 * (j + threadIdx.x % 4), w);
            }
        }
    }

    __device__ __forceinline__ void run_tile(const hopper_tile &tile) {
        sequence.n_k = tile.n_k;
        first_position = first_row(tile) + tile.n_k - tile.n_q;
        if (SKIPS) kept = votes_of(tile);
        begin_rows(tile);
#pragma unroll
        for (int i = 0; i < OUTS; i++) out[i] = 0;
        if (tile.first_block <= tile.last_block) run_blocks(tile);
        store(tile);
    }

    __device__ __forceinline__ void run(const hopper_tile *tiles) {
        ring_place<shape::ITEM_PLACES> place;
        if (group == shape::GROUPS - 1) turn_pass();
        for (;;) {
            rings.item.wait_full(place);
            const hopper_tile &tile = tiles[place.index];
            if (tile.none) break;
            run_tile(tile);
            __syncwarp();
            arrive(rings.item.empty(place.index));
            place.advance();
        }
    }
};

#endif

/* ---- the kernel --------------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, bool ANY, bool SKIPS, typename shape>
__global__ void __launch_bounds__(shape::THREADS, 1) hopper_forward_kernel(const __grid_constant__ hopper_forward job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char shared[];
    hopper_rings<shape> rings(shared_address(shared));
    hopper_tile *tiles = (hopper_tile *)(shared + shape::ITEMS_FIRST);
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP_THREADS, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&job.q), prefetch_map(&job.k), prefetch_map(&job.v);
        rings.begin();
    }
    __syncthreads();
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"((int)shape::REGISTERS_COPY));
        if (threadIdx.x == 0) hopper_copier<shape>(job, rings, tiles).run();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((int)shape::REGISTERS_COMPUTE));
        hopper_group<half_t, PICKS, ANY, SKIPS, shape>(job, rings, group - 1).run(tiles);
    }
#endif
}

/* ---- launching ------------------------------------------------------------------------------------------------------ */

typedef hopper_shape<64, SM90_QUERIES_64 / GROUP_ROWS, SM90_KEYS_64, 4> shape_64;
typedef hopper_shape<96, SM90_QUERIES_96 / GROUP_ROWS, SM90_KEYS_96, 3> shape_96;
typedef hopper_shape<128, SM90_QUERIES_128 / GROUP_ROWS, SM90_KEYS_128, 3> shape_128;
typedef hopper_shape<192, SM90_QUERIES_192 / GROUP_ROWS, SM90_KEYS_192, 2> shape_192;
typedef hopper_shape<256, SM90_QUERIES_256 / GROUP_ROWS, SM90_KEYS_256, 3> shape_256;

template <typename half_t, bool PICKS, bool ANY, bool SKIPS, typename shape>
static sp_status hopper_launch(const hopper_forward *job, cudaStream_t stream) {
    auto kernel = hopper_forward_kernel<half_t, PICKS, ANY, SKIPS, shape>;
    int device, n_multiprocessors;
    SP_CUDA_TRY(cudaGetDevice(&device));
    SP_CUDA_TRY(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, device));
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES));
    unsigned n_blocks = (unsigned)(job->view.n_items < n_multiprocessors ? job->view.n_items : n_multiprocessors);
    kernel<<<n_blocks, shape::THREADS, shape::SHARED_BYTES, stream>>>(*job);
    SP_CUDA_LAUNCHED("attention forward");
    return SP_OK;
}

/* Votes cost dense problems some time: they are taken where liveness words are wanted, or time is lost anyway. */
template <typename half_t, typename shape>
static sp_status hopper_choose(const hopper_forward *job, cudaStream_t stream) {
    switch (job->view.normalizer) {
    case SP_NORMALIZER_SOFTPICK:
        if (job->view.lambda != 1) return hopper_launch<half_t, true, true, true, shape>(job, stream);
        return job->votes ? hopper_launch<half_t, true, false, true, shape>(job, stream)
                          : hopper_launch<half_t, true, false, false, shape>(job, stream);
    case SP_NORMALIZER_RECTIFIED: return hopper_launch<half_t, false, true, true, shape>(job, stream);
    default: return hopper_launch<half_t, false, false, false, shape>(job, stream);
    }
}

template <typename shape>
static sp_status hopper_dispatch(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream) {
    return dtype == SP_DTYPE_BF16 ? hopper_choose<__nv_bfloat16, shape>(job, stream)
                                  : hopper_choose<__half, shape>(job, stream);
}

#endif
